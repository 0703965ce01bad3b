"""The storage that a command is given: by a path, a configuration or a URI."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from ...errors import ConfigurationError, UnsuitableStorage
from ...storage.preparing import prepare_files, prepare_section

# How a file for ZConfig begins, but for blanks: with a section, a directive or a comment.
_CONFIGURATION_STARTS = (b"<", b"%", b"#")

_SCHEMA = """
<schema>
  <import package="ZODB"/>
  <multisection type="ZODB.storage" name="*" attribute="storages"/>
</schema>
"""


class Target:
    """A storage by what a person calls it.

    It is a URI for zodburi if it has `://`. It is a file for ZConfig if its name ends in `.conf`,
    or if it is there and begins like one; `#NAME` behind that chooses one of its storage sections.
    Everything else is the path of a FileStorage.

    :param text: one of these; `str()` gives it without the password of a URI.
    :raises ConfigurationError: a configuration or a URI of which nothing can be made; the text
        names the file and the line.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        #: The path of a FileStorage, None for another storage.
        self.path: str | None = None
        self._open: Callable[[], Any] | None = None
        # What a configuration says.
        self._section: Any = None
        path, _, name = text.partition("#")
        if "://" in text:
            self._open = _resolve(text)
            # By zconfig://, a section is opened.
            maker = getattr(self._open, "__self__", None)
            self._section = maker if hasattr(maker, "config") else None
        elif os.path.exists(text) or not name:
            self._set_path(text, "")
        else:
            self._set_path(path, name)

    def _set_path(self, path: str, name: str) -> None:
        if path.endswith(".conf") or _begins_like_configuration(path):
            self._section = _configured(path, name)
            self._open = self._section.open
        else:
            self.path = self._text

    def __str__(self) -> str:
        return _without_password(self._text) if "://" in self._text else self._text

    @property
    def files(self) -> tuple[str, str | None] | None:
        """The path of a FileStorage, however it is named, and its directory of blobs, if known.

        None for another storage. What is around it, such as what compresses records, is left out.
        """
        if self.path is not None:
            return self.path, None
        if self._text.startswith("zrs://"):
            from ...config.uri import files_of

            return files_of(self._text)
        if self._text.startswith("file://"):
            path, _, query = self._text.removeprefix("file://").partition("?")
            return path, dict(parse_qsl(query)).get("blobstorage_dir")
        blobs = None
        section = self._section
        for section in _layers(self._section):
            found = getattr(section.config, "blob_dir", None)
            # That of a <zrs> section is more than a text.
            blobs = blobs or getattr(found, "value", found)
        return (section.config.path, blobs) if _is_file_storage(section) else None

    def open_read_only(self) -> Any:
        """The storage that would be replicated, itself neither a primary nor a secondary.

        For others than FileStorages, see `files`. It is opened read-only if it can be.

        :raises ConfigurationError: it cannot be opened.
        """
        for section in _layers(self._section):
            if hasattr(section.config, "read_only"):
                section.config.read_only = True
            if hasattr(section.config, "create_schema"):
                section.config.create_schema = False
        while hasattr(getattr(self._section, "config", None), "replicate_to"):
            self._section = self._section.config.base
            self._open = self._section.open
        return self.open()

    def open(self, blob_dir: str | None = None) -> Any:
        """The storage; of a FileStorage, its path.

        :param blob_dir: the blob directory that it will be given, if it has none of its own.
        :raises ConfigurationError: it cannot be opened.
        """
        if self._open is None:
            return self._text
        try:
            self._prepare(blob_dir)
            return self._open()
        except ConfigurationError:
            raise
        except Exception as error:
            # Whatever the one who made the storage raises: a database that is not there, say.
            raise UnsuitableStorage(f"{self} cannot be opened: {_in_a_line(error)}") from error

    def _prepare(self, blob_dir: str | None) -> None:
        if self._section is not None:
            # A <zrs> section does it by itself.
            if not hasattr(self._section.config, "replicate_to"):
                prepare_section(self._section, blob_dir)
        elif self._text.startswith("file://") and self.files is not None:
            path, blobs = self.files
            query = dict(parse_qsl(self._text.partition("?")[2]))
            if not _is_true(query.get("read_only")):
                create = _is_true(query.get("create"))
                prepare_files(path, blobs or blob_dir, create=create)


def _is_true(text: str | None) -> bool:
    """Return the meaning of a boolean argument of zodburi."""
    return text is not None and text.lower() not in ("0", "f", "false", "n", "no", "off")


def _layers(section: Any) -> Iterator[Any]:
    """A storage section and those within it."""
    while section is not None:
        yield section
        section = getattr(section.config, "base", None)


def _is_file_storage(section: Any) -> bool:
    from ZODB.config import FileStorage

    return isinstance(section, FileStorage)


def _begins_like_configuration(path: str) -> bool:
    # Opening a named pipe would wait for a process that writes to it.
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(256).lstrip().startswith(_CONFIGURATION_STARTS)
    except OSError:
        return False


def _configured(path: str, name: str) -> Any:
    """The storage section that is meant."""
    import ZConfig

    schema = ZConfig.loadSchemaFile(io.StringIO(_SCHEMA))
    try:
        with open(path, encoding="utf-8") as file:
            config, _ = ZConfig.loadConfigFile(schema, file, url=_url(path))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is no text in UTF-8") from error
    except ZConfig.ConfigurationError as error:
        raise ConfigurationError(_describe(path, error)) from error
    return _choose(path, name, config.storages)


def _url(path: str) -> str:
    return f"file://{os.path.abspath(path)}"


def _describe(path: str, error: Any) -> str:
    """An error of ZConfig's in one line, with the file and the line that it is about."""
    where = path
    if error.url and error.url != _url(path):
        # A file that is included.
        where = unquote(urlsplit(error.url).path)
    if error.lineno is not None and error.lineno > 0:
        where += f", line {error.lineno}"
    text = _in_a_line(error.message or error)
    return f"{where}: {text}"


def _choose(path: str, name: str, sections: list[Any]) -> Any:
    if not sections:
        raise ConfigurationError(f"{path}: there is no storage section in it")
    # ZConfig makes the names lower case.
    found = [each for each in sections if not name or each.name == name.lower()]
    if len(found) == 1:
        return found[0]
    known = ", ".join(each.name or "one without a name" for each in sections)
    if name:
        raise ConfigurationError(f"{path}: there is no storage section {name} in it, but {known}")
    raise ConfigurationError(
        f"{path}: there are {len(sections)} storage sections in it, {known}: choose one by "
        f"{path}#NAME"
    )


def _resolve(uri: str) -> Callable[[], Any]:
    shown = _without_password(uri)
    try:
        import zodburi
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{shown}: zodburi is missing, which comes with the extra uri: "
            'pip install "zrs-core[uri]"'
        ) from error
    try:
        opener: Callable[[], Any]
        opener, _ = zodburi.resolve_uri(uri)
    except ConfigurationError:
        raise
    except Exception as error:
        # Each scheme has a resolver of somebody else's.
        why = _in_a_line(error).replace(uri, shown)
        raise ConfigurationError(f"{shown}: {why}") from error
    return opener


def _without_password(uri: str) -> str:
    # Not by `urlsplit`, which raises where a password has a bracket in it.
    return re.sub(r"(?<=://)([^:/?#@]*):[^/?#]+@", r"\1:***@", uri, count=1)


def _in_a_line(error: object) -> str:
    # The text of a KeyError is its repr.
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    line = " ".join(str(text).split())
    return line or type(error).__name__
