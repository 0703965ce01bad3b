"""A PostgreSQL server of our own, in a temporary directory, on a Unix socket."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg2

from ..conditions import DEADLINE, wait_for

_names = itertools.count()


class Server:
    """A running server; a `database` is a test's own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def dsn(self, database: str = "postgres") -> str:
        return f"host={self._directory} user=zrs dbname={database}"

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The DSN of a new, empty database; whoever is still connected in the end is not any more.

        It is some 300 files, which cost little to remove while they are young: all those of a test
        run together, which have reached the disk, may take minutes.
        """
        name = f"zrs{next(_names)}"
        self.run(f"CREATE DATABASE {name}")
        try:
            yield self.dsn(name)
        finally:
            self.run(f"DROP DATABASE {name} WITH (FORCE)")

    def run(self, statement: str) -> None:
        with contextlib.closing(psycopg2.connect(self.dsn())) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)

    def answers(self) -> bool:
        try:
            psycopg2.connect(self.dsn()).close()
        except psycopg2.OperationalError:
            return False
        return True


def binaries() -> Path | None:
    """Where `initdb` and `postgres` are: Debian does not put them on the PATH."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    on_path = shutil.which("postgres")
    if on_path:
        found.append(Path(on_path).parent)
    return max(found, default=None)


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    """:raises FileNotFoundError: PostgreSQL is not installed."""
    where = binaries()
    if where is None:
        raise FileNotFoundError("there is no PostgreSQL; .ci/install-postgresql installs it")
    # Not in pytest's directory: others may not enter that, and a socket's path must be short.
    directory = Path(tempfile.mkdtemp(prefix="zrs-pg-"))
    # The server refuses to run as root.
    other = {"user": "postgres", "group": "postgres", "extra_groups": []} if not os.getuid() else {}
    if other:
        shutil.chown(directory, "postgres", "postgres")
    data = directory / "data"
    try:
        subprocess.run(
            [where / "initdb", "-D", data, "-U", "zrs", "-A", "trust", "-E", "UTF8", "--no-sync"],
            cwd=directory,
            check=True,
            capture_output=True,
            **other,
        )
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(directory),
            "fsync": "off",
            "max_connections": "200",
            "shared_buffers": "32MB",
        }
        options = [each for key, value in settings.items() for each in ("-c", f"{key}={value}")]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                [where / "postgres", "-D", data, *options],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **other,
            )
        try:
            server = Server(directory)
            wait_for(lambda: process.poll() is not None or server.answers(), "PostgreSQL")
            assert process.poll() is None, (directory / "log").read_text()
            yield server
        finally:
            # At once: what it holds is thrown away.
            process.send_signal(signal.SIGQUIT)
            process.wait(DEADLINE)
    finally:
        shutil.rmtree(directory)
