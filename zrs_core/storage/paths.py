"""Whether there is a FileStorage at a path."""

from __future__ import annotations

import os

from ..errors import UnsuitableStorage
from .committed import begins_with_transaction
from .fs_format import FIRST_OFFSET, MAGIC


def check_path(path: str) -> None:
    """Whether a FileStorage is at `path`, or could be made there; nothing is written.

    :raises UnsuitableStorage: neither.
    """
    # FileStorage would take what is no transaction for an unfinished one, and cut it off.
    if check_magic(path) and not begins_with_transaction(path):
        raise UnsuitableStorage(f"{path} is not a FileStorage: no transaction follows its magic")


def check_magic(path: str) -> bool:
    """As `check_path`, whatever follows the magic of a file; whether it is there.

    :raises UnsuitableStorage: there is something else, or a FileStorage could not be made there.
    """
    if not path:
        raise UnsuitableStorage("an empty path names no FileStorage")
    if os.path.isdir(path):
        raise UnsuitableStorage(f"{path} is a directory: the path of a FileStorage is needed")
    if os.path.exists(path) and not os.path.isfile(path):
        raise UnsuitableStorage(f"{path} is not a regular file: a FileStorage needs one")
    directory = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(directory):
        raise UnsuitableStorage(f"{path} cannot be made: there is no directory {directory}")
    try:
        with open(path, "rb") as file:
            begin = file.read(FIRST_OFFSET)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UnsuitableStorage(f"{path} cannot be read: {error.strerror}") from error
    if begin not in (b"", MAGIC):
        raise UnsuitableStorage(
            f"{path} is not a FileStorage: it begins with {begin!r}, not with {MAGIC!r}"
        )
    return begin == MAGIC
