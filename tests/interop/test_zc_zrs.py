"""Live replication with zc.zrs, whose ends are processes of their own.

The line between two ends is cut at random bytes while there are commits. Each end holds what the
one before it has, byte by byte, but for what zc.zrs loses: an empty blob, when it receives one, and
how an extension was pickled, when it sends or receives one.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from zrs_core.messages import NO_TID
from zrs_core.progress import Divergence, State

from ..conditions import wait_for
from ..databases import (
    BLOB_SIZES,
    Stored,
    as_kept_by_zc_zrs,
    as_sent_by_zc_zrs,
    assert_holds_what_a_pack_left,
    blob_files,
    open_file_storage,
    stored,
    temporary_files,
    traffic,
)
from ..processes.proxy import CuttingProxy, random_cuts
from .ends import our_middle, our_primary, our_secondary, their_primary, their_secondary

TRANSPORTS = ("socket-thread", "twisted-tcp")
WORDS = ("zrs2.0", "zrs2.1")

Lead = Callable[[int], AbstractContextManager[Any]]
Follow = Callable[[tuple[str, int]], AbstractContextManager[Any]]


def commit_while_cut(primary: Any, secondary: Any, proxies: list[CuttingProxy], cuts: int) -> None:
    """Commit until the line of each proxy has been cut so many times."""

    def cut() -> list[int]:
        return [each.cut for each in proxies]

    while min(before := cut()) < cuts:
        primary.commit(10)
        wait_for(
            lambda: cut() != before or secondary.tid() == primary.tid(),
            "a cut, or the end of what there is",
        )


def replicate(
    primary: Any,
    follow: Follow,
    cuts: list[int],
    meanwhile: Callable[[Any, Any], object] = lambda primary, secondary: None,
) -> None:
    """Commit before a secondary comes, while its line is being cut, and after.

    `meanwhile` is called in the middle, with both ends. When this returns, the secondary has had
    everything, and is closed.
    """
    primary.commit(100)
    with CuttingProxy(primary.address, cuts) as proxy, follow(proxy.address) as secondary:
        commit_while_cut(primary, secondary, [proxy], len(cuts) // 2)
        meanwhile(primary, secondary)
        commit_while_cut(primary, secondary, [proxy], len(cuts))
        primary.commit(30)
        wait_for(lambda: secondary.tid() == primary.tid(), "the secondary to have everything")


def assert_has_a_bit_of_everything(path: Path, word: str) -> None:
    transactions = stored(path)
    records = [record for each in transactions for record in each.records]
    assert any(each.extension for each in transactions)
    assert any(data is None for _, _, data, _, _ in records), "no creation was undone"
    assert any(data_txn for _, _, _, data_txn, _ in records), "no change was undone"
    if word == "zrs2.1":
        assert {len(blob) for _, _, _, _, blob in records if blob is not None} == {*BLOB_SIZES}


def assert_ours_is_equal(ours: Path, theirs: Path, word: str) -> None:
    assert_has_a_bit_of_everything(theirs, word)
    assert stored(ours) == as_sent_by_zc_zrs(stored(theirs))
    assert blob_files(ours / "blobs") == blob_files(theirs / "blobs")
    assert temporary_files(ours / "blobs") == []


def assert_theirs_is_equal_but_for_empty_blobs(theirs: Path, ours: Path, word: str) -> None:
    assert_has_a_bit_of_everything(ours, word)
    assert stored(theirs) == as_kept_by_zc_zrs(stored(ours))
    not_empty = {name: blob for name, blob in blob_files(ours / "blobs").items() if blob}
    assert blob_files(theirs / "blobs") == not_empty


def pack_primary(primary: Any, secondary: Any) -> None:
    primary.pack()


def pack_secondary(primary: Any, secondary: Any) -> None:
    secondary.pack()


def assert_was_packed(packed: list[Stored], other: list[Stored]) -> None:
    """Whether `other` has all that is left of `packed`."""
    assert "p" in {each.status for each in packed}
    assert_holds_what_a_pack_left(other, packed)


def test_ours_follows_theirs(chance: random.Random, python_of: Any, tmp_path: Path) -> None:
    theirs, ours, word = tmp_path / "theirs", tmp_path / "ours", "zrs2.1"
    follow = partial(our_secondary, path=ours, word=word, transport="twisted-tcp")
    with their_primary(1, python=python_of("zodb-5.5.1"), path=theirs, word=word) as primary:
        replicate(primary, follow, random_cuts(chance, 10))
    assert_ours_is_equal(ours, theirs, word)


def test_theirs_follows_ours(chance: random.Random, python_of: Any, tmp_path: Path) -> None:
    theirs, ours, word = tmp_path / "theirs", tmp_path / "ours", "zrs2.1"
    follow = partial(their_secondary, python=python_of("zodb-5.5.1"), path=theirs, word=word)
    with our_primary(1, path=ours, word=word, transport="socket-thread") as primary:
        replicate(primary, follow, random_cuts(chance, 10))
    assert_theirs_is_equal_but_for_empty_blobs(theirs, ours, word)


@pytest.mark.long
@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("environment", ["zodb-5.5.1", "zodb-6.4"])
def test_ours_follows_theirs_for_long(
    environment: str,
    transport: str,
    word: str,
    chance: random.Random,
    python_of: Any,
    tmp_path: Path,
) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    lead = partial(their_primary, python=python_of(environment), path=theirs, word=word)
    follow = partial(our_secondary, path=ours, word=word, transport=transport)
    with lead(1) as primary:
        replicate(primary, follow, random_cuts(chance, 60))
    assert_ours_is_equal(ours, theirs, word)
    with lead(2) as primary:
        replicate(primary, follow, random_cuts(chance, 40), pack_primary)
    assert_was_packed(as_sent_by_zc_zrs(stored(theirs)), stored(ours))
    with lead(3) as primary:
        replicate(primary, follow, random_cuts(chance, 40), pack_secondary)
    assert_was_packed(stored(ours), as_sent_by_zc_zrs(stored(theirs)))
    assert temporary_files(ours / "blobs") == []


@pytest.mark.long
@pytest.mark.parametrize("pickle_protocol", [1, 3])
@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_theirs_follows_ours_for_long(
    transport: str,
    word: str,
    pickle_protocol: int,
    chance: random.Random,
    python_of: Any,
    tmp_path: Path,
) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    options = {"transport": transport, "pickle_protocol": pickle_protocol}
    lead = partial(our_primary, path=ours, word=word, **options)
    follow = partial(their_secondary, python=python_of("zodb-5.5.1"), path=theirs, word=word)
    with lead(1) as primary:
        replicate(primary, follow, random_cuts(chance, 60))
    assert_theirs_is_equal_but_for_empty_blobs(theirs, ours, word)
    with lead(2) as primary:
        replicate(primary, follow, random_cuts(chance, 40), pack_primary)
    assert_was_packed(as_kept_by_zc_zrs(stored(ours)), stored(theirs))
    # Undo of what was there before a pack of theirs must not come during the pack, nor after it:
    # traffic that begins anew undoes nothing of that.
    with lead(3) as primary, follow(primary.address) as secondary:
        wait_for(lambda: secondary.tid() == primary.tid(), "the secondary to have everything")
        secondary.pack()
    with lead(4) as primary:
        replicate(primary, follow, random_cuts(chance, 40))
    assert_was_packed(stored(theirs), as_kept_by_zc_zrs(stored(ours)))


@pytest.mark.long
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_ours_between_theirs(
    transport: str, chance: random.Random, python_of: Any, tmp_path: Path
) -> None:
    first, ours, last, word = tmp_path / "first", tmp_path / "ours", tmp_path / "last", "zrs2.1"
    upper_cuts, lower_cuts = random_cuts(chance, 40), random_cuts(chance, 40)
    with their_primary(1, python=python_of("zodb-6.4"), path=first, word=word) as primary:
        primary.commit(100)
        with (
            CuttingProxy(primary.address, upper_cuts) as upper,
            our_middle(upper.address, path=ours, word=word, transport=transport) as middle,
            CuttingProxy(middle.address, lower_cuts) as lower,
            their_secondary(
                lower.address, python=python_of("zodb-5.5.1"), path=last, word=word
            ) as secondary,
        ):
            commit_while_cut(primary, secondary, [upper, lower], 40)
            primary.commit(100)
            wait_for(lambda: secondary.tid() == primary.tid(), "the last to have everything")
    assert_ours_is_equal(ours, first, word)
    assert_theirs_is_equal_but_for_empty_blobs(last, ours, word)


@pytest.mark.long
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_ours_closes_when_theirs_has_everything(
    transport: str, python_of: Any, tmp_path: Path
) -> None:
    theirs, ours, word = tmp_path / "theirs", tmp_path / "ours", "zrs2.1"
    follow = partial(their_secondary, python=python_of("zodb-5.5.1"), path=theirs, word=word)
    with ExitStack() as stack:
        with our_primary(1, path=ours, word=word, transport=transport, close_timeout=60) as primary:
            primary.commit(300)
            # It keeps its port, where theirs will knock again, from becoming somebody else's.
            proxy = stack.enter_context(CuttingProxy(primary.address, []))
            secondary = stack.enter_context(follow(proxy.address))
            wait_for(lambda: secondary.tid() > NO_TID, "the stream to run")
            last = primary.tid()
        assert secondary.tid() == last


@pytest.mark.long
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_each_goes_on_in_the_files_of_the_other(
    transport: str, chance: random.Random, python_of: Any, tmp_path: Path
) -> None:
    """From zc.zrs to ours, one end after the other, and back."""
    first, second, word = tmp_path / "first", tmp_path / "second", "zrs2.1"
    their_lead = partial(their_primary, python=python_of("zodb-5.5.1"), path=first, word=word)
    our_lead = partial(our_primary, path=first, word=word, transport=transport)
    their_follow = partial(their_secondary, python=python_of("zodb-5.5.1"), path=second, word=word)
    our_follow = partial(our_secondary, path=second, word=word, transport=transport)
    expected: list[Stored] = []
    for lead, follow, arrived in (
        (their_lead, their_follow, lambda sent: as_kept_by_zc_zrs(as_sent_by_zc_zrs(sent))),
        (their_lead, our_follow, as_sent_by_zc_zrs),
        (our_lead, our_follow, list),
        (our_lead, their_follow, as_kept_by_zc_zrs),
        (their_lead, our_follow, as_sent_by_zc_zrs),
    ):
        with lead(1) as primary:
            replicate(primary, follow, random_cuts(chance, 10))
        expected += arrived(stored(first)[len(expected) :])
        assert stored(second) == expected


@pytest.mark.long
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_ours_does_not_follow_theirs_when_it_has_diverged(
    transport: str, python_of: Any, tmp_path: Path
) -> None:
    """zc.zrs would send what comes after; see `faults/histories_merged.py`."""
    first, second, word = tmp_path / "first", tmp_path / "second", "zrs2.1"
    lead = partial(their_primary, python=python_of("zodb-6.4"), path=first, word=word)
    follow = partial(our_secondary, path=second, word=word, transport=transport)
    with lead(1) as primary:
        primary.commit(20)
        with follow(primary.address) as secondary:
            wait_for(lambda: secondary.tid() == primary.tid(), "the secondary to have everything")
    before = stored(first)
    with traffic(open_file_storage(second), 2) as mistake:
        mistake.commit(1)
    diverged = stored(second)
    with lead(3) as primary:
        primary.commit(1)
        with follow(primary.address) as secondary:
            progress = secondary.storage.progress
            wait_for(lambda: progress.failures >= 3, "it to be noticed")
            primary.commit(5)
            wait_for(lambda: progress.failures >= 6, "it to stay so")
            assert progress.state is State.DIVERGED
            [*_, fork, mistaken] = [each.tid for each in diverged]
            for tid in (fork, mistaken, stored(first)[len(before)].tid):
                assert tid.hex() in progress.failure
    assert stored(second) == diverged


@pytest.mark.long
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_ours_is_ahead_of_theirs(transport: str, python_of: Any, tmp_path: Path) -> None:
    """zc.zrs refuses the last ones until it has gone on, and serves the one that both hold."""
    first, second, word = tmp_path / "first", tmp_path / "second", "zrs2.1"
    lead = partial(their_primary, python=python_of("zodb-6.4"), path=first, word=word)
    follow = partial(our_secondary, path=second, word=word, transport=transport)
    with lead(1) as primary:
        primary.commit(10)
        with follow(primary.address) as secondary:
            wait_for(lambda: secondary.tid() == primary.tid(), "the secondary to have everything")
    with traffic(open_file_storage(second), 2) as mistake:
        mistake.commit(3)
    diverged = stored(second)
    with lead(3) as primary, follow(primary.address) as secondary:
        progress = secondary.storage.progress
        wait_for(lambda: progress.state is State.DIVERGED, "it to be noticed")
        assert progress.divergence == Divergence(diverged[-4].tid, 3)
        primary.commit(5)
        failures = progress.failures
        wait_for(lambda: progress.failures >= failures + 4, "it to stay so")
    assert stored(second) == diverged
