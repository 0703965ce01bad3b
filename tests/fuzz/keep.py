"""Keeps what is worth keeping of what `make fuzz` found: `python -m tests.fuzz.keep [TARGET ...]`.

Of all inputs in ``build/fuzz``, in the corpus and among the hostile files, the shortest that
together take every branch of the codec, and are refused for every reason, that any of them takes or
is refused for.
"""

from __future__ import annotations

import hashlib
import logging
import re
import sys
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from zrs_core import codec
from zrs_core.errors import ReplicationError

from .corpus import folder
from .targets import TARGETS

_CODEC = str(Path(codec.__file__).parent)
_FOUND = Path(__file__).parents[2] / "build" / "fuzz"
_HOSTILE = Path(__file__).parents[1] / "hostile"

#: Bytes of the longest hostile file that is a candidate.
_LONGEST = 4096

#: Parts of a refusal that differ from input to input.
_VALUES = re.compile(r" \(at byte .*|0x[0-9a-f]+|\b[0-9a-f]{32}\b|[0-9]+|b?'.*'")


def reached(target: str, data: bytes) -> set[Hashable]:
    """The branches that an input takes, and what it is refused for."""
    found: set[Hashable] = set()

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_CODEC):
            return None
        last = 0

        def local(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal last
            if event == "line":
                found.add((frame.f_code, last, frame.f_lineno))
                last = frame.f_lineno
            elif event == "exception" and isinstance(argument[1], (ReplicationError, ValueError)):
                found.add(_VALUES.sub("", str(argument[1])))
            return local

        return local

    sys.settrace(trace)
    try:
        TARGETS[target](data)
    finally:
        sys.settrace(None)
    return found


def _heard(bits: int) -> Callable[[bytes], bytes]:
    return lambda data: bytes((bits, 1, min(len(data), 255)))


#: For a target, the folders of hostile files, and what an input has in front of such a file.
_HEADS: dict[str, dict[str, Callable[[bytes], bytes]]] = {
    "pickles": {"extension": lambda data: b""},
    "primary": {"primary": _heard(1), "primary-zrs2.0": _heard(0)},
    "secondary": {"secondary": lambda data: b"\0\1", "secondary-zrs2.0": lambda data: b"\1\1"},
}


def _all(target: str) -> Iterator[bytes]:
    for place in (folder(target), _FOUND / target):
        for path in place.glob("*"):
            yield path.read_bytes()
    for place, head in _HEADS.get(target, {}).items():
        for path in (_HOSTILE / place).glob("*.bin"):
            if path.stat().st_size <= _LONGEST:
                data = path.read_bytes()
                yield head(data) + data


def main() -> None:
    logging.getLogger("zrs_core").setLevel(logging.CRITICAL)
    for target in sys.argv[1:] or TARGETS:
        inputs = sorted(set(_all(target)), key=lambda data: (len(data), data))
        kept: list[bytes] = []
        seen: set[Hashable] = set()
        for data in inputs:
            new = reached(target, data) - seen
            if new:
                kept.append(data)
                seen |= new
        for path in folder(target).glob("*"):
            path.unlink()
        for data in kept:
            name = hashlib.sha256(data).hexdigest()[:16]
            (folder(target) / name).write_bytes(data)
        print(f"{target}: {len(kept)} of {len(inputs)}, {sum(map(len, kept)):,} bytes")


if __name__ == "__main__":
    main()
