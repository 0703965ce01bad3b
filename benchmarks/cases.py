"""What a benchmark is, to whoever runs it and prints it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from .contenders import CONTENDERS, PEER, Contender

Values = dict[str, float]


class Figure(NamedTuple):
    """Something that is measured: its unit, and whether less of it is better.

    Those that are `drawn` are what implementations are compared by; the others explain.
    """

    name: str
    unit: str
    less_is_better: bool = True
    drawn: bool = True


SECONDS = Figure("time", "s")
USED = [
    Figure("primary cpu", "s", drawn=False),
    Figure("secondary cpu", "s", drawn=False),
    Figure("primary peak", "MB", drawn=False),
    Figure("secondary peak", "MB", drawn=False),
]


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    `measure(contender, directory)` does it once, with an empty directory for its files, and
    returns a value for each figure. Ratios are to what `reference` reaches. `most_rounds` is for
    what takes long and varies little.
    """

    name: str
    description: str
    figures: Sequence[Figure]
    measure: Callable[[Contender, Path], Values]
    contenders: Sequence[Contender] = field(default=tuple(CONTENDERS))
    reference: Contender = PEER
    most_rounds: int = 100
