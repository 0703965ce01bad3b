"""Readiness of ZEO servers, for service managers.

`runzeo` does not report to a service manager that it serves. A process that has opened a `<zrs>`
section does so for it: ZEO notifies subscribers of `zope.event` when a server has begun to listen.
"""

from __future__ import annotations

import os
import sys


def report_serving() -> None:
    """Report `READY=1` when a ZEO server of this process begins to serve.

    Without a service manager that waits for it (NOTIFY_SOCKET) this does nothing. May be called
    again.
    """
    if not os.environ.get("NOTIFY_SOCKET"):
        return
    # ZODB needs it for its events.
    from zope.event import subscribers

    if _report not in subscribers:
        subscribers.append(_report)


def _report(event: object) -> None:
    from .supervision import notify

    # Only a process that has imported it has a server.
    zeo = sys.modules.get("ZEO.StorageServer")
    if zeo is not None and isinstance(event, zeo.Serving):
        notify("READY=1")
