"""Runs of one seed after the other, in one process or in several."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import logging
import multiprocessing
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .faults import CALLED, FAULTS
from .guards import GUARDS, without
from .model import Broken
from .shim import machine, simulated_system
from .world import World

#: What happens in a run, before all faults end: commits, deliveries, and faults in between.
EVENTS = 36


class Failure(NamedTuple):
    seed: int
    what: str
    guard: str | None = None

    def __str__(self) -> str:
        without = f"--without {self.guard} " if self.guard else ""
        return (
            f"seed {self.seed}: {self.what}\n"
            f"    python -m tests.simulation --start {self.seed} --count 1 {without}--trace"
        )


def run(seed: int, trace: Callable[[str], object] | None = None) -> str:
    """One run; a digest of all that has happened in it.

    :param trace: called with each line that tells what happens.
    :raises Exception: what must not happen has happened.
    """
    with machine(seed) as simulated:
        world = World(seed, simulated, trace)
        faults = world.rng.sample(list(FAULTS), world.rng.choice((0, 1, 2, 3, 4, 6)))
        weights = [FAULTS[each] for each in faults]
        threads = threading.active_count()
        world.start(world.primary)
        for world.events in range(1, EVENTS + 1):
            _event(world)
            if faults and world.rng.random() < 0.3:
                (fault,) = world.rng.choices(faults, weights)
                world.tell(fault.__name__)
                fault(world)
            world.check()
            if world.events % 12 == 0:
                world.check_all()
        world.heal()
        if CALLED:
            raise Broken("I7: what came from a peer was called")
        if threading.active_count() != threads:
            raise Broken(f"I10: there are threads left: {threading.enumerate()}")
        return world.digest.hexdigest()


def _event(world: World) -> None:
    rng = world.rng
    chance = rng.random()
    if chance < 0.2:
        world.commit()
    elif chance < 0.4:
        for _ in range(rng.randrange(1, 4)):
            world.commit_step()
    elif chance < 0.75:
        for _ in range(rng.randrange(1, 9)):
            if world.links.ends:
                world.step_end(rng.choice(world.links.ends), rng.choice((1, 60, 900, 70_000)))
    elif chance < 0.85:
        world.advance(rng.choice((0.1, 1.0, 9.0, 9.0, 70.0)))
    else:
        world.run()
    down = [node for node in world.nodes if not node.up]
    if down and rng.random() < 0.4:
        world.start(rng.choice(down))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def run_all(start: int, count: int, guard: str | None = None) -> list[Failure]:
    """The runs that failed of `count` runs from the seed `start` on.

    :param guard: which of the `GUARDS` the code lacks meanwhile.
    """
    failures = []
    with _quiet(), simulated_system(), without(guard) if guard else contextlib.nullcontext():
        for seed in range(start, start + count):
            try:
                run(seed)
            except Exception as error:
                failures.append(Failure(seed, f"{type(error).__name__}: {error}", guard))
    return failures


def run_in_processes(
    start: int, count: int, processes: int, guard: str | None = None
) -> list[Failure]:
    """As `run_all`, the seeds shared among so many processes."""
    if processes == 1:
        return run_all(start, count, guard)
    ends = [start + count * number // processes for number in range(processes + 1)]
    parts = [(begin, end - begin, guard) for begin, end in itertools.pairwise(ends)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return [failure for part in pool.starmap(run_all, parts) for failure in part]


def _traced(seed: int) -> int:
    """Run one seed and print what happens in it."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("    %(levelname)s %(name)s: %(message)s"))
    log = logging.getLogger("zrs_core")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        with simulated_system():
            digest = run(seed, print)
    except Exception:
        traceback.print_exc(file=sys.stdout)
        return 1
    finally:
        log.removeHandler(handler)
    print(f"digest {digest}")
    return 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=100, help="how many")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--without", choices=GUARDS, help="a guard that is taken out of the code")
    parser.add_argument("--trace", action="store_true", help="tell what happens; one process")
    options: Any = parser.parse_args(arguments)
    if options.trace:
        seeds = range(options.start, options.start + options.count)
        with without(options.without) if options.without else contextlib.nullcontext():
            return max([_traced(seed) for seed in seeds], default=0)
    began = time.monotonic()
    failures = run_in_processes(options.start, options.count, options.processes, options.without)
    for failure in failures:
        print(failure)
    print(
        f"simulation: {options.count} seeds from {options.start} on, {len(failures)} failed, "
        f"{time.monotonic() - began:.1f} s"
    )
    return 1 if failures else 0
