"""Snapshots of a database, and databases restored from them.

`taking` takes one from a file and `receiving` one from a primary; `restoring` makes a database of
one again. `workspace` is where either is built before it gets its name, `copying` and `checking`
are what both do, `manifest` is what a snapshot says of itself.
"""
