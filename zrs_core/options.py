"""What can be set about replication, checked before anything is opened."""

from __future__ import annotations

from dataclasses import dataclass

from .codec.pickles import WRITERS
from .codec.secondary import ChecksumPolicy
from .errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """How a service replicates: `pickle_protocol` is 3, or 1 for secondaries on Python 2.

    :raises ConfigurationError: another pickle protocol.
    """

    pickle_protocol: int = 3

    def __post_init__(self) -> None:
        if self.pickle_protocol not in WRITERS:
            raise ConfigurationError(
                f"pickle_protocol must be 1 or 3, not {self.pickle_protocol!r}"
            )


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How a client replicates.

    `checksums` is a `ChecksumPolicy` or its name (or, as in ZRS 2, True to verify and False to
    ignore), `keep_alive_delay` the seconds between keep-alive messages, 0 for none,
    `reconnect_delay` the shortest and the longest time between attempts to connect in seconds,
    or one number for both.

    :raises ConfigurationError: a value that is none of these.
    """

    checksums: ChecksumPolicy | str | bool = ChecksumPolicy.VERIFY
    keep_alive_delay: float = 0
    reconnect_delay: float | tuple[float, float] = (0.5, 60.0)

    def __post_init__(self) -> None:
        self.policy()
        first, longest = self.reconnect_bounds()
        if not 0 < first <= longest:
            raise ConfigurationError(
                "reconnect_delay must be a number of seconds above 0, or a shorter and a longer "
                f"one, not {self.reconnect_delay!r}"
            )
        if not self.keep_alive_delay >= 0:
            raise ConfigurationError(
                f"keep_alive_delay must be 0 or more seconds, not {self.keep_alive_delay!r}"
            )

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
        if isinstance(self.reconnect_delay, tuple):
            return self.reconnect_delay
        return self.reconnect_delay, self.reconnect_delay
