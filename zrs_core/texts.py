"""Texts with characters that the file system's encoding, or UTF-8, does not have."""

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
