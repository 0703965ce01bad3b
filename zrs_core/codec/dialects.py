"""What each protocol word means: the word chooses a dialect, nothing else asks for the word."""

from __future__ import annotations

from typing import Final, NamedTuple


class Dialect(NamedTuple):
    """One protocol word: `word` as the secondary sends it, `blobs` whether B may be sent."""

    word: str
    blobs: bool


ZRS_2_0: Final = Dialect("zrs2.0", blobs=False)
ZRS_2_1: Final = Dialect("zrs2.1", blobs=True)

#: The dialects by their words.
DIALECTS: Final = {dialect.word: dialect for dialect in (ZRS_2_0, ZRS_2_1)}
