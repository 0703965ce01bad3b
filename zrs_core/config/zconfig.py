"""The `<zrs>` section of ZConfig (`%import zrs_core`), whose keys are in component.xml.

A configuration is checked when it is read, and nothing is opened, written or listened on then:
also those read it who only want to know what is in it, such as `zeoctl`. What depends on the
moment, such as a port that is free, is checked when the storage is opened, before its files are.
"""

from __future__ import annotations

import difflib
import os
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

import ZConfig
from ZConfig.info import ValueInfo

from ..addresses import TCPAddress
from ..errors import ConfigurationError, Exposed, ListenError, NoData, UnsuitableStorage
from ..tls import TLSOptions
from . import table
from .table import Option

# Transports whose addresses are those of the system, so that one can see whether they are free.
_NETWORK = ("twisted-tcp", "socket-thread")


class SettingError(ConfigurationError, ZConfig.DataConversionError):  # type: ignore[misc]
    """A setting that cannot be fulfilled when the storage is opened.

    It names the key and its value, and has the line and the file as ZConfig's errors do.
    """

    def __init__(self, setting: Setting, why: object) -> None:
        ZConfig.DataConversionError.__init__(
            self,
            ValueError(f"{setting.key} {setting.text}: {why}"),
            setting.text,
            (setting.line, None, setting.url),
        )


class Setting(NamedTuple):
    """A key as it stands in a file."""

    key: str
    text: str
    value: Any
    line: int | None
    url: str | None

    def __str__(self) -> str:
        return f"{self.key} {self.text} (line {self.line})"


def _datatype(option: Option) -> Callable[[str], Setting]:
    """Return ZConfig's datatype for the texts of an option; errors name its key."""

    def datatype(text: str) -> Setting:
        line, _, url = _position()
        try:
            value = option.convert(text)
        except ValueError as error:
            raise ValueError(f"{option.key} {text}: {error}") from error
        return Setting(option.key, text, value, line, url)

    return datatype


def _position() -> tuple[int | None, int | None, str | None]:
    """Where the text stands that is being converted.

    ZConfig gives a datatype no more than the text, and errors that come up later must name the
    line too; but what calls a datatype knows it.
    """
    caller = sys._getframe(2).f_locals.get("self")
    return caller.position if isinstance(caller, ValueInfo) else (None, None, None)


# What a `<zrs>` section has besides its addresses.
_KEYS = table.BOTH | table.SECONDARY | table.PRIMARY | table.STATUS
# component.xml names the datatypes by the keys.
for _option in (table.ADDRESSES | _KEYS | table.TLS).values():
    globals()[_option.each or _option.name] = _datatype(_option)


def _keytype(section: str, options: Mapping[str, Option]) -> Callable[[str], str]:
    """What ZConfig is to make of the name of a key.

    Its errors have a line: for an unknown key, and for one that is given twice.
    """
    known = {option.key for option in options.values()}

    def keytype(key: str) -> str:
        key = key.lower()
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else "known are " + ", ".join(sorted(known))
            raise ValueError(f"{key} is no key of a {section} section; {hint}")
        before = _value_before(key)
        if before is not None:
            line = before.position[0]
            raise ValueError(f"{key} is given already, as {before.value!r} in line {line}")
        return key

    return keytype


def _value_before(key: str) -> ValueInfo | None:
    """What `key` has been given already in the section that is being read, if it takes one value.

    ZConfig's own error would not tell where; its matcher, which calls a keytype, knows.
    """
    matcher = sys._getframe(2).f_locals.get("self")
    values = getattr(matcher, "_values", {})
    value = values.get(key.replace("-", "_"))
    return value if isinstance(value, ValueInfo) else None


zrs_key = _keytype("zrs", table.ADDRESSES | _KEYS)
tls_key = _keytype("tls", table.TLS)


