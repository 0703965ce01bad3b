"""`python -m tests.kills --start S --count N`: N cases from number S on."""

from __future__ import annotations

import argparse
import sys

from . import run

parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
parser.add_argument("--start", type=int, default=0)
parser.add_argument("--count", type=int, default=100)
arguments = parser.parse_args()
sys.exit(run(arguments.start, arguments.count))
