"""Entries for people, a line each, and for machines."""

from __future__ import annotations

import json
from typing import Any, Final

from persistent.timestamp import TimeStamp

from ...texts import escaped
from ...tids import describe_tid
from .analyser import Entry

#: Kinds of what a secondary sends; all others are a primary's.
_SECONDARY: Final = ("hello", "start", "keep-alive")

# Characters of a text that a line shows at most.
_LONGEST: Final = 200


def as_json(entry: Entry) -> str:
    """An entry as a JSON object, in ASCII, without a line break."""
    line: dict[str, Any] = {"offset": entry.offset, "length": entry.length, "kind": entry.kind}
    for key, value in entry.fields.items():
        if isinstance(value, bytes) and key in ("user", "description"):
            line[key] = _decoded(value)
        elif key == "checksum" and value is not None:
            line[key] = value.hex()
        elif isinstance(value, bytes):
            line[key] = f"0x{value.hex()}"
            if key == "tid":
                line["time"] = TimeStamp(value).timeTime()
        else:
            line[key] = value
    return json.dumps(line)


def as_text(entry: Entry) -> str:
    """An entry in words, without a line break or another control character."""
    sender = ">" if entry.kind in _SECONDARY else "<"
    words = escaped(_words(entry.kind, entry.fields))
    return f"{entry.offset:>12} {entry.length:>9} {sender} {entry.kind:<11} {words}".rstrip()


def _words(kind: str, fields: dict[str, Any]) -> str:
    match kind:
        case "hello":
            return str(fields["protocol"])
        case "start":
            return f"after {describe_tid(fields['tid'])}"
        case "transaction":
            return _transaction(fields)
        case "store" | "blob":
            return _record(fields)
        case "block":
            return f"{fields['block']} of {fields['blocks']}, {_count(fields['size'], 'byte')}"
        case "commit":
            return _commit(fields)
        case "error":
            return f"{fields['reason']}; expected {fields['expected']}"
        case "skipped":
            messages = fields["messages"]
            what = "bytes" if messages is None else _count(messages, "message")
            return f"{what} without the beginning of a transaction"
    return ""


def _transaction(fields: dict[str, Any]) -> str:
    words = describe_tid(fields["tid"])
    if fields["status"] != " ":
        words += {"p": ", packed", "u": ", undone"}[fields["status"]]
    for key in ("user", "description"):
        if fields[key]:
            words += f", {key} {_quoted(fields[key])}"
    if fields["extension_size"]:
        words += f", extension of {_count(fields['extension_size'], 'byte')}"
    return words


def _record(fields: dict[str, Any]) -> str:
    words = f"object 0x{fields['oid'].hex()}, "
    words += _count(fields["size"], "byte") if fields["size"] else "no data"
    if fields["class"] is not None:
        words += f", {_shortened(fields['class'])}"
    if fields["data_txn"] is not None:
        words += f", the same as in {describe_tid(fields['data_txn'])}"
    if "blocks" in fields:
        words += f", then {_count(fields['blocks'], 'block')}"
    return words


def _commit(fields: dict[str, Any]) -> str:
    words = f"{_count(fields['records'], 'record')}, {_count(fields['size'], 'byte')}; "
    if fields["checksum"] is None:
        return f"{words}no checksum"
    return f"{words}checksum {fields['checksum'].hex()} {fields['checksum_is']}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _decoded(text: bytes) -> str:
    # Nobody says which encoding it has.
    return text.decode("utf-8", "backslashreplace")


def _quoted(text: bytes) -> str:
    # With quotes that the text itself cannot end.
    return repr(_shortened(_decoded(text)))


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
