"""Values of options, made from the text that a file or a URI has for them."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from ..addresses import Address, TCPAddress, parse_address
from ..errors import ConfigurationError, InvalidAddress
from ..options import ClientOptions
from ..texts import path_of

if TYPE_CHECKING:
    from ..monitor.fetch import StatusAddress

# What takes time to import is imported when it is used: commands that need little of the table
# are to start quickly.

_YES = ("yes", "true", "on", "1")
_NO = ("no", "false", "off", "0")
_SIZES = {"kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}


def boolean(text: str) -> bool:
    """Return True for `yes`, `true`, `on` and `1`, False for their contraries.

    :raises ConfigurationError: the text is none of these.
    """
    word = text.strip().lower()
    if word not in _YES + _NO:
        raise ConfigurationError("it is neither yes nor no")
    return word in _YES


def name(text: str) -> str:
    """Return the text without the blanks around it.

    :raises ConfigurationError: the text is empty.
    """
    if not text.strip():
        raise ConfigurationError("it is empty")
    return text.strip()


def word(text: str) -> str:
    """Return the text in lower case, without the blanks around it."""
    return text.strip().lower()


def number(text: str) -> float:
    """Return a finite number.

    :raises ConfigurationError: the text is no finite number.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigurationError("it is no number")
    return value


def whole_number(text: str) -> int:
    """Return an integer.

    :raises ConfigurationError: the text is no integer.
    """
    try:
        return int(text)
    except ValueError:
        raise ConfigurationError("it is no whole number") from None


def seconds(text: str) -> float:
    """Return a number that is not negative.

    :raises ConfigurationError: the text is no such number.
    """
    value = number(text)
    if value < 0:
        raise ConfigurationError("it must be 0 or more seconds")
    return value


def delays(text: str) -> tuple[float, float]:
    """Return two numbers; the same one twice if the text has one.

    :raises ConfigurationError: the text has neither one number nor two.
    """
    numbers = [number(each) for each in _several(text)]
    if len(numbers) not in (1, 2):
        raise ConfigurationError("it is neither one number of seconds nor two")
    return numbers[0], numbers[-1]


def size(text: str) -> int:
    """Return a number of bytes, which may have a suffix such as `64MB`.

    :raises ConfigurationError: the text is no such number.
    """
    digits = word(text)
    unit = _SIZES.get(digits[-2:])
    return whole_number(digits[:-2]) * unit if unit else whole_number(digits)


def permissions(text: str) -> int:
    """Return the permissions of a file, from an octal number.

    :raises ConfigurationError: the text is no such number.
    """
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise ConfigurationError("it is no octal number from 0 to 777")
    return mode


def checksums(text: str) -> str:
    """Return the name of a `ChecksumPolicy`.

    :raises ConfigurationError: the text is neither the name of one nor yes nor no.
    """
    policy = word(text)
    known = policy in _YES + _NO
    return ClientOptions(checksums=boolean(policy) if known else policy).policy().value


def transport(text: str) -> str:
    """Return the name of a transport.

    :raises ConfigurationError: there is no transport of that name.
    """
    from .. import transports

    if text not in transports.names():
        # Raises the error, with its cause.
        transports.listener_factory(text)
    return text


def readable_file(text: str) -> str:
    """Return the absolute path of a file; `~` stands for the home directory.

    :raises ConfigurationError: the file cannot be read.
    """
    path = _path(text)
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise ConfigurationError(f"the file cannot be read: {error.strerror}") from error
    return path


def blob_directory(text: str) -> str:
    """Return the absolute path of a directory that exists or can be made.

    :raises ConfigurationError: there is a file at the path, or no directory above it.
    """
    path = _path(text)
    if os.path.exists(path) and not os.path.isdir(path):
        raise ConfigurationError("it is no directory")
    if not os.path.isdir(os.path.dirname(path)):
        raise ConfigurationError(f"there is no directory {os.path.dirname(path)} to make it in")
    return path


def primary_address(text: str) -> Address:
    """Return the address of a primary, to connect to.

    :raises InvalidAddress: the text is no address, or its port is 0.
    """
    address = parse_address(text)
    if isinstance(address, TCPAddress) and not address.port:
        raise InvalidAddress("nobody can listen at port 0")
    return address


def status_address(text: str) -> Address:
    """Return the address that a status server listens on.

    :raises InvalidAddress: the text is no address.
    """
    from ..monitor.options import listening_address

    return listening_address(text)


def node_addresses(text: str) -> tuple[StatusAddress, ...]:
    """Return the addresses of status servers.

    :raises InvalidAddress: one of them is no address.
    """
    from ..monitor.options import node_address

    return tuple(node_address(each) for each in _several(text))


def host_names(text: str) -> tuple[str, ...]:
    """Return names of hosts, each in its normal form.

    :raises InvalidAddress: one of them is no name of a host.
    """
    from ..monitor.hosts import host_name

    return tuple(host_name(each) for each in _several(text))


def _several(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _path(text: str) -> str:
    return os.path.abspath(os.path.expanduser(path_of(name(text))))
