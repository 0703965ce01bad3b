"""Takes the picture of the page that the documents show, of nodes that really run.

python -m tests.page.screenshot FILE.png [MINUTES]

Its chart has as many minutes as it runs. In the middle the primary is away for a while.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from zrs_core import Primary, Secondary
from zrs_core.monitor import StatusServer

from ..databases import Traffic, open_file_storage, traffic
from .browser import running_browser

LOOPBACK = "127.0.0.1:0"

# Seconds that the primary is away.
_AWAY = 20


def follow(name: str, address: object) -> Secondary:
    return Secondary(open_file_storage(Path(name)), address, reconnect_delay=(1, 2))


def commit_until(end: float, commits: Traffic) -> None:
    """Some commits a second, and bursts now and then."""
    while time.time() < end:
        commits.commit(random.choice([1, 1, 2, 5, 60]))
        time.sleep(random.random())


def save(png: bytes, path: Path) -> None:
    """With as few colours as a drawing has, which makes it small."""
    with Image.open(io.BytesIO(png)) as image:
        image.quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


def main(path: str, minutes: str = "1") -> None:
    picture = Path(path).absolute()
    begin, duration = time.time(), float(minutes) * 60
    with contextlib.ExitStack() as stack:
        # Names of nodes are short, and tell nothing of this machine.
        before = Path.cwd()
        os.chdir(stack.enter_context(tempfile.TemporaryDirectory(prefix="zrs-screenshot-")))
        stack.callback(os.chdir, before)
        primary = Primary(open_file_storage(Path("primary")), LOOPBACK)
        address = primary.replication_address

        def serve(storage: Primary | Secondary, *nodes: StatusServer) -> StatusServer:
            others = [each.address for each in nodes]
            return stack.enter_context(StatusServer(storage, LOOPBACK, nodes=others))

        cascade = Primary(follow("branch", address), LOOPBACK)
        stack.callback(cascade.close)
        leaf = stack.enter_context(
            contextlib.closing(follow("reports", cascade.replication_address))
        )
        away = stack.enter_context(contextlib.closing(follow("standby", address)))
        # The status of this one is asked for by nobody.
        stack.enter_context(contextlib.closing(follow("archive", cascade.replication_address)))
        others = [serve(leaf), serve(away)]
        with StatusServer(primary, "127.0.0.1:0") as at_primary:
            others.append(at_primary)
            port = at_primary.address
            served = serve(cascade, *others)
            with traffic(primary) as commits:
                commit_until(begin + duration / 2, commits)
        time.sleep(_AWAY)
        primary = Primary(open_file_storage(Path("primary")), address)
        with StatusServer(primary, port), traffic(primary) as commits:
            commit_until(begin + duration, commits)
            with running_browser() as browser:
                browser.open(served.url, width=1000)
                browser.wait_for("✓ serving", "topology")
                commit_until(time.time() + 5, commits)
                save(browser.picture(until="figcaption"), picture)


if __name__ == "__main__":
    main(*sys.argv[1:])
