"""What docs/compatibility.rst says that RelStorage does not do as it should, and still does not."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import ZODB
from ZODB.interfaces import IStorageWrapper
from ZODB.utils import p64
from zope.interface import directlyProvides, providedBy

from tests.documents.blocks import blocks_in
from tests.storage.relstorages import open_on_postgresql, open_on_sqlite
from zrs_core.storage.blobs import MISSING_BLOB

_DOCUMENT = Path(__file__).parents[2] / "docs" / "compatibility.rst"


def _shown(begin: str) -> str:
    texts = [each.text for each in blocks_in(_DOCUMENT.read_text(encoding="utf-8"))]
    (found,) = (each for each in texts if each.startswith(begin))
    return found


def test_a_blob_that_is_missing_on_postgresql(postgresql, tmp_path):
    _, call = _shown("storage = RelStorage(").splitlines()
    with (
        postgresql.database() as dsn,
        closing(open_on_postgresql(dsn, tmp_path / "cache")) as storage,
        pytest.raises(MISSING_BLOB) as raised,
    ):
        eval(call, {"storage": storage, "p64": p64})
    optimized = bool(sys.flags.optimize)
    assert raised.type is (IndexError if optimized else AssertionError)
    assert optimized or str(raised.value) == ""


def test_an_iterator_that_crashes_python():
    script = _shown("class StorageStopIteration(")
    run = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert run.returncode < 0


def test_a_wrapper_that_is_not_made_like_those_of_zc(tmp_path):
    class Wrapper:
        def __init__(self, storage):
            self._storage = storage
            directlyProvides(self, providedBy(storage), IStorageWrapper)
            storage.registerDB(self)

        def __getattr__(self, name):
            return getattr(self._storage, name)

        def transform_record_data(self, data):
            return data

        untransform_record_data = transform_record_data

    with closing(open_on_sqlite(tmp_path / "sqlite")) as storage:
        with pytest.raises(TypeError) as raised:
            ZODB.DB(Wrapper(storage))
    assert f"TypeError: {raised.value}\n" == _shown("TypeError")
