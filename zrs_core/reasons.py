"""Compare reasons of failures without what differs from one attempt to the next."""

from __future__ import annotations

import re

# The order matters: what is replaced first is not found again.
_VARYING = (
    # A point in time.
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?"), "TIME"),
    # A tid, an oid or an address in memory; also the name of a temporary file that begins with one.
    (re.compile(r"\b0x[0-9a-f]+(?:[a-z0-9_]{8}\b)?"), "ID"),
    # A temporary file, with the prefixes of this package, ZODB and Python.
    (re.compile(r"\b(?:tmp|BUC|CTFT|zrs-)[a-z0-9_]{8}\b"), "TEMPORARY"),
    # An IPv6 address.
    (re.compile(r"\[[0-9a-fA-F.]*:[0-9a-fA-F:.]*(?:%\w+)?\]"), "[ADDRESS]"),
    # A count, a port, an IPv4 address; not a part of a word, of a path or of a version.
    (re.compile(r"(?<![\w./-])\d+(?:[.,]\d+)*(?![\w/])"), "NUMBER"),
)


def same_kind(reason: str) -> str:
    """Return what reasons have in common that differ only in details, such as numbers.

    Tids and oids, times, counts, addresses, ports and names of temporary files are such details.
    Paths, names and words are not.
    """
    for varying, name in _VARYING:
        reason = varying.sub(name, reason)
    return reason
