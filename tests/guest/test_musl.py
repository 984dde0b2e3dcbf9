"""The library as it is shipped, built against glibc, in processes whose C library is musl."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from guest_agent import Agent, Program
from guest_build import STRICT, Built
from guest_moves import move
from installed import Installation
from migrrdma_lab.device.build import build_in_process

from migrrdma_runtime.base import paths

PROGRAMS = Path(__file__).parent


@pytest.fixture
def library(installation: Installation) -> Path:
    return installation.guest_dir / "current" / paths.GUEST_LIBRARY


@pytest.fixture(scope="module")
def musl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of programs, and of a libibverbs with software devices, that know no other C library."""
    directory = tmp_path_factory.mktemp("musl")
    headers = directory / "headers"
    headers.mkdir()
    multiarch = subprocess.run(
        ["gcc", "-print-multiarch"], capture_output=True, text=True, check=True
    ).stdout.strip()
    # Of the machine's headers only these, as the others are glibc's.
    for name in ("infiniband", "rdma", "linux", "asm-generic"):
        (headers / name).symlink_to(f"/usr/include/{name}")
    (headers / "asm").symlink_to(f"/usr/include/{multiarch}/asm")

    def compile_c(output: str, *arguments: str | Path) -> None:
        command = ["musl-gcc", *STRICT, "-isystem", headers, "-o", directory / output, *arguments]
        subprocess.run(list(map(str, command)), check=True)

    build_in_process(directory / "libibverbs.so.1", compiler=["musl-gcc", *STRICT, "-isystem", str(headers)])
    compile_c(
        "traffic",
        PROGRAMS / "traffic.c",
        PROGRAMS / "reconnects.c",
        directory / "libibverbs.so.1",
        "-pthread",
    )
    compile_c("musl", PROGRAMS / "musl.c", "-pthread")
    return directory


@pytest.fixture
def traffic(musl: Path, built: Built, library: Path, agent: Agent, tmp_path: Path) -> Iterator[Program]:
    here = replace(built, directory=musl)
    environment = {**here.without, **agent.environment, "LD_PRELOAD": str(library)}
    with Program([here.traffic, "-q", "3", "-e", "-c", "-t"], environment, tmp_path / "log") as program:
        agent.diagnosis = program.diagnosis
        agent.accept()
        yield program


def run(program: Path, word: str = "it", **extra: str) -> tuple[int, str, str]:
    result = subprocess.run(
        [program, word], env={**os.environ, **extra}, capture_output=True, text=True, timeout=30, check=False
    )
    return result.returncode, result.stdout, result.stderr


def test_a_program_without_verbs_is_as_without_the_library(musl: Path, library: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with_it = run(musl / "musl", LD_PRELOAD=str(library), MIGRRDMA_LOG=f"info:{log}")
    assert "the guest library is loaded" in log.read_text()
    assert with_it == run(musl / "musl")
    assert with_it[0] == 7
    assert "no verbs, 0 devices, none opened" in with_it[1]


def test_a_program_that_opens_libibverbs_itself_gets_ours(musl: Path, built: Built, library: Path) -> None:
    verbs = replace(built, directory=musl).without
    with_it = run(musl / "musl", **verbs, LD_PRELOAD=str(library))
    assert with_it == run(musl / "musl", **verbs)
    assert with_it[0] == 7
    assert "some verbs, 2 devices, closed" in with_it[1]
    assert "loaded first" in run(musl / "musl", "whose", **verbs, LD_PRELOAD=str(library))[1]
    assert "their own" in run(musl / "musl", "whose", **verbs)[1]


def test_traffic_moves_in_a_process_of_musl(traffic: Program, agent: Agent) -> None:
    maps = Path(f"/proc/{traffic.process.pid}/maps").read_text()
    assert re.search(r"/(ld-musl-\w+\.so\.1|\S+-musl/libc\.so)$", maps, re.MULTILINE)
    assert "libc.so.6" not in maps
    for turn in range(6):
        move(agent, (turn % 2, turn % 3 % 2), restored=traffic if turn % 2 else None)
        traffic.wait_for_progress()
    assert traffic.verdict() == "exact"
