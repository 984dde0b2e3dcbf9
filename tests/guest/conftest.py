"""The guest library and the programs of its tests, built once per session and variant."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from guest_agent import Agent, Program

ROOT = Path(__file__).resolve().parents[2]
STRICT = ["-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror"]
SANITIZERS = {
    "plain": [],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"],
    "thread": ["-fsanitize=thread"],
}
GUEST = ["-fPIC", "-shared", "-fvisibility=hidden", "-ftls-model=initial-exec"]
STANDALONE = ["-nostdlib", "-fno-stack-protector", "-U_FORTIFY_SOURCE"]
"""As it is shipped: no other library needed, no symbol version asked for."""


@dataclass
class Built:
    """Where the pieces of one variant are, and the environment that puts them together."""

    directory: Path
    variant: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def library(self) -> Path:
        return self.directory / "libmigrrdma.so"

    @property
    def traffic(self) -> Path:
        return self.directory / "traffic"

    @property
    def without(self) -> dict[str, str]:
        """The environment with the fake device but without the guest library."""
        return {"LD_LIBRARY_PATH": str(self.directory), "FAKE_ASYNC": "1"}


def guest_sources() -> list[Path]:
    return sorted(p for p in (ROOT / "guest").glob("*.c") if p.name != "placeholder.c")


def compile_c(output: Path, *arguments: str | Path) -> None:
    subprocess.run(["gcc", *STRICT, "-o", str(output), *map(str, arguments)], check=True)


def build(directory: Path, variant: str) -> Built:
    sanitizer = SANITIZERS[variant]
    fake = ROOT / "tests" / "fakeverbs"
    compile_c(
        directory / "libibverbs.so.1",
        *sanitizer, "-fPIC", "-shared", "-pthread", *sorted(fake.glob("*.c")),
        "-Wl,-soname,libibverbs.so.1", f"-Wl,--version-script,{fake / 'libibverbs.map'}",
    )  # fmt: skip
    compile_c(
        directory / "libmigrrdma.so",
        *sanitizer, *GUEST, *(STANDALONE if variant == "plain" else []), *guest_sources(),
        "-Wl,--build-id=sha1", f"-Wl,--version-script,{ROOT / 'guest' / 'verbs.map'}",
    )  # fmt: skip
    compile_c(directory / "traffic", *sanitizer, Path(__file__).parent / "traffic.c", "-libverbs", "-pthread")
    built = Built(directory, variant)
    preload = [str(built.library)]
    if variant != "plain":
        runtime = {"address": "libasan.so", "thread": "libtsan.so"}[variant]
        found = subprocess.run(
            ["gcc", f"-print-file-name={runtime}"], capture_output=True, text=True, check=True
        )
        # The sanitizer's runtime must come before everything else.
        preload.insert(0, found.stdout.strip())
    built.environment = {**built.without, "LD_PRELOAD": ":".join(preload)}
    return built


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Built]:
    made: dict[str, Built] = {}

    def get(variant: str) -> Built:
        if variant not in made:
            made[variant] = build(tmp_path_factory.mktemp(variant), variant)
        return made[variant]

    return get


@pytest.fixture
def built(builds: Callable[[str], Built]) -> Built:
    return builds("plain")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    with Agent(tmp_path) as agent:
        yield agent


@pytest.fixture
def start(built: Built, agent: Agent, tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start ``traffic`` under the guest library and wait until its guest has called."""
    programs: list[Program] = []

    def run(*options: str, build: Built = built) -> Program:
        program = Program(
            [build.traffic, *options], {**build.environment, **agent.environment}, tmp_path / "log"
        )
        programs.append(program)
        agent.accept()
        return program

    yield run
    for program in programs:
        program.__exit__(None, None, None)
