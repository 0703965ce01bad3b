"""Compares two sides, transaction by transaction: past damage, and fast where files are alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from ...storage.committed import DamagedFile, Header
from ...storage.comparison import Difference, Kind, Run
from ...storage.fs_format import RECORD_HEADER, U64
from ...storage.sides import Side
from .files import VerifiedFile
from .same_bytes import CHUNK_SIZE, SameBytes

_POLL_INTERVAL = 0.05


class Pair(Run):
    """One comparison of two sides, A and B.

    :param blobs: whether the blobs of records are compared with them.
    :param common: what only one side has after the last transaction of the other is no difference.
    :param wait: seconds for which one side may still get what the other has at its end.
    :param jobs: threads that read files that are alike.
    :param step: called after each transaction, or run of them, when `state` may be taken.
    :param packed: as of `Run`, and `heads` likewise. With it, bytes at the same place in two files
        are not the same transactions.
    """

    def __init__(
        self,
        ours: Side,
        theirs: Side,
        *,
        blobs: bool,
        common: bool,
        wait: float,
        jobs: int,
        step: Callable[[], None],
        packed: bool = False,
        heads: tuple[Header | None, Header | None] = (None, None),
    ) -> None:
        super().__init__(ours, theirs, blobs=blobs, names=("A", "B"), packed=packed, heads=heads)
        self._common = common
        self._wait = wait
        self._waited_until: float | None = None
        self._step = step
        #: Transactions that A and B have after the last one of the other.
        self.beyond = [0, 0]
        # What was found damaged and is still to be told.
        self._damage: list[Difference] = []
        self._same: SameBytes | None = None
        self._next_skip = 0
        self._are_files = False
        if isinstance(ours, VerifiedFile) and isinstance(theirs, VerifiedFile):
            self._are_files = True
            self._files = ours, theirs
            if not packed:
                self._same = SameBytes(ours.file, theirs.file, jobs)

    def differences(self) -> Iterator[Difference]:
        try:
            if self._same is None:
                yield from super().differences()
            else:
                with self._same:
                    yield from super().differences()
            yield from self._damage
        except DamagedFile as error:
            # Where one of them cannot be read, the two differ, but not where neither can.
            if self._both_damaged():
                raise
            self.result.complete = False
            yield Difference(Kind.DAMAGED, self.tid, None, f"{error}; given up there")

    def _both_damaged(self) -> bool:
        if not self._are_files:
            return True
        return all(_damage_of(each) is not None for each in self._files)

    # -- two files

    def _between(self) -> Iterator[Difference]:
        if self._damage:
            yield from self._damage
            self._damage.clear()
        self._step()
        if self._same is None:
            return
        ours, theirs = self._files
        while ours.pos == theirs.pos < min(ours.end, theirs.end):
            if ours.pos >= self._next_skip:
                self._skip(self._same)
            found = self._aligned()
            if found is None:
                return
            self.result.transactions += 1
            yield from found
            self.tid = ours.tid
            self._step()

    def _skip(self, same: SameBytes) -> None:
        ours, theirs = self._files
        for pos, transactions in same.skip(ours.pos, min(ours.end, theirs.end)):
            self.result.transactions += transactions
            for each in self._files:
                each.move_to(pos)
            self.tid = ours.tid
            self._step()
        # Where they differ, they are looked at one by one, up to behind that chunk.
        self._next_skip = ours.pos + CHUNK_SIZE

    def _aligned(self) -> list[Difference] | None:
        """What differs in the transaction at the same place in both; None if it is not the same.

        :raises DamagedFile: neither can be read.
        """
        ours, theirs = self._files
        pos, tid = ours.pos, ours.tid
        damage = [_damage_of(each) for each in self._files]
        if all(damage):
            raise DamagedFile(damage[0])
        if any(damage):
            good, bad = (theirs, ours) if damage[0] else (ours, theirs)
            header = good.next_header()
            if header is None or not _goes_on_at(bad, header):
                good.move_to(pos)
                return None
            bad.pos, bad.tid = header.next, header.tid
            return [Difference(Kind.DAMAGED, header.tid, None, damage[0] or damage[1] or "")]
        our, their = ours.next_header(), theirs.next_header()
        if our is None or their is None:
            header, bad = our or their, theirs if their is None else ours
            if header is not None and header.next < bad.end and _goes_on_at(bad, header):
                bad.pos, bad.tid = header.next, header.tid
                text = f"{bad.file.path} is damaged: there is no transaction at {pos}"
                return [Difference(Kind.DAMAGED, header.tid, None, text)]
        else:
            if our.next == their.next and ours.raw(our) == theirs.raw(their):
                return []
            if our.tid == their.tid:
                return [*self._transaction(our, their)]
            if not (ours.is_consistent(our) and theirs.is_consistent(their)):
                right = our if ours.is_consistent(our) else their
                ours.tid = theirs.tid = right.tid
                text = self._text("the tid", f"0x{our.tid.hex()}", f"0x{their.tid.hex()}")
                return [Difference(Kind.TRANSACTION, right.tid, None, text)]
        for each in self._files:
            each.pos, each.tid = pos, tid
        return None

    def _transaction(self, our: Header, their: Header) -> Iterator[Difference]:
        found = False
        try:
            for each in super()._transaction(our, their):
                found = True
                yield each
        except DamagedFile as error:
            yield Difference(Kind.DAMAGED, our.tid, None, str(error))
            return
        # Void records may be on one side only.
        same_place = (our.pos, our.records, our.next) == (their.pos, their.records, their.next)
        if not found and self._same is not None and same_place:
            yield from self._previous(our, their)

    def _previous(self, our: Header, their: Header) -> Iterator[Difference]:
        """The position of its object's previous record, where all else in two records is equal."""
        ours, theirs = self._files[0].raw(our), self._files[1].raw(their)
        pos = our.records - our.pos
        while pos < our.end - our.pos:
            oid, _, here, *_, size = RECORD_HEADER.unpack_from(ours, pos)
            _, _, there, *_ = RECORD_HEADER.unpack_from(theirs, pos)
            if here != there:
                text = self._text("the position of the previous record", here, there)
                yield Difference(Kind.RECORD, our.tid, oid, text)
            pos += RECORD_HEADER.size + (size or U64.size)

    # -- damage, and the ends

    def _next(self, side: Side) -> Header | None:
        while True:
            try:
                return super()._next(side)
            except DamagedFile as error:
                if not isinstance(side, VerifiedFile):
                    raise
                good = side.next_good()
                if good is None:
                    raise
                text = f"{error}; gone on at {good}"
                self._damage.append(Difference(Kind.DAMAGED, side.tid, None, text))
                side.pos = good

    def _grown(self, side: Side, tid: bytes) -> Header | None:
        """Where it may still come, it is waited for, once for all that is missing."""
        while (header := side.grown(tid)) is None:
            now = time.monotonic()
            if self._waited_until is None:
                self._waited_until = now + self._wait
            if not side.may_grow or now >= self._waited_until:
                return None
            time.sleep(_POLL_INTERVAL)
        return header

    def _missing(self, header: Header, at_end: bool) -> Iterator[Difference]:
        if at_end and self._common:
            self.result.transactions -= 1
            self.beyond[0] += 1
        else:
            yield from super()._missing(header, at_end)

    def _extra(self, header: Header, at_end: bool) -> Iterator[Difference]:
        if at_end and self._common:
            self.beyond[1] += 1
        else:
            yield from super()._extra(header, at_end)


def _damage_of(side: VerifiedFile) -> str | None:
    """What is wrong where it stands, None for nothing; it stays there."""
    pos, tid = side.pos, side.tid
    try:
        side.next_header()
    except DamagedFile as error:
        return str(error)
    finally:
        side.pos, side.tid = pos, tid
    return None


def _goes_on_at(side: VerifiedFile, header: Header) -> bool:
    """Whether the transaction that comes after `header` in another file is there in this one."""
    pos, tid = side.pos, side.tid
    side.pos, side.tid = header.next, header.tid
    try:
        return side.pos == side.end or side.next_header() is not None
    except DamagedFile:
        return False
    finally:
        side.pos, side.tid = pos, tid
