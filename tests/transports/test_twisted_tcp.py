from __future__ import annotations

import threading

from zrs_core import Primary, Secondary
from zrs_core.addresses import TCPAddress

from ..conditions import wait_for
from ..databases import contents, open_file_storage, traffic
from .network import OverTCP, OverTLS, OverTLSAndUnixSockets, OverUnixSockets
from .test_reactors import reactor  # noqa: F401

LOOPBACK = TCPAddress("127.0.0.1", 0)
TIMEOUT = 60


class TestTCP(OverTCP):
    transport = "twisted-tcp"


class TestUnixSockets(OverUnixSockets):
    transport = "twisted-tcp"


class TestTLS(OverTLS):
    transport = "twisted-tcp"


class TestTLSAndUnixSockets(OverTLSAndUnixSockets):
    transport = "twisted-tcp"


class TestReactor:
    def test_on_a_reactor_that_the_application_runs(self, tmp_path, reactor):  # noqa: F811
        primary = Primary(open_file_storage(tmp_path / "db"), LOOPBACK, reactor)
        secondary = Secondary(
            open_file_storage(tmp_path / "other"), primary.replication_address, reactor
        )
        with traffic(primary) as commits:
            commits.commit(20)
            wait_for(lambda: secondary.progress.tid == primary.lastTransaction(), "catching up")
            assert contents(secondary) == contents(primary)
            secondary.close()

    def test_opened_and_closed_in_the_reactors_thread(self, tmp_path, reactor):  # noqa: F811
        results = []
        done = threading.Event()

        def in_reactor():
            primary = Primary(open_file_storage(tmp_path / "db"), LOOPBACK, reactor)
            secondary = Secondary(
                open_file_storage(tmp_path / "other"), primary.replication_address, reactor
            )
            secondary.close()
            primary.close()
            results.append(primary.replication_address.port)
            done.set()

        reactor.callFromThread(in_reactor)
        assert done.wait(TIMEOUT)
        assert results[0] != 0
