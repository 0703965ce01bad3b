"""The state table of both ends.

Two laws:

1. A message is legal if, and only if, `TRANSITIONS` has an entry for it: role -> state -> type of
   message -> next state. A missing entry *is* the protocol error.
2. Nothing outside this file changes a state.

`State.CLOSED` and `State.ERROR` are not in the table: a connection reports them in place of the
peer's state when the peer's stream has ended or broken the protocol, and reads nothing after that.

Theory of operation. A connection has two directions, and each its own state: the secondary's, in
which Hello, Start and KeepAlive travel, and the primary's, with transactions. Both ends keep one
`Machine` for both directions and feed it every message they send or receive, so that the two
machines agree. The directions meet once, in `COUPLINGS`: once the secondary listens, the primary
may speak.

A blob is a countdown: StoreBlob leads to `IN_BLOB`, and once no block is left, which for an empty
blob is at once, that state gives way to `IN_TRANSACTION`. Besides its table the primary's
direction has two rules that run through all messages: tids rise, and a record's serial is the tid
of its transaction.

Threads. One thread may feed the messages of one direction while another feeds those of the other.
After the coupling they share nothing that either writes. The coupling itself is one assignment,
made after everything that the other direction reads.
"""

from __future__ import annotations

import enum
from typing import Final

from ..messages import (
    BLOB_BLOCK_SIZE,
    NO_TID,
    BlobBlock,
    Commit,
    Hello,
    KeepAlive,
    PrimaryMessage,
    SecondaryMessage,
    Start,
    Store,
    StoreBlob,
    Transaction,
)
from .dialects import DIALECTS, ZRS_2_0


class Role(enum.Enum):
    """The sender of a direction."""

    # Members are compared by identity; an Enum's own hash is a call for each look-up.
    __hash__ = object.__hash__

    PRIMARY = "primary"
    SECONDARY = "secondary"


class State(enum.Enum):
    """What is to come in a direction."""

    __hash__ = object.__hash__

    #: secondary: it sends its protocol word
    EXPECT_HELLO = "about to say hello"
    #: secondary: it sends the tid to start after
    EXPECT_START = "about to name its start"
    #: secondary: it sends nothing but signs of life
    LISTENING = "listening"
    #: primary: it may not speak yet
    SILENT = "waiting for a start"
    #: primary: the next transaction
    BETWEEN_TRANSACTIONS = "between transactions"
    #: primary: a record or the commit
    IN_TRANSACTION = "in a transaction"
    #: primary: the next block of a blob
    IN_BLOB = "in a blob"
    #: either: nothing; its stream has ended where `ENDS` allows it
    CLOSED = "closed"
    #: either: nothing that is read; it broke the protocol
    ERROR = "in error"


Message = SecondaryMessage | PrimaryMessage

TRANSITIONS: Final[dict[Role, dict[State, dict[type, State]]]] = {
    Role.SECONDARY: {
        State.EXPECT_HELLO: {Hello: State.EXPECT_START},
        State.EXPECT_START: {Start: State.LISTENING},
        State.LISTENING: {KeepAlive: State.LISTENING},
    },
    Role.PRIMARY: {
        State.SILENT: {},
        State.BETWEEN_TRANSACTIONS: {Transaction: State.IN_TRANSACTION},
        State.IN_TRANSACTION: {
            Store: State.IN_TRANSACTION,
            StoreBlob: State.IN_BLOB,
            Commit: State.BETWEEN_TRANSACTIONS,
        },
        State.IN_BLOB: {BlobBlock: State.IN_BLOB},
    },
}

#: The states in which a stream may end, which leads to `State.CLOSED`.
ENDS: Final = frozenset(
    (
        State.EXPECT_HELLO,
        State.EXPECT_START,
        State.LISTENING,
        State.SILENT,
        State.BETWEEN_TRANSACTIONS,
    )
)

#: Where a primary's message may come that is no blob block.
PLAIN: Final = (State.BETWEEN_TRANSACTIONS, State.IN_TRANSACTION)

#: Where one direction's new state moves the other: (role, new state) -> (role, new state).
COUPLINGS: Final[dict[tuple[Role, State], tuple[Role, State]]] = {
    (Role.SECONDARY, State.LISTENING): (Role.PRIMARY, State.BETWEEN_TRANSACTIONS),
}


