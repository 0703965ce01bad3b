"""What happens in a run besides commits: faults of every class, switched in and out by chance."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable

from persistent.TimeStamp import TimeStamp
from ZODB.Connection import TransactionMetaData
from ZODB.serialize import referencesf
from ZODB.utils import p64, u64

from zrs_core.codec import PrimaryConnection
from zrs_core.codec.framing import prefix
from zrs_core.messages import Commit, Start, Store, Transaction
from zrs_core.transports.memory import MemoryEnd

from . import reading
from .model import NO_TID, Broken
from .world import PEER_TIMEOUT, World

_HOUR = 3600.0
_TEN_YEARS = 10 * 365 * 24 * _HOUR


# -- network


def cut(world: World) -> None:
    """A connection is lost, with what is on its way, wherever that has been cut."""
    if world.links.ends:
        end = world.rng.choice(world.links.ends)
        for each in (end, end.peer):
            world.lose(each, "the connection was lost")


def half_open(world: World) -> None:
    """One end hears nothing any more, or both."""
    if world.links.ends:
        end = world.rng.choice(world.links.ends)
        until = world.machine.monotonic + PEER_TIMEOUT
        world.links.black_holes[end] = until
        if world.rng.random() < 0.5:
            world.links.black_holes[end.peer] = until


def trickle(world: World) -> None:
    """Byte by byte."""
    for _ in range(world.rng.randrange(30)):
        if world.links.ends:
            world.step_end(world.rng.choice(world.links.ends), 1)


def flip(world: World) -> None:
    """A bit is another one when it arrives."""
    ends = [end for end in world.links.ends if end._outgoing]
    if ends:
        end = world.rng.choice(ends)
        place = world.rng.randrange(len(end._outgoing))
        end._outgoing[place] ^= 1 << world.rng.randrange(8)
        world.flipped.append(end)


def partition(world: World) -> None:
    """A machine cannot reach another one; in the middle of the chain, both of its sides."""
    node = world.rng.choice(world.secondaries)
    pair = node.name, node.upstream.name if node.upstream is not None else ""
    if pair in world.links.cut_off:
        world.links.cut_off.remove(pair)
    else:
        world.links.cut_off.append(pair)


def storm(world: World) -> None:
    """All come back at once, again and again."""
    for _ in range(3):
        for end in list(world.links.ends):
            if end._open:
                world.lose(end, "the connection was lost")
        world.advance(9.0)


# -- processes


def kill(world: World) -> None:
    """At one of the next system calls, whichever that is."""
    node = world.rng.choice(world.nodes)
    if node.up and node.disk.kill_in is None:
        node.disk.kill_in = world.rng.choice((1, 2, 3, 5, 8, 13, 21, 34))
        if world.rng.random() < 0.5:
            world.power_fails.append(node)


def kill_now(world: World) -> None:
    node = world.rng.choice(world.nodes)
    if node.up:
        world.kill(node, power=world.rng.random() < 0.5)


def terminate(world: World) -> None:
    node = world.rng.choice(world.nodes)
    if node.up:
        world.stop(node)


def suspend(world: World) -> None:
    """SIGSTOP, and SIGCONT a minute later."""
    node = world.rng.choice(world.nodes)
    if node.suspended:
        node.suspended = False
    elif node.up:
        node.suspended = True
        world.suspended_until[node.name] = world.machine.monotonic + 60.0


def restart_all(world: World) -> None:
    for node in world.nodes:
        if node.up:
            world.kill(node, power=False)
    for node in world.nodes:
        world.start(node)


def no_memory(world: World) -> None:
    _fail_once(world, lambda: MemoryError())


def exception_in_callback(world: World) -> None:
    """What a database does that is told of a transaction."""
    node = world.rng.choice(world.secondaries)
    if node.up:
        node.storage.registerDB(_Database())


class _Database:
    def invalidate(self, tid: bytes, oids: list[bytes]) -> None:
        raise RuntimeError("told of a transaction")

    def transform_record_data(self, data: bytes) -> bytes:
        return data

    untransform_record_data = transform_record_data


# -- disks


def _fail_once(world: World, make: Callable[[], BaseException]) -> None:
    disk = world.rng.choice(world.nodes).disk
    call = world.rng.choice(("read", "write", "open", "fsync", "truncate", "rename", "unlink"))
    disk.faults[call] = make, world.rng.choice((1, 1, 2, 3))


def io_error(world: World) -> None:
    _fail_once(world, lambda: OSError(errno.EIO, os.strerror(errno.EIO)))


def full_disk(world: World) -> None:
    """Until there is room again."""
    disk = world.rng.choice(world.nodes).disk
    if "write" in disk.faults:
        disk.heal()
    else:
        for call in ("write", "mkdir"):
            disk.faults[call] = lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 1 << 30


def failing_sync(world: World) -> None:
    """Once, or for ever."""
    disk = world.rng.choice(world.nodes).disk
    times = world.rng.choice((1, 2, 1 << 30))
    disk.faults["fsync"] = lambda: OSError(errno.EIO, os.strerror(errno.EIO)), times


def cannot_open(world: World) -> None:
    number = world.rng.choice((errno.EMFILE, errno.EACCES))
    disk = world.rng.choice(world.nodes).disk
    disk.faults["open"] = lambda: OSError(number, os.strerror(number)), world.rng.choice((1, 5))


def short_writes(world: World) -> None:
    disk = world.rng.choice(world.nodes).disk
    disk.short_writes = not disk.short_writes


def heal_disks(world: World) -> None:
    for node in world.nodes:
        node.disk.heal()


def lose_blob(world: World) -> None:
    """A blob's file is gone on the primary: its record goes without it, and is counted."""
    found = [
        (each.oid, transaction.tid)
        for transaction in world.history.transactions
        for each in transaction.records
        if each.blob is not None and (each.oid, transaction.tid) not in world.missing
    ]
    if found:
        oid, tid = world.rng.choice(found)
        world.missing[oid, tid] = True
        reading.remove_blob(world.primary.disk, oid, tid)