def _conflict(what: str, *found: Setting | None) -> NoReturn:
    """Raise an error that is about several keys, or about none.

    ZConfig would give a ValueError of a section the line where another one ends.
    """
    named = [each for each in found if each is not None]
    where = next((f" in {each.url}" for each in named if each.url), "")
    raise ZConfig.ConfigurationError(f"{' and '.join(map(str, named))}{where}: {what}".lstrip(": "))


class TLS:
    """A `<tls>` section; `options` are what it says, `settings` the keys that are given."""

    def __init__(self, section: Any) -> None:
        given = {key: getattr(section, key) for key, option in table.TLS.items() if not option.each}
        self.settings = [each for each in [*given.values(), *section.peer_names] if each]
        try:
            self.options = TLSOptions(
                **{key: each.value for key, each in given.items() if each},
                peer_names=tuple(each.value for each in section.peer_names),
            )
        except ConfigurationError as error:
            _conflict(str(error), *self.settings)


class ZRS:
    """A `<zrs>` section; `name` is its name."""

    def __init__(self, section: Any) -> None:
        self.config = section
        self.name = section.getSectionName()
        self._check_addresses()
        self._check_roles()
        self._check_tls()
        self._check_base()

    def _check_addresses(self) -> None:
        to, source = self.config.replicate_to, self.config.replicate_from
        if to is None and source is None:
            given = [getattr(self.config, key) for key in _KEYS]
            _conflict(
                f"{self._title} needs replicate-to or replicate-from, or both: "
                "an address to be replicated from, or the address of what it replicates",
                *given,
            )
        if to is not None and source is not None and to.value == source.value:
            _conflict(
                "a storage cannot replicate itself: the addresses must be different", to, source
            )

    def _check_roles(self) -> None:
        for key, option in _KEYS.items():
            setting = getattr(self.config, key)
            needs = option.needs
            if needs and setting is not None and getattr(self.config, needs) is None:
                _conflict(f"it has no effect without {needs.replace('_', '-')}", setting)

    def _check_tls(self) -> None:
        tls = self.config.tls
        if tls is not None and self.config.replicate_to is not None:
            try:
                tls.options.check_primary()
            except ConfigurationError as error:
                _conflict(str(error), self.config.replicate_to, *tls.settings)

    def _check_base(self) -> None:
        # Others than ZODB's own are asked when they are opened.
        from ZODB import config

        base = self.config.base
        cannot_restore = (config.MappingStorage, config.DemoStorage)
        if self.config.replicate_from is not None and isinstance(base, cannot_restore):
            _conflict(
                f"{self._title} cannot replicate into a {base.config.getSectionType()}: it does "
                "not provide IStorageRestoreable",
                self.config.replicate_from,
            )
        if isinstance(base, ZRS) and (
            self.config.replicate_from is not None or base.config.replicate_from is None
        ):
            _conflict(
                f"{self._title} has a zrs section inside that is one end of a replication "
                "already; give both addresses to one section",
                self._address,
            )
        blob_dir = self.config.blob_dir
        if blob_dir is not None and getattr(getattr(base, "config", None), "blob_dir", None):
            _conflict("the storage inside has a blob-dir already", blob_dir)

    @property
    def _title(self) -> str:
        return f"<zrs {self.name}>" if self.name else "<zrs>"

    @property
    def _address(self) -> Setting:
        setting: Setting = self.config.replicate_from or self.config.replicate_to
        return setting

    def open(self, database_name: str = "unnamed", databases: Any = None) -> Any:
        """The storage: a `Primary`, a `Secondary`, or a `Primary` of a `Secondary`.

        With it, its status server is opened and closed.

        :raises SettingError: an address that cannot be listened on, and nothing was opened; or no
            transaction has come within `wait-for-data`.
        :raises ConfigurationError: a storage inside that cannot be replicated, or replicated into.
        """
        from ..monitor.zeo_ready import report_serving
        from ..primary import Primary
        from ..secondary import Secondary
        from ..storage.fs_last_tid import establish_opened

        config = self.config
        to, source = config.replicate_to, config.replicate_from
        if to is not None and self._value("transport", "twisted-tcp") in _NETWORK:
            _check_free(to)
            self._check_exposure(to)
        if config.status_address is not None:
            _check_free(config.status_address)
        self._prepare_files()
        storage = config.base.open()
        try:
            establish_opened(storage)
            blob_dir = self._given("blob_dir")
            if source is not None:
                options = self._given(*table.SECONDARY, "transport", "peer_timeout")
                options.pop("wait_for_data", None)
                storage = secondary = Secondary(
                    storage, source.value, **options, **blob_dir, **self._tls()
                )
                blob_dir = {}
            if to is not None:
                options = self._given(*table.PRIMARY, "transport", "peer_timeout")
                storage = Primary(storage, to.value, **options, **blob_dir, **self._tls())
        except (ListenError, Exposed) as error:
            storage.close()
            raise SettingError(to, error) from error
        except BaseException:
            storage.close()
            raise
        self._serve_status(storage)
        wait = config.wait_for_data
        if wait is not None and wait.value:
            try:
                # Its status can be asked for meanwhile.
                secondary.wait_for_data(wait.value)
            except BaseException as error:
                storage.close()
                if isinstance(error, NoData):
                    raise SettingError(wait, error) from error
                raise
        report_serving()
        return storage

    def _serve_status(self, storage: Any) -> None:
        from ..monitor.server import serve_status

        address = self.config.status_address
        if address is None:
            return
        given = self._given(*table.STATUS)
        options = {key.removeprefix("status_"): value for key, value in given.items()}
        try:
            serve_status(storage, **options)
        except ListenError as error:
            raise SettingError(address, error) from error

    def _check_exposure(self, to: Setting) -> None:
        from ..transports.listening import check_exposure

        if not self._value("require_tls", False):
            # The listener logs the warning.
            return
        try:
            check_exposure(to.value, tls=self.config.tls, require_tls=True)
        except Exposed as error:
            raise SettingError(to, error) from error

    def _value(self, key: str, default: Any) -> Any:
        setting = getattr(self.config, key)
        return default if setting is None else setting.value

    def _given(self, *keys: str) -> dict[str, Any]:
        return {key: setting.value for key in keys if (setting := getattr(self.config, key))}

    def _tls(self) -> dict[str, Any]:
        return {} if self.config.tls is None else {"tls": self.config.tls.options}

    def _prepare_files(self) -> None:
        from ..storage.preparing import prepare_section

        try:
            prepare_section(self)
        except UnsuitableStorage as error:
            raise UnsuitableStorage(
                f"the filestorage in {self._title}, with {self._address}: {error}"
            ) from error


def _check_free(setting: Setting) -> None:
    """Whether an address can be listened on.

    :raises SettingError: it cannot.
    """
    from ..transports.listening import open_tcp_listener

    address = setting.value
    if isinstance(address, TCPAddress):
        try:
            open_tcp_listener(address).close()
        except OSError as error:
            raise SettingError(setting, f"cannot listen there: {error.strerror}") from error
    else:
        _check_path(setting, address.path)


def _check_path(setting: Setting, path: str) -> None:
    directory = os.path.dirname(os.path.abspath(path))
    if not os.access(directory, os.W_OK | os.X_OK):
        raise SettingError(
            setting, f"cannot listen there: {directory} is no directory that can be written to"
        )
    if not os.path.lexists(path):
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            # The socket file of a process that is gone, which is replaced; or no socket at all.
            if not os.path.isfile(path) and not os.path.isdir(path):
                return
            raise SettingError(
                setting, "cannot listen there: there is a file that is no socket"
            ) from None
        except OSError as error:
            raise SettingError(setting, f"cannot listen there: {error.strerror}") from error
    raise SettingError(setting, "cannot listen there: somebody listens there")
