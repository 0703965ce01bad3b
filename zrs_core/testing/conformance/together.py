"""Tests of a listener and a connector of one transport."""
# ruff: noqa: S101

from __future__ import annotations

import functools

from ..environments import DEADLINE, Environment
from ..fakes import WHOLE, Source
from .storages import Copy, Everyone, Flood, is_whole
from .suite import Connect, Listen, Suite


class BothTests(Suite):
    """A listener and a connector that talk to each other."""

    def test_a_listener_and_a_connector_understand_each_other(
        self, env: Environment, listen: Listen, connect: Connect
    ) -> None:
        source, copy = Flood(limit=16), Copy()
        connect(copy, listen(source).address)
        env.wait_for(lambda: copy.count == 18, "the stream to be applied")
        assert copy.finished == list(source.messages())

    def test_they_find_each_other_again_whoever_goes_first(
        self, env: Environment, listen: Listen, connect: Connect
    ) -> None:
        copies = [Copy() for _ in range(4)]
        first = listen(Source())
        for copy in copies:
            connect(copy, first.address)
        for round_number in range(3):
            source = Everyone(WHOLE)
            first.stop(DEADLINE)
            first = listen(source, first.address)
            for copy in copies:
                env.wait_for(functools.partial(is_whole, copy), f"round {round_number}")
                copy.finished.clear()
