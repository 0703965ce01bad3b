"""The whole of a verification, step by step."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import ConfigurationError
from ..messages import MAX_TID
from ..storage.committed import FIRST
from ..storage.sides import Side
from ..tls import TLSOptions
from .blobs import BlobTrees, Key, strays
from .current import CurrentPair, CurrentRecords
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
            a, b = opened.sides(
                self.report.last,
                wait=options.wait,
                common=options.common,
                waiting=self._tell,
            )
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

    # -- histories

    def _histories(self, a: Side, b: Side) -> list[CurrentRecords]:
        if self._phase == "transactions":
            self._transactions(a, b)
            self._phase = "blobs"
            self._save()
        files = [each for each in (a, b) if isinstance(each, VerifiedFile)]
        self.report.blobs_compared = a.has_blobs and b.has_blobs
        if self.report.blobs_compared and len(files) == 2:
            trees = BlobTrees(*files, last=self.report.last, wait=self._options.wait)
            self._blobs(trees, trees.keys)
        elif self.report.blobs_compared and files:
            for difference in strays(files[0], "AB"[files[0] is b]):
                self.report.add(difference)
        return []

    def _transactions(self, a: Side, b: Side) -> None:
        report = self.report
        by_files = isinstance(a, VerifiedFile) and isinstance(b, VerifiedFile)

        def step() -> None:
            result = pair.result
            report.transactions = result.transactions
            # Of two files all that lies behind is what was compared, and not the records alone.
            report.size = (
                a.pos - FIRST if isinstance(a, VerifiedFile) and by_files else result.bytes
            )
            report.blobs, report.last = result.blobs, pair.tid
            self._tell()
            self._save()

        pair = Pair(
            a,
            b,
            # Those of two files are compared as files.
            blobs=a.has_blobs and b.has_blobs and not by_files,
            common=self._options.common,
            wait=self._options.wait,
            jobs=self._options.jobs,
            step=step,
        )
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

    def _current(self) -> list[CurrentRecords]:
        report = self.report
        a, b = (each for each in self._opened.files if each is not None)
        until = min(a.last_tid(), b.last_tid()) if self._options.common else MAX_TID
        sides = [self._current_of(each, until) for each in (a, b)]
        report.last = max(min(each.tid, until) for each in (a, b))
        pair = CurrentPair(*sides)
        for difference in pair.differences(self._counting("Objects")):
            report.add(difference)
        report.records, report.size, report.garbage = pair.records, pair.bytes, pair.garbage
        report.blobs_compared = a.has_blobs and b.has_blobs
        if report.blobs_compared:
            trees = BlobTrees(a, b, last=report.last, wait=self._options.wait)
            self._blobs(trees, sorted(pair.blobs))
        return sides

    def _current_of(self, file: VerifiedFile, until: bytes) -> CurrentRecords:
        file.move_to(FIRST)
        return CurrentRecords(file, until, lambda: self._watch("Objects", file.pos, file.end))

    def _counting(self, what: str) -> Callable[[], None]:
        numbers = itertools.count(1)
        return lambda: self._watch(what, next(numbers), 0)

    # -- references

    def _deep(self, current: list[CurrentRecords]) -> None:
        for number, name in enumerate("AB"):
            file, storage = self._opened.files[number], self._opened.storages[number]
            records: Records
            if current:
                records = current[number]
            elif file is not None:
                records = self._current_of(file, MAX_TID)
            elif storage is not None:
                records = StorageRecords(storage, self._counting("Objects"))
            else:
                continue
            step = self._counting("References")
            blobs = None if file is None else file.blob_dir
            for difference in dangling(records, name, blobs, step):
                self.report.add(difference)
