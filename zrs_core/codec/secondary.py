"""The secondary's end of a connection."""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from ..errors import (
    ChecksumError,
    InvalidMessage,
    LimitExceeded,
    LocalProtocolError,
    RemoteProtocolError,
    TruncatedStream,
)
from ..messages import (
    BLOB_BLOCK_SIZE,
    MAX_BLOB_BLOCKS,
    NO_TID,
    BlobBlock,
    Commit,
    Hello,
    PrimaryMessage,
    SecondaryMessage,
    Start,
    Store,
    StoreBlob,
    Transaction,
)
from . import templates
from .checksum import RunningChecksum
from .connection import Connection
from .framing import prefix
from .machine import ENDS, PLAIN, TRANSITIONS, IllegalMessage, Role, State
from .opcodes import PickleError, end_of
from .pickles import RecordHeader, decode

#: Bytes in a pickled message: the three texts of a T may have 65,535 bytes each, twice that in the
#: spelling of Python 3 peers, and the rest is small.
MAX_PICKLE_SIZE: Final = 2**20

#: Bytes in a record. ZODB sets no bound itself, but it holds a record in memory as a whole.
MAX_RECORD_SIZE: Final = 2**30


# The opcode PROTO.
_PROTO: Final = b"\x80"


# Bytes of incomplete pickles that may be looked through, and how often all that has come may be:
# together the time stays linear, however a pickle arrives.
_FREE_LOOKS: Final = 64 * 1024
_LOOKS: Final = 8


class Incomplete(NamedTuple):
    """What has come in part.

    :param after: the last whole transaction, or the start.
    :param offset: the bytes of the stream before the message that is not complete.
    :param size: the bytes that its length announces; None before that has come.
    :param received: how many bytes of it have come, with those of the length.
    """

    after: bytes
    offset: int
    size: int | None
    received: int


class ChecksumPolicy(enum.Enum):
    """What is done with the checksum of a commit."""

    #: A commit without a checksum is an error.
    REQUIRE = "require"
    #: A checksum that is there must match; once one was there, a commit without is an error.
    VERIFY = "verify"
    #: A checksum that does not match is no error; `SecondaryConnection.mismatch` notes it.
    IGNORE = "ignore"


