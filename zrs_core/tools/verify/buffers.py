"""Two buffers, for what is read from two files to be compared."""

from __future__ import annotations

# A large bytearray begins 16 bytes behind the beginning of a page. From the beginning of a page, as
# in the system's cache of a file, to there some processors copy at a quarter of their speed (`rep
# movsb` of AMD's Zen 3).
_UNUSED = 16


class TwoBuffers:
    """Two buffers of `size` bytes each: `ours` and `theirs`."""

    def __init__(self, size: int) -> None:
        self._both = bytearray(_UNUSED + size), bytearray(_UNUSED + size)
        self.ours, self.theirs = (memoryview(each)[_UNUSED:] for each in self._both)

    def equal(self, size: int) -> bool:
        """Whether the first `size` bytes of both are the same."""
        if size == len(self.ours):
            # Of a part a copy would be made, and memoryviews are compared byte by byte.
            return self._both[0] == self._both[1]
        end = _UNUSED + size
        return self._both[0][:end] == self._both[1][:end]
