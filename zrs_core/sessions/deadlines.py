"""Deadlines of a connection: one table for each kind, and the times that are set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadline:
    """A row of a table of deadlines.

    :param name: the name in the documentation.
    :param set_by: the event that sets it, and for how long.
    :param effect: the effect when it passes.
    """

    name: str
    set_by: str
    effect: str


class Timers:
    """The deadlines that are set, in seconds of the driver's clock.

    :param handlers: the function to call for each deadline of the table when it passes, with the
        time.
    """

    def __init__(self, handlers: Mapping[Deadline, Callable[[float], None]]) -> None:
        self._handlers = handlers
        self._due: dict[Deadline, float] = {}

    def set(self, deadline: Deadline, at: float) -> None:
        """Set a deadline, in the place of the time that was set before."""
        if deadline not in self._handlers:
            raise KeyError(deadline.name)
        self._due[deadline] = at

    def clear(self, deadline: Deadline) -> None:
        """Take a deadline back, if it is set."""
        self._due.pop(deadline, None)

    def clear_all(self) -> None:
        """Take all deadlines back."""
        self._due.clear()

    def at(self, deadline: Deadline) -> float | None:
        """Return the time of a deadline, None if it is not set."""
        return self._due.get(deadline)

    def is_set(self, deadline: Deadline) -> bool:
        """Return True if a deadline is set."""
        return deadline in self._due

    def next(self) -> float | None:
        """Return the time of the earliest deadline, None if none is set."""
        return min(self._due.values(), default=None)

    def pass_time(self, now: float) -> None:
        """Call the handlers of all deadlines that have passed, the earliest first."""
        while self._due:
            deadline, at = min(self._due.items(), key=lambda item: item[1])
            if at > now:
                return
            del self._due[deadline]
            self._handlers[deadline](now)
