"""A node's container engine, asked by the installed package on that node, as the agent there asks it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from migrrdma_lab.shell import Shell

_PYTHON = "/opt/migrrdma/bin/python"

_ASK = """
import dataclasses, json, pathlib, sys
from migrrdma_runtime.base.errors import MigrRDMAError
from migrrdma_runtime.engine.description import Description
from migrrdma_runtime.engine.find import ENGINES

name, method, *arguments = json.load(sys.stdin)
engine = ENGINES[name]()

def meant(one):
    if isinstance(one, dict) and one.keys() == {"container"}:
        return engine.container(one["container"])
    if isinstance(one, dict) and "image_id" in one:
        return Description.from_message(one)
    return one

def said(answer):
    if isinstance(answer, Description):
        return answer.as_message()
    if isinstance(answer, list):
        return [said(one) for one in answer]
    if dataclasses.is_dataclass(answer):
        return dataclasses.asdict(answer)
    return str(answer) if isinstance(answer, pathlib.Path) else answer

try:
    print(json.dumps({"answer": said(getattr(engine, method)(*map(meant, arguments)))}))
except MigrRDMAError as error:
    print(json.dumps({"error": str(error)}))
"""


class RefusedHereError(Exception):
    """The engine on the node has raised; its words."""


_SAVE = """
import sys
from migrrdma_runtime.engine.find import ENGINES
name, image_id, reference, without = sys.argv[1:]
for piece in ENGINES[name]().save_image(image_id, reference, int(without)):
    sys.stdout.buffer.write(piece)
"""

_LOAD = """
import sys
from migrrdma_runtime.base.errors import MigrRDMAError
from migrrdma_runtime.engine.find import ENGINES
name, image_id = sys.argv[1:]
try:
    ENGINES[name]().load_image(iter(lambda: sys.stdin.buffer.read(65536), b""), image_id)
except MigrRDMAError as error:
    print(error)
"""


@dataclass(frozen=True)
class EngineOnNode:
    """One engine of one node."""

    shell: Shell
    name: str

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the engine's; a container is given as `of`, a description as its message."""
        question = json.dumps([self.name, method, *arguments]).encode()
        said = self.shell.run(_PYTHON, "-c", _ASK, stdin=question, timeout=300).stdout
        answer = json.loads(said)
        if "error" in answer:
            raise RefusedHereError(answer["error"])
        return answer["answer"]

    def save(self, image_id: str, reference: str, without: int = 0) -> bytes:
        """What `save_image` gives."""
        words = [_PYTHON, "-c", _SAVE, self.name, image_id, reference, str(without)]
        return self.shell.download(shlex.join(words))

    def load(self, image: bytes, image_id: str) -> None:
        """`load_image` of it."""
        said = self.shell.run(_PYTHON, "-c", _LOAD, self.name, image_id, stdin=image, timeout=300).stdout
        if said:
            raise RefusedHereError(said.strip())

    def inspect(self, name: str) -> dict[str, Any]:
        """All that the engine's own command says of a container."""
        (found,) = json.loads(self.shell.run(self.name, "container", "inspect", name).stdout)
        inspected: dict[str, Any] = found
        return inspected


def of(container: str) -> dict[str, str]:
    """The argument that stands for a container."""
    return {"container": container}


def differences(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """Where two inspects differ, member by member: ``Config.Labels.a``."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted({*one, *other}):
            if name not in one or name not in other:
                yield f"{place}{name}"
            else:
                yield from differences(one[name], other[name], f"{place}{name}.")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for at, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(*pair, f"{place}{at}.")
    elif one != other:
        yield place.removesuffix(".")