class IllegalMessage(Exception):
    """A message that the state forbids; whose fault it is the connection knows."""


class Machine:
    """The states of both directions of one connection.

    `tid` is the transaction that is under way, None between transactions; `last_tid` the start
    or the last transaction that was committed; `blocks_left` counts the blocks of the current
    blob that are to come; `dialect` is what Hello asked for (zrs2.0 before that).
    """

    def __init__(self) -> None:
        self._states = {Role.SECONDARY: State.EXPECT_HELLO, Role.PRIMARY: State.SILENT}
        self.dialect = ZRS_2_0
        self.tid: bytes | None = None
        self.last_tid = NO_TID
        self.blocks_left = 0

    def state(self, role: Role) -> State:
        """The state of the direction in which `role` sends."""
        return self._states[role]

    def process(self, role: Role, message: Message) -> None:
        """`role` sends `message`: check it and go to the next state.

        :raises IllegalMessage: the state forbids it; nothing has changed.
        """
        self.enter(role, self.check(role, message), message)

    def enter(self, role: Role, next_state: State, message: Message) -> None:
        """`role` sends `message`, for which `check` has given `next_state`."""
        if next_state is self._states[role]:
            self._apply(message)
            return
        self._states[role] = next_state
        self._apply(message)
        coupled = COUPLINGS.get((role, next_state))
        if coupled is not None:
            # Last: the thread of the other direction may go on from here at once.
            self._states[coupled[0]] = coupled[1]

    def check(self, role: Role, message: Message) -> State:
        """The state to which `message` from `role` would lead.

        :raises IllegalMessage: the present state forbids it.
        """
        state = self._states[role]
        next_state = TRANSITIONS[role][state].get(type(message))
        if next_state is None:
            raise IllegalMessage(
                f"a {type(message).__name__} from the {role.value}, which is {state.value}"
            )
        self._check_fields(message)
        return next_state

    def _check_fields(self, message: Message) -> None:
        # The frequent ones first.
        if isinstance(message, (Store, StoreBlob)):
            if message.serial != self.tid:
                raise IllegalMessage(
                    f"a record's serial 0x{message.serial.hex()} is not the tid of its transaction"
                )
            if isinstance(message, StoreBlob) and not self.dialect.blobs:
                raise IllegalMessage(f"a blob in {self.dialect.word}, which has none")
        elif isinstance(message, BlobBlock):
            size = len(message.data)
            if self.blocks_left > 1 and size != BLOB_BLOCK_SIZE:
                raise IllegalMessage(
                    f"a blob block of {size} bytes that is not the last one; "
                    f"all others have {BLOB_BLOCK_SIZE}"
                )
        elif isinstance(message, Transaction):
            if message.tid <= self.last_tid:
                raise IllegalMessage(
                    f"transaction 0x{message.tid.hex()} does not follow "
                    f"0x{self.last_tid.hex()}: tids rise"
                )
        elif isinstance(message, Hello) and message.protocol not in DIALECTS:
            raise IllegalMessage(f"Invalid protocol {message.protocol!r}")

    def advance(self, tid: bytes | None, last_tid: bytes) -> None:
        """The primary has sent a run of legal messages, no blob among them, and is now in `tid`."""
        self.tid = tid
        self.last_tid = last_tid
        self._states[Role.PRIMARY] = (
            State.BETWEEN_TRANSACTIONS if tid is None else State.IN_TRANSACTION
        )

    def advance_in_blob(self, blocks: int) -> None:
        """The primary has sent so many blocks, all of them legal."""
        self.blocks_left -= blocks
        self._leave_blob()

    def _apply(self, message: Message) -> None:
        if isinstance(message, Store):
            return
        if isinstance(message, BlobBlock):
            self.advance_in_blob(1)
        elif isinstance(message, Transaction):
            self.tid = message.tid
        elif isinstance(message, Commit):
            self.last_tid = self.tid or self.last_tid
            self.tid = None
        elif isinstance(message, StoreBlob):
            self.blocks_left = message.blocks
            self._leave_blob()
        elif isinstance(message, Hello):
            self.dialect = DIALECTS[message.protocol]
        elif isinstance(message, Start):
            self.last_tid = message.tid

    def _leave_blob(self) -> None:
        if not self.blocks_left:
            self._states[Role.PRIMARY] = State.IN_TRANSACTION
