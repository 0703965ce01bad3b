"""One storage that replicates, as its process tells of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from ..errors import UnsuitableStorage
from ..primary import Primary
from ..progress import State
from ..secondary import Secondary
from ..status.lag import readiness
from ..status.state import NodeStatus
from ..storage.wrapped import layers
from .told import Told, with_told

_VERSION = version("zrs-core")


class Node:
    """A `Primary`, a `Secondary`, or a `Primary` of a `Secondary`, also below other storages.

    :param max_lag: seconds that a secondary may be behind to count as ready.
    :raises UnsuitableStorage: the storage does not replicate.
    """

    def __init__(self, storage: Any, max_lag: float) -> None:
        found = [*layers(storage)]
        self._primary = next((each for each in found if isinstance(each, Primary)), None)
        self._secondary = next((each for each in found if isinstance(each, Secondary)), None)
        if self._primary is None and self._secondary is None:
            raise UnsuitableStorage(
                f"{storage.getName()} has no status: it is neither a Primary nor a Secondary"
            )
        self._storage = storage
        self._max_lag = max_lag
        self._started = time.time()

    @property
    def role(self) -> str:
        if self._primary is None:
            return "secondary"
        return "primary" if self._secondary is None else "cascade"

    def status(
        self,
        told: Told | None = None,
        primary_status_age: Callable[[str], float | None] = lambda address: None,
    ) -> NodeStatus:
        """How it is going now. For any thread.

        :param told: what a secondary's primary has told of it.
        :param primary_status_age: returns the seconds since the status server of the primary at an
            address gave a new status; None if it is not asked.
        """
        primary = None if self._primary is None else self._primary.status()
        secondary = None if self._secondary is None else self._secondary.status()
        if secondary is not None and self._secondary is not None:
            secondary = with_told(secondary, told)
            age = primary_status_age(secondary.primary_address)
            secondary = replace(secondary, primary_status_age=age)
            progress = self._secondary.progress
            ready, reason = readiness(
                secondary,
                progress.quiet,
                self._max_lag,
                progress.late,
                incomplete=progress.incomplete,
            )
        else:
            fault = self._files_fault()
            ready, reason = fault is None, fault or "it is the primary"
        return NodeStatus(
            now=time.time(),
            version=_VERSION,
            name=str(self._storage.getName()),
            role=self.role,
            pid=os.getpid(),
            started=self._started,
            ready=ready,
            ready_reason=reason,
            primary=primary,
            secondary=secondary,
        )

    def distance(self, tid: bytes, *, count: bool = False) -> tuple[float | None, int | None]:
        """As `Primary.distance`; None for both if there is no primary."""
        return (None, None) if self._primary is None else self._primary.distance(tid, count=count)

    def health(self) -> tuple[bool, str]:
        """Whether opening it again would not help, and what there is to say."""
        if self._secondary is not None and self._secondary.progress.state is State.STOPPED:
            return False, f"stopped for good: {self._secondary.progress.stopped}"
        fault = self._files_fault()
        return fault is None, fault or "it runs"

    def _files_fault(self) -> str | None:
        """Return why the storage's files are not the ones at their paths, None if they are."""
        node = self._primary or self._secondary
        return None if node is None else node.files.check()
