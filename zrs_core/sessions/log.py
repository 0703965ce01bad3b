"""The log of a session."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..logs import event
from ..tids import last_of

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    # It takes no parameter before Python 3.11.
    _Adapter = logging.LoggerAdapter


class PeerLog(_Adapter):
    """Puts the peer in front of each message, and into the fields, with the position.

    :param position: the last transaction that has gone over the connection whole, or was there
        before; None or `NO_TID` if there is none.
    :param secondary: the name of the secondary that has this connection.
    """

    def __init__(
        self,
        logger: logging.Logger,
        peer: str,
        position: Callable[[], bytes | None],
        secondary: Callable[[], str | None] = lambda: None,
    ) -> None:
        super().__init__(logger)
        self._peer = peer
        self._position = position
        self._secondary = secondary

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if not self.isEnabledFor(level):
            # A peer can send keep-alives as fast as the line takes them.
            return
        fields = event(
            kwargs["extra"]["event"],
            peer=self._peer,
            tid=self._position(),
            secondary=self._secondary(),
        )
        kwargs["extra"] = fields | kwargs["extra"]
        # As an argument, since the path of a Unix socket may have a % in it.
        self.logger.log(level, f"%s: {msg}", self._peer, *args, **kwargs)

    def last(self) -> str:
        """The position, to be put behind a text."""
        return last_of(self._position())
