"""Installing for Podman: what it is told, beside what its administrator has told it; and all of it taken back."""

import json
import sys
import tomllib
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest
from trees import tree_of

from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import InstallError
from migrrdma_runtime.host.install import payload, podman_config
from migrrdma_runtime.host.install.docker_config import DEFAULT, DockerConfig
from migrrdma_runtime.host.install.install import plan as plan_install
from migrrdma_runtime.host.install.payload import Payload
from migrrdma_runtime.host.install.step import Step, perform
from migrrdma_runtime.host.install.uninstall import plan as plan_uninstall
from migrrdma_runtime.host.machine import Finished, Host

_USUAL = "/usr/share/containers/oci/hooks.d"
_DROP_INS = Path(paths.PODMAN_CONFIG).parent


@pytest.fixture(name="files", scope="module")
def _files() -> Payload:
    return payload.load(sys.executable)


def docker_of(host: Host) -> DockerConfig:
    def no_dockerd(_argv: Sequence[str], /) -> Finished | None:
        return None

    return DockerConfig(host, no_dockerd)


def install(host: Host, files: Payload, asked: Collection[str] = ("podman",)) -> list[Step]:
    return list(perform(plan_install(host, files, docker_of(host), asked)))


def uninstall(host: Host, *, purge: bool = True) -> list[Step]:
    return list(perform(plan_uninstall(host, docker_of(host), purge=purge)))


def write(host: Host, name: str | Path, text: str) -> None:
    path = host.path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def told(host: Host) -> list[str]:
    """Where our file has Podman read hooks."""
    document = tomllib.loads(host.path(paths.PODMAN_CONFIG).read_text())
    assert document["engine"]["runtimes"] == {"migrrdma": [paths.RUNTIME]}
    folders: list[str] = document["engine"]["hooks_dir"]
    return folders


@pytest.mark.parametrize("drop_in", [None, "[containers]\n"], ids=["no Podman", "Podman"])
@pytest.mark.parametrize("asked", [["podman"], ["docker", "podman"]], ids=["alone", "and Docker"])
def test_it_leaves_no_trace(host: Host, files: Payload, drop_in: str | None, asked: list[str]) -> None:
    if drop_in is not None:
        write(host, _DROP_INS / "other.conf", drop_in)
    before = tree_of(host)
    install(host, files, asked)
    assert host.path(DEFAULT).exists() == ("docker" in asked)
    assert host.path(paths.INJECT_GUEST).stat().st_mode & 0o777 == 0o755
    description = json.loads(host.path(paths.ENGINE_HOOK).read_text())
    assert description["hook"]["path"] == paths.INJECT_GUEST
    uninstall(host)
    assert tree_of(host) == before


def test_an_engine_that_was_told_stays_told(host: Host, files: Payload) -> None:
    install(host, files)
    for asked in ((), ("podman",)):
        steps = plan_install(host, files, docker_of(host), asked)
        assert [step.what for step in steps if step.apply] == []
    install(host, files, ("docker",))
    host.path(paths.INJECT_GUEST).unlink()
    assert [step.what for step in install(host, files, ()) if step.apply] == [paths.INJECT_GUEST]
    assert host.path(DEFAULT).exists()


def test_after_an_uninstall_nobody_is_told_any_more(host: Host, files: Payload) -> None:
    install(host, files)
    uninstall(host, purge=False)
    install(host, files, ())
    assert host.path(DEFAULT).exists()
    assert not host.path(paths.PODMAN_CONFIG).exists()


def test_an_install_killed_after_any_step_is_completed_or_taken_back(host: Host, files: Payload) -> None:
    before = tree_of(host)
    steps = plan_install(host, files, docker_of(host), ["podman"])
    install(host, files)
    complete = tree_of(host)
    uninstall(host)
    for count in range(1, len(steps)):
        list(perform(plan_install(host, files, docker_of(host), ["podman"])[:count]))
        install(host, files)
        assert tree_of(host) == complete, f"killed after {steps[count - 1].what}"
        uninstall(host)
        list(perform(plan_install(host, files, docker_of(host), ["podman"])[:count]))
        uninstall(host)
        assert tree_of(host) == before, f"killed after {steps[count - 1].what}"


