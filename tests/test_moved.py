"""Import paths that programs used before the modules moved."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from zrs_core.moved import MOVED, find_moved

NAMES = [(module, name) for module, names in MOVED.items() for name in names]


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_an_old_path_leads_to_the_same_thing(module, name):
    home = importlib.import_module(MOVED[module][name])
    assert getattr(importlib.import_module(module), name) is getattr(home, name)


def test_a_name_that_was_not_there_is_an_error():
    with pytest.raises(AttributeError, match=r"'zrs_core\.dump' has no attribute 'nothing'"):
        find_moved("zrs_core.dump", "nothing")
    with pytest.raises(ImportError):
        importlib.import_module("zrs_core.cli")


def test_importing_them_loads_nothing_else():
    program = "import sys, zrs_core.status, zrs_core.dump; print('ZODB' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"


def test_from_import_works():
    from zrs_core.snapshots.taking import take_snapshot  # type: ignore[import-not-found]

    from zrs_core.status import StatusServer

    assert callable(take_snapshot)
    assert isinstance(StatusServer, type)
