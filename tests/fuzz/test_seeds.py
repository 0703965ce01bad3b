"""The published seeds: there are enough, they come with the package, and they reach both ends."""

import sys
from pathlib import Path
from random import Random

import pytest

import zrs_core
from zrs_core.codec import PrimaryConnection
from zrs_core.messages import NO_TID, Commit, Start, Transaction
from zrs_core.testing import mutations, seeds
from zrs_core.testing.outcomes import listening, outcome, speaking
from zrs_core.testing.streams import framed, split, with_checksums
from zrs_core.testing.targets import TARGETS, vary

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

PACKAGE = Path(zrs_core.__file__).parent


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_has_seeds_and_finds_nothing_in_them(target):
    data = seeds.inputs(target)
    assert len(data) >= 6
    assert len(data) == len(list(seeds.folder(target).iterdir()))
    for each in data:
        TARGETS[target](each)
        TARGETS[target](vary(target, each, Random(1)))


def test_a_target_without_seeds_is_an_error():
    with pytest.raises(ValueError, match="framing, pickles, primary, secondary, got 'session'"):
        seeds.inputs("session")


@pytest.mark.parametrize(
    ("streams", "connect"),
    [(seeds.from_primary(), listening), (seeds.from_secondary(), PrimaryConnection)],
)
def test_streams_of_an_end_are_refused_in_many_ways(streams, connect):
    assert len(set(streams)) >= 30
    outcomes = [outcome(connect(), [stream]) for stream in streams]
    assert any(messages and error is None for messages, error in outcomes)
    assert len({error for _, error in outcomes}) >= 20


def test_the_first_streams_of_a_secondary_are_greetings():
    for stream in seeds.from_secondary()[:2]:
        messages, error = outcome(PrimaryConnection(blobs=False), [stream])
        assert messages[1:] == [Start(NO_TID)]
        assert error is None


def pyproject():
    return tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))


def test_an_extra_brings_what_the_modules_for_tests_need():
    extra = pyproject()["project"]["optional-dependencies"]["testing"]
    assert [each.partition(">")[0] for each in extra] == ["hypothesis", "pytest", "trustme"]


def test_all_files_of_the_package_are_installed():
    installed = {
        path
        for package, patterns in pyproject()["tool"]["setuptools"]["package-data"].items()
        for pattern in patterns
        for path in PACKAGE.parent.joinpath(*package.split(".")).glob(pattern)
    }
    there = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".py"}
    assert {path for path in there if path.parent.name != "__pycache__"} == installed


STREAM = b"".join(map(speaking().send, [Transaction(bytes(7) + b"\1"), Commit()]))


def test_a_damaged_stream_depends_on_the_arguments_alone():
    damaged = [mutations.damage_stream(STREAM, Random(seed)) for seed in range(50)]
    assert damaged == [mutations.damage_stream(STREAM, Random(seed)) for seed in range(50)]
    assert len(set(damaged)) > 25


def test_checksums_are_made_right():
    begin, commit = split(STREAM)
    wrong = commit.replace(commit[-10:-4], b"123456")
    assert outcome(listening(), [framed(begin, wrong)]).error is not None
    assert with_checksums([begin, wrong]) == [begin, commit]
    # A commit without a checksum stays as it is.
    assert with_checksums([b"(U\1C)t."]) == [b"(U\1C)t."]
