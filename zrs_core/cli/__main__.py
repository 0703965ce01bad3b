"""`python -m zrs_core.cli` is the `zrs` command."""

from . import main

main()
