"""The parts of replication by themselves: no network, one thread.

    python -m pytest benchmarks/parts

Each round is of a thousand messages, or of a thousand transactions of three records: a millisecond
in the table is a microsecond for each.
"""
