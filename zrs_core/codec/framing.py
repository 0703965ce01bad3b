"""Length-prefixed messages.

::

    4 bytes   length of the payload, unsigned, big-endian
    n bytes   payload

Length 0 is legal.
"""

from __future__ import annotations

import struct
from typing import Final

from ..errors import LimitExceeded

_LENGTH: Final = struct.Struct(">I")
_PREFIX_SIZE: Final = _LENGTH.size

#: The longest payload that a length prefix can announce.
MAX_PAYLOAD_SIZE: Final = 2**32 - 1


def prefix(payload_size: int) -> bytes:
    """The length prefix (4 bytes) of a payload of `payload_size` bytes."""
    return _LENGTH.pack(payload_size)


class FrameReader:
    """Cuts a stream of bytes into payloads.

    It holds what was fed and not yet taken, and nothing more: what a prefix announces costs no
    memory before it has arrived. `offset` counts the bytes of the stream before the message that
    the last `take` was about, prefixes included. Not thread-safe.
    """

    def __init__(self) -> None:
        self.offset = 0
        self._taken = 0
        self._buffer = bytearray()
        self._begin = 0

    def feed(self, data: bytes) -> None:
        """Add bytes of any number, as they came from the network."""
        # Taking moves an offset; the bytes before it go at once here, so that a burst of tiny
        # messages in one read costs linear time.
        if self._begin:
            del self._buffer[: self._begin]
            self._begin = 0
        self._buffer += data

    def take(self, limit: int) -> bytes | None:
        """The next payload, or None if it is not complete yet.

        :param limit: the most bytes that this payload may have.
        :raises LimitExceeded: more than `limit` bytes are announced.
        """
        self.offset = self._taken
        size = self.announced()
        if size is None:
            return None
        if size > limit:
            raise LimitExceeded(f"a message of {size} bytes, where at most {limit} are allowed")
        begin = self._begin + _PREFIX_SIZE
        end = begin + size
        if len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:
            payload = bytes(view[begin:end])
        self._begin = end
        self._taken += _PREFIX_SIZE + size
        return payload

    def announced(self) -> int | None:
        """The size of the next payload, or None before its prefix is complete."""
        if len(self._buffer) - self._begin < _PREFIX_SIZE:
            return None
        size: int = _LENGTH.unpack_from(self._buffer, self._begin)[0]
        return size

    @property
    def waiting(self) -> int:
        """Bytes that were fed and not taken."""
        return len(self._buffer) - self._begin

    def discard(self) -> None:
        """Drop what was fed and not taken."""
        self._buffer.clear()
        self._begin = 0
