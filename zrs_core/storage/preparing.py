"""Prepares the files of a FileStorage before FileStorage opens them.

FileStorage deletes what is in the blob directory of a new file. So the file is made here, and
refused if there are blobs.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any, Final

from ZODB.blob import LAYOUT_MARKER, LAYOUTS

from ..errors import NotWritten, UnsuitableStorage
from ..logs import event
from .blob_layout import check_layout, is_unused
from .fs_format import MAGIC
from .paths import check_path
from .unfinished import cut_off_unfinished_batch

log = logging.getLogger("zrs_core.storage")

# Bytes in a file that has nothing yet but, maybe, zeros that a power loss has left.
_HALF_MADE: Final = 8192


def prepare_files(path: str, blob_dir: str | None, *, create: bool = False) -> bool:
    """Check the files of a FileStorage that is to be opened for writing, and prepare them.

    A new file is made if there is a blob directory. What a killed process has left is set right.

    :param create: whether FileStorage makes the file anew though it is there.
    :returns: True if the file was made.
    :raises UnsuitableStorage: FileStorage could not open it, or would delete or not find blobs;
        nothing was written.
    """
    with _unsuitable(path):
        undo_unfinished_pack(path)
        if blob_dir is not None:
            if os.path.abspath(blob_dir) == os.path.abspath(path):
                raise UnsuitableStorage(f"{path} cannot be the data and the blob_dir at once")
            if os.path.isdir(blob_dir):
                _check_new(path, blob_dir, create=create)
            elif os.path.lexists(blob_dir):
                raise UnsuitableStorage(f"{blob_dir} is not a directory: it cannot be a blob_dir")
        _begin_anew(path)
        check_path(path)
        cut_off_unfinished_batch(path)
        if blob_dir is not None:
            begin_blobs_anew(blob_dir)
            check_layout(blob_dir)
            return _make_file(path)
    return False


def prepare_section(section: Any, blob_dir: str | None = None) -> None:
    """As `prepare_files`, for each FileStorage in a storage section of ZConfig.

    What is read-only is checked and left as it is.

    :param blob_dir: the blob directory of a storage that has none of its own.
    :raises UnsuitableStorage: as `prepare_files`.
    """
    from ZODB import config

    for each, blobs in _with_blob_dirs(section, blob_dir):
        if not isinstance(each, config.FileStorage):
            continue
        path = each.config.path
        if each.config.read_only:
            check_path(path)
            if blobs is not None:
                check_layout(blobs)
        else:
            prepare_files(path, blobs, create=bool(each.config.create))


def _with_blob_dirs(section: Any, around: str | None) -> Iterator[tuple[Any, str | None]]:
    """Yield a section and those within it, each with its blob directory, if there is one."""
    settings = section.config
    found = getattr(settings, "blob_dir", None)
    # That of a <zrs> section is more than a text.
    blob_dir = getattr(found, "value", found) or around
    yield section, blob_dir
    for name in settings.getSectionAttributes():
        value = getattr(settings, name)
        for each in value if isinstance(value, list) else [value]:
            if hasattr(each, "config"):
                yield from _with_blob_dirs(each, blob_dir)


def undo_unfinished_pack(path: str) -> None:
    """Give a FileStorage its file back if a pack was killed when it had none.

    A pack gives the file another name, and only then its own to the packed one; FileStorage would
    begin a new one. That of before is complete, whatever a power loss has left of the other.
    """
    if not os.path.lexists(path) and all(map(os.path.isfile, (path + ".old", path + ".pack"))):
        log.warning(
            "%s: a pack of it was not finished; it is as it was before the pack",
            path,
            extra=event("pack-undone", storage=path),
        )
        os.rename(path + ".old", path)


def _check_new(path: str, blob_dir: str, *, create: bool) -> None:
    """:raises UnsuitableStorage: there are blobs, and the FileStorage would be a new one."""
    if not os.path.exists(path) and not is_unused(blob_dir):
        raise UnsuitableStorage(
            f"{path} does not exist, and the blob directory {blob_dir} is not empty: if it belongs "
            f"to a database, put the database's file at {path} first (is its disk mounted?); for a "
            "new database, give a blob directory that is empty or does not exist"
        )
    if create and any(files for _, _, files in os.walk(blob_dir) if files != [LAYOUT_MARKER]):
        raise UnsuitableStorage(
            f"{path} would be created anew, and everything in the blob directory {blob_dir} "
            "deleted: to keep the database, leave out create; for a new one, empty the directory "
            "first"
        )


@contextlib.contextmanager
def _unsuitable(path: str) -> Iterator[None]:
    """Raise an error of the system as an `UnsuitableStorage`."""
    try:
        yield
    except NotWritten as error:
        raise UnsuitableStorage(f"{path} cannot be used: {error}") from error
    except OSError as error:
        raise UnsuitableStorage(
            f"{error.filename or path} cannot be used: {error.strerror}"
        ) from error


def _begin_anew(path: str) -> None:
    """Take back what is half made of a file, whose maker was killed or lost its power.

    A file whose magic is not whole could not be opened.
    """
    if os.path.isfile(path) and os.path.getsize(path) <= _HALF_MADE:
        with open(path, "r+b") as file:
            if MAGIC.startswith(begin := file.read().rstrip(b"\0")) and begin != MAGIC:
                # Not by leaving nothing: FileStorage would be late in writing it.
                file.seek(0)
                file.write(MAGIC)
                file.truncate()


def begin_blobs_anew(blob_dir: str) -> None:
    """Take back what is half made of a blob directory without blobs.

    A layout that has half a name could not be opened. Without the mark of a layout, ZODB would
    give it one of old if there is anything in it.
    """
    if not os.path.isdir(blob_dir) or not is_unused(blob_dir):
        return
    layout = os.path.join(blob_dir, LAYOUT_MARKER)
    if os.path.isfile(layout):
        with open(layout, "rb") as mark:
            named = mark.read().rstrip(b"\0").decode("ascii", "replace").strip()
        if named not in LAYOUTS and any(each.startswith(named) for each in LAYOUTS):
            os.remove(layout)
    if not os.path.lexists(layout):
        with contextlib.suppress(OSError):
            os.rmdir(os.path.join(blob_dir, "tmp"))
        if any(not name.startswith(".") for name in os.listdir(blob_dir)):
            with open(layout, "w", encoding="ascii") as mark:
                mark.write("bushy")


def _make_file(path: str) -> bool:
    """Make a FileStorage's file if it is not there; return True if it was not.

    FileStorage deletes the blob directory only of a file that it makes itself.
    """
    try:
        with open(os.path.realpath(path), "xb") as file:
            file.write(MAGIC)
    except FileExistsError:
        return False
    return True
