"""The processes that are measured: a primary, or a secondary, of one implementation.

They run in the virtual environment of their implementation, so nothing here imports more than the
standard library and ZODB, but for `implementations`.
"""
