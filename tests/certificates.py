"""Certificates for tests, made when they are first asked for."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import trustme

from zrs_core.tls import TLSOptions

# Not that of a single test: they are made once.
_TEMPORARY = tempfile.gettempdir()


@functools.cache
def _directory() -> Path:
    path = tempfile.mkdtemp(prefix="zrs-certificates", dir=_TEMPORARY)
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return Path(path)


class Authority:
    """A certificate authority; `ca` is the file that holds it."""

    def __init__(self, name: str) -> None:
        self._authority = trustme.CA()
        self._name = name
        self.ca = str(_directory() / f"{name}.ca.pem")
        self._authority.cert_pem.write_to_path(self.ca)

    def issue(self, *names: str, file: str | None = None, **options: Any) -> str:
        """A file with a certificate for these names and its key."""
        path = _directory() / (file or f"{self._name}.{'-'.join(names)}.pem")
        certificate = self._authority.issue_cert(*names, **options)
        certificate.private_key_and_cert_chain_pem.write_to_path(str(path))
        return str(path)


@functools.cache
def authority(name: str = "ours") -> Authority:
    return Authority(name)


@functools.cache
def both_ends() -> TLSOptions:
    """For primaries and secondaries on this machine."""
    ours = authority()
    return TLSOptions(certificate=ours.issue("localhost", "127.0.0.1", "::1"), ca=ours.ca)
