"""Every folder of the package keeps the rule in its docstring of what it may use, and nothing goes in circles.

A rule is the sentence "It uses …": folders of this package, and packages that have to be installed. Python's standard
library needs no mention. A folder may always use what is in it, and nothing of the folders in it unless it says so.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "migrrdma_runtime"
ENTRANCES = {"cli.py", "oci.py", "checkpoint.py", "restore.py", "inject_guest.py"}
"""Files beside the folders, each with a rule of its own in the package's docstring."""

Graph = dict[str, set[str]]


def modules(package: Path) -> dict[str, Path]:
    """Every module by its name inside the package, ``shim.argv``; a folder's ``__init__`` by the folder's."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path) -> Iterator[str]:
    """The full names of what a file imports, wherever in it: inside functions and for type checkers as well."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path}, line {node.lineno}: import by the full name"
            assert not node.level, f"{path}, line {node.lineno}: import by the full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def used(package: Path) -> tuple[Graph, Graph]:
    """What each module imports: modules of the package, and packages that are neither it nor Python's own."""
    known = modules(package)
    inside: Graph = {name: set() for name in known}
    outside: Graph = {name: set() for name in known}
    for name, path in known.items():
        for full in imports(path):
            first, _, rest = full.partition(".")
            if first == package.name:
                target = rest if rest in known else rest.rpartition(".")[0]
                inside[name].add(target)
            elif first not in sys.stdlib_module_names:
                outside[name].add(first)
    return inside, outside


def room(module: str, known: Mapping[str, Path]) -> str:
    """The folder of a module, ``agent.roles``; a module beside the folders is a room of its own."""
    if known[module].name == "__init__.py":
        return module
    return module.rpartition(".")[0] or module


def rules(package: Path) -> dict[str, set[str]]:
    """What each room may use, as its docstring says."""
    found = {}
    for name, path in modules(package).items():
        if path.name != "__init__.py":
            continue
        docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
        if name:
            found[name] = _allowed(f"{path}", docstring)
        else:
            for entrance, sentence in re.findall(
                r"^``(\w+)\.py``.*?(It uses [^.]*\.)", docstring, re.M | re.S
            ):
                found[entrance] = _allowed(f"{path}, {entrance}", sentence)
    return found


def _allowed(where: str, text: str) -> set[str]:
    sentences = re.findall(r"It uses ([^.]*(?:\.\w[^.]*)*)\.(?:\s|$)", text)
    assert len(sentences) == 1, (
        f"{where}: one sentence must say what it uses, as 'It uses wire, base and grpc.'"
    )
    words = re.split(r",\s+(?:and\s+)?|\s+and\s+", sentences[0])
    return {re.sub(r"\s+", " ", word) for word in words} - {"nothing"}


def violations(package: Path) -> list[str]:
    """Every import that the rule of its room does not have."""
    known, (inside, outside), allowed = modules(package), used(package), rules(package)
    found = []
    for name in known:
        here = room(name, known)
        if here in ("", "__main__"):
            continue
        for target in sorted(inside[name]):
            there = room(target, known)
            if there not in {"", here} | allowed[here]:
                found.append(f"{name} uses {target}, and {here} may use {', '.join(sorted(allowed[here]))}")
        found += [
            f"{name} uses {other}, which the rule of {here} does not name"
            for other in sorted(outside[name] - allowed[here])
        ]
    return found


def unused_permissions(package: Path) -> list[str]:
    """What a rule allows and no module of the room does: a rule says how things are."""
    known, (inside, outside), allowed = modules(package), used(package), rules(package)
    done: Graph = {name: set() for name in allowed}
    for name in known:
        here = room(name, known)
        if here in allowed:
            done[here] |= {room(target, known) for target in inside[name]} | outside[name]
    return [
        f"{name} need not be allowed {one}" for name in allowed for one in sorted(allowed[name] - done[name])
    ]


def circle(graph: Graph) -> list[str]:
    """Nodes that lead back to the first of them, or none."""
    done: set[str] = set()

    def search(node: str, way: list[str]) -> list[str]:
        if node in way:
            return [*way[way.index(node) :], node]
        if node in done:
            return []
        for target in sorted(graph[node]):
            if target != node and (found := search(target, [*way, node])):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := search(node, []))), [])


def room_graph(package: Path) -> Graph:
    """Which room uses which."""
    known, (inside, _) = modules(package), used(package)
    graph: Graph = {}
    for name, targets in inside.items():
        graph.setdefault(room(name, known), set()).update(room(target, known) for target in targets)
    return graph


def test_every_room_keeps_its_rule() -> None:
    assert violations(PACKAGE) == []


def test_a_rule_allows_no_more_than_is_used() -> None:
    assert unused_permissions(PACKAGE) == []


def test_every_room_has_a_rule() -> None:
    folders = {name for name, path in modules(PACKAGE).items() if path.name == "__init__.py" and name}
    beside = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert rules(PACKAGE).keys() == folders | beside


def test_no_modules_go_in_circles() -> None:
    assert circle(used(PACKAGE)[0]) == []


def test_no_rooms_go_in_circles() -> None:
    assert circle(room_graph(PACKAGE)) == []


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A package of two rooms, in order."""
    package = tmp_path / "house"
    for name, text in {
        "__init__.py": '"""The house.\n\n``main.py`` lets one in. It uses upper and lower.\n"""',
        "main.py": "from house.lower import cellar\nfrom house.upper import attic",
        "lower/__init__.py": '"""Below. It uses nothing."""',
        "lower/cellar.py": "import json",
        "upper/__init__.py": '"""Above. It uses lower and grpc."""',
        "upper/attic.py": "import grpc.aio\nfrom house.lower import cellar\n",
        "upper/roof.py": "from house.upper.attic import beam\n",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    return package


def test_a_house_in_order_is_found_so(house: Path) -> None:
    assert (
        violations(house)
        == unused_permissions(house)
        == circle(used(house)[0])
        == circle(room_graph(house))
        == []
    )


@pytest.mark.parametrize(
    ("file", "text", "found"),
    [
        (
            "lower/cellar.py",
            "def f():\n    from house.upper.attic import beam\n",
            "lower.cellar uses upper.attic",
        ),
        ("lower/cellar.py", "import grpc\n", "lower.cellar uses grpc"),
        ("upper/roof.py", "if TYPE_CHECKING:\n    from house import main\n", "upper.roof uses main"),
    ],
    ids=["inside a function", "a package that must be installed", "for type checkers"],
)
def test_a_use_against_the_rule_is_found(house: Path, file: str, text: str, found: str) -> None:
    (house / file).write_text(text)
    assert [one for one in violations(house) if one.startswith(found)]


def test_a_circle_is_found_and_named(house: Path) -> None:
    (house / "upper/attic.py").write_text("from house.upper.roof import ridge\n")
    assert circle(used(house)[0]) == ["upper.attic", "upper.roof", "upper.attic"]
    (house / "lower/cellar.py").write_text("from house.upper import roof\n")
    (house / "upper/roof.py").write_text("from house.lower import cellar\n")
    assert circle(room_graph(house)) == ["lower", "upper", "lower"]


def test_a_permission_that_nobody_needs_is_found(house: Path) -> None:
    (house / "upper/attic.py").write_text("import grpc\n")
    assert unused_permissions(house) == ["upper need not be allowed lower"]
