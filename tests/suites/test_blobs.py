"""ZODB's tests of storages that keep blobs, run against primaries that are followed."""

from __future__ import annotations

import builtins
import errno
import os
import stat
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

# It keeps the clock that it finds, which is to be none of those that go faster.
import twisted.python.runtime  # noqa: F401
from ZODB.tests import PackableStorage, testblob

from zrs_core import Primary

from . import OpenStorage, Replication, with_blobs, with_blobs_around


class Suite:
    """The tests for storages of one kind, over one transport."""

    def __init__(self, open_storage: OpenStorage, transport: str) -> None:
        self._open_storage = open_storage
        self._transport = transport
        self._opened: list[tuple[str, Primary, Replication]] = []
        # ZODB 5 makes suites by what Python has no more.
        with mock.patch.object(
            unittest, "makeSuite", unittest.defaultTestLoader.loadTestsFromTestCase, create=True
        ):
            suite = testblob.storage_reusable_suite(
                "", self._open, test_blob_storage_recovery=True, test_packing=True
            )
        suite.addTest(
            PackableStorage.IExternalGC_suite(lambda: self._open("data", "blobs", pack_gc=False))
        )
        self._layer = suite.layer
        self.cases = [each for each in _flat(suite) if _opens_what_it_is_given(each)]

    def _open(self, name: str, blob_dir: str, **options: Any) -> Any:
        replication = Replication(Path(name), self._open_storage, self._transport)
        # Where some of the tests look for them.
        os.symlink(replication.directory("primary") / "blobs", blob_dir)
        primary = replication.serve(**options)
        self._opened.append((blob_dir, primary, replication))
        return primary

    def run(self, case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        tear_down = case.tearDown

        def check_and_tear_down() -> None:
            try:
                assert self._opened
                while self._opened:
                    blob_dir, primary, replication = self._opened.pop()
                    os.remove(blob_dir)
                    primary.close()
                    replication.check()
            finally:
                tear_down()

        # Before it removes all files.
        monkeypatch.setattr(case, "tearDown", check_and_tear_down)
        if os.geteuid() == 0:
            monkeypatch.setattr(builtins, "open", _open_as_a_user)
        result = unittest.TestResult()
        # Time goes by faster: some tests wait until a second has passed.
        self._layer.testSetUp()
        try:
            case.run(result)
        finally:
            self._layer.testTearDown()
        problems = [text for _, text in [*result.errors, *result.failures]]
        assert result.testsRun == 1
        assert not problems, "\n".join(problems)


_open = open


def _open_as_a_user(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
    """What is read-only is so for root too: some of the tests rely on it."""
    if "w" in mode and os.path.exists(file) and not os.stat(file).st_mode & stat.S_IWUSR:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), file)
    return _open(file, mode, *args, **kwargs)


def _flat(suite: Any) -> Iterator[Any]:
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from _flat(each)
        else:
            yield each


def _opens_what_it_is_given(case: Any) -> bool:
    """Not so some that are part of the suite and open a FileStorage of their own."""
    # It makes os.rename fail, and prints what is logged then: by the secondary too.
    if _name(case) == "commit_from_wrong_partition":
        return False
    function = getattr(testblob, _name(case), None)
    return function is None or "create_storage()" in function.__doc__


def _name(case: Any) -> str:
    name: str = case.id().rpartition(".")[2]
    return name


def _parameters() -> Iterator[Any]:
    for open_storage in (with_blobs, with_blobs_around):
        for transport in ("twisted-tcp", "socket-thread"):
            suite = Suite(open_storage, transport)
            quick = (open_storage, transport) == (with_blobs, "socket-thread")
            for case in suite.cases:
                yield pytest.param(
                    suite,
                    case,
                    id=f"{transport} {open_storage.__name__} {_name(case)}",
                    marks=() if quick else pytest.mark.long,
                )


@pytest.mark.parametrize(("suite", "case"), [*_parameters()])
def test_blobs(suite: Suite, case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    suite.run(case, monkeypatch)
