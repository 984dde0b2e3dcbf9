"""Our CRIU plugin stands among the others, before them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from migrrdma_runtime.criu import plugins as criu_plugins


@pytest.fixture
def ours(tmp_path: Path) -> str:
    plugin = tmp_path / "ours" / "migrrdma_plugin.so"
    plugin.parent.mkdir()
    plugin.touch()
    return str(plugin)


def _others(directory: Path, *names: str) -> str:
    directory.mkdir()
    for name in names:
        (directory / name).touch()
    return str(directory)


def _targets(directory: Path) -> list[str]:
    """In the order in which CRIU sees them."""
    return [os.readlink(entry) for entry in os.scandir(directory)]  # noqa: PTH115


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm"])
def test_ours_comes_first_on_every_filesystem(ours: str, place: str, tmp_path: Path) -> None:
    names = [f"{kind}_plugin.so" for kind in ("amdgpu", "cuda", "a", "b", "zz")]
    others = _others(tmp_path / "others", *names)
    directory = Path(place) / f"criu-plugins-{os.getpid()}"
    try:
        assert criu_plugins.gather(str(directory), ours, others)
        targets = _targets(directory)
    finally:
        for link in directory.iterdir():
            link.unlink()
        directory.rmdir()
    assert targets[0] == ours
    assert sorted(targets[1:]) == sorted(f"{others}/{name}" for name in names)


def test_what_criu_would_not_load_stays_out(ours: str, tmp_path: Path) -> None:
    others = _others(tmp_path / "others", "README", "cuda_plugin.so", "old_plugin.so.1")
    assert criu_plugins.gather(str(tmp_path / "links"), ours, others)
    assert sorted(_targets(tmp_path / "links")) == sorted([ours, f"{others}/cuda_plugin.so"])


def test_ours_is_there_once_even_where_the_distribution_has_it_too(ours: str, tmp_path: Path) -> None:
    others = _others(tmp_path / "others", "migrrdma_plugin.so")
    assert criu_plugins.gather(str(tmp_path / "links"), ours, others)
    assert _targets(tmp_path / "links") == [ours]


def test_no_other_plugins_are_no_obstacle(ours: str, tmp_path: Path) -> None:
    assert criu_plugins.gather(str(tmp_path / "links"), ours, str(tmp_path / "none"))
    assert _targets(tmp_path / "links") == [ours]


def test_a_plugin_that_has_gone_is_gone_after_the_next_time(ours: str, tmp_path: Path) -> None:
    others = _others(tmp_path / "others", "cuda_plugin.so")
    criu_plugins.gather(str(tmp_path / "links"), ours, others)
    (tmp_path / "others" / "cuda_plugin.so").unlink()
    criu_plugins.gather(str(tmp_path / "links"), ours, others)
    assert _targets(tmp_path / "links") == [ours]


@pytest.mark.parametrize(
    ("configuration", "directory"),
    [
        ("libdir /opt/criu\n", "/opt/criu"),
        ("file-locks\n  libdir\t/opt/criu # ours\n", "/opt/criu"),
        ('libdir /first\nlibdir "/second"\n', "/second"),
        ("# libdir /opt/criu\n", "/from/environment"),
        ("", "/from/environment"),
    ],
)
def test_the_users_choice_of_a_directory_counts(
    monkeypatch: pytest.MonkeyPatch, configuration: str, directory: str
) -> None:
    monkeypatch.setenv("CRIU_LIBS_DIR", "/from/environment")
    assert criu_plugins.inherited_directory(configuration) == directory


def test_without_a_choice_it_is_the_place_next_to_criu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CRIU_LIBS_DIR", raising=False)
    program = tmp_path / "sbin" / "criu"
    program.parent.mkdir()
    program.touch(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    assert criu_plugins.inherited_directory("") == f"{tmp_path}/lib/criu"
