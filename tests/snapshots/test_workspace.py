"""A directory that is built under another name."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from zrs_core.errors import ConfigurationError
from zrs_core.tools.snapshots.workspace import Workspace


def always(directory: str) -> None:
    """Whatever is there may be replaced."""


def never(directory: str) -> None:
    raise ConfigurationError("it stays")


def build(destination, text="new", may_replace=always):
    with Workspace(str(destination), may_replace) as workspace:
        write(workspace, text)
        workspace.publish()


def write(workspace, text):
    with open(os.path.join(workspace.new, "file"), "w") as file:
        file.write(text)


@pytest.fixture
def place(tmp_path):
    """An empty directory; in the end nothing is in it that has another name."""
    place = tmp_path / "place"
    place.mkdir()
    yield place / "it"
    assert {each.name for each in place.iterdir()} <= {"it"}


def content(place):
    [file] = place.iterdir()
    return file.read_text()


def test_it_gets_its_name_when_it_is_whole(place):
    with Workspace(str(place), never) as workspace:
        write(workspace, "new")
        assert not place.exists()
        workspace.publish()
        assert content(place) == "new"


def test_what_was_not_finished_is_not_there(place):
    with Workspace(str(place), never) as workspace:
        write(workspace, "new")
    with pytest.raises(ZeroDivisionError), Workspace(str(place), never) as workspace:
        raise ZeroDivisionError
    assert not place.exists()


def test_what_is_there_is_replaced_by_leave_alone(place):
    build(place, "old", never)
    with pytest.raises(ConfigurationError, match="it stays"):
        build(place, "new", never)
    assert content(place) == "old"
    build(place, "new")
    assert content(place) == "new"


def test_an_empty_directory_may_be_there(place):
    place.mkdir()
    build(place, "new", never)
    assert content(place) == "new"


def test_what_a_link_leads_to_is_built(place, tmp_path):
    (tmp_path / "link").symlink_to(place)
    for text in ("one", "two"):
        build(tmp_path / "link", text)
        assert content(place) == text
    assert (tmp_path / "link").is_symlink()


def test_one_at_a_time(place):
    with Workspace(str(place), always) as workspace:
        with pytest.raises(ConfigurationError, match="is being made by another process"):
            build(place, "other")
        write(workspace, "new")
        workspace.publish()
    assert content(place) == "new"


@pytest.mark.parametrize("there", [None, "there"])
def test_what_a_killed_one_has_left(place, there):
    beside = place.parent / ".it.zrs"
    for name in ("new", "old", "gone"):
        (beside / name / "deeper").mkdir(parents=True)
    (beside / "old" / "file").write_text("old")
    (beside / "old" / "deeper").rmdir()
    (beside / "lock").touch()
    if there is not None:
        build(place, there)
    with pytest.raises(ConfigurationError, match="it stays"):
        build(place, "new", never)
    # What bore the name when that was taken from it is not lost.
    assert content(place) == (there or "old")


def test_what_nobody_here_has_left_stays(place):
    beside = place.parent / ".it.zrs"
    beside.mkdir()
    (beside / "letters").mkdir()
    with pytest.raises(ConfigurationError, match="is in the way: there is letters in it"):
        build(place)
    (beside / "letters").rmdir()
    beside.rmdir()
    beside.symlink_to("nowhere")
    with pytest.raises(ConfigurationError, match="is in the way: it is a symbolic link"):
        build(place)
    beside.unlink()
    beside.write_text("text")
    with pytest.raises(ConfigurationError, match=r"cannot be made: .*zrs: Not a directory"):
        build(place)
    beside.unlink()


def test_places_where_nothing_can_be(place, tmp_path):
    with pytest.raises(ConfigurationError, match="empty path"):
        build("")
    with pytest.raises(ConfigurationError, match=r"cannot be made: there is no .*place/no"):
        build(place.parent / "no" / "it")
    with pytest.raises(ConfigurationError, match="where a file system is mounted"):
        build("/")
    (tmp_path / "file").write_text("text")
    with pytest.raises(ConfigurationError, match="is no directory"):
        build(tmp_path / "file")


def test_no_permission(place, monkeypatch):
    def mkdir(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("zrs_core.tools.snapshots.workspace.os.mkdir", mkdir)
    with pytest.raises(ConfigurationError, match=r"it cannot be made: .*it.zrs: Permission denied"):
        build(place)


def test_the_lock_of_one_that_has_just_finished(place, monkeypatch):
    flock, asked = fcntl.flock, []

    def other_is_done(fd, operation):
        asked.append(fd)
        if len(asked) == 1:
            os.remove(place.parent / ".it.zrs" / "lock")
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", other_is_done)
    build(place)
    assert len(asked) == 2
    assert content(place) == "new"


def test_one_that_finishes_before_the_lock_is_there(place, monkeypatch):
    listdir, asked = os.listdir, []

    def other_is_done(path):
        asked.append(path)
        if len(asked) == 1:
            os.rmdir(path)
        return listdir(path)

    monkeypatch.setattr("zrs_core.tools.snapshots.workspace.os.listdir", other_is_done)
    build(place)
    assert content(place) == "new"


def test_one_that_begins_while_this_one_leaves(place, monkeypatch):
    remove = os.remove

    def other_begins(path):
        remove(path)
        (place.parent / ".it.zrs" / "lock").touch()

    monkeypatch.setattr("zrs_core.tools.snapshots.workspace.os.remove", other_begins)
    build(place)
    assert content(place) == "new"
    remove(place.parent / ".it.zrs" / "lock")
    (place.parent / ".it.zrs").rmdir()


def test_others_that_take_the_name_at_the_last_moment(place, monkeypatch):
    with Workspace(str(place), never) as workspace:
        place.mkdir()
        (place / "theirs").write_text("theirs")
        with pytest.raises(ConfigurationError, match="it stays"):
            workspace.publish()
        # Even if it was not there yet when it was looked for.
        monkeypatch.setattr(workspace, "_check_destination", lambda: False)
        with pytest.raises(ConfigurationError, match="has just been made by others"):
            workspace.publish()
    assert content(place) == "theirs"


def test_what_cannot_be_put_in_place_leaves_what_was_there(place, monkeypatch):
    build(place, "old")
    rename = os.rename

    def fail(source, target):
        if target == str(place) and os.path.basename(source) == "new":
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr("zrs_core.tools.snapshots.workspace.os.rename", fail)
    with pytest.raises(OSError, match="Input/output error"):
        build(place, "new")
    assert content(place) == "old"


def test_it_may_begin_again(place):
    with Workspace(str(place), never) as workspace:
        write(workspace, "half")
        workspace.clear()
        assert os.listdir(workspace.new) == []


def test_a_file_system_without_locks(place, monkeypatch):
    """Nothing stays open, and the next one tidies up."""

    def fail(fd, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", fail)
        with pytest.raises(OSError, match="No locks available"):
            Workspace(str(place), never).__enter__()
    build(place)
    assert content(place) == "new"
