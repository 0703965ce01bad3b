import itertools

import pytest

from zrs_core.codec.dialects import ZRS_2_0, ZRS_2_1
from zrs_core.codec.machine import (
    COUPLINGS,
    ENDS,
    TRANSITIONS,
    IllegalMessage,
    Machine,
    Role,
    State,
)
from zrs_core.messages import (
    BLOB_BLOCK_SIZE,
    NO_TID,
    BlobBlock,
    Commit,
    Hello,
    KeepAlive,
    Start,
    Store,
    StoreBlob,
    Transaction,
)

from .helpers import OID, TID, TID_2

FULL = BlobBlock(bytes(BLOB_BLOCK_SIZE))

#: One legal message of each type, in the first state that allows it.
SAMPLES = [
    Hello("zrs2.1"),
    Start(NO_TID),
    KeepAlive(),
    Transaction(TID),
    Store(OID, TID),
    StoreBlob(OID, TID, b"", None, 2),
    FULL,
    Commit(),
]

#: How to come to each state of each direction.
PATHS = {
    (Role.SECONDARY, State.EXPECT_HELLO): [],
    (Role.SECONDARY, State.EXPECT_START): [Hello("zrs2.1")],
    (Role.SECONDARY, State.LISTENING): [Hello("zrs2.1"), Start(NO_TID)],
    (Role.PRIMARY, State.SILENT): [Hello("zrs2.1")],
    (Role.PRIMARY, State.BETWEEN_TRANSACTIONS): [Hello("zrs2.1"), Start(NO_TID)],
    (Role.PRIMARY, State.IN_TRANSACTION): [Hello("zrs2.1"), Start(NO_TID), Transaction(TID)],
    (Role.PRIMARY, State.IN_BLOB): [
        Hello("zrs2.1"),
        Start(NO_TID),
        Transaction(TID),
        StoreBlob(OID, TID, b"", None, 2),
    ],
}


def machine_after(messages):
    machine = Machine()
    for message in messages:
        from_secondary = isinstance(message, (Hello, Start, KeepAlive))
        machine.process(Role.SECONDARY if from_secondary else Role.PRIMARY, message)
    return machine


def snapshot(machine):
    states = tuple(machine.state(role) for role in Role)
    return states, machine.dialect, machine.tid, machine.last_tid, machine.blocks_left


def refused(machine, role, message):
    """Why `message` is refused, by a machine that stays as it was."""
    before = snapshot(machine)
    with pytest.raises(IllegalMessage) as caught:
        machine.process(role, message)
    assert snapshot(machine) == before
    return str(caught.value)


def test_every_state_has_a_path_and_every_path_its_state():
    assert set(PATHS) == {(role, state) for role in Role for state in TRANSITIONS[role]}
    for (role, state), path in PATHS.items():
        assert machine_after(path).state(role) is state


@pytest.mark.parametrize(("place", "message"), list(itertools.product(PATHS, SAMPLES)))
def test_a_message_is_legal_if_and_only_if_the_table_has_it(place, message):
    role, state = place
    machine = machine_after(PATHS[place])
    next_state = TRANSITIONS[role][state].get(type(message))
    if next_state is None:
        assert refused(machine, role, message) == (
            f"a {type(message).__name__} from the {role.value}, which is {state.value}"
        )
    else:
        assert machine.check(role, message) is next_state
        machine.process(role, message)
        assert machine.state(role) is next_state


def test_the_primary_may_speak_once_the_secondary_listens():
    assert COUPLINGS == {
        (Role.SECONDARY, State.LISTENING): (Role.PRIMARY, State.BETWEEN_TRANSACTIONS)
    }
    machine = machine_after([Hello("zrs2.1")])
    assert machine.state(Role.PRIMARY) is State.SILENT
    machine.process(Role.SECONDARY, Start(NO_TID))
    assert machine.state(Role.PRIMARY) is State.BETWEEN_TRANSACTIONS


def test_a_stream_may_end_anywhere_but_in_a_transaction():
    states = {state for table in TRANSITIONS.values() for state in table}
    assert states - ENDS == {State.IN_TRANSACTION, State.IN_BLOB}
    assert {*State} - states == {State.CLOSED, State.ERROR}


