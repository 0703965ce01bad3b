"""Finds its way in a stream again, after something in it that is no valid protocol."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from ...codec.opcodes import PickleError
from ...codec.pickles import decode
from ...errors import InvalidMessage
from ...messages import Transaction

#: Bytes of a length prefix.
PREFIX_SIZE: Final = 4

# How a message begins that may be a T: a length below 2**20, and the first opcodes of its pickle up
# to the tag, as any peer writes them. One may begin within what looks like another.
_BEGINNING: Final = re.compile(
    rb"(?=\0[\0-\x0f]..(?:\x80.(?:\x95.{8})?\(?|\()(?:X\x01\0\0\0|U\x01|\x8c\x01)T)",
    re.DOTALL,
)

# The most bytes that this looks at from where a message begins.
_OVERLAP: Final = 24


def begins_transaction(payload: bytes) -> bool:
    """Whether a message, without its length prefix, is a T that can be read."""
    try:
        return isinstance(decode(payload), Transaction)
    except (PickleError, InvalidMessage):
        return False


def find_transaction(data: bytes | bytearray) -> tuple[int, bool]:
    """Where a message that is a T begins, length prefix included, and whether it is there whole.

    If it is not, there is none before that place, and it has to be looked at again with more data.
    """
    for match in _BEGINNING.finditer(data):
        begin = match.start()
        payload = begin + PREFIX_SIZE
        end = payload + int.from_bytes(data[begin:payload], "big")
        if end > len(data):
            return begin, False
        if begins_transaction(bytes(data[payload:end])):
            return begin, True
    return max(len(data) - _OVERLAP, 0), False


class Walk:
    """Goes through what is skipped as if its length prefixes were right.

    :param update: called with the payloads, piece by piece, for the checksum.
    """

    def __init__(self, update: Callable[[bytes], object]) -> None:
        #: How many messages have begun, and how many bytes they have.
        self.messages = 0
        self.size = 0
        self._update = update
        self._prefix = b""
        self._left = 0

    @property
    def at_end(self) -> bool:
        """Whether a message ends here, so that the prefixes were right as far as one can see."""
        return not (self._prefix or self._left)

    def over(self, data: bytes) -> None:
        """Go on over these bytes."""
        self.size += len(data)
        pos = 0
        while pos < len(data):
            if self._left:
                piece = data[pos : pos + self._left]
                self._update(piece)
                self._left -= len(piece)
            else:
                piece = data[pos : pos + PREFIX_SIZE - len(self._prefix)]
                self._prefix += piece
                if len(self._prefix) == PREFIX_SIZE:
                    self._left = int.from_bytes(self._prefix, "big")
                    self._prefix = b""
                    self.messages += 1
            pos += len(piece)
