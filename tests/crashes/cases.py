"""The cases: a secondary that stops, or whose disk fails, at one point; and what must hold then."""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import logging
import random
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from ZODB.FileStorage import FileStorage

from zrs_core import Primary, Secondary
from zrs_core.errors import ReplicationError
from zrs_core.storage import batches, disk, opening
from zrs_core.storage.batches import BatchLimits
from zrs_core.storage.fs_sink import FileStorageSink, file_storage_sink
from zrs_core.storage.generic_sink import GenericSink
from zrs_core.transports.memory import MemoryNetwork

from ..databases import Stored, blob_files, contents, temporary_files
from . import histories
from .disk import SECTOR, Applied, Disk, Operation, Sync, SyncDirectory, Tree
from .recording import Fault, Recording, failing, short

ADDRESS = ("", 8000)

_LIMITS = BatchLimits(batch=40_000, held=8_000)

_SINKS: dict[str, Callable[[Any, Any, str], Any]] = {
    "batches": functools.partial(file_storage_sink, limits=_LIMITS),
    "public": lambda storage, invalidate, durability: FileStorageSink(storage, invalidate),
    "generic": lambda storage, invalidate, durability: GenericSink(storage, invalidate),
}

# What a FileStorage itself has beside its file; the last are copies of what it has cut off.
_SUFFIXES = ("", ".index", ".lock", ".tmp", ".old", ".pack", ".index.index_tmp")


class Unsound(Exception):
    """What must hold does not."""


class AtOnce:
    """`disk.Beside`, done when it is begun."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._failure: BaseException | None = None
        try:
            function()
        except BaseException as error:
            self._failure = error

    def is_over(self) -> bool:
        return True

    def wait(self) -> None:
        if self._failure is not None:
            raise self._failure


class Late:
    """`disk.Beside`, done when it is waited for."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._done: AtOnce | None = None

    def is_over(self) -> bool:
        return self._done is not None

    def wait(self) -> None:
        self._done = self._done or AtOnce(self._function)
        self._done.wait()


class Setup(NamedTuple):
    """What is replicated, and how: `chunk_size` are the bytes that come at once.

    `block` are the bytes that the disk writes all or not at all, and `beside` tells when what is
    done beside is done.
    """

    shape: str
    sink: str
    durability: str
    chunk_size: int
    packing: bool
    block: int = SECTOR
    beside: type[AtOnce] | type[Late] = AtOnce


_KINDS = (
    ("batches", "batch", 300, False),
    ("batches", "batch", 300, False, 4096),
    ("batches", "batch", 7_000, False),
    ("batches", "batch", 7_000, False, 4096, Late),
    ("batches", "batch", 1 << 20, False),
    ("batches", "batch", 1 << 20, False, SECTOR, Late),
    ("batches", "transaction", 1 << 20, False),
    ("batches", "transaction", 1 << 20, False, 4096, Late),
    ("public", "batch", 1 << 20, False),
    ("batches", "none", 7_000, False),
    ("batches", "batch", 2_000, True),
    ("batches", "batch", 2_000, True, 4096, Late),
    ("public", "batch", 2_000, True),
    ("generic", "batch", 1 << 20, False),
)

SETUPS = [Setup(shape, *kind) for kind in _KINDS for shape in histories.SHAPES]


class History(NamedTuple):
    """What is replicated: a primary that has it, and what a secondary has of it at first."""

    primary: Primary
    network: MemoryNetwork
    directory: Path
    transactions: list[Stored]
    begin: Tree


class Recorded(NamedTuple):
    """What a secondary has done to its disk, and between which operations it was packed."""

    before: Tree
    files: dict[str, int]
    operations: list[Operation]
    attempts: int
    pack: tuple[int, int]


