"""TLS: which certificates one end shows, and which it wants to see.

The files are read again for every connection, so that a certificate can be renewed without a
restart.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from types import NoneType
from typing import Any

from .addresses import Address, TCPAddress, is_host
from .errors import ConfigurationError

# X509_V_ERR_...: what OpenSSL found wrong with a certificate, by its number.
_FAULTS = {
    9: "is not valid yet",
    10: "has expired",
    18: "is signed by itself and by no authority that is trusted",
    19: "is signed by an authority that is not trusted",
    20: "is signed by an authority that is not trusted",
    21: "is signed by an authority that is not trusted",
    23: "was revoked",
    26: "is not meant for this purpose",
    62: "is not for the host that was connected to",
    64: "is not for the host that was connected to",
}


_CLOSED = (
    "the peer closed the connection in the handshake: it speaks no TLS, or does not accept this "
    "end's certificate"
)


class PeerRefused(Exception):
    """The peer's certificate is good, and has none of the names that may connect."""


@dataclass(frozen=True, slots=True)
class TLSOptions:
    """How one end proves itself, and whom it lets in.

    All files are PEM. `certificate` is this end's, with the chain behind it, and `key` its private
    key, where that is a file of its own: a primary must have them, a secondary may. `ca` holds
    the authorities whose signature is wanted on the peer's certificate: a primary without asks
    for none, a secondary without relies on those of the system. `require_certificate` tells
    whether a secondary must have a certificate; it must by default once `ca` is given.
    `peer_names` are the only names (DNS names or IP addresses of the certificate's subject) that
    may connect, or be connected to; where it is empty, a primary lets in any certificate that the
    authorities signed, and a secondary wants the certificate of `server_name`, by default of the
    host that it connects to. TLS 1.2 is the oldest version that is spoken.

    :raises ConfigurationError: a file is missing, cannot be read or does not hold what it should,
        the key is not that of the certificate, or `server_name` is none that a host can have.
    """

    certificate: str | None = None
    key: str | None = None
    ca: str | None = None
    require_certificate: bool | None = None
    peer_names: tuple[str, ...] = ()
    server_name: str | None = None

    def __post_init__(self) -> None:
        if self.require_certificate and self.ca is None:
            raise ConfigurationError(
                "require_certificate needs ca: the authorities that sign secondaries' certificates"
            )
        if self.key is not None and self.certificate is None:
            raise ConfigurationError(f"key {self.key} needs the certificate that it belongs to")
        self._check_types()
        self.check_files()

    def _check_types(self) -> None:
        for option in ("certificate", "key", "ca"):
            path: object = getattr(self, option)
            if not isinstance(path, (str, NoneType)):
                raise ConfigurationError(f"{option} must be the name of a file, not {path!r}")
        names: object = self.peer_names
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise ConfigurationError(f"peer_names must be several names, not {names!r}")
        server: object = self.server_name
        if server is not None and not (isinstance(server, str) and is_host(server)):
            raise ConfigurationError(f"server_name {server!r} is no name of a host")

    def check_files(self) -> None:
        """Whether the files can be used.

        :raises ConfigurationError: one cannot.
        """
        self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def check_primary(self) -> None:
        """Whether a primary can use this.

        :raises ConfigurationError: it has no certificate, or names nobody could prove.
        """
        if self.certificate is None:
            raise ConfigurationError("a primary that speaks TLS needs a certificate and its key")
        if self.peer_names and not self.wants_certificate:
            raise ConfigurationError(
                "peer_names needs ca and required certificates: "
                "without a certificate a secondary has no name"
            )

    @property
    def wants_certificate(self) -> bool:
        """Whether a secondary must show a certificate."""
        if self.require_certificate is None:
            return self.ca is not None
        return self.require_certificate

    def host_of(self, address: Address) -> str:
        """The name that a secondary wants to find in the certificate of a primary at `address`."""
        host = address.host if isinstance(address, TCPAddress) else ""
        return self.server_name or host or "localhost"

    def server_context(self) -> ssl.SSLContext:
        """For one connection of a primary, the files read now.

        :raises ConfigurationError: a file is not what it was any more.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._load(context)
        if self.ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED if self.wants_certificate else ssl.CERT_OPTIONAL
        return context

    def client_context(self) -> ssl.SSLContext:
        """For one connection of a secondary, the files read now.

        :raises ConfigurationError: a file is not what it was any more.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._load(context)
        if self.ca is None:
            context.load_default_certs()
        # Names that are listed are compared after the handshake.
        context.check_hostname = not self.peer_names
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # A peer could have handshakes made without end.
        context.options |= ssl.OP_NO_RENEGOTIATION
        if self.certificate is not None:
            _check_readable("certificate", self.certificate)
            if self.key is not None:
                _check_readable("key", self.key)
            try:
                context.load_cert_chain(self.certificate, self.key, _no_password)
            except (ssl.SSLError, ValueError) as error:
                raise ConfigurationError(
                    f"certificate {self.certificate} and key {self.key or self.certificate} "
                    f"cannot be used: {error}"
                ) from error
        if self.ca is not None:
            _check_readable("ca", self.ca)
            try:
                context.load_verify_locations(self.ca)
            except ssl.SSLError as error:
                raise ConfigurationError(
                    f"ca {self.ca} holds no certificate that can be used: {error}"
                ) from error

    def check_peer(self, names: Iterable[str]) -> None:
        """Whether a peer whose certificate has these names may connect.

        :raises PeerRefused: none of them is listed.
        """
        if not self.peer_names:
            return
        found = sorted(names)
        listed = {name.lower() for name in self.peer_names}
        if not any(name.lower() in listed for name in found):
            raise PeerRefused(
                f"its certificate is for {', '.join(found) or 'nobody'}, which is not listed"
            )


