"""Which part of a stream is asked for."""

from __future__ import annotations

from ...messages import NO_TID
from .analyser import Entry
from .files import UnknownTid


class Selection:
    """Says of each entry, in their order, whether it is asked for.

    :param where: names the stream in an error.
    :param after: transactions up to this one are left out.
    :param until: those after this one are left out.
    :param count: the number of transactions at most.
    """

    def __init__(
        self,
        where: str,
        after: bytes = NO_TID,
        until: bytes | None = None,
        count: int | None = None,
    ) -> None:
        #: Whether all that is asked for has come.
        self.done = count == 0
        self._where = where
        self._after = after
        self._until = until
        self._left = count
        self._last = NO_TID

    def wants(self, entry: Entry) -> bool:
        """Whether to show an entry.

        :raises UnknownTid: the transaction `after` is not there.
        """
        tid = entry.fields.get("tid")
        if self.done or tid is None or entry.kind == "start":
            return not self.done
        if entry.kind == "transaction":
            # What begins after it was asked for with it.
            if tid > self._after > self._last > NO_TID:
                raise UnknownTid(self._where, self._after, self._last, tid)
            if self._until is not None and tid > self._until:
                self.done = True
                return False
            self._last = tid
        wanted: bool = tid > self._after
        if wanted and entry.kind == "commit":
            if self._left is not None:
                self._left -= 1
            self.done = self._left == 0 or tid == self._until
        return wanted

    def check(self) -> None:
        """The stream is over.

        :raises UnknownTid: it has ended before the transaction `after`.
        """
        if NO_TID < self._last < self._after:
            raise UnknownTid(self._where, self._after, self._last, None)
