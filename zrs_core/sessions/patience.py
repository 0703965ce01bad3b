"""The time that a message may take to become complete."""

from __future__ import annotations


class Patience:
    """Decides when a message that does not become complete counts as damaged.

    A length that was damaged on the way announces bytes that never come, or that are the messages
    behind it. A large record over a slow line looks the same. The two differ when they are sent
    again: the damage does not come a second time. So a message that takes longer than the limit
    ends its connection once. One that comes again as it was is waited for, and from then on so is
    any other that takes as long.

    :param limit: the seconds that a message may take at first.
    """

    def __init__(self, limit: float) -> None:
        #: The seconds that a message may take now.
        self.limit = limit
        self._suspected: object = None

    def is_over(self, seconds: float, message: object) -> bool:
        """Return True if the connection is to be left, since a message is not complete yet.

        :param seconds: the time for which it has been incomplete.
        :param message: a value that is the same when the message is sent again.
        """
        if seconds < self.limit:
            return False
        if message == self._suspected:
            self.limit = 2 * seconds
            return False
        self._suspected = message
        return True