def test_podman_never_hears_of_a_hook_that_is_not_there(host: Host, files: Payload) -> None:
    parts = (paths.INJECT_GUEST, paths.ENGINE_HOOK, paths.PODMAN_CONFIG)
    assert tuple(step.what for step in install(host, files) if step.what in parts) == parts
    removed = [step.what for step in plan_uninstall(host, docker_of(host), purge=False)]
    places = [removed.index(part) for part in parts]
    assert places[0] > max(places[1:])


def test_it_is_taken_back_without_a_record(host: Host, files: Payload) -> None:
    install(host, files)
    host.path("/var/lib/migrrdma/install.json").unlink()
    uninstall(host)
    for name in (paths.INJECT_GUEST, paths.ENGINE_HOOK, paths.PODMAN_CONFIG):
        assert not host.path(name).exists()


_FOLDERS: dict[str, tuple[dict[str, str], list[str]]] = {
    "nobody says anything": ({}, [_USUAL]),
    "the package does": (
        {"/usr/share/containers/containers.conf": '[engine]\nhooks_dir = ["/p"]'},
        ["/p"],
    ),
    "the administrator does": (
        {
            "/usr/share/containers/containers.conf": '[engine]\nhooks_dir = ["/p"]',
            "/etc/containers/containers.conf": '[engine]\nhooks_dir = ["/a", "/b"]',
        },
        ["/a", "/b"],
    ),
    "two do": (
        {
            "/etc/containers/containers.conf": '[engine]\nhooks_dir = ["/a"]',
            f"{_DROP_INS}/10.conf": '[engine]\nhooks_dir = ["/b", {append = true}]',
        },
        ["/a", "/b"],
    ),
    "one is no drop-in": ({f"{_DROP_INS}/10.off": '[engine]\nhooks_dir = ["/b"]'}, [_USUAL]),
    "one comes later": ({f"{_DROP_INS}/95.conf": '[engine]\nhooks_dir = ["/b"]'}, [_USUAL]),
    "it says none": ({"/etc/containers/containers.conf": "[engine]\nhooks_dir = []"}, []),
    "it speaks of others": ({"/etc/containers/containers.conf": "[network]\nx = 1"}, [_USUAL]),
}


@pytest.mark.parametrize(("there", "expected"), _FOLDERS.values(), ids=_FOLDERS)
def test_the_folders_of_others_are_read_as_before(
    host: Host, files: Payload, there: dict[str, str], expected: list[str]
) -> None:
    for name, text in there.items():
        write(host, name, text)
    install(host, files)
    assert told(host) == [*expected, paths.ENGINE_HOOKS_DIR]
    masked = {f"{_DROP_INS}/95.conf"} & set(there)
    assert podman_config.masked_by(host) == "".join(masked)


def test_what_the_administrator_has_added_since_is_read_after_the_next_install(
    host: Host, files: Payload
) -> None:
    install(host, files)
    write(host, "/etc/containers/containers.conf", '[engine]\nhooks_dir = ["/a"]')
    assert paths.PODMAN_CONFIG in [step.what for step in install(host, files, ()) if step.apply]
    assert told(host) == ["/a", paths.ENGINE_HOOKS_DIR]


@pytest.mark.parametrize("text", ["[engine", "[engine]\nhooks_dir = 7", "engine = 1"])
def test_a_configuration_that_podman_could_not_read_either_is_named(
    host: Host, files: Payload, text: str
) -> None:
    write(host, "/etc/containers/containers.conf", text)
    before = tree_of(host)
    with pytest.raises(InstallError, match=r"containers\.conf, which Podman reads, cannot be used"):
        install(host, files)
    assert tree_of(host) == before
