"""What a service manager is told: systemd's, or another that sets NOTIFY_SOCKET (sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(state: str) -> None:
    """Tell it a state, `READY=1` or `STOPPING=1`; nothing happens where nobody asks for it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        # A socket of the abstract namespace.
        address = "\0" + address[1:]
    # Whether it runs does not depend on who watches.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        # Not to be waited for, should the manager be stuck.
        sender.setblocking(False)
        sender.sendto(state.encode(), address)
