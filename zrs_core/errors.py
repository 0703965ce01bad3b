"""The exception family: everything this package raises for trouble it knows.

::

    ReplicationError
      InvalidMessage            a message built with a field that breaks the schema
      ProtocolError
        LocalProtocolError      the caller asked a connection for what its state forbids
        RemoteProtocolError     the peer broke the protocol
          LimitExceeded         a length or a count above a limit
          ChecksumError         the running MD5 does not match, or is missing
          TruncatedStream       the peer ended in the middle of something
          UnsupportedProtocol   the peer asked for a protocol word that is not served
      StartError                a primary cannot serve the start that a secondary asked for
        TidTooHigh
        Diverged
      NotCarried                a transaction that cannot be sent to any secondary
      OtherHistory              a primary sends something else than a secondary holds
      NotComparable             what a secondary holds cannot be compared with what is sent
      ConfigurationError        an argument, an address or a storage that cannot work
        InvalidAddress
        UnknownTransport
        UnsuitableStorage
        Exposed                 TLS is required where a primary is to listen, and there is none
      ListenError               an address that could not be listened on
      MissingBlobSupport        a blob was sent to a storage that keeps none
      WrittenToByOthers         a secondary's storage has transactions of other origin
      NotWritten                the disk did not take what a secondary had written
      NoData                    no transaction has come to an empty secondary in time
      UsedAfterFork             a storage that was opened before this process was forked
      NoStatus                  an address did not tell its status
        NotAStatusServer        who listens there speaks something else than HTTP
      Unverifiable              two databases could not be compared to the end
"""

from __future__ import annotations


class ReplicationError(Exception):
    """The base of every error that this package defines."""


class InvalidMessage(ReplicationError, ValueError):
    """A message was built with a field that breaks the schema (protocol, section 3)."""


class ProtocolError(ReplicationError):
    """The rules of the protocol were broken, by one end or the other."""


class LocalProtocolError(ProtocolError):
    """The caller asked for something that the state of the connection forbids.

    The connection is unchanged; what was asked had no effect.
    """


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol; nothing more can be read from it.

    `reason` says what was wrong, `tid` is the transaction in whose midst it happened (8 bytes,
    or None between transactions), `offset` counts the bytes of the stream before the message
    at fault.
    """

    def __init__(self, reason: str, *, tid: bytes | None = None, offset: int = 0) -> None:
        super().__init__(reason, tid, offset)
        self.reason = reason
        self.tid = tid
        self.offset = offset

    def __str__(self) -> str:
        where = f"at byte {self.offset} of the stream"
        if self.tid is not None:
            where += f", in transaction 0x{self.tid.hex()}"
        return f"{self.reason} ({where})"


class LimitExceeded(RemoteProtocolError):
    """A length or a count is above a limit of the connection."""


class ChecksumError(RemoteProtocolError):
    """A commit's checksum does not match what was received, or is required and missing."""


class TruncatedStream(RemoteProtocolError):
    """The stream ended in the middle of a message or of a transaction."""


class UnsupportedProtocol(RemoteProtocolError):
    """The secondary asked for a protocol word that this primary does not serve."""


def _hex(tid: bytes | None) -> str:
    return "none" if tid is None else f"0x{tid.hex()}"


class StartError(ReplicationError):
    """A primary cannot serve the start tid that a secondary asked for.

    `start` is that tid, 8 bytes.
    """

    start: bytes


class TidTooHigh(StartError):
    """The secondary holds a transaction that is later than every one of the primary's.

    `last` is the primary's last tid.
    """

    def __init__(self, start: bytes, last: bytes) -> None:
        super().__init__(start, last)
        self.start = start
        self.last = last

    def __str__(self) -> str:
        return (
            f"the secondary holds {_hex(self.start)}, which is later than this primary's last one "
            f"{_hex(self.last)}: it replicates another database, or this primary has "
            "lost transactions. Check the address; to go on from this primary, replicate into "
            "an empty storage"
        )


