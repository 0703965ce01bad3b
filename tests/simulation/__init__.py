"""A primary and its secondaries in one thread: their clock, their disks and their network are ours.

What runs is the real thing: codec, sessions, storages, sinks and sources, over ZODB's FileStorage
and its blobs. Only what is below and between them is simulated, from one seed: so each run can be
had again, and nothing of it depends on how fast a machine is.

`python -m tests.simulation --start 0 --count 100` runs the seeds from 0 to 99.
"""
