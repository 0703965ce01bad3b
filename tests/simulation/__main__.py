"""`python -m tests.simulation --start S --count N`: the seeds from S on, N of them."""

from __future__ import annotations

import sys

from .runs import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
