"""Texts of other nodes: none of them steers a terminal, or adds a line or a metric to a plugin."""

from __future__ import annotations

import io
import json
import logging

import pytest
from click.testing import CliRunner
from rich.console import Console

from tests.cli.test_nagios import as_zeo
from tests.status.answers import peer, primary, secondary, serving
from zrs_core.errors import ConfigurationError, Unverifiable
from zrs_core.tools.cli.command import zrs as command
from zrs_core.tools.cli.nagios import Finding, Level, Thresholds, in_a_line, in_lines, zrs_nagios
from zrs_core.tools.cli.output import Failed, complain, errors_in_a_line, logging_to, say

EVIL = "\x1b]0;owned\x07\x9b31m\r\nCRITICAL | 'lag'=0\u2028\u202e\x00"


def evil(value):
    """A document with `EVIL` behind every text in it, but for those of fixed meaning."""
    if isinstance(value, dict):
        return {
            key: each if key in ("role", "state", "tid", "version") else evil(each)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [evil(each) for each in value]
    return value + EVIL if isinstance(value, str) else value


def check(output, lines=None):
    """No control character, and as many lines as there should be."""
    assert all(each.isprintable() for each in output.split("\n")), repr(output)
    if lines is not None:
        assert output.count("\n") == lines, output
        assert output.count("|") <= 1, output


ERROR = {"message": EVIL, "time": 1.0}
NODES = {
    "primary": primary(ready=False, peers=[peer(certificate="x")], last_error=ERROR),
    "secondary": secondary(ready=False, state="failing", last_error=ERROR),
}


@pytest.fixture(params=NODES)
def server(request):
    with serving(evil(NODES[request.param])) as server:
        yield server


@pytest.mark.parametrize("options", [(), ("-m",), ("-w", "1", "-c", "2", "-m")])
def test_check_nagios(server, options):
    check(CliRunner().invoke(command, ["check-nagios", *options, server.text]).output, lines=1)
    pair = ["check-nagios", *options, server.text, server.text]
    check(CliRunner().invoke(command, pair).output, lines=1)


def test_status(server):
    check(CliRunner().invoke(command, ["status", server.text]).output)
    output = CliRunner().invoke(command, ["status", "--json", server.text]).stdout
    assert output.isascii()
    json.loads(output)


def test_the_old_plugin(server, capsys):
    zrs_nagios(["-m", "-w1", server.text, server.text])
    check(capsys.readouterr().out, lines=1)


def test_the_names_of_a_zeo_servers_storages(capsys):
    name = "a" + EVIL
    with serving() as ours, serving() as theirs:
        for each in (ours, theirs):
            each.answer = as_zeo({name: "0" * 16, "b" + EVIL: "0" * 16})
        zrs_nagios(["-m", "-w1", ours.text, theirs.text])
        output = capsys.readouterr().out
        assert all(each.isprintable() for each in output.split("\n"))
        check(
            CliRunner().invoke(command, ["check-nagios", "-m", ours.text, theirs.text]).output,
            lines=1,
        )


def test_what_is_found():
    found = [Finding(Level.OK, f"up {EVIL}", f"lag{EVIL}", 1.0)]
    line = in_a_line(found, Thresholds(None, None), metrics=True)
    check(line, lines=0)
    check(in_lines(found, metrics=True), lines=0)
    assert line.count("|") == 1
    assert line.count("'") == 4


def test_errors(capsys):
    for error in (ConfigurationError(EVIL), Unverifiable(EVIL), OSError(EVIL)):
        with pytest.raises(Failed) as caught:
            with errors_in_a_line():
                raise error
        caught.value.show()
    complain(EVIL)
    check(capsys.readouterr().err)


def test_lines_and_log_lines():
    console = Console(file=io.StringIO(), width=40)
    say(console, EVIL)
    with logging_to(console, logging.INFO):
        logging.getLogger("zrs_core.primary").error("peer: %s", EVIL, extra={"event": "refused"})
    output = console.file.getvalue()
    check(output)
    (line,) = [each for each in output.split("\n") if "peer: " in each]
    assert "CRITICAL" in line
