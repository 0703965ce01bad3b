"""The graph of the imports within a package, read from its source code.

Every import statement counts, wherever it is in a module: in functions, which import later, and
under `TYPE_CHECKING`, which a type checker alone imports. Only then is each module understood
without the modules that use it. Two things do not count: that an import of `a.b` runs
`a/__init__.py` first, and names of modules in texts, as `import_module` takes them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

#: For each module, the names of what it imports: modules of the package, and of others.
Graph = dict[str, set[str]]


def imports_of(package: Path) -> Graph:
    """Return what each module of a package imports.

    A name that is imported from a package counts as an import of the module of that name if there
    is one, else of the package itself.

    :param package: the directory of the package.
    """
    files = {_name(package, path): path for path in package.rglob("*.py")}
    return {
        name: {*_imported(ast.parse(path.read_text()), name, path, files)}
        for name, path in files.items()
    }


def _name(package: Path, path: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(tree: ast.AST, name: str, path: Path, files: Mapping[str, Path]) -> Iterator[str]:
    parents = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) + 1 - node.level] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                found = f"{module}.{alias.name}"
                yield found if found in files else module


def within(graph: Graph) -> Graph:
    """Return the part of a graph that is about its own modules."""
    return {name: (found & graph.keys()) - {name} for name, found in graph.items()}


def between_parts(graph: Graph) -> Graph:
    """Return the imports between the parts of a package: its sub-packages and top-level modules.

    The package's own `__init__.py` is a part too.
    """
    parts: Graph = {part_of(name): set() for name in graph}
    for name, found in within(graph).items():
        parts[part_of(name)] |= {part_of(each) for each in found} - {part_of(name)}
    return parts


def part_of(name: str) -> str:
    """Return the part of a package that a module belongs to: `a.b` for `a.b.c`."""
    return ".".join(name.split(".")[:2])


def circle(graph: Graph) -> list[str]:
    """Return a circle of imports, the first name repeated at the end; empty if there is none."""
    done: set[str] = set()
    way: list[str] = []

    def follow(name: str) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        way.append(name)
        for each in sorted(graph[name]):
            if found := follow(each):
                return found
        done.add(way.pop())
        return []

    return next(filter(None, map(follow, sorted(graph))), [])
