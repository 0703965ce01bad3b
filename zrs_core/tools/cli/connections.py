"""Options of the commands that connect, or are connected to."""

from __future__ import annotations

import click

from ...config import table
from ...tls import TLSOptions
from .table_options import Command, number_of, option_of

_TLS = (
    *(option_of(table.TLS[name], type=click.Path()) for name in ("certificate", "key", "ca")),
    option_of(table.TLS["peer_names"], multiple=True),
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


transport = option_of(
    table.BOTH["transport"], default=table.BOTH["transport"].default, show_default=True
)

peer_timeout = number_of(table.BOTH["peer_timeout"])
