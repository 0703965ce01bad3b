"""What can be set about replication, checked before anything is opened."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from threading import TIMEOUT_MAX

from .codec.pickles import WRITERS
from .codec.secondary import MAX_RECORD_SIZE, ChecksumPolicy
from .errors import ConfigurationError
from .tls import TLSOptions

#: Bytes in a record at most.
DEFAULT_MAX_RECORD_SIZE = MAX_RECORD_SIZE

#: The most bytes of a secondary's last transaction that are sent again to be compared.
DEFAULT_MAX_COMPARED_SIZE = 64 * 1024 * 1024

#: Seconds after which a peer that has vanished without a word is noticed.
DEFAULT_PEER_TIMEOUT = 60.0

#: When a secondary writes transactions to disk: each by itself, those that came together, or when
#: the system likes.
DURABILITIES = ("transaction", "batch", "none")

#: Connections that a primary has at once, at most.
DEFAULT_MAX_PEERS = 100

#: Seconds that a peer of a primary has for TLS and a valid greeting.
DEFAULT_HANDSHAKE_TIMEOUT = 10.0

#: Seconds after which a peer that takes nothing of what it is sent is left.
DEFAULT_WRITE_TIMEOUT = 60.0

#: Seconds that a primary that is closed lets its peers catch up.
DEFAULT_CLOSE_TIMEOUT = 10.0

# The system counts its probes in whole seconds, and not beyond a number of 16 bits.
_PEER_TIMEOUTS = (2, 36_000)

#: Seconds between the empty messages of a secondary, at least; a primary refuses a peer that sends
#: more than twice as many.
MIN_KEEP_ALIVE_DELAY = 0.01

_MAX_PEERS = (1, 1_000_000)

# Seconds for a peer to do something.
_DEADLINES = (0.01, 36_000)

# More often would keep a database busy, less often would look like a stall.
_POLL_INTERVALS = (0.01, 3600)

# Characters of the name of a secondary.
_LONGEST_NAME = 255


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """How a service replicates.

    `pickle_protocol` is 3, or 1 for secondaries on Python 2; `tls` encrypts the connections, None
    for plain text; `peer_timeout` is the time in seconds after which a secondary that has
    vanished without a word is noticed; `socket_mode` are the permissions of a Unix socket.
    `max_peers` is the greatest number of connections at once, `handshake_timeout` the time in
    seconds from accepting one to the end of its valid greeting, `write_timeout` that after which
    a peer is left that takes nothing of what it is sent. `require_tls` refuses to listen without
    TLS where other machines can connect.

    :raises ConfigurationError: a value that is none of these.
    """

    pickle_protocol: int = 3
    tls: TLSOptions | None = None
    peer_timeout: float = DEFAULT_PEER_TIMEOUT
    socket_mode: int = 0o600
    max_peers: int = DEFAULT_MAX_PEERS
    handshake_timeout: float = DEFAULT_HANDSHAKE_TIMEOUT
    write_timeout: float = DEFAULT_WRITE_TIMEOUT
    require_tls: bool = False

    def __post_init__(self) -> None:
        check_seconds("peer_timeout", self.peer_timeout, *_PEER_TIMEOUTS)
        check_seconds("handshake_timeout", self.handshake_timeout, *_DEADLINES)
        check_seconds("write_timeout", self.write_timeout, *_DEADLINES)
        least, most = _MAX_PEERS
        if not isinstance(self.max_peers, int) or not least <= self.max_peers <= most:
            raise ConfigurationError(
                f"max_peers must be a number of connections, {least} to {most}, "
                f"not {self.max_peers!r}"
            )
        if not isinstance(self.require_tls, bool):
            raise ConfigurationError(f"require_tls must be True or False, not {self.require_tls!r}")
        _check_tls(self.tls)
        if self.tls is not None:
            self.tls.check_primary()
        if not isinstance(self.socket_mode, int) or not 0 <= self.socket_mode <= 0o777:
            raise ConfigurationError(
                f"socket_mode must be permissions such as 0o660, not {self.socket_mode!r}"
            )
        if not isinstance(self.pickle_protocol, int) or self.pickle_protocol not in WRITERS:
            raise ConfigurationError(
                f"pickle_protocol must be 1 or 3, not {self.pickle_protocol!r}"
            )


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How a client replicates.

    `checksums` is a `ChecksumPolicy` or its name (or, as in ZRS 2, True to verify and False to
    ignore), `keep_alive_delay` the seconds between keep-alive messages, 0 for none,
    `reconnect_delay` the shortest and the longest time between attempts to connect in seconds,
    or one number for both. `tls` encrypts the connection, None for plain text; `peer_timeout` is
    the time in seconds after which a primary that has vanished without a word is noticed;
    `max_record_size` the most bytes in a record. `durability` is one of `DURABILITIES`.
    `max_compared_size` is the most bytes of the last transaction, records and blobs, that are sent
    again at each connection to be compared; 0 to compare none. `name` is the name of the
    secondary in logs, status and metrics; None for that of the host.

    :raises ConfigurationError: a value that is none of these.
    """

    checksums: ChecksumPolicy | str | bool = ChecksumPolicy.VERIFY
    keep_alive_delay: float = 0
    reconnect_delay: float | tuple[float, float] = (0.5, 60.0)
    tls: TLSOptions | None = None
    peer_timeout: float = DEFAULT_PEER_TIMEOUT
    max_record_size: int = DEFAULT_MAX_RECORD_SIZE
    durability: str = "batch"
    max_compared_size: int = DEFAULT_MAX_COMPARED_SIZE
    name: str | None = None

    def __post_init__(self) -> None:
        check_seconds("peer_timeout", self.peer_timeout, *_PEER_TIMEOUTS)
        check_seconds("keep_alive_delay", self.keep_alive_delay)
        if 0 < self.keep_alive_delay < MIN_KEEP_ALIVE_DELAY:
            raise ConfigurationError(
                f"keep_alive_delay must be 0, for no messages, or {MIN_KEEP_ALIVE_DELAY} or more "
                f"seconds, not {self.keep_alive_delay!r}"
            )
        _check_tls(self.tls)
        self.policy()
        self.reconnect_bounds()
        if not isinstance(self.max_record_size, int) or self.max_record_size < 1:
            raise ConfigurationError(
                f"max_record_size must be a number of bytes, not {self.max_record_size!r}"
            )
        if not isinstance(self.max_compared_size, int) or self.max_compared_size < 0:
            raise ConfigurationError(
                "max_compared_size must be a number of bytes, 0 for no comparison, "
                f"not {self.max_compared_size!r}"
            )
        if self.durability not in DURABILITIES:
            raise ConfigurationError(
                f"durability must be one of {', '.join(DURABILITIES)}, not {self.durability!r}"
            )
        if self.name is not None and not _is_name(self.name):
            raise ConfigurationError(
                f"name must be a text of 1 to {_LONGEST_NAME} printable characters, got "
                f"{self.name!r}"
            )

    def node_name(self) -> str:
        """Return the name of the secondary."""
        return self.name or socket.gethostname() or "localhost"

    def policy(self) -> ChecksumPolicy:
        """`checksums` as a policy."""
        if isinstance(self.checksums, bool):
            return ChecksumPolicy.VERIFY if self.checksums else ChecksumPolicy.IGNORE
        try:
            return ChecksumPolicy(self.checksums)
        except ValueError as error:
            known = ", ".join(repr(policy.value) for policy in ChecksumPolicy)
            raise ConfigurationError(
                f"check_checksums must be one of {known}, not {self.checksums!r}"
            ) from error

    def reconnect_bounds(self) -> tuple[float, float]:
        """`reconnect_delay` as two bounds."""
        delay = self.reconnect_delay
        bounds = delay if isinstance(delay, (tuple, list)) else (delay, delay)
        if len(bounds) != 2 or not all(map(_is_time, bounds)) or not 0 < bounds[0] <= bounds[1]:
            raise ConfigurationError(
                "reconnect_delay must be a number of seconds above 0, or a shorter and a longer "
                f"one, not {delay!r}"
            )
        return bounds[0], bounds[1]


def check_seconds(name: str, value: object, least: float = 0, most: float = TIMEOUT_MAX) -> None:
    """Whether `value` is a time between `least` and `most` seconds, and can be waited for.

    :raises ConfigurationError: it is not; `name` is that of the option.
    """
    if not _is_time(value, least, most):
        bounds = f"{least} or more" if most == TIMEOUT_MAX else f"{least} to {most}"
        raise ConfigurationError(f"{name} must be {bounds} seconds, not {value!r}")


def check_poll_interval(value: object) -> None:
    """Whether `value` is a time between two polls.

    :raises ConfigurationError: it is not.
    """
    check_seconds("poll_interval", value, *_POLL_INTERVALS)


def _is_time(value: object, least: float = 0, most: float = TIMEOUT_MAX) -> bool:
    return isinstance(value, (int, float)) and least <= value <= most


def _is_name(value: object) -> bool:
    return (
        isinstance(value, str)
        and value.isprintable()
        and value.strip() != ""
        and len(value) <= _LONGEST_NAME
    )


def _check_tls(tls: object) -> None:
    if tls is not None and not isinstance(tls, TLSOptions):
        raise ConfigurationError(f"tls must be TLSOptions, or None for plain text, not {tls!r}")
