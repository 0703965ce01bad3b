import inspect
import re
from pathlib import Path

import click
import pytest

import zrs_core
from zrs_core import Primary, Secondary
from zrs_core.config import table
from zrs_core.config.component import component
from zrs_core.errors import ConfigurationError
from zrs_core.monitor.options import StatusOptions
from zrs_core.tls import TLSOptions
from zrs_core.tools.cli.primary import primary
from zrs_core.tools.cli.secondary import secondary

GROUPS = {
    name.lower(): group for name, group in vars(table).items() if name.isupper() and name[0] != "_"
}

# The groups that the arguments of each are in, and the prefix that they have there.
USED_BY = [
    (Primary, (table.BOTH, table.PRIMARY), ""),
    (Secondary, (table.BOTH, table.SECONDARY), ""),
    (StatusOptions, (table.STATUS,), "status_"),
    (TLSOptions, (table.TLS,), ""),
]

# Arguments that are no options: addresses and objects, which each way of configuration has its own
# form for.
NO_OPTIONS = {"storage", "address", "reactor", "tls"}

COMMANDS = [(primary, "replicate_from"), (secondary, "replicate_to")]

ALL = [option for group in GROUPS.values() for option in group.values()]


def options_of(groups, prefix):
    return {key.removeprefix(prefix): each for group in groups for key, each in group.items()}


def numbered(options):
    return pytest.mark.parametrize("option", options, ids=lambda option: option.name)


def test_the_component_is_made_from_the_table():
    path = Path(zrs_core.__file__).with_name("component.xml")
    assert path.read_text() == component(), "python -m zrs_core.config.component > " + str(path)


@pytest.mark.parametrize(("used_by", "groups", "prefix"), USED_BY)
def test_every_argument_is_in_the_table(used_by, groups, prefix):
    options = {*options_of(groups, prefix)}
    assert {*inspect.signature(used_by).parameters} - NO_OPTIONS == options - NO_OPTIONS


@pytest.mark.parametrize(("used_by", "groups", "prefix"), USED_BY)
def test_the_defaults_are_those_of_the_arguments(used_by, groups, prefix):
    parameters = inspect.signature(used_by).parameters
    for name, option in options_of(groups, prefix).items():
        default = parameters[name].default
        if option.default is None:
            assert default in (None, (), inspect.Parameter.empty), name
        else:
            assert option.convert(option.default) == default, name


@numbered([option for option in ALL if option.limits])
def test_the_limits_are_those_that_are_checked(option):
    least, most = option.limits
    for inside in (least, most):
        assert option.convert(str(inside)) == inside
    step = 1 if isinstance(option.convert(str(most)), int) else 0.001
    for outside in (least - step, most + step):
        with pytest.raises(ConfigurationError):
            option.convert(str(outside))


@pytest.mark.parametrize(("command", "other"), COMMANDS)
def test_the_commands_have_the_options_with_a_flag(command, other):
    names = {flag for each in command.params for flag in each.opts}
    flags = {option.flag for option in ALL if option.flag and option.needs != other}
    assert flags <= names
    others = {option.flag for option in ALL if option.needs == other} - {""}
    assert not others & names


@pytest.mark.parametrize(("command", "other"), COMMANDS)
def test_the_commands_have_the_defaults_of_the_table(command, other):
    options = {option.flag: option for option in ALL if option.flag and option.default}
    context = click.Context(command)
    checked = 0
    for each in command.params:
        option, default = options.get(each.opts[0]), each.get_default(context)
        # --status-max-lag has none, since it is an error without --status.
        if option is not None and isinstance(default, (str, int, float)):
            assert option.convert(str(default)) == option.convert(option.default), option.name
            checked += 1
    assert checked >= 4


def test_the_documentation_lists_every_group():
    path = Path(__file__).parent.parent / "docs" / "configuration.rst"
    listed = re.findall(r"^\.\. options:: (\w+)$", path.read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(GROUPS)
