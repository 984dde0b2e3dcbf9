"""Every folder of the guest library keeps the rule in ``guest/README.md`` of what it may use; nothing goes in circles.

A rule is the sentence "It uses …" of the folder's line. What a folder uses is read twice: from the includes, and from
the symbols that the object files define and lack, which no include can hide. Both must come to the same.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

GUEST = Path(__file__).resolve().parents[2] / "guest"
PREINCLUDED = "base/weak.h"
"""Given to the compiler before every file."""

Graph = dict[str, set[str]]


def files(guest: Path) -> dict[str, list[Path]]:
    """Sources and headers by the name they share, ``path/send``."""
    found: dict[str, list[Path]] = {}
    for path in sorted(guest.rglob("*.[ch]")):
        found.setdefault(str(path.relative_to(guest).with_suffix("")), []).append(path)
    return found


def room(name: str) -> str:
    """The folder of a file."""
    return name.partition("/")[0]


def rules(guest: Path) -> dict[str, set[str]]:
    """What each folder may use, as the README says."""
    lines = re.findall(r"^- `(\w+)/`: .*It uses ([\w, ]+)\.$", (guest / "README.md").read_text(), re.M)
    return {name: set(re.split(r", | and ", used)) - {"nothing"} for name, used in lines}


def includes(guest: Path) -> Graph:
    """Which file includes which of the library's own; by full name from ``guest/``, or it is not found."""
    known = files(guest)
    graph: Graph = {name: set() for name in known}
    for name, paths in known.items():
        for path in paths:
            for included in re.findall(r'^#\s*include "([^"]+)"', path.read_text(), re.M):
                target = included.removesuffix(".h")
                assert (guest / included) in known.get(target, ()), (
                    f"{path}: {included} is no header of a folder"
                )
                graph[name].add(target)
        graph[name].discard(name)
    return graph


def rdma_includes(guest: Path, rooms: Iterable[str]) -> list[str]:
    """Files of these rooms that know of verbs."""
    return [
        str(path.relative_to(guest))
        for one in rooms
        for path in sorted((guest / one).glob("*.[ch]"))
        if re.search(r"^#\s*include <(infiniband|rdma)/", path.read_text(), re.M)
    ]


class Objects:
    """The object files of a library, not optimised, so that every function is still there."""

    def __init__(self, guest: Path, directory: Path) -> None:
        self.defined: dict[str, str] = {}
        """The file of every symbol that other files can refer to."""
        self.local: dict[str, list[str]] = {}
        """The files of every function of a source that they cannot."""
        self._lacking: Graph = {}
        sources = sorted(guest.rglob("*.c"))
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda source: self._read(guest, source, directory), sources))

    def _read(self, guest: Path, source: Path, directory: Path) -> None:
        name = str(source.relative_to(guest).with_suffix(""))
        output = directory / f"{name.replace('/', '-')}.o"
        subprocess.run(
            ["gcc", "-std=gnu11", "-O0", "-fPIC", "-fvisibility=hidden", "-include", guest / PREINCLUDED,
             f"-I{guest}", "-c", source, "-o", output],
            check=True,
        )  # fmt: skip
        listed = subprocess.run(["nm", output], capture_output=True, text=True, check=True).stdout
        self._lacking[name] = set()
        text = source.read_text()
        for line in listed.splitlines():
            kind, symbol = line.split()[-2:]
            if kind in "Uwv":
                self._lacking[name].add(symbol)
            elif kind.isupper():
                self.defined[symbol] = name
            elif kind == "t" and re.search(rf"^static .*\b{symbol}\(", text, re.M):
                self.local.setdefault(symbol, []).append(name)

    def references(self) -> Graph:
        """Which file refers to a symbol of which other."""
        return {
            name: {self.defined[one] for one in lacking if one in self.defined} - {name}
            for name, lacking in self._lacking.items()
        }

    def shared_names(self) -> dict[str, list[str]]:
        """Functions of one file that are called like another file's."""
        return {symbol: sorted(names) for symbol, names in self.local.items() if len(names) > 1}


def by_room(graph: Graph) -> Graph:
    """Which folder uses which others."""
    rooms: Graph = {room(name): set() for name in graph}
    for name, targets in graph.items():
        rooms[room(name)] |= {room(target) for target in targets} - {room(name)}
    return rooms


def violations(graph: Graph, allowed: dict[str, set[str]]) -> list[str]:
    """Every use that the rule of its folder does not have."""
    return [
        f"{name} uses {target}, and {room(name)} may use {', '.join(sorted(allowed[room(name)])) or 'nothing'}"
        for name, targets in sorted(graph.items())
        for target in sorted(targets)
        if room(target) not in {room(name)} | allowed[room(name)]
    ]


