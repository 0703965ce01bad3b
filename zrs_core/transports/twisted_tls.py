"""TLS for Twisted: pyOpenSSL's contexts from `TLSOptions`, and who the peer is.

Twisted's own CertificateOptions cannot ask for a certificate without demanding it, nor say why one
was refused.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from service_identity.exceptions import CertificateError, VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from zope.interface import implementer

from ..errors import ConfigurationError
from ..tls import PeerRefused, TLSOptions, certificate_fault, describe_error

# OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH.
_WRONG_HOST = 62


@implementer(IOpenSSLServerConnectionCreator, IOpenSSLClientConnectionCreator)
class TLSConnections:
    """Makes the TLS side of one connection, the files read when this is made.

    :param host: what a client expects to connect to; None for a server.
    :raises ConfigurationError: a file is not what it was any more.
    """

    def __init__(self, tls: TLSOptions, host: str | None) -> None:
        self._tls = tls
        self._host = host
        self._wrong: str | None = None
        # It says what is wrong with a file more clearly than what follows.
        tls.check_files()
        self._context = SSL.Context(SSL.TLS_METHOD)
        self._context.set_min_proto_version(SSL.TLS1_2_VERSION)
        try:
            if tls.certificate is not None:
                self._context.use_certificate_chain_file(tls.certificate)
                self._context.use_privatekey_file(tls.key or tls.certificate)
            if tls.ca is not None:
                self._context.load_verify_locations(tls.ca)
            elif host is not None:
                self._context.set_default_verify_paths()
        except SSL.Error as error:
            raise ConfigurationError(f"TLS files cannot be used any more: {error}") from error
        self._context.set_verify(self._mode(), self._verified)

    def _mode(self) -> int:
        if self._host is None and self._tls.ca is None:
            return SSL.VERIFY_NONE
        if self._host is None and not self._tls.wants_certificate:
            return SSL.VERIFY_PEER
        return SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT

    def _verified(self, connection: Any, certificate: Any, code: int, depth: int, ok: int) -> bool:
        if not ok:
            self._wrong = certificate_fault(code)
        return bool(ok)

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:
        return SSL.Connection(self._context, None)

    def clientConnectionForTLS(self, protocol: object) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        if self._host is not None and not _is_ip_address(self._host):
            connection.set_tlsext_host_name(self._host.encode("idna"))
        return connection

    def check_peer(self, transport: Any) -> None:
        """After the handshake: whether the peer is who it should be.

        :raises PeerRefused: it is not.
        """
        if self._tls.peer_names:
            certificate = transport.getPeerCertificate()
            self._tls.check_peer([] if certificate is None else _names(certificate))
        elif self._host is not None:
            verify: Callable[[Any, str], None]
            verify = verify_ip_address if _is_ip_address(self._host) else verify_hostname
            try:
                verify(transport.getHandle(), self._host)
            except (VerificationError, CertificateError) as error:
                raise PeerRefused(f"{certificate_fault(_WRONG_HOST)} ({self._host})") from error

    def peer_name(self, transport: Any) -> str | None:
        """Whom the peer's certificate is for, as `tls.common_name`; None if it has shown none."""
        certificate = transport.getPeerCertificate()
        if certificate is None:
            return None
        subject = certificate.to_cryptography().subject
        found = [each.value for each in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        # What is no text is no name.
        names = [each for each in found if isinstance(each, str)]
        return next(iter([*names, *_names(certificate)]), None)

    def describe(self, error: Exception) -> str:
        """What went wrong in the handshake, for the log."""
        return describe_error(error) if self._wrong is None else f"TLS: {self._wrong}"


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _names(certificate: Any) -> list[str]:
    extensions = certificate.to_cryptography().extensions
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = names.get_values_for_type(x509.IPAddress)
    return [*names.get_values_for_type(x509.DNSName), *map(str, addresses)]