class Diverged(StartError):
    """The secondary holds a transaction that the primary never had (protocol, section 6).

    `before` and `after` are the primary's tids around `start` (None where there is none).
    """

    def __init__(self, start: bytes, before: bytes | None, after: bytes | None) -> None:
        super().__init__(start, before, after)
        self.start = start
        self.before = before
        self.after = after

    def __str__(self) -> str:
        return (
            f"the histories have diverged: the secondary holds {_hex(self.start)}, which "
            "is not in this primary. The nearest transactions here are "
            f"{_hex(self.before)} before it and {_hex(self.after)} after it; the secondary may "
            "have neither, and logs the last one that both have. Keep the secondary's files if "
            "their newest transactions matter; to go on from this primary, replicate into an "
            "empty storage"
        )


class NotCarried(ReplicationError):
    """A committed transaction cannot be sent to any secondary.

    `tid` is the transaction, `reason` says why, and `remedy` how replication can continue.
    """

    def __init__(self, tid: bytes, reason: str, remedy: str) -> None:
        super().__init__(tid, reason, remedy)
        self.tid = tid
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return (
            f"transaction {_hex(self.tid)} cannot be replicated: {self.reason}. What precedes it "
            f"is sent. {self.remedy}"
        )


class OtherHistory(ReplicationError):
    """What a primary sends is not what the secondary holds: the histories have diverged.

    `last` is the secondary's last transaction, `before` the one before it (`NO_TID` for none);
    `sent` is the transaction of the primary with which it shows, and `what` says how.
    """

    def __init__(self, before: bytes, last: bytes, sent: bytes, what: str) -> None:
        super().__init__(before, last, sent, what)
        self.before = before
        self.last = last
        self.sent = sent
        self.what = what

    def __str__(self) -> str:
        return (
            f"the histories have diverged: after {_hex(self.before)} this secondary holds "
            f"{_hex(self.last)} as its last transaction, and the primary sends "
            f"{_hex(self.sent)}, {self.what}. Nothing of it was applied. Check the address; to go "
            "on from this primary, keep the secondary's files if their newest transactions matter, "
            "and replicate into an empty storage"
        )


class NotComparable(ReplicationError):
    """The last transaction that a secondary holds cannot be compared; the text says why."""


class ConfigurationError(ReplicationError, ValueError):
    """An argument that cannot work; the text names it and what would be right."""


class InvalidAddress(ConfigurationError):
    """A network address that does not parse."""


class UnknownTransport(ConfigurationError):
    """No transport is registered under this name."""


class UnsuitableStorage(ConfigurationError):
    """A storage (or a path) that cannot be replicated from or into."""


class Exposed(ConfigurationError):
    """A primary that requires TLS is to listen without it where other machines can connect."""


class ListenError(ReplicationError, OSError):
    """An address could not be listened on."""


class MissingBlobSupport(ReplicationError):
    """A blob arrived for a storage that keeps no blobs."""


class WrittenToByOthers(ReplicationError):
    """A secondary's storage has a transaction that did not come by its replication."""


class NotWritten(ReplicationError):
    """The disk did not take what was written: an fsync has failed, as `__cause__` says.

    Nobody knows what of it is on disk, and to try again would tell nothing. So nothing more is
    written: what a storage shows was on disk before. When it is opened again, it goes on from what
    its file holds.
    """

    def __init__(self, cause: BaseException) -> None:
        super().__init__(
            f"the disk did not take what was written ({cause}), so nothing more is written. Check "
            "the disk, then open the secondary again"
        )


class NoData(ReplicationError):
    """No transaction has come to an empty secondary in time; the text says from where, and why."""


class UsedAfterFork(ReplicationError):
    """A storage was opened before this process was forked, and does not work in it.

    `name` is the storage's.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return (
            f"{self.name} was opened before this process was forked: it does not replicate here, "
            "and its files and connections belong to the parent. Open storages after the fork: in "
            "gunicorn without --preload or in post_fork, in uWSGI with lazy-apps"
        )


class NoStatus(ReplicationError):
    """An address did not tell its status: nobody answers, not in time, or with something else.

    `address` is as it was asked for; `reason` is one line, without it.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.address}: {self.reason}"


class NotAStatusServer(NoStatus):
    """Who listens there speaks something else than HTTP.

    `answer` is what came first, at most a few bytes.
    """

    def __init__(self, address: str, reason: str, answer: bytes) -> None:
        super().__init__(address, reason)
        self.answer = answer


class Unverifiable(ReplicationError):
    """Two databases could not be compared to the end; the text says why."""
