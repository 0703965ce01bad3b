"""One run: four processes, what happens to them, and what must hold all the while."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from zrs_core.errors import ListenError
from zrs_core.sessions import BATCH_SIZE, PrimarySession
from zrs_core.transports.driver import Driver
from zrs_core.transports.memory import MemoryEnd

from .application import Application
from .disk import Killed
from .model import NO_TID, Broken, History
from .network import Links, ProcessNetwork
from .nodes import RECONNECT_DELAY, Node
from .reading import temporary_blobs, transactions
from .shim import Machine

#: Seconds after which a connection without any sign of life is given up.
PEER_TIMEOUT = 60.0

# What a connection holds at most: a batch, and a record or a block beyond it.
_MOST_OUTGOING = BATCH_SIZE + 256 * 1024


class World:
    """All that there is in one run.

    :param trace: called with each line that tells what happens.
    """

    def __init__(
        self, seed: int, machine: Machine, trace: Callable[[str], object] | None = None
    ) -> None:
        self.seed = seed
        self.machine = machine
        self.rng = random.Random(seed)
        self.links = Links()
        self.primary = self._node("P", None, serves=True)
        one = self._node("A", self.primary, serves=False)
        two = self._node("B", self.primary, serves=True)
        self.nodes = [self.primary, one, two, self._node("C", two, serves=False)]
        self.secondaries = self.nodes[1:]
        self.links.step_end = self.step_end
        #: Somebody who is no part of it.
        self.stranger: Any = SimpleNamespace(
            name="X", suspended=False, disk=SimpleNamespace(dead=False)
        )
        self.stranger.network = ProcessNetwork(self.links, self.stranger)
        self.application = Application(self.rng)
        self.history = History()
        self.forks = [self.history]
        #: Blobs whose files the primary has lost.
        self.missing: dict[tuple[bytes, bytes], bool] = {}
        #: What a process of a node dies of: the power, or a signal.
        self.power_fails: list[Node] = []
        #: Ends on which something arrives that was not sent.
        self.flipped: list[MemoryEnd] = []
        #: Until when processes are stopped.
        self.suspended_until: dict[str, float] = {}
        self.old_indexes: dict[str, bytes] = {}
        #: The last transaction of those whose files others have written to.
        self.foreign: dict[str, bytes] = {}
        self.commits: Iterator[str] | None = None
        self.events = 0
        self.digest = hashlib.sha256()
        self._trace = trace
        self._depth = 0

    def _node(self, name: str, upstream: Node | None, *, serves: bool) -> Node:
        disk = self.machine.add_disk(name, self.rng.getrandbits(32), journal=upstream is None)
        return Node(name, disk, self.links, self.rng, upstream=upstream, serves=serves)

    def tell(self, text: str) -> None:
        line = f"{self.events} {text}"
        self.digest.update(line.encode() + b"\n")
        if self._trace is not None:
            self._trace(line)

    # -- processes

    def start(self, node: Node) -> bool:
        """Whether it has started; it may fail while its disk does."""
        node.disk.restart()
        fresh = not {"Data.fs", "blobs"} <= node.disk.top.entries.keys()
        if fresh:
            # ZODB makes a database without a sync, and does not find its way in half of one.
            node.disk.heal()
        failing = bool(node.disk.faults)
        error: BaseException | None = None
        try:
            node.open()
        except Killed as killed:
            error = killed
        except Exception as broken:
            error = broken
            if not failing and not node.disk.dead and not isinstance(broken, ListenError):
                raise Broken(f"I5: {node.name} cannot be opened: {broken}") from broken
        if error is not None:
            self.tell(f"{node.name} does not start: {type(error).__name__}")
            node.disk.die()
            self.bury()
            return False
        if fresh:
            node.disk.sync_all()
        if node.serves:
            node.disk.before_sync = lambda: self._meanwhile(node)
        if node is self.primary:
            self._recover_primary()
        self.tell(f"{node.name} starts, last {node.file_storage.lastTransaction().hex()}")
        return True

    def _recover_primary(self) -> None:
        """Whether the transaction at whose end it was killed is there nobody knows but the file."""
        storage = self.primary.file_storage
        for _, transaction in transactions(self.primary.disk, 4, storage.getSize()):
            if transaction.tid > self.history.last_tid:
                self.history.append(transaction)
        self.may_fail(self.primary, lambda: self.application.look_again(storage))

    def stop(self, node: Node) -> None:
        """As by SIGTERM, in the midst of whatever it does."""
        self.tell(f"{node.name} is stopped")
        if node is self.primary:
            self.give_up_commit()
        closed = self.may_fail(node, lambda: node.storage.close())
        if not node.disk.dead:
            leaked = [each.name for each in node.disk.handles.values()]
            if leaked and closed:
                raise Broken(f"I10: {node.name} was closed and has open {leaked}")
            self._check_no_temporary_files(node)
            node.disk.die()
        self.bury()

    def kill(self, node: Node, *, power: bool) -> None:
        self.tell(f"{node.name} " + ("loses power" if power else "is killed"))
        if power:
            self.power_fails.append(node)
        node.disk.die()
        self.bury()

    def give_up_commit(self) -> None:
        commits, self.commits = self.commits, None
        if commits is not None:
            storage = self.primary.file_storage
            current = storage.tpc_transaction()
            if current is not None:
                self.may_fail(self.primary, lambda: storage.tpc_abort(current))

    def bury(self) -> None:
        """Take what has died out of the world."""
        if self._depth:
            return
        for node in self.nodes:
            while node.disk.dead and (node.up or node.network.alive):
                if node is self.primary:
                    self.commits = None
                # Where a sync has failed, nothing that is in memory can be trusted: a person looks
                # after the disk, and starts the machine again.
                if node in self.power_fails or "fsync" in node.disk.failed:
                    self.power_fails[:] = [each for each in self.power_fails if each is not node]
                    # A secondary that was asked not to sync promises nothing, and ZODB nothing of
                    # writes that were torn.
                    if node is self.primary or node.durability != "none":
                        node.disk.lose_power(torn=node is not self.primary)
                if node.up:
                    self.tell(f"{node.name} has died")
                left = node.network.vanish()
                node.forget()
                for end in left:
                    if self.rng.random() < 0.8:
                        self.lose(end, "connection reset by peer")
                    else:
                        self.links.black_holes[end] = self.machine.monotonic + PEER_TIMEOUT

    def guarded(self, call: Callable[[], object]) -> None:
        """Let a process do something that may be its end."""
        self._depth += 1
        try:
            call()
        except Killed:
            pass
        finally:
            self._depth -= 1
        self.bury()

    def may_fail(self, node: Node, call: Callable[[], object]) -> bool:
        """As `guarded`, for what may fail as the process's disk does; whether it did not."""
        failing = bool(node.disk.faults or node.disk.failed)
        done = []

        def call_it() -> None:
            try:
                call()
                done.append(True)
            except Exception as error:
                if not failing and not node.disk.dead:
                    raise
                self.tell(f"{node.name} fails: {type(error).__name__}")

        self.guarded(call_it)
        return bool(done)

    # -- what happens by itself

    def step_end(self, end: MemoryEnd, size: int) -> bool:
        """One end of a connection does what it can, and sends so many bytes at most."""
        if end in self.links.black_holes or end.network.node.suspended:
            return False
        if end.peer.network.node.suspended:
            return False
        # A process that was killed in the midst of what another one does is buried after that.
        if end.network.node.disk.dead or end.peer.network.node.disk.dead:
            return False
        if self.links.separated(end.network.node.name, end.peer.network.node.name):
            return False
        end.network.chunk_size = size
        happened = False
        self._depth += 1
        try:
            happened = end.step()
        except Killed:
            happened = True
        finally:
            self._depth -= 1
        waiting = len(end._outgoing)
        # Too much to be told, and part of what must be the same.
        self.digest.update(f"{end.network.node.name} {happened} {waiting}\n".encode())
        if waiting > _MOST_OUTGOING:
            raise Broken(f"I3: {end.network.node.name} has {waiting} bytes for one peer")
        self.bury()
        return happened

    def lose(self, end: MemoryEnd, reason: str) -> None:
        """One end of a connection finds that it is lost."""
        self.links.black_holes.pop(end, None)
        self.guarded(lambda: end._lose(reason))
        if end.peer._open and end.peer not in self.links.black_holes:
            # Nobody answers it any more.
            self.links.black_holes[end.peer] = self.machine.monotonic + PEER_TIMEOUT

    def run(self) -> None:
        """Let everything be delivered that can be."""
        moving = True
        while moving:
            moving = False
            for end in list(self.links.ends):
                while end._open and self.step_end(end, 1 << 20):
                    moving = True
        self.check()

    def advance(self, seconds: float) -> None:
        self.machine.advance(seconds)
        for end, until in list(self.links.black_holes.items()):
            if self.machine.monotonic >= until:
                self.lose(end, "timed out")
        for node in self.nodes:
            if node.suspended and self.machine.monotonic > self.suspended_until[node.name]:
                node.suspended = False
            if node.up and not node.suspended:
                self.guarded(lambda node=node: node.network.advance(seconds))

    def _meanwhile(self, node: Node) -> None:
        """While a process waits for its disk, those who read from it go on."""
        if self._depth > 1 or self.rng.random() < 0.6:
            return
        self._depth += 2
        try:
            for _ in range(2):
                for end in list(self.links.ends):
                    if end._open and (_serves(end, node) or _serves(end.peer, node)):
                        self.step_end(end, 1 << 20)
            for each in self.nodes:
                if each is not node:
                    self.check_node(each)
        finally:
            self._depth -= 2

    # -- commits

    def commit_step(self) -> bool:
        """The next step of a transaction on the primary; False at its end, or if there is none."""
        node = self.primary
        if not node.up or node.suspended:
            return False
        if self.commits is None:
            # What a pack of whoever it is may have removed cannot come back.
            packed_to = max(each.packed_to for each in self.nodes)
            self.commits = self.application.commit(node.storage, packed_to)
        end = node.file_storage.getSize()
        failing = bool(node.disk.faults)
        self._depth += 1
        try:
            done = next(self.commits, None)
        except Killed:
            done = None
        except Exception as error:
            if not failing and not node.disk.dead:
                raise
            done = None
            self.tell(f"P cannot commit: {type(error).__name__}")
            self._abort_or_restart()
        finally:
            self._depth -= 1
        if done is None:
            self.commits = None
        else:
            self.tell(f"P {done}")
        if done == "finish":
            ((_, transaction),) = transactions(node.disk, end, node.file_storage.getSize())
            self.history.append(transaction)
            if any(each.blob for each in transaction.records):
                # ZODB renames blobs, and copies those of undone transactions, without a sync.
                node.disk.sync_all()
        self.bury()
        return done is not None

    def _abort_or_restart(self) -> None:
        node = self.primary
        storage = node.file_storage
        current = storage.tpc_transaction()
        try:
            if current is not None:
                storage.tpc_abort(current)
            whole = storage._file.seek(0, os.SEEK_END) == storage.getSize()
        except (Exception, Killed):
            # FileStorage closes itself when a sync has failed.
            whole = False
        if not whole:
            # What FileStorage has written and cannot cut off, a smaller transaction would cover in
            # part, and then the file could not be opened any more.
            node.disk.die()

    def commit(self) -> None:
        while self.commit_step():
            pass

    # -- what must hold

    def check_node(self, node: Node) -> None:
        if node.file_storage is None or node.disk.dead:
            return
        if node.name in self.foreign:
            if node.file_storage.lastTransaction() != self.foreign[node.name]:
                raise Broken(f"I8: {node.name} goes on behind what is of other origin")
            return
        if node.secondary is not None:
            progress = node.secondary.progress
            if progress.connections and not progress.connected and progress.last_error is None:
                raise Broken(f"I4: {node.name} is not connected and does not tell why")
        before = node.last_seen
        node.check(self.forks, self.missing)
        upstream = node.upstream
        if node.last_seen != before and upstream is not None and upstream.up:
            last = upstream.file_storage.lastTransaction()
            if node.last_seen > last and upstream.last_seen > before:
                raise Broken(
                    f"I9: {node.name} has {node.last_seen.hex()}, and {upstream.name}, which it "
                    f"has it from, no more than {last.hex()}"
                )

    def check(self) -> None:
        for node in self.nodes:
            self.check_node(node)
        primary = self.primary
        if primary.up and not primary.packed and primary.last_seen != self.history.last_tid:
            raise Broken(
                f"the primary has lost what was committed: {primary.last_seen.hex()} is its "
                f"last transaction, not {self.history.last_tid.hex()}"
            )

    def check_all(self) -> None:
        for node in self.nodes:
            if node.file_storage is not None and node.name not in self.foreign:
                node.check_all(self.forks, self.missing)

    def _check_no_temporary_files(self, node: Node) -> None:
        left = [name for name in temporary_blobs(node.disk) if name.startswith("zrs-")]
        # One that cannot be removed goes when the process starts again.
        if left and "unlink" not in node.disk.failed:
            raise Broken(f"I2: {node.name} has left {left}")

    def fork(self, tid: bytes) -> None:
        """The primary goes on from `tid`, and what came after it is lost."""
        self.history = self.history.until(tid)
        self.forks.append(self.history)

    # -- the end

    def heal(self) -> None:
        """All faults end; then all must be well again, by itself and soon."""
        self.tell("all is well again")
        self.machine.frozen = False
        self.links.cut_off.clear()
        while self.links.black_holes:
            self.lose(next(iter(self.links.black_holes)), "timed out")
        for end in self.flipped:
            for each in (end, end.peer):
                if each._open:
                    self.lose(each, "the connection was lost")
        for node in self.nodes:
            node.disk.heal()
            node.disk.kill_in = None
            node.suspended = False
            if node.up and ("fsync" in node.disk.failed or not node.blobs):
                # There is no way on from a failed sync but to look again at what is there.
                self.kill(node, power=False)
            node.blobs = True
        if self.commits is not None:
            self.commit()
        for node in self.nodes:
            if not node.up and not self.start(node):
                raise Broken(f"{node.name} does not start")
        self.commit()
        self.commit()
        self._renew()
        deadline = self.machine.monotonic + PEER_TIMEOUT + 3 * RECONNECT_DELAY[1]
        while not self._caught_up():
            if self.machine.monotonic > deadline:
                behind = [
                    f"{each.name} ({each.secondary.progress.last_error})"
                    for each in self.secondaries
                    if each.last_seen != self.primary.last_seen
                ]
                raise Broken(f"I5: not caught up: {', '.join(behind)}")
            self.advance(RECONNECT_DELAY[1] / 4)
            self.run()
        self.check_all()
        for node in reversed(self.nodes):
            self.stop(node)

    def _renew(self) -> None:
        """A person gives those that cannot go on a new disk, once they have stayed as they were."""
        self.advance(RECONNECT_DELAY[1])
        self.run()
        for node in self.secondaries:
            if node.name in self.foreign or (
                node.last_seen != NO_TID and node.last_seen not in self.history.places
            ):
                self.tell(f"{node.name} is given a new disk")
                self.kill(node, power=False)
                node.wipe()
                self.foreign.pop(node.name, None)
        for node in self.secondaries:
            if not node.up:
                self.start(node)

    def _caught_up(self) -> bool:
        self.run()
        last = self.history.last_tid
        return all(each.last_seen == last for each in self.nodes)


def _serves(end: MemoryEnd, node: Node) -> bool:
    """Whether it is the end at which a process is a primary for somebody."""
    driver = end.driver
    return (
        end.network.node is node
        and isinstance(driver, Driver)
        and isinstance(driver.session, PrimarySession)
    )
