"""Reads a hostile file as the end does that its folder names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zrs_core.codec import PrimaryConnection, SecondaryConnection, extension
from zrs_core.codec.connection import Connection
from zrs_core.codec.opcodes import PickleError
from zrs_core.errors import RemoteProtocolError
from zrs_core.testing.outcomes import listening

_ENDS: dict[str, Callable[[], Connection[Any]]] = {
    "secondary": listening,
    "secondary-silent": SecondaryConnection,
    "secondary-zrs2.0": lambda: listening("zrs2.0"),
    "primary": PrimaryConnection,
    "primary-zrs2.0": lambda: PrimaryConnection(blobs=False),
}


def read(folder: str, data: bytes) -> list[Any]:
    """All that is read of it.

    :raises RemoteProtocolError: what a peer sent is refused.
    :raises PickleError: an extension cannot be written.
    """
    if folder == "extension":
        return [extension.splice(data), extension.for_protocol_1(data)]
    connection = _ENDS[folder]()
    connection.receive_data(data)
    messages = list(connection.messages())
    connection.receive_eof()
    return messages + list(connection.messages())


def reason(folder: str, data: bytes) -> str:
    """Why it is refused; nothing where it is legal."""
    try:
        read(folder, data)
    except (RemoteProtocolError, PickleError) as error:
        return f"{type(error).__name__}: {error}"
    return ""
