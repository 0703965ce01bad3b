"""The whole of a verification, step by step."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...errors import ConfigurationError, Unverifiable
from ...messages import NO_TID
from ...storage.committed import DamagedFile, Header
from ...storage.fs_format import FIRST_OFFSET
from ...storage.sides import Side
from ...tids import describe_tid
from ...tls import TLSOptions
from .blobs import BlobTrees, Key, strays
from .current import CurrentObjects, CurrentPair, FileObjects, objects_of
from .dangling import Records, dangling
from .files import VerifiedFile
from .pairs import Pair
from .report import Report
from .saved import Saved
from .sources import Opened, Source, StorageRecords, check_current_records

#: Told what is being done, how far it is, and how far it has to go (0 where that is not known).
Watch = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Options:
    """How to compare.

    `current`: the current revisions of objects alone. `common`: not what one side has after the
    last transaction of the other. `deep`: look for dangling references too. `wait`: seconds for
    which one side may still get what the other has at its end. `jobs`: threads. `listed`: so many
    differences are kept, the others are counted.
    """

    current: bool = False
    common: bool = False
    deep: bool = False
    wait: float = 1.0
    jobs: int = 2
    listed: int = 100


class Verification:
    """Compares two sources, reading only.

    :param watch: called often.
    :param state: the path of a file in which it keeps where it is, and to go on from.
    :param tls: how to connect to a primary's address.
    :raises ConfigurationError: the two cannot be compared in this way.
    """

    def __init__(
        self,
        a: Source,
        b: Source,
        options: Options,
        watch: Watch,
        *,
        state: str | None = None,
        tls: TLSOptions | None = None,
    ) -> None:
        if options.current and not (a.path and b.path):
            raise ConfigurationError("--current compares two FileStorages: leave it out")
        if state is not None and (options.current or a.open or b.open):
            raise ConfigurationError(
                "only the histories of FileStorages and of addresses can be gone on with: leave "
                "out --state"
            )
        self._opened = Opened(a, b, tls)
        # By whose place it is told how far the transactions are.
        self._file: VerifiedFile | None = None
        self._options = options
        self._watch = watch
        self._state_path = state
        self._saved: Saved | None = None
        # Where it is.
        self._phase = "transactions"
        self._blob: Key | None = None
        self._began = time.time()
        self.report = Report(options.listed)
        #: What there is to say about the file in which it keeps where it is.
        self.remark = ""

    def run(self) -> Report:
        """Compare.

        :raises ReplicationError: it could not be done to the end; `OSError` likewise.
        """
        options = self._options
        with self._opened as opened:
            self._file = next(filter(None, opened.files), None)
            if self._state_path is not None:
                self._resume(self._state_path)
            a, b = self._sides(self.report.last)
            if options.deep:
                for storage, name in zip(opened.storages, "AB", strict=True):
                    check_current_records(storage, name)
            current = self._current() if options.current else self._histories(a, b)
            if options.deep:
                self._deep(current)
            if self._saved is not None:
                self._saved.remove()
        return self.report

    # -- going on

    def _resume(self, path: str) -> None:
        options = {"common": self._options.common, "listed": self._options.listed}
        saved = self._saved = Saved(path, {**self._opened.identities(), "options": options})
        if saved.is_of_others:
            self.remark = (
                f"{path} is of other files, or of these before they were changed: begun anew"
            )
        if saved.state is None:
            return
        self.report.restore(saved.state["report"])
        self._phase, self._began = saved.state["phase"], saved.state["began"]
        if saved.state["blob"] is not None:
            tid, oid = map(bytes.fromhex, saved.state["blob"])
            self._blob = tid, oid
        for file, pos in zip(self._opened.files, saved.state["places"], strict=True):
            if file is not None:
                file.move_to(pos)
        self.remark = f"Going on after transaction 0x{self.report.last.hex()}"

    def _save(self) -> None:
        """To be called where all that was found is of what lies behind both sides."""
        if self._saved is not None and self._saved.due():
            blob = self._blob
            self._saved.save(
                {
                    "report": self.report.state(),
                    "phase": self._phase,
                    "began": self._began,
                    "blob": None if blob is None else [each.hex() for each in blob],
                    "places": [file and file.pos for file in self._opened.files],
                }
            )

    def _sides(self, start: bytes) -> list[Side]:
        options = self._options
        return self._opened.sides(
            start, wait=options.wait, common=options.common, waiting=self._tell
        )

    # -- histories

    def _histories(self, a: Side, b: Side) -> Sequence[FileObjects]:
        if self._phase == "transactions":
            self._transactions(a, b)
            self._phase = "blobs"
            self._save()
        if self.report.packed and self._are_compared_as_packed(a, b):
            return []
        files = [each for each in (a, b) if isinstance(each, VerifiedFile)]
        self.report.blobs_compared = a.has_blobs and b.has_blobs
        if self.report.blobs_compared and len(files) == 2:
            trees = BlobTrees(*files, last=self.report.last, wait=self._options.wait)
            self._blobs(trees, trees.keys)
        elif self.report.blobs_compared and files:
            for difference in strays(files[0], "AB"[files[0] is b]):
                self.report.add(difference)
        return []

    def _are_compared_as_packed(self, a: Side, b: Side) -> bool:
        """Compare again, since the sides were packed up to different transactions.

        Return False if a file is too damaged for that.
        """
        before = self.report
        for each in (a, b):
            if isinstance(each, VerifiedFile):
                each.move_to(FIRST_OFFSET)
            else:
                each.close()
        self._blob = None
        self.report = Report(self._options.listed, packed=True)
        try:
            self._packed(self.report, *self._sides(NO_TID))
        except DamagedFile:
            self.report = before
            return False
        return True

    def _packed(self, report: Report, a: Side, b: Side) -> None:
        """Compare the objects as of the later pack, and all transactions after that."""
        wait = 0.0 if self._options.common else self._options.wait
        both = [objects_of(each, wait, self._tell) for each in (a, b)]
        report.packs = [each.read_packed() for each in both]
        packed = max(report.packs)
        for each in both:
            each.read_until(packed)
        for each, name, other in zip(both, "AB", "BA", strict=True):
            if self._options.common and each.tid < packed:
                raise Unverifiable(
                    f"{other} was packed up to {describe_tid(packed)}, which {name} does not hold, "
                    f"and does not hold the objects as of the end of {name} any more: wait until "
                    f"{name} has more, or leave out --common"
                )
        report.blobs_compared = a.has_blobs and b.has_blobs
        report.last = packed
        self._objects(both, a, b)
        counts = report.size, report.blobs
        run = self._pair(a, b, packed=True, heads=(both[0].head, both[1].head))
        for difference in run.differences():
            report.add(difference)
        report.transactions = run.result.transactions
        report.complete = run.result.complete
        report.size, report.blobs = counts[0] + run.result.bytes, counts[1] + run.result.blobs
        report.last, report.beyond = max(packed, run.tid), run.beyond

    def _objects(self, both: Sequence[CurrentObjects], a: Side, b: Side) -> None:
        """Compare the current objects."""
        report = self.report
        blobs = a.has_blobs and b.has_blobs
        files = [each for each in (a, b) if isinstance(each, VerifiedFile)]
        pair = CurrentPair(*both, blobs=blobs and len(files) < 2)
        for difference in pair.differences(self._counting("Objects")):
            report.add(difference)
        report.records, report.size, report.garbage = pair.records, pair.bytes, pair.garbage
        report.blobs = pair.blobs
        if blobs and len(files) == 2:
            trees = BlobTrees(*files, last=report.last, wait=self._options.wait)
            self._blobs(trees, sorted(pair.keys))

    def _pair(
        self,
        a: Side,
        b: Side,
        *,
        packed: bool = False,
        heads: tuple[Header | None, Header | None] = (None, None),
        step: Callable[[], None] | None = None,
    ) -> Pair:
        by_files = isinstance(a, VerifiedFile) and isinstance(b, VerifiedFile)
        return Pair(
            a,
            b,
            # Those of two files are compared as files, unless a pack has removed many of them.
            blobs=a.has_blobs and b.has_blobs and (packed or not by_files),
            common=self._options.common,
            wait=self._options.wait,
            jobs=self._options.jobs,
            step=step or self._tell,
            packed=packed,
            heads=heads,
        )

    def _transactions(self, a: Side, b: Side) -> None:
        report = self.report
        by_files = isinstance(a, VerifiedFile) and isinstance(b, VerifiedFile)

        def step() -> None:
            result = pair.result
            report.transactions = result.transactions
            # Of two files all that lies behind is what was compared, and not the records alone.
            report.size = (
                a.pos - FIRST_OFFSET if isinstance(a, VerifiedFile) and by_files else result.bytes
            )
            report.blobs, report.last = result.blobs, pair.tid
            self._tell()
            self._save()

        pair = self._pair(a, b, step=step)
        pair.result.transactions, pair.result.bytes = report.transactions, report.size
        pair.result.blobs, pair.tid, pair.beyond = report.blobs, report.last, report.beyond
        for difference in pair.differences():
            report.add(difference)
        report.complete = pair.result.complete
        step()

    def _tell(self) -> None:
        file = self._file
        self._watch("Transactions", *((file.pos, file.end) if file else (0, 0)))

    def _blobs(self, trees: BlobTrees, keys: list[Key]) -> None:
        report, done = self.report, self._blob
        if done is not None:
            keys = [key for key in keys if key > done or trees.changed_since(key, self._began)]
        for number, found in enumerate(trees.compare(keys, self._options.jobs), 1):
            if found.size is not None:
                report.blobs += 1
                report.size += found.size
            if found.difference is not None:
                report.add(found.difference)
            self._blob = max(found.key, self._blob or found.key)
            self._watch("Blobs", number, len(keys))
            self._save()

    # -- current records

    def _current(self) -> Sequence[FileObjects]:
        report = self.report
        a, b = (each for each in self._opened.files if each is not None)
        lasts = a.last_tid(), b.last_tid()
        # One of them may have been opened before a transaction was committed, and the other after
        # that: both are compared as of the same one, for which the first one is waited.
        behind = a if lasts[0] < lasts[1] else b
        common = self._options.common or behind.file.was_replaced()
        until = min(lasts) if common else max(lasts)
        both = [self._current_of(each, until) for each in (a, b)]
        for each, name in zip(both, "AB", strict=True):
            each.check_state(name)
        report.last = max(each.tid for each in both)
        report.blobs_compared = a.has_blobs and b.has_blobs
        self._objects(both, a, b)
        return both

    def _current_of(self, file: VerifiedFile, until: bytes) -> FileObjects:
        file.move_to(FIRST_OFFSET)
        found = FileObjects(
            file, self._options.wait, lambda: self._watch("Objects", file.pos, file.end)
        )
        found.read_until(until)
        return found

    def _counting(self, what: str) -> Callable[[], None]:
        numbers = itertools.count(1)
        return lambda: self._watch(what, next(numbers), 0)

    # -- references

    def _deep(self, current: Sequence[FileObjects]) -> None:
        for number, name in enumerate("AB"):
            file, storage = self._opened.files[number], self._opened.storages[number]
            records: Records
            if current:
                records = current[number]
            elif file is not None:
                records = self._current_of(file, file.last_tid())
            elif storage is not None:
                records = StorageRecords(storage, self._counting("Objects"))
            else:
                continue
            step = self._counting("References")
            blobs = None if file is None else file.blob_dir
            for difference in dangling(records, name, blobs, step):
                self.report.add(difference)
