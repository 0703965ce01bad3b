"""What a snapshot says of itself, in `snapshot.json`::

{"format": 1,
 "version": "0.1.0",                            of zrs_core
 "source": "/var/zodb/Data.fs",                 or the address of a primary
 "taken": "2026-11-22T02:00:00.000000Z",        when that was begun
 "tid": "0x03f9...",                            the last transaction, null if there is none
 "time": "2026-11-22T01:59:58.123456Z",         and its time
 "transactions": 1, "records": 1, "blobs": 1,   how many
 "missing_blobs": 0,                            that the source did not have either
 "sizes": {"Data.fs": 4096, "blobs": 0},        in bytes
 "sha256": "..."}                               of Data.fs
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Any

from ...errors import ConfigurationError

NAME = "snapshot.json"
DATA = "Data.fs"
BLOBS = "blobs"

_FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """See above. `data_size` and `blobs_size` are the `sizes`."""

    version: str
    source: str
    taken: str
    tid: str | None
    time: str | None
    transactions: int
    records: int
    blobs: int
    missing_blobs: int
    data_size: int
    blobs_size: int
    sha256: str

    def write(self, directory: str) -> None:
        values = asdict(self)
        sizes = {DATA: values.pop("data_size"), BLOBS: values.pop("blobs_size")}
        sha256 = values.pop("sha256")
        content = {"format": _FORMAT, **values, "sizes": sizes, "sha256": sha256}
        with open(os.path.join(directory, NAME), "x", encoding="utf-8") as file:
            json.dump(content, file, indent=2)
            file.write("\n")

    @staticmethod
    def read(directory: str) -> Manifest:
        """That of a snapshot.

        :raises ConfigurationError: there is none, or it is none.
        """
        path = os.path.join(directory, NAME)
        try:
            with open(path, encoding="utf-8") as file:
                values = json.load(file)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ConfigurationError(
                f"{directory} is no snapshot: there is no {NAME} in it"
            ) from error
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ConfigurationError(f"{path} is damaged: {error}") from error
        return _from(path, values)


def _from(path: str, values: Any) -> Manifest:
    if not isinstance(values, dict) or values.pop("format", None) != _FORMAT:
        raise ConfigurationError(f"{path} is not of format {_FORMAT}")
    try:
        sizes = values.pop("sizes")
        manifest = Manifest(**values, data_size=sizes[DATA], blobs_size=sizes[BLOBS])
    except (KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} is damaged: {error}") from error
    for name, value in asdict(manifest).items():
        kind = Manifest.__annotations__[name]
        right = isinstance(value, int if kind == "int" else str)
        if not right and not (value is None and kind == "str | None"):
            raise ConfigurationError(f"{path} is damaged: {name} is {value!r}")
    return manifest
