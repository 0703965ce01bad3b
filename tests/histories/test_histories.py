import pytest

from zrs_core.codec import SecondaryConnection
from zrs_core.codec.connection import Connection
from zrs_core.messages import Store

from . import __main__ as runner

#: Histories in all.
COUNT = 800

_PARTS = 8


def run_main(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["histories", *arguments])
    return runner.main()


def test_some_histories(monkeypatch, capsys):
    assert run_main(monkeypatch, "--start", "100000", "--count", "6") == 0
    said = capsys.readouterr().out
    assert said.startswith("histories: 6 of 50 steps from 100000 in ")


@pytest.mark.long
@pytest.mark.parametrize("part", range(_PARTS))
def test_all_histories(part):
    count = COUNT // _PARTS
    failure = runner.run(part * count, count)
    assert failure is None, failure


def test_a_fault_is_found(monkeypatch):
    """What is undone is lost on the way."""

    def without_undone(connection):
        for message in Connection.messages(connection):
            if not isinstance(message, Store) or message.data_txn is None:
                yield message

    monkeypatch.setattr(SecondaryConnection, "messages", without_undone)
    failure = runner.run(7, 25, shrink=False)
    *_, command = failure.splitlines()
    assert command == "python -m tests.histories --start 7 --count 25"