class Workshop:
    """Where cases are tried; it keeps the histories and recordings that they have in common."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(exist_ok=True)
        self._count = 0
        self._stack = contextlib.ExitStack()
        self.history = functools.cache(self._make_history)
        self.recorded = functools.cache(self._record)

    def __enter__(self) -> Workshop:
        # Of a FileStorage that cannot be opened its files are left open, to be collected.
        self._stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", ResourceWarning)
        self._stack.callback(gc.collect)
        # Whoever tells of what is cut off tells of every case.
        logging.disable(logging.CRITICAL)
        self._stack.callback(logging.disable, logging.NOTSET)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def directory(self, tree: Tree) -> Iterator[Path]:
        """A directory with these files, as long as it is needed."""
        self._count += 1
        path = self._directory / f"secondary{self._count}"
        path.mkdir()
        tree.write_to(str(path))
        yield path
        shutil.rmtree(path)

    def _make_history(self, shape: str) -> History:
        directory = self._directory / shape
        begin = directory / "begin"
        histories.make(directory, begin, shape)
        storage = FileStorage(
            str(directory / "Data.fs"), read_only=True, blob_dir=str(directory / "blobs")
        )
        transactions = []
        if (begin / "Data.fs").exists():
            with contextlib.closing(FileStorage(str(begin / "Data.fs"), read_only=True)) as first:
                transactions = contents(first)
        last = transactions[-1].tid if transactions else bytes(8)
        transactions += [each for each in contents(storage) if each.tid > last]
        network = MemoryNetwork()
        primary = Primary(storage, ADDRESS, network, transport="memory")
        self._stack.callback(primary.close)
        return History(primary, network, directory, transactions, Tree.of(str(begin)))

    @contextlib.contextmanager
    def replicating(self, setup: Setup, directory: Path) -> Iterator[Secondary]:
        """A secondary over the files in a directory, which has been told nothing yet."""
        history = self.history(setup.shape)
        history.network.chunk_size = setup.chunk_size
        with (
            mock.patch.object(batches, "Beside", setup.beside),
            mock.patch.object(disk, "Beside", setup.beside),
        ):
            with (
                mock.patch.object(opening, "file_storage_sink", _SINKS[setup.sink]),
                mock.patch.object(disk, "block_size", return_value=setup.block),
            ):
                secondary = Secondary(
                    directory / "Data.fs",
                    ADDRESS,
                    history.network,
                    blob_dir=directory / "blobs",
                    transport="memory",
                    reconnect_delay=1,
                    durability=setup.durability,
                )
            try:
                yield secondary
            finally:
                secondary.close()
                history.network.run()

    def run(self, setup: Setup, recording: Recording, secondary: Secondary) -> tuple[int, int]:
        """Replicate until nothing more comes; what the pack, if there is one, did."""
        network = self.history(setup.shape).network
        secondary.on_commit(lambda: recording.applied(_last(secondary)))
        pack = (0, 0)
        while network.step():
            progress = secondary.progress
            # In one thread a pack cannot wait for its turn.
            held = secondary._storage._commit_lock.locked()
            between = progress.transactions and not progress.unfinished and not held
            if setup.packing and pack == (0, 0) and between:
                begin = len(recording.operations)
                # Whoever packs sees it when that fails.
                with contextlib.suppress(OSError, ReplicationError):
                    secondary.pack(time.time() + 1, lambda data: [], gc=False)
                pack = begin, len(recording.operations)
        return pack

    def _record(self, setup: Setup) -> Recorded:
        with self.directory(self.history(setup.shape).begin) as directory:
            with Recording(str(directory)) as recording:
                with self.replicating(setup, directory) as secondary:
                    pack = self.run(setup, recording, secondary)
            self.check_complete(setup, directory)
        return Recorded(
            recording.before, recording.files, recording.operations, recording.attempts, pack
        )

    # -- cases

    def crash(self, setup: Setup, chance: random.Random) -> str:
        """A stop somewhere; what it was."""
        recorded = self.recorded(setup)
        point = _point(recorded.operations, chance)
        how = _how(setup, recorded, point, chance)
        zeros = 0
        if chance.random() < 0.5:
            zeros = chance.choice((1, 22, 23, 512, 4096, chance.randrange(1, 4097)))
        what = f"{how} at operation {point}, {zeros} bytes of zeros"
        operations = recorded.operations[:point]
        tree = _left(recorded.before, recorded.files, operations, how, setup.block, chance)
        data = tree.files.get("Data.fs")
        if data is not None:
            tree.files["Data.fs"] = data + bytes(zeros)
        promised = _last_applied(operations, survives=how == "kill" or setup.durability != "none")
        self.reopen(setup, tree, promised, what)
        return what

    def fail(self, setup: Setup, chance: random.Random) -> str:
        """A disk that does not do what it should from some point on, or once; what it was."""
        attempts = self.recorded(setup).attempts
        at = chance.randrange(attempts)
        kind = chance.choice(("EIO", "EIO", "ENOSPC", "short"))
        for_ever = chance.random() < 0.5
        what = f"{kind} at attempt {at}" + (", and for ever" if for_ever else "")
        fault: Fault
        if kind == "short":
            fault = short(at)
        else:
            fault = failing(at, getattr(errno, kind), for_ever=for_ever)
        begin = self.history(setup.shape).begin
        with self.directory(begin) as directory:
            with Recording(str(directory), fault) as recording:
                self._run_with_faults(setup, directory, recording, for_ever and kind != "short")
            operations = recording.operations
            files = recording.files
        promised = _last_applied(operations, survives=setup.durability != "none")
        how = "kill"
        if setup.sink != "generic" and not setup.packing and setup.durability != "none":
            how = chance.choice(("kill", "lost", "torn", "reordered"))
        tree = _left(begin, files, operations, how, setup.block, chance)
        self.reopen(setup, tree, promised, f"{what}, then {how}")
        return what

    def _run_with_faults(
        self, setup: Setup, directory: Path, recording: Recording, hopeless: bool
    ) -> None:
        history = self.history(setup.shape)
        with contextlib.ExitStack() as stack:
            try:
                try:
                    secondary = stack.enter_context(self.replicating(setup, directory))
                except (OSError, ReplicationError):
                    # Whoever opens it sees that.
                    return
                self.run(setup, recording, secondary)
                for _ in range(3):
                    history.network.advance(2)
                    history.network.run()
                if (directory / "Data.fs").exists():
                    held = _visible(secondary, directory)
                    self._check_beginning(setup, held, _last(secondary))
                stopped = secondary.progress.stopped is not None
                last = history.transactions[-1].tid
                if not hopeless and not stopped and setup.sink != "generic":
                    _demand(_last(secondary) == last, "it does not go on after the fault")
            finally:
                recording.heal()

    def reopen(self, setup: Setup, tree: Tree, promised: bytes, what: str) -> None:
        """Open what is left, compare; go on, and compare."""
        with self.directory(tree) as directory:
            with self.replicating(setup, directory) as secondary:
                held = contents(secondary)
                self._check_beginning(setup, held, _last(secondary))
                self._check_promise(setup, held, promised)
                history = self.history(setup.shape)
                history.network.run()
                history.network.advance(2)
                history.network.run()
            self.check_complete(setup, directory)

    def _check_beginning(self, setup: Setup, held: list[Stored], last: bytes) -> None:
        expected = self.history(setup.shape).transactions
        if not setup.packing:
            _demand(held == expected[: len(held)], "what it shows is not the beginning of it all")
            tid = held[-1].tid if held else bytes(8)
            _demand(tid == last, f"it names 0x{last.hex()} as the last, and holds 0x{tid.hex()}")

    def _check_promise(self, setup: Setup, held: list[Stored], promised: bytes) -> None:
        """Whether all is there up to a transaction that the secondary has named as its last."""
        if not setup.packing:
            last = held[-1].tid if held else bytes(8)
            _demand(
                last >= promised, f"it had 0x{promised.hex()}, and has 0x{last.hex()} as its last"
            )
            return
        # Of what a pack has removed there are newer records, or none that count.
        last = max(promised, held[-1].tid) if held else promised
        history = self.history(setup.shape).transactions
        needed = _newest([each for each in history if each.tid <= promised]).keys()
        needed &= _newest([each for each in history if each.tid <= last]).keys()
        missing = needed - _newest(held).keys()
        _demand(not missing, f"it had the objects {[oid.hex() for oid in missing]}")

    def check_complete(self, setup: Setup, directory: Path) -> None:
        """Whether all has arrived, and nothing else is there."""
        history = self.history(setup.shape)
        with contextlib.closing(
            FileStorage(
                str(directory / "Data.fs"), read_only=True, blob_dir=str(directory / "blobs")
            )
        ) as storage:
            held = contents(storage)
        if setup.packing:
            _demand(_newest(held) == _newest(history.transactions), "not all has arrived")
        else:
            _demand(held == history.transactions, "not all has arrived")
            theirs = blob_files(history.directory / "blobs")
            _demand(blob_files(directory / "blobs") == theirs, "blobs are not the same")
        left = temporary_files(directory / "blobs")
        # The last is a list of ZODB's packs.
        _demand(left in ([], [".removed"]), f"among the blobs there are {left}")
        for each in directory.iterdir():
            suffix = each.name.removeprefix("Data.fs")
            known = suffix in _SUFFIXES or suffix.startswith(".tr")
            _demand(known or each.name in ("blobs", "blobs.old"), f"{each.name} is left")


def _visible(secondary: Secondary, directory: Path) -> list[Stored]:
    """What a secondary shows; behind its end there may be what could not be cut off."""
    file = directory.with_suffix(".fs")
    file.write_bytes((directory / "Data.fs").read_bytes()[: secondary.getSize()])
    with contextlib.closing(
        FileStorage(str(file), read_only=True, blob_dir=str(directory / "blobs"))
    ) as storage:
        return contents(storage)


def _newest(transactions: list[Stored]) -> dict[bytes, tuple[object, ...]]:
    """The newest record of each object that has not been undone."""
    newest = {record[0]: record for each in transactions for record in each.records}
    return {oid: (data, blob) for oid, (_, _, data, _, blob) in newest.items() if data}


def _point(operations: list[Operation], chance: random.Random) -> int:
    """How many of the operations were done: anything, or what comes just before a sync."""
    before_syncs = [
        number
        for number, each in enumerate(operations)
        if isinstance(each, (Sync, SyncDirectory)) and not isinstance(operations[number - 1], Sync)
    ]
    if before_syncs and chance.random() < 0.6:
        return chance.choice(before_syncs)
    return chance.randrange(len(operations) + 1)


def _how(setup: Setup, recorded: Recorded, point: int, chance: random.Random) -> str:
    """How it stops. What a power loss leaves is the storage's own matter in some setups."""
    begin, end = recorded.pack
    own = setup.sink == "generic" or setup.durability == "none" or begin < point <= end
    return "kill" if own else chance.choice(("kill", "lost", "torn", "reordered", "reordered"))


