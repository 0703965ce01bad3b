"""The options of primaries, secondaries, status servers and TLS, in one table.

ZConfig's sections (component.xml), the arguments of URIs, the options of the commands, and the
lists in the documentation all come from it. Defaults and limits are those of the constructors;
tests compare them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..addresses import parse_address
from ..options import ClientOptions, ServiceOptions, check_poll_interval, check_seconds
from . import parsing


@dataclass(frozen=True, slots=True)
class Option:
    """One option. Its name is that of the argument of `Primary`, `Secondary` and so on.

    :param parse: returns the value of a text.
    :param value: what the value is, as a word in capitals.
    :param description: sentences for the reference.
    :param limits: the least and the greatest number.
    :param default: the text that stands for the default; None if the description explains it.
    :param needs: the option without which this one is an error.
    :param check: raises an error for a value that is out of range, and may return another value.
    :param each: the name of the key in ZConfig, of an option that is given once for each value.
    :param flag: the option of the commands; empty if they have none.
    :param help: the text for `--help`, if it is the same for all commands.
    """

    name: str
    parse: Callable[[str], Any]
    value: str
    description: str
    limits: tuple[float, float] | None = None
    default: str | None = None
    needs: str | None = None
    check: Callable[[str, Any], Any] = lambda name, value: value
    each: str | None = None
    flag: str = ""
    help: str = ""

    @property
    def key(self) -> str:
        """The name in ZConfig."""
        return (self.each or self.name).replace("_", "-")

    def convert(self, text: str) -> Any:
        """Return the value of a text.

        :raises ConfigurationError: the text has no value that this option can have.
        """
        return self.check(self.name, self.parse(text))

    def reference(self) -> str:
        """Return the description, with the limits and the default."""
        facts = [self.description]
        if self.limits is not None:
            facts.append(f"From {self.limits[0]} to {self.limits[1]}.")
        if self.default is not None:
            facts.append(f"Default: {self.default}.")
        return " ".join(facts)


def _service(name: str, value: Any) -> Any:
    return getattr(ServiceOptions(**{name: value}), name)


def _client(name: str, value: Any) -> Any:
    return getattr(ClientOptions(**{name: value}), name)


def _seconds(name: str, value: Any) -> Any:
    check_seconds(name.removeprefix("status_"), value)
    return value


def _poll_interval(name: str, value: Any) -> Any:
    check_poll_interval(value)
    return value


def _table(*options: Option) -> dict[str, Option]:
    return {each.name: each for each in options}


#: What is listened on, and what is connected to.
ADDRESSES = _table(
    Option(
        "replicate_to",
        parse_address,
        "ADDRESS",
        "The address to listen on for secondaries of this storage: host:port, :port or a port "
        "(both on all interfaces), [v6]:port, or the path of a Unix socket with at least one '/' "
        "in it. With port 0 the system chooses a port, which is logged.",
    ),
    Option(
        "replicate_from",
        parsing.primary_address,
        "ADDRESS",
        "The address of the primary to replicate, in the same forms. This storage is then "
        "read-only.",
    ),
)

#: Options of primaries and of secondaries.
BOTH = _table(
    Option(
        "transport",
        parsing.transport,
        "NAME",
        "The name of the transport: twisted-tcp, socket-thread, or the name of a transport of "
        "another package. The two ends may use different transports.",
        default="twisted-tcp",
        flag="--transport",
        help="By its name.",
    ),
    Option(
        "peer_timeout",
        parsing.number,
        "SECONDS",
        "The time after which a peer that has vanished without closing the connection is noticed.",
        limits=(2, 36_000),
        default="60",
        check=_client,
        flag="--peer-timeout",
        help="After so long a peer that has vanished without a word is noticed.",
    ),
    Option(
        "blob_dir",
        parsing.blob_directory,
        "PATH",
        "A directory for blobs, if the storage inside has none. It is made if it does not exist. "
        "If the file of the FileStorage does not exist, the directory must be empty.",
        flag="--blobs",
    ),
)

#: Options of secondaries.
SECONDARY = _table(
    Option(
        "keep_alive_delay",
        parsing.number,
        "SECONDS",
        "The time between messages that keep a connection from being idle: 0 for no messages, "
        "else at least 0.01. Without replicate-from it has no effect.",
        default="0",
        check=_client,
    ),
    Option(
        "reconnect_delay",
        parsing.delays,
        "SHORTEST LONGEST",
        "The time between attempts to connect, in seconds. It grows from the first number to the "
        "second. One number stands for both.",
        default="0.5 60",
        needs="replicate_from",
        check=_client,
        flag="--reconnect-delay",
        help="Seconds before the first attempt to connect again, and at most.",
    ),
    Option(
        "check_checksums",
        parsing.checksums,
        "POLICY",
        "What to do with the checksums of transactions: require (a missing checksum is an error), "
        "verify (or yes), or ignore (or no).",
        default="verify",
        needs="replicate_from",
    ),
    Option(
        "max_record_size",
        parsing.size,
        "BYTES",
        "The greatest size of a record, a number that may have a suffix, as in 512MB. A larger "
        "record ends the connection.",
        default="1GB",
        needs="replicate_from",
        check=_client,
    ),
    Option(
        "durability",
        parsing.word,
        "WHEN",
        "When received transactions are written to disk: transaction, each by itself; batch, those "
        "that were received together; none, when the operating system writes them. A killed "
        "process leaves whole transactions with each of these, and lost transactions are requested "
        "again.",
        default="batch",
        needs="replicate_from",
        check=_client,
    ),
    Option(
        "max_compared_size",
        parsing.size,
        "BYTES",
        "The greatest size, a number that may have a suffix, up to which the last transaction "
        "here, records and blobs, is sent again at each connection, to check that the primary "
        "holds the same; 0 to compare nothing.",
        default="64MB",
        needs="replicate_from",
        check=_client,
        flag="--max-compared-size",
        help="Of the last transaction in STORAGE, so many bytes at most are sent again at each "
        "connection, to see whether the primary holds the same; 0 for none.",
    ),
    Option(
        "name",
        parsing.name,
        "NAME",
        "The name of this end in its log, its status and its metrics. Default: the host's name.",
        needs="replicate_from",
        check=_client,
        flag="--name",
        help="The name of this secondary in its log, its status and its metrics.  "
        "[default: the host's name]",
    ),
    Option(
        "wait_for_data",
        parsing.number,
        "SECONDS",
        "How long opening the storage waits for the first transaction if the storage is empty; 0 "
        "to return at once. A database cannot be opened on an empty secondary. If no transaction "
        "has arrived by then, opening is an error. The status server answers meanwhile.",
        default="0",
        needs="replicate_from",
        check=_seconds,
    ),
)

#: Options of primaries.
PRIMARY = _table(
    Option(
        "pickle_protocol",
        parsing.whole_number,
        "NUMBER",
        "The pickle protocol of the messages: 3, or 1 for secondaries on Python 2.",
        default="3",
        needs="replicate_to",
        check=_service,
    ),
    Option(
        "close_timeout",
        parsing.seconds,
        "SECONDS",
        "The time within which peers may catch up when the storage is closed.",
        default="10",
        needs="replicate_to",
        flag="--close-timeout",
        help="When stopped, let connected secondaries catch up for so long at most.",
    ),
    Option(
        "socket_mode",
        parsing.permissions,
        "PERMISSIONS",
        "The permissions of a Unix socket that is listened on, an octal number.",
        default="600",
        needs="replicate_to",
    ),
    Option(
        "poll_interval",
        parsing.number,
        "SECONDS",
        "The time between two polls for transactions of other processes, for a storage that other "
        "processes can write to, such as a relstorage. A FileStorage is not polled.",
        limits=(0.01, 3600),
        default="1",
        needs="replicate_to",
        check=_poll_interval,
        flag="--poll-interval",
        help="Between two looks at what others have committed, where STORAGE is no FileStorage.",
    ),
    Option(
        "max_peers",
        parsing.whole_number,
        "NUMBER",
        "The greatest number of connections at once. Further connections are closed.",
        limits=(1, 1_000_000),
        default="100",
        needs="replicate_to",
        check=_service,
        flag="--max-peers",
        help="Connections at once, at most; further ones are closed.",
    ),
    Option(
        "handshake_timeout",
        parsing.number,
        "SECONDS",
        "The time within which a peer that has connected must have sent a valid greeting. It "
        "includes the TLS handshake.",
        limits=(0.01, 36_000),
        default="10",
        needs="replicate_to",
        check=_service,
        flag="--handshake-timeout",
        help="Within so long a peer that connects must have said who it is and where to start.",
    ),
    Option(
        "write_timeout",
        parsing.number,
        "SECONDS",
        "The time after which a peer is disconnected that reads nothing of what is sent to it.",
        limits=(0.01, 36_000),
        default="60",
        needs="replicate_to",
        check=_service,
        flag="--write-timeout",
        help="After so long a peer is disconnected that takes nothing of what it is sent.",
    ),
    Option(
        "require_tls",
        parsing.boolean,
        "YES|NO",
        "With yes, it is an error to listen without TLS where other machines can connect. With "
        "no, a warning is logged.",
        default="no",
        needs="replicate_to",
        flag="--require-tls",
        help="Do not listen without TLS where other machines can connect.",
    ),
)

#: Options of a `StatusServer`, each with `status_` before its name.
STATUS = _table(
    Option(
        "status_address",
        parsing.status_address,
        "ADDRESS",
        "The address to serve the status of this storage on, over HTTP: host:port, :port or a port "
        "(both on 127.0.0.1), [v6]:port, or the path of a Unix socket with at least one '/' in it. "
        "Without it, the status is not served.",
        flag="--status",
        help="Serve the status over HTTP there: HOST:PORT, :PORT (on this machine alone), or the "
        "path of a Unix socket; port 0 lets the system choose one.",
    ),
    Option(
        "status_max_lag",
        parsing.number,
        "SECONDS",
        "The time that a secondary may be behind its primary to count as ready.",
        default="60",
        needs="status_address",
        check=_seconds,
        flag="--status-max-lag",
        help="So far behind its primary a secondary still counts as ready.  [default: 60]",
    ),
    Option(
        "status_nodes",
        parsing.node_addresses,
        "ADDRESS ADDRESS ...",
        "The addresses of other status servers, with blanks or commas between them, whose status "
        "is shown with that of this storage.",
        needs="status_address",
        flag="--status-node",
        help="Show the status that is served there, too; may be given more than once.",
    ),
    Option(
        "status_hosts",
        parsing.host_names,
        "NAME NAME ...",
        "Names of hosts, with blanks or commas between them, that requests for the status may "
        "name, such as that of a proxy. Loopback addresses, localhost and the host in "
        "status-address need not be listed. On a loopback address, requests that name another "
        "host are refused.",
        needs="status_address",
        flag="--status-host",
        help="Answer requests for this host, too, such as a proxy's name; may be given more than "
        "once. On a loopback address, requests for other hosts are refused.",
    ),
)

#: Options of TLS. Outside of a `<tls>` section their names begin with `tls_`.
TLS = _table(
    Option(
        "certificate",
        parsing.readable_file,
        "FILE",
        "The file with the certificate of this end, and the chain behind it. A primary must have "
        "one; a secondary may.",
        flag="--tls-certificate",
        help="Encrypt connections, and prove to be who this certificate (PEM) says.",
    ),
    Option(
        "key",
        parsing.readable_file,
        "FILE",
        "The file with the private key of the certificate, if the key is not in the same file.",
        flag="--tls-key",
        help="The private key of the certificate, where that file does not hold it.",
    ),
    Option(
        "ca",
        parsing.readable_file,
        "FILE",
        "The file with the authorities that must have signed the certificate of the peer. Without "
        "it, a primary asks for no certificate, and a secondary relies on the authorities of the "
        "system.",
        flag="--tls-ca",
        help="Encrypt connections, to peers alone whose certificate these authorities have signed.",
    ),
    Option(
        "require_certificate",
        parsing.boolean,
        "YES|NO",
        "With yes, secondaries of this storage must have a certificate. Default: yes if ca is "
        "given.",
    ),
    Option(
        "peer_names",
        parsing.name,
        "NAME",
        "A DNS name or an IP address in the certificate of a peer that may connect, or be "
        "connected to; may be given more than once. Without it, a primary accepts each certificate "
        "that the authorities signed, and a secondary accepts that of the host it connects to.",
        each="peer_name",
        flag="--tls-name",
        help="Encrypt connections, to peers alone whose certificate is for this DNS name or IP "
        "address; may be given more than once.",
    ),
    Option(
        "server_name",
        parsing.name,
        "NAME",
        "The name that a secondary requires in the certificate of its primary, if that is not the "
        "host in replicate-from.",
    ),
)