def no_index(world: World) -> None:
    """The index is gone, or is one of long ago."""
    node = world.rng.choice(world.nodes)
    entries = node.disk.top.entries
    index = entries.get("Data.fs.index")
    if index is not None and not node.up:
        if node.name in world.old_indexes and world.rng.random() < 0.5:
            index.data[:] = world.old_indexes[node.name]
        else:
            world.old_indexes[node.name] = bytes(index.data)
            del entries["Data.fs.index"]
            index.data.clear()


def rot(world: World) -> None:
    """A length in the midst of the primary's file is damaged, and mended again."""
    node = world.primary
    if node.up and len(world.history.transactions) > 3 and not node.packed:
        world.check()
        file = reading.data_file(node.disk)
        found = reading.transactions(node.disk, 4, node.file_storage.getSize())
        place = world.rng.choice(found[:-1])[0] + 8
        file.data[place] ^= 0x40
        rotten = file.data[place]
        cut(world)
        world.advance(9.0)
        world.run()
        if place < len(file.data) and file.data[place] == rotten:
            file.data[place] ^= 0x40


def pack(world: World) -> None:
    """While others read from it; one that is being written to would only wait."""
    node = world.rng.choice(world.nodes)
    if not node.up or node.suspended or node.busy or world.foreign or len(world.forks) > 1:
        return
    if "fsync" in node.disk.faults or "fsync" in node.disk.failed:
        # What ZODB has not synced would be lost, and what was there before is removed.
        return
    # To an earlier time than before a pack does not find its way.
    held = [each.tid for each in world.history.transactions[1:] if each.tid > node.packed_to]
    if not held:
        return
    tid = world.rng.choice(held)
    to = TimeStamp(tid).timeTime() + 0.001
    node.packed_to = max(node.packed_to, TimeStamp(*time.gmtime(to)[:5], to % 60).raw())
    node.packed = True
    node.safe_tid = NO_TID
    # ZODB gives the new file its name, and syncs nothing: what a power loss would leave meanwhile,
    # or right after it, is nothing that can be held against us.
    world.power_fails[:] = [each for each in world.power_fails if each is not node]
    world.may_fail(node, lambda: node.storage.pack(to, referencesf))
    if not node.disk.dead:
        node.disk.sync_all()


