"""Checks that the files in a blob directory lie where ZODB looks for them.

The marker `.layout` names the layout. ZODB assumes `lawn` for a directory that has files and no
marker, and `bushy` for an empty one. In the other layout, it finds no blob.
"""

from __future__ import annotations

import os
import re
from typing import Final

from ZODB.blob import BLOB_SUFFIX, LAYOUT_MARKER, LAYOUTS

from ..errors import UnsuitableStorage

#: Names that ZODB and file systems put into a directory of blobs, besides those that are hidden.
_NO_BLOBS: Final = ("tmp", "lost+found")

# A directory for each byte of an oid (bushy), or one for the oid, without leading zeros (lawn).
_BYTE: Final = re.compile(r"0x[0-9a-f]{2}\Z")
_OID: Final = re.compile(r"0x(?:[0-9a-f]{2}){1,8}\Z")
_BUSHY_DEPTH: Final = 8

_CHECKED: Final = ("bushy", "lawn")


def is_unused(directory: str) -> bool:
    """Return True if a directory holds nothing but what ZODB or a file system makes in it."""
    return all(name.startswith(".") or name in _NO_BLOBS for name in os.listdir(directory))


class MisplacedBlobs(UnsuitableStorage):
    """The blobs in a directory lie where ZODB does not look for them."""


def check_layout(directory: str) -> None:
    """Check that ZODB would find the blobs in a directory, if that exists.

    :raises MisplacedBlobs: it would not; the text says what to do.
    :raises UnsuitableStorage: it is the cache of a ZEO client, has a layout that is not known, or
        cannot be read.
    """
    if not os.path.isdir(directory):
        return
    try:
        _check_layout(directory)
    except OSError as error:
        raise UnsuitableStorage(f"{error.filename} cannot be read: {error.strerror}") from error


def _check_layout(directory: str) -> None:
    marker = os.path.join(directory, LAYOUT_MARKER)
    named = _named(marker)
    if named == "zeocache":
        raise UnsuitableStorage(
            f"{directory} is the cache of a ZEO client, not a blob directory (its {LAYOUT_MARKER} "
            "is zeocache): give the blob directory of the database"
        )
    used = named
    if named is None:
        wrong = f"{directory} has no {LAYOUT_MARKER}"
        used = "bushy" if is_unused(directory) else "lawn"
    elif named in LAYOUTS:
        wrong = f"{marker} names the layout {named}"
    else:
        wrong = f"{directory} is no directory of blobs: its layout {named!r} is not known"
    if used in LAYOUTS and used not in _CHECKED:
        return
    others = [each for each in _CHECKED if each != used and _holds(directory, each)]
    if not others:
        if used not in LAYOUTS:
            # ZODB raises a KeyError.
            raise UnsuitableStorage(
                f"{wrong}: if it is one, write the layout of its blobs, bushy or lawn, into "
                f"{marker}"
            )
        return
    held = [used, *others] if used in _CHECKED and _holds(directory, used) else others
    if len(held) > 1:
        raise MisplacedBlobs(
            f"{wrong}, and its blobs lie in the layouts bushy and lawn: move them into one layout, "
            f"and write its name into {marker}"
        )
    raise MisplacedBlobs(
        f"{wrong}, and its blobs lie in the layout {held[0]}: write {held[0]} into {marker}"
    )


def _named(marker: str) -> str | None:
    try:
        with open(marker, "rb") as file:
            return file.read(1024).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None


def _holds(directory: str, layout: str) -> bool:
    """Return True if a directory holds a blob in a layout."""
    with os.scandir(directory) as found:
        for each in found:
            if layout == "bushy":
                held = _BYTE.match(each.name) and _has_blob_at(each.path, _BUSHY_DEPTH - 1)
            else:
                held = _OID.match(each.name) and _has_blob_at(each.path, 0)
            if held:
                return True
    return False


def _has_blob_at(directory: str, depth: int) -> bool:
    """Return True if a blob lies so many directories below this one."""
    try:
        with os.scandir(directory) as found:
            if depth:
                return any(
                    _BYTE.match(each.name) and _has_blob_at(each.path, depth - 1) for each in found
                )
            return any(each.name.endswith(BLOB_SUFFIX) for each in found)
    except (FileNotFoundError, NotADirectoryError):
        # It is a file, or was removed by a pack meanwhile.
        return False
