"""Measures in rounds: everyone once, in turn, and then all again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from .cases import Case, Values
from .contenders import Contender

Measured = dict[str, list[Values]]


def measure(
    case: Case,
    rounds: int,
    scratch: Path,
    measured_one: Callable[[int, Contender, Values], None],
) -> Measured:
    """The values of each round, by contender.

    :param measured_one: is told each time that somebody has had a turn.
    """
    measured: Measured = {contender.name: [] for contender in case.contenders}
    for number in range(min(rounds, case.most_rounds)):
        for contender in case.contenders:
            # What others have written is on its way to the disk no more.
            os.sync()
            with tempfile.TemporaryDirectory(dir=scratch) as directory:
                values = case.measure(contender, Path(directory))
            measured[contender.name].append(values)
            measured_one(number, contender, values)
    return measured