class SecondaryConnection(Connection[PrimaryMessage]):
    """Writes Hello, Start and KeepAlive; reads transactions, in both dialects.

    A blob's blocks come out one by one as they arrive; a record comes out whole.

    :param checksums: a `ChecksumPolicy` or its name: `require`, `verify`, `ignore`.
    :param max_pickle_size: the most bytes in a pickled message.
    :param max_record_size: the most bytes in a record.
    :param max_blob_blocks: the most blocks, of 65,536 bytes, in a blob.
    :raises ValueError: an unknown checksum policy.
    """

    _our_role = Role.SECONDARY
    _their_role = Role.PRIMARY

    def __init__(
        self,
        *,
        checksums: ChecksumPolicy | str = ChecksumPolicy.VERIFY,
        max_pickle_size: int = MAX_PICKLE_SIZE,
        max_record_size: int = MAX_RECORD_SIZE,
        max_blob_blocks: int = MAX_BLOB_BLOCKS,
    ) -> None:
        super().__init__()
        self._policy = ChecksumPolicy(checksums)
        self._max_pickle_size = max_pickle_size
        self._max_record_size = max_record_size
        self._max_blob_blocks = max_blob_blocks
        self._checksum = RunningChecksum(NO_TID)
        # An S or B that came and whose record has not.
        self._header: RecordHeader | None = None
        # Which dialect the peer speaks is seen at its first record or commit: here, whether it
        # was the newer one.
        self._newer_dialect = False
        self._checksum_seen = False
        #: True once a checksum that is ignored did not match what was received.
        self.mismatch = False
        #: Whether one of its records or commits was a pickle of protocol 2 or later, which zc.zrs
        #: never writes. (The protocol of a T may be that of the extension in it.)
        self.newer_pickles = False
        # Read already, the next one last.
        self._ready: list[PrimaryMessage] = []
        # Of a pickle that is not complete: the bytes that were looked at last, and in all.
        self._looked_at = self._looked = 0

    def send(self, message: SecondaryMessage) -> bytes:
        """The bytes of a message: first Hello, then Start, then any number of KeepAlive.

        :raises LocalProtocolError: the state forbids the message; nothing has changed.
        """
        try:
            next_state = self._machine.check(Role.SECONDARY, message)
        except IllegalMessage as error:
            raise LocalProtocolError(f"cannot send {type(message).__name__}: {error}") from error
        payload = b""
        match message:
            case Hello(protocol=word):
                payload = word.encode("ascii")
            case Start(tid=start):
                # Before the state allows to read: another thread may do so at once.
                self._checksum = RunningChecksum(start)
                payload = start
        self._machine.enter(Role.SECONDARY, next_state, message)
        return prefix(len(payload)) + payload

    @property
    def their_state(self) -> State:
        if not self._ready:
            return super().their_state
        # The machine is ahead of what was returned. Each message has one state that allows it.
        message = type(self._ready[-1])
        table = TRANSITIONS[Role.PRIMARY]
        return next(state for state, allowed in table.items() if message in allowed)

    def _next(self) -> PrimaryMessage | None:
        return self._ready.pop() if self._ready else super()._next()

    @property
    def incomplete(self) -> Incomplete | None:
        """What has come in part, when all complete messages are read; None between transactions."""
        machine, frames = self._machine, self._frames
        if self.error is not None or (machine.tid is None and not frames.waiting):
            return None
        return Incomplete(machine.last_tid, frames.offset, frames.announced(), frames.waiting)

    def _read_message(self) -> PrimaryMessage | None:
        try:
            message = self._read_run()
            if message is None:
                message = self._parse()
                if message is not None:
                    self._machine.process(Role.PRIMARY, message)
        except (IllegalMessage, InvalidMessage) as error:
            raise RemoteProtocolError(str(error)) from error
        except PickleError as error:
            raise RemoteProtocolError(f"bad pickle: {error}") from error
        return message

    def _read_run(self) -> PrimaryMessage | None:
        """The first of as many messages as are written as this package does, the others ready."""
        machine, frames = self._machine, self._frames
        frames.advance()
        if machine.blocks_left:
            return self._read_blocks()
        if self._header is not None or machine.state(Role.PRIMARY) not in PLAIN:
            return None
        if self._max_pickle_size < templates.MAX_PICKLE_SIZE:
            return None
        messages, end, tid, last_tid, checksums, mismatch = templates.read_run(
            frames.buffer,
            frames.begin,
            machine.tid,
            machine.last_tid,
            self._checksum,
            check=self._policy is not ChecksumPolicy.IGNORE,
            max_record_size=self._max_record_size,
        )
        if not messages:
            return None
        frames.begin = end
        machine.advance(tid, last_tid)
        self.mismatch = self.mismatch or mismatch
        if checksums:
            self._checksum_seen = self._policy is not ChecksumPolicy.IGNORE
        if len(messages) > 1 or not isinstance(messages[0], Transaction):
            self._newer_dialect = self.newer_pickles = True
        return self._first_of(messages)

    def _read_blocks(self) -> PrimaryMessage | None:
        frames, machine = self._frames, self._machine
        blocks, frames.begin = templates.read_blocks(
            frames.buffer, frames.begin, machine.blocks_left, self._checksum
        )
        if not blocks:
            return None
        machine.advance_in_blob(len(blocks))
        return self._first_of(blocks)

    def _first_of(self, messages: list[PrimaryMessage]) -> PrimaryMessage:
        messages.reverse()
        self._ready = messages
        return messages.pop()

    def _parse(self) -> PrimaryMessage | None:
        state = self._machine.state(Role.PRIMARY)
        if state is State.SILENT:
            if self._frames.waiting:
                raise RemoteProtocolError("the primary spoke before it was asked")
            return None
        if state is State.IN_BLOB:
            block = self._take(BLOB_BLOCK_SIZE)
            return None if block is None else BlobBlock(block)
        if self._header is None:
            message = self._parse_pickle(state)
            if message is not None:
                return message
        return self._parse_record()

    def _parse_pickle(self, state: State) -> Transaction | Store | Commit | None:
        """A message that is a pickle alone; of one with a record behind it, `_header` is set."""
        limit = self._max_pickle_size
        if state is State.IN_TRANSACTION and not self._newer_dialect:
            # It may be an S of the older dialect, with its record inside.
            limit += self._max_record_size
        payload = self._frames.take(limit)
        if payload is None:
            self._check_partial_pickle()
            return None
        self._looked_at = self._looked = 0
        message = decode(payload)
        if payload.startswith(_PROTO) and not isinstance(message, Transaction):
            self.newer_pickles = True
        if isinstance(message, Commit):
            self._check_commit(message)
        # A commit's checksum covers what came before the commit, so this comes after the check.
        self._checksum.update(payload)
        if isinstance(message, RecordHeader):
            self._expect_record(message)
            return None
        if isinstance(message, Store) and len(message.data) > self._max_record_size:
            raise LimitExceeded(
                f"a record of {len(message.data)} bytes, "
                f"where at most {self._max_record_size} are allowed"
            )
        return message

    def _check_partial_pickle(self) -> None:
        """Refuse a message whose length is longer than its pickle before all of it has come.

        If that length was damaged on the way, the rest is what follows, perhaps hours of it.
        """
        size = self._frames.announced()
        here = min(self._frames.waiting, self._max_pickle_size)
        if size is None or here == self._looked_at:
            return
        if self._looked > _FREE_LOOKS + _LOOKS * here and not self._eof:
            return
        self._looked_at = here
        self._looked += here
        partial = self._frames.partial(self._max_pickle_size)
        # No end without STOP.
        end = end_of(partial) if b"." in partial else None
        if end is not None:
            raise PickleError(f"{size - end} bytes follow its STOP")

    def _expect_record(self, header: RecordHeader) -> None:
        # A message that the state forbids is refused before its record is waited for.
        self._machine.check(Role.PRIMARY, header.with_data(b""))
        if header.blocks is not None and header.blocks > self._max_blob_blocks:
            raise LimitExceeded(
                f"a blob of {header.blocks} blocks, "
                f"where at most {self._max_blob_blocks} are allowed"
            )
        self._header = header
        self._newer_dialect = True

    def _parse_record(self) -> Store | StoreBlob | None:
        if self._header is None:
            return None
        data = self._take(self._max_record_size)
        if data is None:
            return None
        message = self._header.with_data(data)
        self._header = None
        return message

    def _take(self, limit: int) -> bytes | None:
        payload = self._frames.take(limit)
        if payload is not None:
            self._checksum.update(payload)
        return payload

    def _check_commit(self, commit: Commit) -> None:
        self._machine.check(Role.PRIMARY, commit)
        if self._policy is ChecksumPolicy.IGNORE:
            received = commit.checksum
            self.mismatch = self.mismatch or received not in (None, self._checksum.digest())
            return
        if commit.checksum is None:
            if self._policy is ChecksumPolicy.REQUIRE or self._checksum_seen:
                raise ChecksumError("a commit without a checksum")
            return
        self._newer_dialect = True
        self._checksum_seen = True
        digest = self._checksum.digest()
        if commit.checksum != digest:
            raise ChecksumError(
                f"the checksum {commit.checksum.hex()} does not match what was received, "
                f"which has {digest.hex()}"
            )

    def _check_end(self) -> None:
        super()._check_end()
        if self._machine.state(Role.PRIMARY) not in ENDS:
            left = self._machine.blocks_left
            where = f", {left} blob blocks before its next message" if left else ""
            raise TruncatedStream(f"the stream ended in the middle of a transaction{where}")
