"""The running MD5 of a connection (protocol, section 3).

One MD5 over the 8 bytes of the start id and then over the payload of every message that the
primary sent: pickles, records, blob blocks, earlier commits; length prefixes left out. A commit
carries the digest of all that came before it. MD5 is what the wire has; it detects damage, and
protects against nobody.
"""

from __future__ import annotations

import hashlib


class RunningChecksum:
    """The digest of a stream so far.

    :param start: the 8 bytes of the start id.
    """

    def __init__(self, start: bytes) -> None:
        self._md5 = hashlib.md5(start, usedforsecurity=False)
        self.update = self._md5.update

    def digest(self) -> bytes:
        """The checksum (16 bytes) for a commit that would be sent now."""
        return self._md5.digest()
