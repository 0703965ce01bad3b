import random

import pytest

from zrs_core.codec import opcodes, patterns
from zrs_core.codec.connection import Connection
from zrs_core.codec.framing import FrameReader
from zrs_core.codec.machine import TRANSITIONS, Machine, Role, State
from zrs_core.messages import Transaction
from zrs_core.sessions.applying import Applier

from . import __main__ as runner
from .corpus import folder, inputs
from .inputs import INPUTS, vary
from .targets import TARGETS

#: Cases in all.
CASES = 800_000

_PARTS = 20

each_target = pytest.mark.parametrize("target", sorted(TARGETS))


@each_target
def test_what_is_kept(target):
    for data in inputs(target):
        TARGETS[target](data)


def test_each_folder_of_the_corpus_is_for_a_target_and_all_of_it_is_small():
    folders = {folder(target).parent for target in TARGETS}
    assert {each.name for parent in folders for each in parent.iterdir()} == set(TARGETS)
    assert set(TARGETS) == set(INPUTS)
    assert sum(len(data) for target in TARGETS for data in inputs(target)) < 500_000


@pytest.mark.long
@pytest.mark.parametrize("part", range(_PARTS))
def test_all_cases(part):
    count = CASES // _PARTS
    failure = runner.run(part * count, count)
    assert failure is None, failure


def run_main(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["fuzz", *arguments])
    return runner.main()


def test_some_cases(monkeypatch, capsys):
    assert run_main(monkeypatch, "--start", "1000", "--count", "300") == 0
    assert capsys.readouterr().out.startswith("fuzz: 300 cases from 1000 in ")


def test_a_number_is_a_case():
    cases = [runner.case(number) for number in range(50)]
    assert [runner.case(number) for number in range(50)] == cases
    assert {target for target, _ in cases} == set(TARGETS)
    assert len({data for _, data in cases}) > 40


@each_target
def test_any_bytes_are_an_input(target):
    for data in (b"", b"\0", b"\xff" * 3, bytes(40), bytes(range(256))):
        TARGETS[target](data)


@each_target
def test_there_are_inputs_near_another(target):
    data = max(inputs(target), key=len)
    assert len({vary(target, data, random.Random(seed)) for seed in range(50)}) > 25


def _transaction_in_transaction():
    table = TRANSITIONS[Role.PRIMARY]
    inside = {**table[State.IN_TRANSACTION], Transaction: State.IN_TRANSACTION}
    return table, State.IN_TRANSACTION, inside


def _frames_that_forget(reader, data):
    reader._replace(bytes(data))


def _error_that_does_not_stay(connection):
    return connection._read_message()


def _ascii_only(reader):
    reader.push(reader.take(reader.number(opcodes._unpack_u32, 4)).decode("ascii"))


def _flush_all(applier):
    applier._client.sink.seen += applier._client.sink.unseen
    return 0


@pytest.mark.parametrize(
    ("target", "owner", "name", "instead"),
    [
        ("framing", FrameReader, "feed", _frames_that_forget),
        ("pickles", patterns, "_blocks", lambda found: 0),
        ("pickles", opcodes._HANDLERS, ord("X"), _ascii_only),
        ("pickles", opcodes, "_known_call", lambda function, arguments: b""),
        ("primary", Machine, "_check_fields", lambda machine, message: None),
        ("primary", *_transaction_in_transaction()),
        ("secondary", Machine, "_check_fields", lambda machine, message: None),
        ("secondary", *_transaction_in_transaction()),
        ("secondary", Connection, "_next", _error_that_does_not_stay),
        ("session", Applier, "flush", _flush_all),
    ],
)
def test_a_fault_is_found(target, owner, name, instead, monkeypatch, capsys):
    set_in = monkeypatch.setitem if isinstance(owner, dict) else monkeypatch.setattr
    set_in(owner, name, instead)
    assert run_main(monkeypatch, "--target", target, "--count", "2000") == 1
    *_, command = capsys.readouterr().out.splitlines()
    assert command.startswith("python -m tests.fuzz --start ")
    _, arguments = command.split(" --start ")
    assert run_main(monkeypatch, "--start", *arguments.split()) == 1
    monkeypatch.undo()
    assert run_main(monkeypatch, "--start", *arguments.split()) == 0
