"""Asking a ZEO server for the last transactions of its storages.

A ZEO server (ZEO 4 and later) begins each connection with the name of its protocol, and answers
the word `ruok` with JSON about its storages. All messages follow their length in 4 bytes.
"""

from __future__ import annotations

import json
import re
import struct
import time
from contextlib import closing

from persistent.timestamp import TimeStamp

from ..errors import NoStatus
from .fetch import Connection, StatusAddress, asking, connect

_ASK = b"\0\0\0\4ruok"
#: More than any server has to say of its storages.
_MAX_SIZE = 1024 * 1024
_TID = re.compile("[0-9a-f]{16}")


def is_greeting(begin: bytes) -> bool:
    """Whether what a server says first may be ZEO's."""
    return begin.startswith(b"\0\0\0")


def last_transactions(address: StatusAddress, timeout: float) -> dict[str, float]:
    """The time of the last transaction of each storage, by its name, in seconds since 1970.

    :raises NoStatus: nobody listens there, or has answered in time, or it is no ZEO server.
    """
    with asking(address, timeout):
        with closing(connect(address.address, time.monotonic() + timeout)) as connection:
            connection.send(_ASK)
            _read(connection, address)
            answer = _read(connection, address)
    try:
        return {
            name: TimeStamp(bytes.fromhex(_tid_in(about))).timeTime()
            for name, about in json.loads(answer.decode("ascii")).items()
        }
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise NoStatus(address.text, "it is neither a status server nor a ZEO server") from error


def _tid_in(about: dict[str, str]) -> str:
    tid = about["last-transaction"]
    if not _TID.fullmatch(tid):
        raise ValueError(tid)
    return tid


def _read(connection: Connection, address: StatusAddress) -> bytes:
    [size] = struct.unpack(">I", _read_exactly(connection, 4, address))
    if size > _MAX_SIZE:
        raise NoStatus(address.text, "it is neither a status server nor a ZEO server")
    return _read_exactly(connection, size, address)


def _read_exactly(connection: Connection, size: int, address: StatusAddress) -> bytes:
    data = bytearray()
    while len(data) < size:
        if not (more := connection.read(size - len(data))):
            raise NoStatus(address.text, "it closes the connection without an answer")
        data += more
    return bytes(data)
