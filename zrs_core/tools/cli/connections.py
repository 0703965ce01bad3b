"""Options of the commands that connect, or are connected to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ...options import DEFAULT_PEER_TIMEOUT
from ...tls import TLSOptions

Command = TypeVar("Command", bound=Callable[..., Any])


_TLS = (
    click.option(
        "--tls-certificate",
        metavar="FILE",
        type=click.Path(),
        help="Encrypt connections, and prove to be who this certificate (PEM) says.",
    ),
    click.option(
        "--tls-key",
        metavar="FILE",
        type=click.Path(),
        help="The private key of the certificate, where that file does not hold it.",
    ),
    click.option(
        "--tls-ca",
        metavar="FILE",
        type=click.Path(),
        help="Encrypt connections, to peers alone whose certificate these authorities have signed.",
    ),
    click.option(
        "--tls-name",
        metavar="NAME",
        multiple=True,
        help="Encrypt connections, to peers alone whose certificate is for this DNS name or IP "
        "address; may be given more than once.",
    ),
)


def tls(command: Command) -> Command:
    """Add the options that `tls_options` makes one of."""
    for option in reversed(_TLS):
        command = option(command)
    return command


def tls_options(
    tls_certificate: str | None,
    tls_key: str | None,
    tls_ca: str | None,
    tls_name: tuple[str, ...],
) -> TLSOptions | None:
    """None if none of the options is given.

    :raises ConfigurationError: the files cannot be used.
    """
    if not (tls_certificate or tls_key or tls_ca or tls_name):
        return None
    return TLSOptions(tls_certificate, tls_key, tls_ca, peer_names=tls_name)


transport = click.option(
    "--transport", default="twisted-tcp", show_default=True, metavar="NAME", help="By its name."
)

peer_timeout = click.option(
    "--peer-timeout",
    type=float,
    default=DEFAULT_PEER_TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="After so long a peer that has vanished without a word is noticed.",
)
