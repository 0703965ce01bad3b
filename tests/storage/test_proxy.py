from __future__ import annotations

import pytest
from ZODB.interfaces import IBlobStorageRestoreable, IStorage, IStorageRestoreable
from zope.interface import providedBy

from zrs_core.storage.proxy import StorageProxy

from ..databases import open_file_storage


@pytest.fixture
def storage(tmp_path):
    storage = open_file_storage(tmp_path / "db")
    yield storage
    storage.close()


def test_it_has_what_the_storage_has(storage):
    proxy = StorageProxy(storage)
    assert proxy.getName() == storage.getName()
    assert proxy.fshelper is storage.fshelper
    assert len(proxy) == 0
    assert repr(proxy).startswith("<StorageProxy of <ZODB.FileStorage")
    with pytest.raises(AttributeError, match="nonsense"):
        _ = proxy.nonsense


def test_it_provides_what_the_storage_provides(storage):
    assert set(providedBy(StorageProxy(storage)).flattened()) == set(
        providedBy(storage).flattened()
    )


def test_interfaces_can_be_taken_away(storage):
    proxy = StorageProxy(storage, (IStorageRestoreable,))
    assert IStorage.providedBy(proxy)
    assert not IStorageRestoreable.providedBy(proxy)
    assert not IBlobStorageRestoreable.providedBy(proxy)


def test_a_proxy_without_a_storage_asks_nobody():
    bare = StorageProxy.__new__(StorageProxy)
    with pytest.raises(AttributeError, match="_storage"):
        _ = bare.anything
