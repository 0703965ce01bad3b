"""The layout of a FileStorage data file: as ZODB's, and declared in one module."""

from __future__ import annotations

import ast
import struct
from pathlib import Path

from ZODB.FileStorage import format as zodb_format
from ZODB.FileStorage.FileStorage import packed_version

import zrs_core
from zrs_core.storage import fs_format

PACKAGE = Path(zrs_core.__file__).parent


def test_it_is_the_layout_of_zodb():
    assert packed_version == fs_format.MAGIC
    assert fs_format.TRANSACTION_HEADER.size == zodb_format.TRANS_HDR_LEN
    assert fs_format.RECORD_HEADER.size == zodb_format.DATA_HDR_LEN
    header = zodb_format.TxnHeader(b"tid-8byt", 300, "p", 1, 2, 3)
    header.user, header.descr, header.ext = b"u", b"de", b"ext"
    packed = header.asString()[: fs_format.TRANSACTION_HEADER.size]
    assert fs_format.TRANSACTION_HEADER.unpack(packed) == (b"tid-8byt", 300, b"p", 1, 2, 3)
    assert fs_format.TRANSACTION_LENGTH.unpack_from(packed) == (300,)
    assert fs_format.U64.unpack_from(packed, fs_format.LENGTH_OFFSET) == (300,)
    assert packed[fs_format.STATUS_OFFSET :][:1] == b"p"
    record = zodb_format.DataHeader(b"oid-8byt", b"tid-8byt", 7, 8, 0, 9)
    assert fs_format.RECORD_HEADER.unpack(record.asString()) == (
        b"oid-8byt",
        b"tid-8byt",
        7,
        8,
        0,
        9,
    )


def declares_layout(value: object) -> bool:
    """Return True for the magic, or a struct format of 8-byte numbers or tids."""
    if value == fs_format.MAGIC or value == fs_format.MAGIC.decode():
        return True
    if not isinstance(value, str) or not value.startswith(">"):
        return False
    try:
        struct.calcsize(value)
    except struct.error:
        return False
    return "Q" in value or "8s" in value


def test_no_other_module_declares_it():
    paths = {*PACKAGE.rglob("*.py")} - {PACKAGE / "storage" / "fs_format.py"}
    for path in paths:
        text = path.read_text(encoding="utf-8")
        if "struct" not in text and "FS30" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            assert not (isinstance(node, ast.Constant) and declares_layout(node.value)), (
                f"{path.relative_to(PACKAGE)}:{node.lineno} declares {node.value!r}; "
                "import it from storage/fs_format.py"
            )
