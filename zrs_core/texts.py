"""Texts with characters that a file system's encoding or UTF-8 lacks, or that steer a terminal."""

from __future__ import annotations

import os


def path_of(text: str) -> str:
    """Return the path that a text from a file, a URI or a program stands for.

    In the locale C, Python cannot name a file `ä` by that character. The bytes of the file's name
    are those of UTF-8, by which it is named elsewhere.
    """
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return os.fsdecode(text.encode("utf-8", "surrogateescape"))
    return text


def printable(text: str) -> str:
    """Return a text that UTF-8 can encode, for JSON and for metrics.

    What Python has read of a file's name and could not decode becomes the characters that it
    stands for in UTF-8, or an escape sequence.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        try:
            return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        except UnicodeEncodeError:
            return text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text


def escaped(text: str) -> str:
    """`text` with backslash escapes in place of what a terminal could take for a command."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in text
    )


def in_one_line(text: str) -> str:
    """Return a text of another node in one line, with `?` in place of control characters."""
    return "".join(each if each.isprintable() else "?" for each in " ".join(text.split()))
