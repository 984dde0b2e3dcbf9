"""Which engine a container is of, and what Podman's command is asked and answers; Docker's daemon has its own tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from migrrdma_runtime.base.errors import DockerError, EngineError, UsageError
from migrrdma_runtime.engine import find
from migrrdma_runtime.engine.docker import Docker
from migrrdma_runtime.engine.engine import Container
from migrrdma_runtime.engine.podman import Podman

MakeDocker = Callable[..., Docker]
MakePodman = Callable[..., Path]

_RUNTIME = "/usr/local/bin/migrrdma-runtime"
_WEB = Container("1" * 64, "web", _RUNTIME, running=False)


@pytest.fixture
def make_podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakePodman:
    """A ``podman`` in $PATH that notes how it is called and has the one container, or does what it is told."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    calls = tmp_path / "calls"

    def make(*containers: Container, script: str = "") -> Path:
        known = {
            one.name: [
                {"Id": one.id, "Name": one.name, "OCIRuntime": one.runtime, "State": {"Running": one.running}}
            ]
            for one in containers
        }
        for name, description in known.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(description))
        (folder / "podman").write_text(
            f'#!/bin/sh\necho "$*" >>{calls}\n{script}\n'
            f'[ "$2" != inspect ] || cat {tmp_path}/"$4".json 2>/dev/null ||'
            ' { echo "Error: no such container $4" >&2; exit 125; }\n'
        )
        (folder / "podman").chmod(0o755)
        return calls

    return make


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch, make_docker: MakeDocker) -> Callable[..., None]:
    def set_up(*containers: Container) -> None:
        monkeypatch.setattr(find, "DockerDaemon", lambda: make_docker(*containers))

    return set_up


@pytest.fixture
def no_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Docker:
        raise DockerError("Docker cannot be reached: No such file or directory")

    monkeypatch.setattr(find, "DockerDaemon", refuse)


def test_podmans_container_is_described_and_started(make_podman: MakePodman, tmp_path: Path) -> None:
    calls = make_podman(_WEB)
    podman = Podman()
    assert podman.container("web") == _WEB
    assert podman.adopts(_WEB)
    assert podman.place(_WEB, "before-move", tmp_path) == tmp_path / _WEB.id
    podman.start(_WEB, "")
    assert calls.read_text().splitlines() == ["container inspect -- web", f"start -- {_WEB.id}"]
    with pytest.raises(EngineError, match="podman starts web from no checkpoint"):
        podman.start(_WEB, "before-move")


def test_podmans_containers_are_those_that_are_still_there(make_podman: MakePodman) -> None:
    make_podman(_WEB, script='[ "$1" != ps ] || { echo web; echo gone; }')
    assert Podman().containers() == [_WEB]


@pytest.mark.parametrize(
    ("runtime", "adopts"), [("migrrdma", True), (_RUNTIME, True), ("crun", False), ("/usr/bin/runc", False)]
)
def test_podman_goes_on_only_by_our_runtime(runtime: str, adopts: bool) -> None:
    assert Podman().adopts(Container("1", "web", runtime, running=False)) is adopts


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'Error: no such thing' >&2; exit 125", "podman: no such thing"),
        ("exit 3", "podman: exit status 3"),
        ("echo '[]'; exit", "no description of a container"),
        ("echo '[{\"Id\": 1}]'; exit", "no description of a container"),
        ("echo nonsense; exit", "no description of a container"),
    ],
)
def test_what_podman_refuses_is_passed_on(make_podman: MakePodman, script: str, said: str) -> None:
    make_podman(script=script)
    with pytest.raises(EngineError, match=said):
        Podman().container("web")


def test_the_engine_is_the_one_that_has_the_container(
    make_podman: MakePodman, docker: Callable[..., None]
) -> None:
    make_podman(_WEB)
    docker(Container("2" * 64, "db", "migrrdma", running=False))
    assert find.find("web", "")[0].name == "podman"
    assert find.find("db", "")[0].name == "docker"
    with pytest.raises(
        EngineError, match=r"^container nobody: no such container; podman: no such container nobody$"
    ):
        find.find("nobody", "")


def test_of_two_that_have_it_the_user_says_which(
    make_podman: MakePodman, docker: Callable[..., None]
) -> None:
    make_podman(_WEB)
    docker(_WEB)
    with pytest.raises(
        EngineError, match="docker and podman both have a container web: say which with --engine"
    ):
        find.find("web", "")
    assert find.find("web", "podman")[0].name == "podman"
    assert find.find("web", "docker")[0].name == "docker"
    with pytest.raises(UsageError, match="no engine 'rkt': --engine takes docker or podman"):
        find.find("web", "rkt")


@pytest.mark.usefixtures("no_docker")
def test_an_engine_that_is_not_there_keeps_nobody_from_the_other(make_podman: MakePodman) -> None:
    make_podman(_WEB)
    assert find.find("web", "")[1] == _WEB


@pytest.mark.usefixtures("no_docker")
def test_without_podman_docker_alone_complains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"^Docker cannot be reached: No such file or directory$"):
        find.find("web", "")


def test_what_runs_is_not_started_from_a_checkpoint(docker: Callable[..., None]) -> None:
    docker(Container("2" * 64, "db", "migrrdma", running=True))
    with pytest.raises(EngineError, match="container db is running"):
        find.stopped("db", "docker")
