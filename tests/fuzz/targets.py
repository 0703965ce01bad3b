"""What is fuzzed: the targets of `zrs_core.testing`, and a session.

What must hold behind a session, besides: nothing is seen that was not committed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zrs_core.addresses import parse_address
from zrs_core.messages import Commit
from zrs_core.options import ClientOptions
from zrs_core.sessions import ReplicationClient
from zrs_core.testing import HandDriver, targets
from zrs_core.testing.outcomes import check, committed, in_pieces, listening, outcome
from zrs_core.testing.targets import Options, options_of


class _Store:
    """A sink in memory: all or nothing, and what it holds can be looked at."""

    def __init__(self, start: bytes, blobs: bool) -> None:
        self.blobs = blobs
        self.seen: list[Any] = []
        self.unseen: list[Any] = []
        self._start = start

    def last_tid(self) -> bytes:
        return self._start

    def apply(self, message: object) -> None:
        self.unseen.append(message)

    def flush(self) -> None:
        whole = committed(self.unseen)
        self.seen += whole
        del self.unseen[: len(whole)]

    def abort(self) -> None:
        self.unseen.clear()


_ADDRESS = parse_address("127.0.0.1:1")


def session(data: bytes) -> None:
    """Options and a seed for the pieces, a byte each, then what a primary sends to a session."""
    options = options_of(data)
    reader = listening(
        options.word,
        options.start,
        checksums=options.checksums,
        max_record_size=_record_limit(options),
    )
    messages, _ = outcome(reader, [data[2:]])
    store = _Store(options.start, options.word == "zrs2.1")
    client = ReplicationClient(
        store,
        _ADDRESS,
        options=ClientOptions(checksums=options.checksums, max_record_size=_record_limit(options)),
    )
    end = HandDriver(client.session)
    for piece in in_pieces(data[2:], data[1] if data[1:] else 0):
        end.receive(piece)
        check(not any(type(each) is Commit for each in store.unseen), "what is whole is seen")
    end.receive_eof()
    check(end.end is not None, "the end of the stream ends the connection")
    check(store.seen == committed(messages), "what was committed is seen, and nothing else")
    check(not store.unseen, "nothing is left of what was not committed")
    check(end.session.over, "the next session may begin")


def _record_limit(options: Options) -> int:
    return options.limits.get("max_record_size", 2**30)


TARGETS: dict[str, Callable[[bytes], None]] = {
    **targets.TARGETS,
    "session": session,
}
