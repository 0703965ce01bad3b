import pytest

from .import_graph import between_parts, circle, imports_of, within

# A package without circles, as files and their texts.
TREE = {
    "__init__.py": "from typing import TYPE_CHECKING",
    "low.py": "import json\nimport os.path",
    "values/__init__.py": "from .. import low",
    "values/kinds.py": "from ..low import name",
    "work/__init__.py": "from .doing import do",
    "work/doing.py": "from ..values import kinds\nfrom ..values.kinds import name",
    "work/more/__init__.py": "",
    "work/more/deep.py": "from ...low import name\nfrom ... import values\nfrom .. import doing",
}


@pytest.fixture
def package(tmp_path):
    def make(changes):
        root = tmp_path / "house"
        for path, text in (TREE | changes).items():
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return imports_of(root)

    return make


def test_imports_are_found_with_their_full_names(package):
    assert package({}) == {
        "house": {"typing"},
        "house.low": {"json", "os.path"},
        "house.values": {"house.low"},
        "house.values.kinds": {"house.low"},
        "house.work": {"house.work.doing"},
        "house.work.doing": {"house.values.kinds"},
        "house.work.more": set(),
        "house.work.more.deep": {"house.low", "house.values", "house.work.doing"},
    }


def test_a_tree_without_circles_has_none(package):
    graph = package({})
    assert circle(within(graph)) == []
    assert circle(between_parts(graph)) == []


@pytest.mark.parametrize(
    "statement",
    [
        "from .work.doing import do",
        "import house.work.doing",
        "from house.work import doing",
        "def later():\n    from .work import doing",
        "if TYPE_CHECKING:\n    from .work.doing import do",
    ],
)
def test_a_circle_of_modules_is_found(package, statement):
    found = circle(within(package({"low.py": statement})))
    assert found == ["house.low", "house.work.doing", "house.values.kinds", "house.low"]


def test_a_circle_of_packages_is_found_where_modules_have_none(package):
    graph = package({"values/other.py": "from ..work.more import deep"})
    assert circle(within(graph)) == []
    assert circle(between_parts(graph)) == ["house.values", "house.work", "house.values"]


def test_the_package_itself_is_one_of_its_parts(package):
    graph = package({"__init__.py": "from .work import do", "low.py": "from . import version"})
    assert circle(within(graph))[0] == "house"
    assert circle(between_parts(graph))[0] == "house"
