"""ZODB storages as sources and sinks of transactions, and the two storages that replicate."""