# -- clocks


# Where histories have diverged, a wrong clock could make the same tids twice, as no chance would.


def clock_back(world: World) -> None:
    if len(world.forks) == 1:
        world.machine.wall -= _HOUR


def clock_far_ahead(world: World) -> None:
    world.machine.wall += _TEN_YEARS


def clock_frozen(world: World) -> None:
    if len(world.forks) == 1:
        world.machine.frozen = not world.machine.frozen


# -- peers


def stranger(world: World) -> None:
    """Somebody connects and says what nobody expects, or nothing, and reads nothing."""
    address = world.rng.choice((world.primary, world.nodes[2])).address
    words = (
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff",
        b"\0\0\0\6zrs2.1",
        b"\0\0\0\6zrs2.0\0\0\0\x08" + bytes(8),
        b"\0\0\0\6zrs2.1\0\0\0\x08" + bytes(8),
        b"\0\0\0\6zrs2.1\0\0\0\x08" + world.rng.randbytes(8),
        b"\0\0\0\6zrs2.1\0\0\0\x08" + bytes(8) + b"\0\0\0\1x",
        world.rng.randbytes(40),
    )
    for _ in range(world.rng.choice((1, 1, 10))):
        try:
            end = world.stranger.network.connect(address)
        except ConnectionRefusedError:
            return
        end.write(world.rng.choice(words))
        world.step_end(end, 1 << 20)
        if world.rng.random() < 0.5:
            end.close()


#: What a peer has called; it stays empty.
CALLED: list[str] = []


def trap() -> None:
    CALLED.append("from a pickle")


# A pickle that calls it.
_CALL = b"c%s\ntrap\n(tR." % __name__.encode()


def impostor(world: World) -> None:
    """Somebody listens where the primary did, and sends what must not be taken."""
    node = world.primary
    if node.up:
        return
    listener = world.stranger.network.listen(node.address)
    try:
        world.advance(9.0)
        for end in listener._waiting:
            # It must have greeted.
            for _ in range(3):
                world.step_end(end.peer, 1 << 20)
            _mislead(world, end)
    finally:
        listener.close()


def _mislead(world: World, end: MemoryEnd) -> None:
    """Send a secondary what it has already, with the right checksum, or no message at all."""
    connection = PrimaryConnection(blobs=False)
    connection.receive_data(end.read())
    messages = list(connection.messages())
    start = next((each.tid for each in messages if isinstance(each, Start)), NO_TID)
    if start != NO_TID and world.rng.random() < 0.5:
        tid = world.rng.choice((start, p64(u64(start) - 1)))
        # It would not send that by itself.
        connection._machine.last_tid = NO_TID
        for message in (Transaction(tid, " ", b"", b"", b""), Store(bytes(8), tid, b"x"), Commit()):
            end.write(connection.send(message))
    else:
        end.write(
            world.rng.choice(
                (
                    prefix(len(_CALL)) + _CALL,
                    b"\xff\xff\xff\xff",
                    world.rng.randbytes(100),
                    b"\0\0\0\4\x80\x03N.",
                )
            )
        )
    for _ in range(3):
        world.step_end(end, 1 << 20)


# -- configuration


def port_in_use(world: World) -> None:
    node = world.primary
    if node.up:
        return
    listener = world.stranger.network.listen(node.address)
    try:
        if world.start(node):
            raise Broken("S10: a primary listens where somebody else does")
    finally:
        listener.close()


