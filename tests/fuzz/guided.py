"""The targets under libFuzzer, which looks for inputs that reach what no other has: `make fuzz`.

`python -m tests.fuzz.guided TARGET [libFuzzer options and folders]`. What it finds goes to
``build/fuzz``; `python -m tests.fuzz.keep` takes over what is worth keeping.
"""

from __future__ import annotations

import logging
import random
import sys

import atheris

with atheris.instrument_imports(include=["zrs_core.codec", "zrs_core.messages"]):
    from .inputs import vary
    from .targets import TARGETS


def main() -> None:
    target = sys.argv.pop(1)
    logging.getLogger("zrs_core").setLevel(logging.CRITICAL)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.3:
            return atheris.Mutate(data, max_size)
        return vary(target, data, chance)[:max_size]

    atheris.Setup(sys.argv, TARGETS[target], custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
