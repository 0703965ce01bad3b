"""Comparison of the data file that a FileStorage has open with the one at its path."""

from __future__ import annotations

import os

from ZODB.POSException import StorageError

from .fs_access import FileInUse

_REMEDY = (
    "Move the file that is open back to its path, or save it from there, stop this process and "
    "restore the file"
)


def require_data_file(file: FileInUse) -> None:
    """Return if a data file is in place. Wait for the storage's lock if it seems not to be.

    :raises StorageError: it is not in place.
    """
    fault = data_fault(file, wait=True)
    if fault:
        # An error of ZODB, which a ZEO server can send to its clients.
        raise StorageError(fault)


def data_fault(file: FileInUse, *, wait: bool) -> str | None:
    """Return the fault of the data file, an empty text for none, None if unknown."""
    if not _compare(file):
        return ""
    # A pack replaces the file while it holds this lock.
    if not file.lock.acquire(blocking=wait):
        return None
    try:
        return _compare(file)
    finally:
        file.lock.release()


def _compare(file: FileInUse) -> str:
    """Return the fault of a data file, an empty text for none."""
    try:
        opened = file.stat()
    except ValueError:
        # The storage is closed.
        return ""
    except OSError:
        # A pack has closed the file meanwhile, or the file system has failed.
        return f"{file.path} cannot be examined any more"
    try:
        named = os.stat(file.path)
    except OSError:
        return (
            f"{file.path} was removed while it is open: what is written to it is lost when this "
            f"process ends. {_REMEDY}"
        )
    if (named.st_dev, named.st_ino) != (opened.st_dev, opened.st_ino):
        return (
            f"{file.path} was replaced by another file while it is open: what is written to the "
            f"one that is open is lost when this process ends. {_REMEDY}"
        )
    if opened.st_size < file.committed_size:
        return (
            f"{file.path} was cut off or overwritten while it is open: it is shorter than what "
            "was committed. Stop this process and restore the file"
        )
    return ""
