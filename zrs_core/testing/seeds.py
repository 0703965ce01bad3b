"""The seed corpus: small inputs for every branch and refusal of the codec that a fuzzer found."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ..messages import NO_TID
from .streams import framed
from .targets import TARGETS, options_of

_FOLDER: Final = Path(__file__).parent / "corpus"


def folder(target: str) -> Path:
    """Return the folder with the seeds of a fuzz target, a file each, for a fuzzer that reads it.

    The folder is part of the installed package: a fuzzer must not write to it.

    :param target: a name in `zrs_core.testing.targets.TARGETS`.
    :raises ValueError: there is no such target.
    """
    if target not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(sorted(TARGETS))}, got {target!r}")
    return _FOLDER / target


def inputs(target: str) -> list[bytes]:
    """Return the seeds of a fuzz target, in the same order on every machine.

    :param target: a name in `zrs_core.testing.targets.TARGETS`.
    :raises ValueError: there is no such target.
    """
    return [path.read_bytes() for path in sorted(folder(target).iterdir())]


def from_primary() -> list[bytes]:
    """Return streams that a primary, or a peer in its place, sends to an empty secondary.

    Most are refused, each at another place or for another reason.
    """
    return [data[2:] for data in inputs("secondary") if options_of(data).start == NO_TID]


def from_secondary() -> list[bytes]:
    """Return streams that a secondary, or a peer in its place, sends to a primary.

    The first two are the greetings of an empty secondary, ``zrs2.1`` and ``zrs2.0``. Most others
    are refused, each at another place or for another reason.
    """
    greetings = [framed(word, NO_TID) for word in (b"zrs2.1", b"zrs2.0")]
    others = [data[3 : 3 + data[2]] for data in inputs("primary") if data[3:]]
    return list(dict.fromkeys([*greetings, *others]))
