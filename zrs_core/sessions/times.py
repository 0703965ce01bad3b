"""Seconds that sessions wait, where no option sets them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Seconds within which a primary closes the connection of a secondary that it refuses. The protocol
#: has no message for that: the primary closes, and sends nothing.
REFUSAL_TIME: Final = 2.0

#: Seconds within which a primary must have begun to send a secondary's last transaction again.
ANSWER_TIME: Final = 30.0


@dataclass(frozen=True, slots=True)
class PrimaryTimes:
    """Seconds that a primary's sessions and its listener wait.

    `close` is the time that a peer has to take what was sent before a close. `hold` is the time
    for which a connection is held that is closed without anything sent, while its secondary is not
    refused: longer than `SecondaryTimes.refusal`. `check` is the time between two checks of the
    storage's files. `linger` is the time that a peer has to read why TLS refused it.
    """

    close: float = 10.0
    hold: float = 3.0
    check: float = 2.0
    linger: float = 2.0


@dataclass(frozen=True, slots=True)
class SecondaryTimes:
    """Seconds that a secondary's sessions and its connector wait.

    `connect` is the time that an attempt to connect, or a TLS handshake, may take. `refusal` is
    `REFUSAL_TIME`, `answer` is `ANSWER_TIME`. A primary that ends a session within `early` seconds,
    without sending anything new, ends it early. `settle` is the time without data after which a
    secondary counts as having all that its primary has. `hold` is the longest time for which a
    secondary makes nothing visible while more comes. `check` is the time between two checks of the
    storage's files, `lost` the time between two attempts to connect while they are not in place.
    `sending` is the time within which a primary that has something to send begins to send it, in a
    search. `close` and `linger` are as those of a primary.
    """

    connect: float = 30.0
    refusal: float = REFUSAL_TIME
    answer: float = ANSWER_TIME
    early: float = 10.0
    settle: float = 5.0
    hold: float = 0.1
    check: float = 2.0
    lost: float = 5.0
    sending: float = 10.0
    close: float = 10.0
    linger: float = 2.0
