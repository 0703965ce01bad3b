"""A certificate for tests on this machine. It needs `trustme`."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from ..tls import TLSOptions

# Not that of a single test: the files are written once.
_TEMPORARY = tempfile.gettempdir()


@functools.cache
def both_ends() -> TLSOptions:
    """Return options for primaries and secondaries on this machine, which trust each other.

    The certificate is made at the first call, and removed when the process ends.
    """
    import trustme

    directory = tempfile.mkdtemp(prefix="zrs-certificates", dir=_TEMPORARY)
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    authority, certificate = Path(directory, "ca.pem"), Path(directory, "certificate.pem")
    issuer = trustme.CA()
    issuer.cert_pem.write_to_path(str(authority))
    issued = issuer.issue_cert("localhost", "127.0.0.1", "::1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(certificate))
    return TLSOptions(certificate=str(certificate), ca=str(authority))
