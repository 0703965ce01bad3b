"""`zrs://` URIs for zodburi: a secondary, opened by a string.

::

    zrs://host:port/path/to/Data.fs?blob_dir=/path/to/blobs&transport=socket-thread
    zrs:///path/to/Data.fs?address=/run/zrs.sock
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from ..errors import ConfigurationError, InvalidAddress
from ..texts import path_of
from ..tls import TLSOptions
from . import parsing, table

if TYPE_CHECKING:
    from ..secondary import Secondary

# What zodburi makes arguments of the database of.
_DATABASE = ("database_name",)
_DATABASE_PREFIX = "connection_"
_TLS_PREFIX = "tls_"

_OPTIONS = table.BOTH | table.SECONDARY | table.STATUS
# A URI opens a secondary, and that option is a primary's.
_TLS = {key: option for key, option in table.TLS.items() if key != "require_certificate"}

#: The arguments that are options, by their names.
ARGUMENTS = _OPTIONS | {_TLS_PREFIX + key: option for key, option in _TLS.items()}


def resolve(uri: str) -> tuple[Callable[[], Secondary], dict[str, str]]:
    """What opens the secondary that a URI names, and the arguments that are its database's.

    Arguments of the secondary are those of `Secondary`, `address` for a Unix socket in place of
    the host, `tls=yes`, and `tls_` before each of `TLSOptions`; `status_` stands before those of
    its `StatusServer`, which it has with `status_address`. Nothing is opened yet.

    :raises ConfigurationError: an argument that is unknown, given twice or wrong, an address or a
        path that is missing; the text names it and the URI.
    """
    try:
        return _resolve(uri)
    except ValueError as error:
        raise ConfigurationError(f"{uri}: {error}") from error


def _resolve(uri: str) -> tuple[Callable[[], Secondary], dict[str, str]]:
    parts = urlsplit(uri)
    if parts.scheme != "zrs" or not uri[4:].startswith("//"):
        raise ConfigurationError("it does not begin with zrs://")
    if parts.fragment:
        raise ConfigurationError(f"#{parts.fragment} has no meaning here; a # in a path is %23")
    path = _path(parts)
    arguments = _arguments(parts.query)
    address = _address(unquote(parts.netloc), arguments.pop("address", None))
    database = {
        key: arguments.pop(key)
        for key in [*arguments]
        if key in _DATABASE or key.startswith(_DATABASE_PREFIX)
    }
    tls = _tls(arguments)
    options = {}
    for key, text in arguments.items():
        if key not in _OPTIONS:
            known = sorted({*ARGUMENTS, "address", "tls"})
            raise ConfigurationError(
                f"unknown argument {key}; known are {', '.join(known)}, and zodburi's own "
                "connection_... and database_name"
            )
        options[key] = _convert(key, _OPTIONS[key].convert, text)

    status = {
        key.removeprefix("status_"): options.pop(key) for key in table.STATUS if key in options
    }
    if status and "address" not in status:
        raise ConfigurationError(f"status_{min(status)} has no effect without status_address")

    wait_for_data = options.pop("wait_for_data", 0)

    def factory() -> Secondary:
        from ..secondary import Secondary

        secondary = Secondary(path, address, tls=tls, **options)
        if status:
            from ..monitor.server import serve_status

            serve_status(secondary, **status)
        if wait_for_data:
            try:
                # Its status can be asked for meanwhile.
                secondary.wait_for_data(wait_for_data)
            except BaseException:
                secondary.close()
                raise
        return secondary

    return factory, database


def files_of(uri: str) -> tuple[str, str | None]:
    """The path of the FileStorage that a secondary has, and its directory of blobs.

    :param uri: one that `resolve` understands.
    """
    parts = urlsplit(uri)
    return _path(parts), _arguments(parts.query).get("blob_dir")


def _path(parts: SplitResult) -> str:
    path = unquote(parts.path)
    if path in ("", "/"):
        raise ConfigurationError("the path of a FileStorage is missing")
    return os.path.normpath(path_of(path))


def _arguments(query: str) -> dict[str, str]:
    arguments: dict[str, str] = {}
    for key, text in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)):
        if key in arguments:
            raise ConfigurationError(f"{key} is given twice")
        arguments[key] = text
    return arguments


def _address(host: str, other: str | None) -> object:
    if bool(host) == bool(other):
        raise InvalidAddress(
            "the address of the primary is needed once: either a host and a port, "
            "or a Unix socket as the argument address"
        )
    return _convert("the address", parsing.primary_address, host or other or "")


def _tls(arguments: dict[str, str]) -> TLSOptions | None:
    wanted = arguments.pop("tls", None)
    found: dict[str, Any] = {}
    for key in [*arguments]:
        name = key.removeprefix(_TLS_PREFIX)
        if key == name or name not in _TLS:
            continue
        text = arguments.pop(key)
        option = _TLS[name]
        if option.each:
            found[name] = tuple(option.convert(each) for each in text.split(","))
        else:
            found[name] = _convert(key, option.convert, text)
    if wanted is None:
        return TLSOptions(**found) if found else None
    if _convert("tls", parsing.boolean, wanted):
        return TLSOptions(**found)
    if found:
        raise ConfigurationError(f"tls={wanted} contradicts tls_{min(found)}")
    return None


def _convert(key: str, convert: Callable[[str], Any], text: str) -> Any:
    try:
        return convert(text)
    except ValueError as error:
        raise ConfigurationError(f"{key} {text}: {error}") from error
