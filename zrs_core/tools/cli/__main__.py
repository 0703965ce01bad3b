"""`python -m zrs_core.tools.cli` is the `zrs` command."""

from . import main

main()
