"""Replication for ZODB: one primary, any number of read-only secondaries.

`Primary` and `Secondary` are storages; `zrs_core.codec` is the protocol without any I/O.
"""

from importlib.metadata import version as _version

from .storage.primary import Primary
from .storage.secondary import Secondary

__all__ = ["Primary", "Secondary", "__version__"]
__version__ = _version("zrs-core")