def without_blobs(world: World) -> None:
    """A secondary without a blob directory, which the primary refuses."""
    node = world.rng.choice(world.secondaries)
    if not node.up and "blobs" not in node.disk.top.entries:
        node.blobs = False
        world.start(node)


def ring(world: World) -> None:
    """One that follows itself, for a while: it has nothing new to tell."""
    node = world.nodes[2]
    if node.up and node.upstream is not None and not node.suspended:
        back = node.upstream.address
        world.guarded(lambda: node.secondary.setReplicationAddress(node.address))
        world.run()
        if node.up:
            world.guarded(lambda: node.secondary.setReplicationAddress(back))


def _not_comparable(world: World) -> bool:
    # Where a pack has been, a primary cannot tell what was packed away from what never was.
    return len(world.forks) > 1 or any(each.packed for each in world.nodes)


def second_writer(world: World) -> None:
    """Somebody writes to a secondary's file: nothing may be put behind that, or in its place."""
    node = world.rng.choice((world.nodes[1], world.nodes[3]))
    if node.name in world.foreign or not node.up or node.busy or _not_comparable(world):
        return
    if node.disk.faults or node.disk.kill_in is not None or node.last_seen == NO_TID:
        return
    storage = node.file_storage
    transaction = TransactionMetaData()
    tid = p64(u64(node.last_seen) + world.rng.randrange(3, 1 << 20))
    if tid in world.history.places:
        return
    storage.tpc_begin(transaction, tid)
    storage.store(storage.new_oid(), bytes(8), b"foreign", "", transaction)
    storage.tpc_vote(transaction)
    world.foreign[node.name] = storage.tpc_finish(transaction)


def old_backup(world: World) -> None:
    """The primary's machine is replaced: its file is that of some time ago."""
    node = world.primary
    held = world.history.transactions
    if len(held) < 3 or _not_comparable(world) or world.foreign:
        return
    if node.up:
        world.kill(node, power=False)
    kept = world.rng.choice(held[:-1])
    file = reading.data_file(node.disk)
    found = reading.transactions(node.disk, 4, len(file.data), unfinished=True)
    file.truncate(next(end for end, transaction in found if transaction.tid == kept.tid))
    node.disk.top.entries.pop("Data.fs.index", None)
    node.disk.sync_all()
    node.safe_tid = node.last_seen = kept.tid
    # Its clock goes right: what it has lost and what will come have different tids.
    world.machine.frozen = False
    latest = TimeStamp(held[-1].tid).timeTime()
    world.machine.wall = max(world.machine.wall, latest) + 1.0
    world.fork(kept.tid)


def wrong_directory(world: World) -> None:
    """A secondary is started over the data of another database."""
    node = world.rng.choice((world.nodes[1], world.nodes[3]))
    if node.up or node.name in world.foreign or _not_comparable(world):
        return
    if not world.history.transactions:
        return
    node.wipe()
    tid = p64(u64(world.history.last_tid) - world.rng.randrange(3, 1 << 20))
    if tid not in world.history.places:
        reading.write_other_database(node.disk, tid)
        world.foreign[node.name] = tid


#: Each with the weight that it has among the others.
FAULTS: dict[Callable[[World], None], int] = {
    cut: 6,
    half_open: 2,
    trickle: 3,
    flip: 3,
    partition: 2,
    storm: 1,
    kill: 6,
    kill_now: 3,
    terminate: 2,
    suspend: 1,
    restart_all: 1,
    no_memory: 1,
    exception_in_callback: 1,
    io_error: 3,
    full_disk: 2,
    failing_sync: 2,
    cannot_open: 2,
    short_writes: 1,
    lose_blob: 1,
    no_index: 2,
    rot: 1,
    pack: 4,
    clock_back: 1,
    clock_far_ahead: 1,
    clock_frozen: 1,
    stranger: 2,
    impostor: 2,
    port_in_use: 1,
    without_blobs: 1,
    ring: 1,
    second_writer: 1,
    old_backup: 1,
    wrong_directory: 1,
}
