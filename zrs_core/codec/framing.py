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

    What is fed is cut where it lies, in `buffer` from `begin` on. A message that began in what was
    fed before is put together by itself, and `_following` lies behind it. What is fed while more
    than that is left is copied into `_later`, from which a payload that began in `buffer` is
    completed once it has all come: so the time is linear, however the stream arrives.
    """

    def __init__(self) -> None:
        self.offset = 0
        #: What is being cut, and where the next message begins in it.
        self.buffer = b""
        self.begin = 0
        # Bytes of the stream before `buffer`.
        self._before = 0
        # What comes after `buffer`, and where the next message begins in it.
        self._following = b""
        self._following_begin = 0
        self._later = bytearray()

    def feed(self, data: bytes) -> None:
        """Add bytes of any number, as they came from the network."""
        if self._later or self.waiting > len(data):
            self._later += data
        elif self.waiting:
            self._join(bytes(data))
        else:
            self._replace(bytes(data))

    def _join(self, data: bytes) -> None:
        """Go on with what is left and `data` behind it."""
        rest = self.buffer[self.begin :] + self._following[self._following_begin :]
        self._following, self._following_begin = b"", 0
        missing = 0
        if len(rest) >= _PREFIX_SIZE:
            missing = _PREFIX_SIZE + _LENGTH.unpack_from(rest)[0] - len(rest)
        if 0 < missing < len(data):
            self._replace(rest + data[:missing])
            self._following, self._following_begin = data, missing
        else:
            self._replace(rest + data)

    def advance(self) -> None:
        """Have the next message in `buffer`, if it lies behind it."""
        if self._following and self.begin == len(self.buffer):
            self._before += self.begin - self._following_begin
            self.buffer, self.begin = self._following, self._following_begin
            self._following, self._following_begin = b"", 0

    def _replace(self, data: bytes) -> None:
        """Go on with `data`, which begins where the next message does."""
        self._before += self.begin
        self.buffer = data
        self.begin = 0

    def take(self, limit: int) -> bytes | None:
        """The next payload, or None if it is not complete yet.

        :param limit: the most bytes that this payload may have.
        :raises LimitExceeded: more than `limit` bytes are announced.
        """
        self.advance()
        self.offset = self._before + self.begin
        size = self.announced()
        if size is None:
            return None
        if size > limit:
            raise LimitExceeded(f"a message of {size} bytes, where at most {limit} are allowed")
        begin = self.begin + _PREFIX_SIZE
        end = begin + size
        missing = end - len(self.buffer)
        if missing <= 0:
            self.begin = end
            return self.buffer[begin:end]
        if missing > len(self._later):
            return None
        with memoryview(self._later) as later:
            payload = b"".join((memoryview(self.buffer)[begin:], later[:missing]))
            rest = bytes(later[missing:])
        self._later = bytearray()
        self.begin = end
        self._replace(rest)
        return payload

    def announced(self) -> int | None:
        """The size of the next payload, or None before its prefix is complete."""
        self.advance()
        if len(self.buffer) - self.begin < _PREFIX_SIZE:
            if self.waiting < _PREFIX_SIZE:
                return None
            self._replace(self.buffer[self.begin :] + self._later)
            self._later = bytearray()
        size: int = _LENGTH.unpack_from(self.buffer, self.begin)[0]
        return size

    def partial(self, limit: int) -> bytes:
        """Return what has come of the payload that is not complete yet, at most `limit` bytes.

        To be called when `take` has returned None.
        """
        begin = self.begin + _PREFIX_SIZE
        payload = bytes(self.buffer[begin : begin + limit])
        return payload + self._later[: limit - len(payload)]

    @property
    def waiting(self) -> int:
        """Bytes that were fed and not taken."""
        following = len(self._following) - self._following_begin
        return len(self.buffer) - self.begin + following + len(self._later)

    def discard(self) -> None:
        """Drop what was fed and not taken."""
        self._later = bytearray()
        self._following, self._following_begin = b"", 0
        self._replace(b"")
