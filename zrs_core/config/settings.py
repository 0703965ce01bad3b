"""Settings as people write them in files and in URIs: texts made into values, and checked."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

from .. import transports
from ..addresses import Address, TCPAddress, parse_address
from ..errors import ConfigurationError, InvalidAddress
from ..monitor.fetch import StatusAddress
from ..monitor.hosts import host_name
from ..monitor.options import listening_address, node_address
from ..options import ClientOptions, ServiceOptions, check_poll_interval, check_seconds
from ..texts import path_of

_YES = ("yes", "true", "on", "1")
_NO = ("no", "false", "off", "0")
_SIZES = {"kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}


def boolean(text: str) -> bool:
    """`yes`, `true`, `on` and `1`, or their contraries.

    :raises ConfigurationError: it is none of these.
    """
    word = text.strip().lower()
    if word not in _YES + _NO:
        raise ConfigurationError("it is neither yes nor no")
    return word in _YES


def readable_file(text: str) -> str:
    """The absolute path of a file; `~` stands for the home directory.

    :raises ConfigurationError: it cannot be read.
    """
    path = _path(text)
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise ConfigurationError(f"the file cannot be read: {error.strerror}") from error
    return path


def primary_address(text: str) -> Address:
    """The address of somebody else who listens.

    :raises InvalidAddress: it is none.
    """
    address = parse_address(text)
    if isinstance(address, TCPAddress) and not address.port:
        raise InvalidAddress("nobody can listen at port 0")
    return address


def name(text: str) -> str:
    """A word that is not empty.

    :raises ConfigurationError: it is.
    """
    if not text.strip():
        raise ConfigurationError("it is empty")
    return text.strip()


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigurationError("it is no number")
    return value


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigurationError("it is no whole number") from None


def _transport(text: str) -> str:
    if text not in transports.names():
        # For what it says, and for its cause.
        transports.listener_factory(text)
    return text


def _blob_dir(text: str) -> str:
    path = _path(text)
    if os.path.exists(path) and not os.path.isdir(path):
        raise ConfigurationError("it is no directory")
    if not os.path.isdir(os.path.dirname(path)):
        raise ConfigurationError(f"there is no directory {os.path.dirname(path)} to make it in")
    return path


def _path(text: str) -> str:
    return os.path.abspath(os.path.expanduser(path_of(name(text))))


def _peer_timeout(text: str) -> float:
    return ClientOptions(peer_timeout=_number(text)).peer_timeout


def _keep_alive_delay(text: str) -> float:
    return ClientOptions(keep_alive_delay=_number(text)).keep_alive_delay


def _reconnect_delay(text: str) -> tuple[float, float]:
    numbers = [_number(each) for each in text.replace(",", " ").split()]
    if len(numbers) not in (1, 2):
        raise ConfigurationError("it is neither one number of seconds nor two")
    return ClientOptions(reconnect_delay=(numbers[0], numbers[-1])).reconnect_bounds()


def _check_checksums(text: str) -> str:
    word = text.strip().lower()
    known = word in _YES + _NO
    return ClientOptions(checksums=boolean(word) if known else word).policy().value


def _size(text: str) -> int:
    word = text.strip().lower()
    unit = _SIZES.get(word[-2:])
    return _whole_number(word[:-2]) * unit if unit else _whole_number(word)


def _max_record_size(text: str) -> int:
    return ClientOptions(max_record_size=_size(text)).max_record_size


def max_compared_size(text: str) -> int:
    """A number of bytes, with a suffix such as `64MB` if that is easier to read; 0 for none.

    :raises ConfigurationError: it is no such number.
    """
    return ClientOptions(max_compared_size=_size(text)).max_compared_size


def _durability(text: str) -> str:
    return ClientOptions(durability=text.strip().lower()).durability


def _secondary_name(text: str) -> str | None:
    return ClientOptions(name=name(text)).name


def _pickle_protocol(text: str) -> int:
    return ServiceOptions(pickle_protocol=_whole_number(text)).pickle_protocol


def _close_timeout(text: str) -> float:
    seconds = _number(text)
    if seconds < 0:
        raise ConfigurationError("it must be 0 or more seconds")
    return seconds


def _poll_interval(text: str) -> float:
    seconds = _number(text)
    check_poll_interval(seconds)
    return seconds


def _wait_for_data(text: str) -> float:
    seconds = _number(text)
    check_seconds("wait_for_data", seconds)
    return seconds


def _max_lag(text: str) -> float:
    seconds = _number(text)
    check_seconds("max_lag", seconds)
    return seconds


def _nodes(text: str) -> tuple[StatusAddress, ...]:
    return tuple(node_address(each) for each in text.replace(",", " ").split())


def _hosts(text: str) -> tuple[str, ...]:
    return tuple(host_name(each) for each in text.replace(",", " ").split())


def _socket_mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise ConfigurationError("it is no octal number from 0 to 777")
    return mode


def _max_peers(text: str) -> int:
    return ServiceOptions(max_peers=_whole_number(text)).max_peers


def _handshake_timeout(text: str) -> float:
    return ServiceOptions(handshake_timeout=_number(text)).handshake_timeout


def _write_timeout(text: str) -> float:
    return ServiceOptions(write_timeout=_number(text)).write_timeout


#: Each setting and what makes a value of its text, or raises a ConfigurationError.
BOTH: dict[str, Callable[[str], Any]] = {
    "transport": _transport,
    "peer_timeout": _peer_timeout,
    "blob_dir": _blob_dir,
}
SECONDARY: dict[str, Callable[[str], Any]] = {
    "keep_alive_delay": _keep_alive_delay,
    "reconnect_delay": _reconnect_delay,
    "check_checksums": _check_checksums,
    "max_record_size": _max_record_size,
    "durability": _durability,
    "max_compared_size": max_compared_size,
    "name": _secondary_name,
    "wait_for_data": _wait_for_data,
}
PRIMARY: dict[str, Callable[[str], Any]] = {
    "pickle_protocol": _pickle_protocol,
    "close_timeout": _close_timeout,
    "socket_mode": _socket_mode,
    "poll_interval": _poll_interval,
    "max_peers": _max_peers,
    "handshake_timeout": _handshake_timeout,
    "write_timeout": _write_timeout,
    "require_tls": boolean,
}
#: Those of a `StatusServer`, each as `status_` and its name.
STATUS: dict[str, Callable[[str], Any]] = {
    "status_address": listening_address,
    "status_max_lag": _max_lag,
    "status_nodes": _nodes,
    "status_hosts": _hosts,
}
TLS: dict[str, Callable[[str], Any]] = {
    "certificate": readable_file,
    "key": readable_file,
    "ca": readable_file,
    "require_certificate": boolean,
    "server_name": name,
}