def circle(graph: Graph) -> list[str]:
    """Nodes that lead back to the first of them, or none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    return Objects(GUEST, tmp_path_factory.mktemp("objects"))


def test_every_folder_has_a_rule() -> None:
    assert rules(GUEST).keys() == {path.name for path in GUEST.iterdir() if path.is_dir()}


def test_every_source_is_built() -> None:
    listed = re.findall(r"^  '(.*\.c)',$", (GUEST / "meson.build").read_text(), re.M)
    assert listed == sorted(str(path.relative_to(GUEST)) for path in GUEST.rglob("*.c"))


def test_every_folder_keeps_its_rule_in_includes() -> None:
    assert violations(includes(GUEST), rules(GUEST)) == []


def test_every_folder_keeps_its_rule_in_symbols(objects: Objects) -> None:
    assert violations(objects.references(), rules(GUEST)) == []


def test_a_rule_allows_no_more_than_is_used() -> None:
    assert by_room(includes(GUEST)) == rules(GUEST)


def test_no_files_include_each_other_in_circles() -> None:
    assert circle(includes(GUEST)) == []


def test_no_files_refer_to_each_other_in_circles(objects: Objects) -> None:
    assert circle(objects.references()) == []


def test_no_folders_go_in_circles(objects: Objects) -> None:
    assert circle(by_room(includes(GUEST))) == []
    assert circle(by_room(objects.references())) == []


def test_what_knows_nothing_of_rdma_includes_nothing_of_it() -> None:
    assert rdma_includes(GUEST, ["base", "wire"]) == []


def test_no_two_files_have_functions_of_one_name(objects: Objects) -> None:
    assert objects.shared_names() == {}


def test_every_kind_has_a_row_and_every_row_a_list() -> None:
    sources = "".join(path.read_text() for path in (GUEST / "objects").glob("*.c"))
    defined = re.findall(r"^const struct mig_kind (\w+) = {", sources, re.M)
    rows = re.findall(r"\bX\((\w+)\)", (GUEST / "objects/kinds.h").read_text())
    assert sorted(defined) == sorted(rows)
    lists = re.search(
        r"struct mig_link (\w+(?:, \w+)+); /\* verb gate", (GUEST / "shadow/context.h").read_text()
    )
    assert lists
    assert sorted(re.findall(r"MIG_LIST_OF\((\w+)\)", sources)) == sorted(lists[1].split(", "))


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A library of two folders, in order."""
    guest = tmp_path / "guest"
    for name, text in {
        "README.md": "- `upper/`: above. It uses base.\n- `base/`: below. It uses nothing.\n",
        "base/weak.h": "",
        "base/cellar.h": "int wine(void);\n",
        "base/cellar.c": '#include "base/cellar.h"\nint wine(void) { return 1; }\n',
        "upper/attic.h": "int beam(void);\n",
        "upper/attic.c": '#include "upper/attic.h"\n#include "base/cellar.h"\nint beam(void) { return wine(); }\n',
        "upper/roof.h": "int ridge(void);\n",
        "upper/roof.c": '#include "upper/roof.h"\n#include "upper/attic.h"\nint ridge(void) { return beam(); }\n',
    }.items():
        (guest / name).parent.mkdir(parents=True, exist_ok=True)
        (guest / name).write_text(text)
    return guest


@pytest.fixture
def compiled(house: Path, tmp_path: Path) -> Callable[[], Objects]:
    def build() -> Objects:
        directory = tmp_path / "objects"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        return Objects(house, directory)

    return build


def test_a_house_in_order_is_found_so(house: Path, compiled: Callable[[], Objects]) -> None:
    objects = compiled()
    assert violations(includes(house), rules(house)) == violations(objects.references(), rules(house)) == []
    assert circle(includes(house)) == circle(objects.references()) == []
    assert by_room(includes(house)) == by_room(objects.references()) == rules(house)
    assert objects.shared_names() == {}
    assert rdma_includes(house, ["base"]) == []


def test_an_include_against_the_rule_is_found(house: Path) -> None:
    (house / "base/cellar.h").write_text('#include "upper/attic.h"\nint wine(void);\n')
    assert violations(includes(house), rules(house)) == [
        "base/cellar uses upper/attic, and base may use nothing"
    ]
    assert circle(by_room(includes(house)))


def test_an_include_without_its_folder_is_found(house: Path) -> None:
    (house / "upper/roof.c").write_text('#include "attic.h"\n')
    with pytest.raises(AssertionError, match=r"roof.c: attic.h is no header of a folder"):
        includes(house)


def test_a_symbol_against_the_rule_is_found_without_an_include(
    house: Path, compiled: Callable[[], Objects]
) -> None:
    (house / "base/cellar.c").write_text("int beam(void);\nint wine(void) { return beam(); }\n")
    assert violations(includes(house), rules(house)) == []
    references = compiled().references()
    assert violations(references, rules(house)) == ["base/cellar uses upper/attic, and base may use nothing"]
    assert set(circle(references)) == {"base/cellar", "upper/attic"}


def test_a_circle_between_two_files_of_a_folder_is_found(
    house: Path, compiled: Callable[[], Objects]
) -> None:
    with (house / "upper/attic.c").open("a") as attic:
        attic.write("int ridge(void);\nint gable(void) { return ridge(); }\n")
    objects = compiled()
    assert violations(objects.references(), rules(house)) == []
    assert set(circle(objects.references())) == {"upper/attic", "upper/roof"}


def test_a_shared_name_is_found(house: Path, compiled: Callable[[], Objects]) -> None:
    for name in ("upper/attic.c", "upper/roof.c"):
        with (house / name).open("a") as file:
            file.write(
                "static int tile(void) { return 1; }\nint (*laid)(void) = tile;\n".replace("laid", name[6:10])
            )
    assert compiled().shared_names() == {"tile": ["upper/attic", "upper/roof"]}


def test_verbs_in_the_cellar_are_found(house: Path) -> None:
    (house / "base/cellar.h").write_text("#include <infiniband/verbs.h>\n")
    assert rdma_includes(house, ["base"]) == ["base/cellar.h"]
