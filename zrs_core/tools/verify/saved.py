"""Where a run was, in a small file, so that another one can go on from there."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Any, Final

from ...errors import ConfigurationError

_FORMAT: Final = "zrs verify 2"

#: Seconds between two times that it is written.
_INTERVAL = 2.0


class Saved:
    """The file; it is bound to what is compared, and to how.

    :param path: the file's, which may not be there yet.
    :param bound: what must be the same for a run to go on (JSON).
    :raises ConfigurationError: there is a file that is something else, or none can be made there.
    """

    def __init__(self, path: str, bound: dict[str, Any]) -> None:
        self.path = path
        self._bound = json.loads(json.dumps(bound))
        self._next = 0.0
        #: What was saved, None if there is nothing to go on from.
        self.state: dict[str, Any] | None = None
        #: Whether there was something, of other databases or of these before they were changed.
        self.is_of_others = False
        found = self._read()
        if found is not None:
            if _same(found["bound"], self._bound):
                self.state = found["state"]
            else:
                self.is_of_others = True

    def _read(self) -> dict[str, Any] | None:
        directory = os.path.dirname(os.path.abspath(self.path))
        if not os.access(directory, os.W_OK | os.X_OK):
            raise ConfigurationError(
                f"{self.path} cannot be written: {directory} is no directory for that"
            )
        try:
            with open(self.path, encoding="utf-8") as file:
                found = json.load(file)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigurationError(f"{self.path} cannot be read: {error.strerror}") from error
        except ValueError:
            found = None
        if not isinstance(found, dict) or found.get("format") != _FORMAT:
            raise ConfigurationError(
                f"{self.path} is there and is not what zrs verify has saved: give another name"
            )
        return found

    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() >= self._next

    def save(self, state: dict[str, Any]) -> None:
        """Replace what was saved.

        :raises OSError: it cannot be written.
        """
        self._next = time.monotonic() + _INTERVAL
        new = f"{self.path}.{os.getpid()}.new"
        try:
            with open(new, "w", encoding="utf-8") as file:
                json.dump({"format": _FORMAT, "bound": self._bound, "state": state}, file)
            os.replace(new, self.path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.remove(new)
            raise

    def remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.path)


def _same(then: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether the databases are those of then; a file may have grown, and nothing else."""
    for side in ("A", "B"):
        before, after = dict(then[side]), dict(now[side])
        size, changed = before.pop("size", 0), before.pop("changed", 0)
        new_size, new_changed = after.pop("size", 0), after.pop("changed", 0)
        if before != after or new_size < size or (new_size == size and new_changed != changed):
            return False
    return bool(then["options"] == now["options"])
