"""Recognises a blob's record without unpickling it, and a blob that is missing.

And finds the directory for temporary files of blobs.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any

from ZODB.POSException import POSKeyError

#: What a storage raises that does not have the file of a blob. The last two are RelStorage's on
#: PostgreSQL: it asserts that there is one row, and takes the first one (`python -O`).
MISSING_BLOB = (POSKeyError, FileNotFoundError, AssertionError, IndexError)

# A record is two pickles, the class and the state. Written by ZODB, the first one of a blob's is
# the global ZODB.blob.Blob alone, in the spelling of its pickle protocol:
#     0 to 3   [PROTO] GLOBAL 'ZODB.blob\nBlob\n' [memo] STOP
#     4 and 5  PROTO [FRAME] SHORT_BINUNICODE x 2, each [MEMOIZE], STACK_GLOBAL [MEMOIZE] STOP
# ZODB.blob.is_blob_record loads it instead; this gives the same answer and executes nothing.
_BLOB_CLASS = (
    rb"(?:\x80[\x00-\x05])?"
    rb"(?:"
    rb"cZODB\.blob\nBlob\n(?:q.|r.{4}|p[0-9]+\n|\x94)?"
    rb"|(?:\x95.{8})?\x8c\x09ZODB\.blob\x94?\x8c\x04Blob\x94?\x93\x94?"
    rb")\."
)
_match_blob = re.compile(_BLOB_CLASS, re.DOTALL).match

#: Bytes that a blob's record has at most: its state is empty.
LONGEST_BLOB_RECORD = 80

# Every record that ZODB itself writes begins with PROTO, GLOBAL or MARK.
_match_ordinary = re.compile(rb"(?!%b)[\x80c(]" % _BLOB_CLASS, re.DOTALL).match


def is_ordinary_record(data: bytes) -> bool:
    """Whether `data` looks like a record as ZODB writes it, and is not that of a blob."""
    return _match_ordinary(data) is not None


def is_blob_record(data: bytes) -> bool:
    """Whether `data`, a record as ZODB writes it, is that of a blob."""
    return _match_blob(data) is not None


def lacks_blob(data: bytes) -> bool:
    """Whether `data`, a record that came without a blob, is that of one, as ZODB writes it."""
    return len(data) <= LONGEST_BLOB_RECORD and is_blob_record(data)


def temporary_directory(storage: Any) -> str:
    """Return a storage's directory for temporary files of blobs; make it again if it was removed.

    The directory of the blobs themselves is not made: its disk may not be mounted.

    :raises FileNotFoundError: that directory does not exist.
    """
    path: str = storage.temporaryDirectory()
    if not os.path.isdir(path):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
    return path
