"""Which class a record names, in all that has been written so."""

from __future__ import annotations

import pickle
import zlib

import pytest
from persistent.mapping import PersistentMapping
from ZODB.blob import Blob

from zrs_core.tools.dump.classes import class_of

MAPPING = "persistent.mapping.PersistentMapping"


class _Explodes:
    def __reduce__(self):
        return print, ("executed",)


def record(about, protocol=3):
    return pickle.dumps(about, protocol) + pickle.dumps({"data": 1.5}, protocol)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "about",
    [PersistentMapping, (PersistentMapping, None), (PersistentMapping, (1, "a.b"))],
)
def test_of_each_protocol(about, protocol):
    assert class_of(record(about, protocol)) == MAPPING


def test_names_with_stops():
    assert class_of(record(Blob)) == "ZODB.blob.Blob"
    assert class_of(b"ca.b.c.d\nE\n.}.") == "a.b.c.d.E"
    assert class_of(record((("old.module", "Name"), None), 1)) == "old.module.Name"


def test_what_zlibstorage_has_compressed():
    assert class_of(b".z" + zlib.compress(record(PersistentMapping))) == MAPPING
    assert class_of(b".znonsense") is None
    # No more of it is unpacked than is looked at.
    assert class_of(b".z" + zlib.compress(bytes(1_000_000))) is None


@pytest.mark.parametrize(
    "data",
    [b"", b".", b"no pickle at all", b"\x80\x03", b"x" * 100_000, b"." * 100_000, record(1)],
)
def test_of_what_does_not_say(data):
    assert class_of(data) is None


def test_nothing_is_executed(capsys):
    assert class_of(record(_Explodes())) in (None, "builtins.print")
    assert capsys.readouterr().out == ""
