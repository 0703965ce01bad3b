"""A storage that stands for another one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from zope.interface import Interface, directlyProvides, providedBy
from zope.interface.interface import InterfaceClass

from ..forks import inheritable
from .blobs import temporary_directory


class StorageProxy:
    """Has every attribute of the storage under it, but for what a subclass changes.

    It provides the interfaces which that storage provides, without `removed` and those that
    extend them.
    """

    def __init__(self, storage: Any, removed: tuple[InterfaceClass, ...] = ()) -> None:
        self._storage = storage
        self._closing: list[Callable[[], object]] = []
        kept = [
            interface
            for interface in providedBy(storage).flattened()
            if interface is not Interface
            and not any(interface.isOrExtends(each) for each in removed)
        ]
        directlyProvides(self, *kept)
        inheritable(self)

    def abandon(self) -> None:
        """Give the storage up in the child of a fork (see `forks`)."""
        # Loaded by primaries and secondaries: it needs FileStorage, which not every proxy has.
        from .inherited import Inherited

        self._storage = Inherited(self._storage)

    def __getattr__(self, name: str) -> Any:
        # Asked for while the proxy is not yet (or no longer) whole, it must not ask itself.
        if name == "_storage":
            raise AttributeError(name)
        return getattr(self._storage, name)

    def temporaryDirectory(self) -> str:
        # ZODB makes it only when a storage is opened, and commits of blobs need it.
        return temporary_directory(self._storage)

    def on_close(self, callback: Callable[[], object]) -> None:
        """Call `callback` once when this is closed, before the storage under it is."""
        self._closing.append(callback)

    def _call_on_close(self) -> None:
        # Each is called, whichever of them fails.
        with contextlib.ExitStack() as callbacks:
            for each in self._closing:
                callbacks.callback(each)

    @property
    def tryToResolveConflict(self) -> Any:
        return self._storage.tryToResolveConflict

    @tryToResolveConflict.setter
    def tryToResolveConflict(self, resolve: Any) -> None:
        # A ZEO server that leaves conflicts to its clients replaces it; the storage asks its own.
        self._storage.tryToResolveConflict = resolve

    def __len__(self) -> int:
        return len(self._storage)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._storage!r}>"
