"""What is logged: the list of it in docs/logs.rst is complete and right; JSON lines.

That it is right is seen in all other tests: each fails if what it makes the package log is not as
the list says (`tests/events.py`).
"""

from __future__ import annotations

import ast
import io
import json
import logging
import logging.config
import sys
import time

import pytest
import ZConfig

from tests.events import PACKAGE, documented, fault_of
from zrs_core.logs import JSONFormatter, event
from zrs_core.progress import State
from zrs_core.tools.cli.output import JSONLines, console_for, logging_to, say

_METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}

# What makes a record's fields, the name of its event first.
_MAKERS = {"event", "_event"}

# Events that are named after a state.
_STATES = {State.FAILING, State.REFUSED, State.DIVERGED, State.STOPPED}

# Where one file logs for both ends, by classes.
_ENDS = {
    "PrimarySession": "zrs_core.primary",
    "ReplicationService": "zrs_core.primary",
    "SecondarySession": "zrs_core.secondary",
    "ReplicationClient": "zrs_core.secondary",
}


def _is_log_call(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(attr=method, value=receiver)) if method in _METHODS:
            return ast.unparse(receiver).rpartition(".")[2].endswith(("log", "logger"))
    return False


def _name_of(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def _calls():
    """(file, class or None, function, call) for each call in the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        owners = {}
        for owner in ast.walk(tree):
            if isinstance(owner, (ast.ClassDef, ast.FunctionDef)):
                for node in ast.walk(owner):
                    # The innermost one comes last.
                    owners.setdefault(type(owner), {})[node] = owner
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                function = owners.get(ast.FunctionDef, {}).get(node)
                yield path, owners.get(ast.ClassDef, {}).get(node), function, node


def _loggers(path) -> set[str]:
    """The names of the loggers that a file asks for."""
    return {
        call.args[0].value
        for file, _, _, call in CALLS
        if file == path and _name_of(call) == "getLogger" and call.args
        if isinstance(call.args[0], ast.Constant)
    }


CALLS = list(_calls())


def _logger_of(path, owner) -> str:
    if path.stem == "sessions":
        return _ENDS[owner.name]
    if path.stem == "refusals":
        return "zrs_core.primary"
    if path.parent.name == "cli":
        return "zrs_core.cli"
    [name] = _loggers(path)
    return name


def test_each_call_has_an_event():
    found = 0
    for path, owner, _, call in CALLS:
        if _is_log_call(call) and not (owner and owner.name == "PeerLog"):
            found += 1
            keywords = {each.arg for each in call.keywords}
            assert "extra" in keywords, f"{path}:{call.lineno}"
    assert found > 30


def test_the_list_is_complete():
    found = {("zrs_core.secondary", state.value) for state in _STATES}
    # A status server keeps its log short by the same means.
    found.add(("zrs_core.status", "refused-more"))
    for path, owner, function, call in CALLS:
        if _name_of(call) not in _MAKERS or not call.args:
            continue
        match call.args[0]:
            case ast.Constant(value=str(name)):
                found.add((_logger_of(path, owner), name))
            case _:
                # One that is handed on, or a state's.
                where = function.name
                assert where in _MAKERS or where in ("log", "_failed"), f"{path}:{call.lineno}"
    assert found == set(documented())


def test_levels_are_those_of_the_calls():
    """As far as a call tells its level and its event; `log` is given one."""
    levels = {"exception": "ERROR"}
    checked = 0
    for path, owner, function, call in CALLS:
        if not _is_log_call(call) or _name_of(call) == "log":
            continue
        extra = next(each.value for each in call.keywords if each.arg == "extra")
        if isinstance(extra, ast.Name):
            extra = max(
                (
                    node
                    for node in ast.walk(function)
                    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == extra.id
                    if node.lineno < call.lineno
                ),
                key=lambda node: node.lineno,
            ).value
        name = extra.args[0].value
        level = levels.get(_name_of(call), _name_of(call).upper())
        assert level in documented()[_logger_of(path, owner), name].levels, f"{path}:{call.lineno}"
        checked += 1
    assert checked > 20


def test_loggers_have_the_names_that_are_documented():
    names = {name for path in {each[0] for each in CALLS} for name in _loggers(path)}
    assert names - {"zrs_core"} == {logger for logger, _ in documented()} - {"zrs_core.cli"}


def record(message="a text", *args, level=logging.INFO, name="zrs_core.primary", **more):
    made = logging.LogRecord(
        name, level, str(PACKAGE / "sessions.py"), 1, message, args, more.pop("exc_info", None)
    )
    vars(made).update(more)
    return made


class TestGuard:
    def test_what_is_as_documented(self):
        fields = {**event("connected"), "peer": "p"}
        assert fault_of(record("p: Connected", **fields)) is None

    @pytest.mark.parametrize(
        ("made", "fault"),
        [
            (record("p: Connected"), "no such event"),
            (record("p: Connected", event="conected"), "no such event"),
            (record("p: Connected", level=40, event="connected"), "another level"),
            (record("p: Conected", event="connected"), "another text"),
            (record("p: Connected", event="connected", colour="red"), "more fields, {'colour'}"),
        ],
    )
    def test_what_is_not(self, made, fault):
        assert fault_of(made).startswith(fault)

    def test_what_others_log(self):
        made = record()
        made.pathname = "elsewhere.py"
        assert fault_of(made) is None


class TestJSON:
    def line(self, made):
        line = JSONFormatter().format(made)
        assert line.isascii()
        assert "\n" not in line
        return json.loads(line)

    def test_fields(self):
        made = record(
            "%s: é\n\x1b", "peer", **event("start", peer="é", tid=b"\3" * 8, count=3, none=None)
        )
        made.created = 1174509176.123456
        assert list(self.line(made).items()) == [
            ("time", "2007-03-21T20:32:56.123456Z"),
            ("level", "INFO"),
            ("logger", "zrs_core.primary"),
            ("message", "peer: é\n\x1b"),
            ("event", "start"),
            ("peer", "é"),
            ("tid", "0x0303030303030303"),
            ("count", 3),
        ]

    def test_an_exception(self):
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            line = self.line(record(exc_info=sys.exc_info(), stack_info="here"))
        assert line["exception"]["type"] == "OSError"
        assert line["exception"]["message"] == "[Errno 28] No space left on device"
        assert line["exception"]["traceback"].startswith("Traceback (most recent call last):")
        assert line["stack"] == "here"
        assert "exception" not in self.line(record(exc_info=(None, None, None)))

    def test_what_others_put_into_their_records(self):
        circle = []
        circle.append(circle)
        more = {"nan": float("nan"), "circle": circle, "none": None, "yes": True, "half": 0.5}
        line = self.line(record(**more, time="mine", a=b"bytes"))
        assert line["nan"] == "nan"
        assert line["circle"] == "[[...]]"
        assert (line["none"], line["yes"], line["half"]) == (None, True, 0.5)
        assert line["a"] == "b'bytes'"
        assert line["time"] != "mine"

    @pytest.mark.parametrize("seconds", [0.9999996, 1.0000004, 1174509176.9999999])
    def test_times_are_rounded_as_a_whole(self, seconds):
        made = record()
        made.created = seconds
        text = self.line(made)["time"]
        assert text.endswith("000000Z")
        whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(round(seconds)))
        assert text.startswith(whole)

    def test_configured_by_a_file(self, tmp_path):
        target = tmp_path / "log"
        file = io.StringIO(
            "[loggers]\nkeys=root,ours\n[handlers]\nkeys=out\n[formatters]\nkeys=json\n"
            "[logger_root]\nhandlers=\n[logger_ours]\nqualname=configured\nhandlers=out\n"
            f"[handler_out]\nclass=FileHandler\nargs=({str(target)!r},)\nformatter=json\n"
            "[formatter_json]\nclass=zrs_core.logs.JSONFormatter\n"
        )
        root = logging.getLogger()
        handlers, level = [*root.handlers], root.level
        logging.config.fileConfig(file, disable_existing_loggers=False)
        try:
            logging.getLogger("configured").warning("told", extra={"peer": "p"})
        finally:
            log = logging.getLogger("configured")
            for each in [*log.handlers]:
                log.removeHandler(each)
                each.close()
            root.handlers[:], root.level = handlers, level
        assert json.loads(target.read_text())["peer"] == "p"

    def test_configured_by_zconfig(self, tmp_path):
        schema = ZConfig.loadSchemaFile(
            io.StringIO(
                '<schema><import package="ZConfig.components.logger"/>'
                '<section type="ZConfig.logger.log" name="*" attribute="log"/></schema>'
            )
        )
        target = tmp_path / "log"
        text = f"<logger>\nname configured\n<logfile>\npath {target}\n"
        text += "formatter zrs_core.logs.JSONFormatter\n</logfile>\n</logger>"
        config, _ = ZConfig.loadConfigFile(schema, io.StringIO(text))
        log = config.log()
        try:
            log.warning("told", extra=event("start", tid=b"\1" * 8))
        finally:
            for each in [*log.handlers]:
                log.removeHandler(each)
                each.close()
        line = json.loads(target.read_text())
        assert (line["message"], line["tid"]) == ("told", "0x" + "01" * 8)


class TestCommand:
    def test_all_lines_are_objects(self, capsys):
        console = console_for("json")
        assert isinstance(console, JSONLines)
        with logging_to(console, logging.INFO):
            say(console, "[bold]said[/bold]")
            logging.getLogger("zrs_core.primary").info("logged", extra=event("connected"))
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [(each["event"], each["message"]) for each in lines] == [
            ("said", "[bold]said[/bold]"),
            ("connected", "logged"),
        ]
        assert lines[0]["logger"] == "zrs_core.cli"

    def test_for_people(self):
        assert not isinstance(console_for("text"), JSONLines)