def test_a_keep_alive_does_not_disturb_a_transaction():
    machine = machine_after(PATHS[Role.PRIMARY, State.IN_BLOB])
    before = snapshot(machine)
    machine.process(Role.SECONDARY, KeepAlive())
    assert snapshot(machine) == before


def test_hello_chooses_the_dialect():
    assert Machine().dialect is ZRS_2_0
    assert machine_after([Hello("zrs2.0")]).dialect is ZRS_2_0
    assert machine_after([Hello("zrs2.1")]).dialect is ZRS_2_1


def test_an_unknown_word_is_refused():
    assert refused(Machine(), Role.SECONDARY, Hello("zrs9.9")) == "Invalid protocol 'zrs9.9'"


def test_a_blob_is_refused_in_the_dialect_without():
    machine = machine_after([Hello("zrs2.0"), Start(NO_TID), Transaction(TID)])
    reason = refused(machine, Role.PRIMARY, StoreBlob(OID, TID, b"", None, 0))
    assert reason == "a blob in zrs2.0, which has none"


@pytest.mark.parametrize("message", [Store(OID, TID_2), StoreBlob(OID, TID_2, b"", None, 1)])
def test_a_serial_that_is_not_the_transaction_is_refused(message):
    machine = machine_after(PATHS[Role.PRIMARY, State.IN_TRANSACTION])
    assert refused(machine, Role.PRIMARY, message) == (
        f"a record's serial 0x{TID_2.hex()} is not the tid of its transaction"
    )


@pytest.mark.parametrize("tid", [NO_TID, TID])
def test_tids_rise_from_the_start(tid):
    machine = machine_after([Hello("zrs2.1"), Start(TID)])
    assert refused(machine, Role.PRIMARY, Transaction(tid)) == (
        f"transaction 0x{tid.hex()} does not follow 0x{TID.hex()}: tids rise"
    )
    machine.process(Role.PRIMARY, Transaction(TID_2))


def test_tids_rise_from_commit_to_commit():
    machine = machine_after([Hello("zrs2.1"), Start(NO_TID), Transaction(TID_2), Commit()])
    assert (machine.tid, machine.last_tid) == (None, TID_2)
    assert "tids rise" in refused(machine, Role.PRIMARY, Transaction(TID))


def test_a_transaction_is_under_way_until_its_commit():
    machine = machine_after([Hello("zrs2.1"), Start(NO_TID), Transaction(TID)])
    assert (machine.tid, machine.last_tid) == (TID, NO_TID)


def test_an_empty_blob_has_no_blocks_to_wait_for():
    machine = machine_after(PATHS[Role.PRIMARY, State.IN_TRANSACTION])
    machine.process(Role.PRIMARY, StoreBlob(OID, TID, b"", None, 0))
    assert machine.state(Role.PRIMARY) is State.IN_TRANSACTION


def test_a_blob_ends_with_its_last_block_which_may_be_short():
    machine = machine_after(PATHS[Role.PRIMARY, State.IN_BLOB])
    assert refused(machine, Role.PRIMARY, BlobBlock(b"short")) == (
        "a blob block of 5 bytes that is not the last one; all others have 65536"
    )
    machine.process(Role.PRIMARY, FULL)
    assert machine.blocks_left == 1
    machine.process(Role.PRIMARY, BlobBlock(b"short"))
    assert machine.blocks_left == 0
    assert machine.state(Role.PRIMARY) is State.IN_TRANSACTION


def test_what_is_no_message_is_refused():
    assert refused(Machine(), Role.SECONDARY, "hello") == (
        "a str from the secondary, which is about to say hello"
    )


def test_a_run_of_messages_leads_where_its_last_one_does():
    one_by_one, at_once = Machine(), Machine()
    for each in (one_by_one, at_once):
        each.process(Role.SECONDARY, Hello("zrs2.1"))
        each.process(Role.SECONDARY, Start(NO_TID))
    messages = [Transaction(TID), Store(OID, TID), Commit(), Transaction(TID_2)]
    for count, (tid, last_tid) in enumerate(
        [(TID, NO_TID), (TID, NO_TID), (None, TID), (TID_2, TID)], 1
    ):
        one_by_one.process(Role.PRIMARY, messages[count - 1])
        at_once.advance(tid, last_tid)
        assert vars(at_once) == vars(one_by_one)