def _left(
    before: Tree,
    files: dict[str, int],
    operations: list[Operation],
    how: str,
    block: int,
    chance: random.Random,
) -> Tree:
    left = Disk(before, files, block)
    for each in operations:
        left.apply(each)
    return left.left_by_a_kill() if how == "kill" else left.left_by_a_power_loss(how, chance)


def _last_applied(operations: list[Operation], *, survives: bool) -> bytes:
    applied = [each.tid for each in operations if isinstance(each, Applied)]
    return applied[-1] if applied and survives else bytes(8)


def _last(secondary: Secondary) -> bytes:
    """Return the last transaction that the storage holds, also where readers do not see it yet."""
    tid: bytes = secondary._stored.lastTransaction()
    return tid


def _demand(condition: bool, otherwise: str) -> None:
    if not condition:
        raise Unsound(otherwise)


def describe(number: int) -> tuple[Setup, random.Random]:
    """The setup of a case, and its chance."""
    chance = random.Random(number)
    return chance.choice(SETUPS), chance


def try_case(workshop: Workshop, number: int) -> str:
    """Try a case; what it was.

    :raises Exception: what must hold does not; `Unsound` if it was found by comparing.
    """
    setup, chance = describe(number)
    case = workshop.fail if chance.random() < 0.3 else workshop.crash
    return f"{setup}: {case(setup, chance)}"