def certificate_names(certificate: dict[str, Any] | None) -> list[str]:
    """The DNS names and IP addresses in a certificate as `SSLSocket.getpeercert` gives it."""
    alternatives = (certificate or {}).get("subjectAltName", ())
    return [value for kind, value in alternatives if kind in ("DNS", "IP Address")]


def common_name(certificate: dict[str, Any] | None) -> str | None:
    """Whom a certificate as `SSLSocket.getpeercert` gives it is for: its common name, or else the
    first of its other names; None if it has neither.
    """
    parts = (part for group in (certificate or {}).get("subject", ()) for part in group)
    names = [value for key, value in parts if key == "commonName"]
    return next(iter([*names, *certificate_names(certificate)]), None)


def _certificate_fault(code: int) -> str:
    """Return what is wrong with a peer's certificate; `code` is OpenSSL's `X509_V_ERR_...`."""
    return f"the peer's certificate {_FAULTS.get(code, f'is wrong (OpenSSL says {code})')}"


def describe_error(error: Exception) -> str:
    """What went wrong in a handshake, for the log."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: {_certificate_fault(error.verify_code)} ({error.verify_message})"
    text = str(error)
    hints = {
        "WRONG_VERSION_NUMBER": "the peer does not speak TLS",
        "HTTP_REQUEST": "the peer does not speak TLS",
        "UNKNOWN_CA": "the peer does not know the authority that signed this end's certificate",
        "CERTIFICATE_REQUIRED": "the peer wants a certificate and this end has none",
        "CERTIFICATE_EXPIRED": "the peer says that this end's certificate has expired",
        "ALERT_BAD_CERTIFICATE": "the peer does not accept this end's certificate",
        "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the peer has no certificate",
        "UNSUPPORTED_PROTOCOL": "the peer speaks no version of TLS that is accepted here",
        "PROTOCOL_VERSION": "the peer accepts no version of TLS that is spoken here",
        "EOF": _CLOSED,
        "CONNECTION_RESET": _CLOSED,
    }
    for sign, hint in hints.items():
        if sign.lower().replace("_", " ") in text.lower().replace("_", " "):
            return f"TLS: {hint} ({text})"
    return f"TLS: {text}"


def describe_loss(reason: str) -> str:
    """Return the text for the log when the connection is lost in a handshake."""
    return f"TLS: {_CLOSED} ({reason})"


def _no_password() -> str:
    raise ValueError(
        "the key is encrypted: store it without a password, readable by this user alone"
    )


def _check_readable(name: str, path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise ConfigurationError(f"{name} {path} cannot be read: {error.strerror}") from error
