"""Whoever takes a snapshot or restores one may be killed: the old one is left, the new, or none."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import open_file_storage, traffic
from tests.driven import driven
from zrs_core import Primary


def tree(path: Path) -> dict[str, str] | None:
    """The files below a directory, by name, and what is in them; None if there is none."""
    if not path.exists():
        return None
    return {
        str(each.relative_to(path)): hashlib.sha256(each.read_bytes()).hexdigest()
        for each in path.rglob("*")
        if each.is_file() and each.name != "snapshot.json"
    }


@contextlib.contextmanager
def source_of(action: str, path: Path, monkeypatch) -> Iterator[str]:
    """What the action is done with."""
    if action == "receive":
        storage = open_file_storage(path / "new")
        monkeypatch.setenv("LAST_TID", storage.lastTransaction().hex())
        with contextlib.closing(Primary(storage, str(path / "socket"))) as primary:
            yield str(primary.replication_address)
    elif action == "take":
        yield str(path / "new" / "Data.fs")
    else:
        yield str(path / "snapshot")


def points(calls: int, count: int, last: int) -> list[int]:
    """`count` of the calls but the `last` ones, which give it its name, and all of those."""
    step = max((calls - last) // count, 1)
    return [*range(1, calls - last, step), *range(calls - last, calls + 1)]


def run(action: str, path: Path, monkeypatch, *, replaced: bool, count: int, last: int) -> int:
    """Kill it at so many points; how often it was."""
    with traffic(open_file_storage(path / "new")) as commit:
        commit.commit(18)
    with traffic(open_file_storage(path / "before"), seed=1) as commit:
        commit.commit(3)
    destination = path / "made" / "it"
    kills = 0
    with (
        source_of(action, path, monkeypatch) as source,
        driven("tests.snapshots.victims") as victim,
    ):

        def do(what: str, source: object, destination: Path, point: int = 0) -> list[str]:
            return victim.ask(f"{what} {source} {destination} {point}").split()

        def begin_with() -> dict[str, str] | None:
            """What is there before it begins."""
            shutil.rmtree(destination.parent, ignore_errors=True)
            destination.parent.mkdir()
            if replaced:
                shutil.copytree(path / "old", destination)
            return tree(destination)

        assert do("take", path / "new" / "Data.fs", path / "snapshot")[0] == "done"
        assert do("take", path / "before" / "Data.fs", path / "old")[0] == "done"
        old = begin_with()
        said, calls = do(action, source, destination)
        assert said == "done"
        new = tree(destination)
        assert new not in (None, old)
        for point in points(int(calls), count, last):
            begin_with()
            said = do(action, source, destination, point)[0]
            # With threads there are not always as many.
            assert said == "killed" or (action, said) == ("receive", "done"), said
            kills += said == "killed"
            found = tree(destination)
            assert found in (None, old, new), f"at point {point}"
            # The next one tidies up. What is restored already stays.
            if not (action == "restore" and found == new):
                assert do(action, source, destination)[0] == "done", f"after point {point}"
                assert tree(destination) == new
                assert list(destination.parent.iterdir()) == [destination]
    return kills


@pytest.mark.long
def test_some_points(tmp_path, monkeypatch):
    assert run("take", tmp_path, monkeypatch, replaced=True, count=3, last=8) >= 10


@pytest.mark.long
@pytest.mark.parametrize(
    ("action", "replaced"),
    [
        ("take", False),
        ("take", True),
        ("receive", True),
        ("restore", False),
    ],
)
def test_many_points(tmp_path, monkeypatch, action, replaced):
    assert run(action, tmp_path, monkeypatch, replaced=replaced, count=24, last=20) >= 40
