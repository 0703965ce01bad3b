"""Texts with characters that an encoding does not have."""

from __future__ import annotations

import json
import logging

import pytest

from zrs_core.logs import JSONFormatter, event
from zrs_core.progress import Error
from zrs_core.status.state import as_json
from zrs_core.texts import path_of, printable

# What Python makes of the bytes of "ä" in a file's name that it cannot decode.
UNDECODED = "d\udcc3\udca4ta"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("däta", "däta"),
        (UNDECODED, "däta"),
        ("\udcff", "\\xff"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_is_sent_can_be_encoded(text, expected):
    assert printable(text) == expected
    printable(text).encode()


def test_status_and_log_lines_have_no_lone_surrogates():
    [error] = as_json([Error(UNDECODED, 1.0)])
    assert error["message"] == "däta"
    record = logging.makeLogRecord(
        {"msg": "%s is there", "args": (UNDECODED,), **event("opening", storage=UNDECODED)}
    )
    line = json.loads(JSONFormatter().format(record))
    assert (line["message"], line["storage"]) == ("däta is there", "däta")


def test_a_path_that_the_file_system_can_encode_is_itself():
    assert path_of("plain") == "plain"
    assert path_of(UNDECODED) == UNDECODED


def test_a_path_that_it_cannot_encode_has_the_bytes_of_utf_8(monkeypatch):
    """As in the locale C."""
    monkeypatch.setattr("os.fsencode", lambda text: text.encode("ascii", "surrogateescape"))
    monkeypatch.setattr("os.fsdecode", lambda data: data.decode("ascii", "surrogateescape"))
    assert path_of("däta") == UNDECODED
    assert path_of(UNDECODED) == UNDECODED
