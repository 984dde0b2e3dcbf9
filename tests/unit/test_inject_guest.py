"""The hook that edits specs: for other engines' containers what the runtime's own edit is, and nothing for the rest."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from installed import Installation

import migrrdma_runtime
from migrrdma_runtime import inject_guest
from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import SpecError
from migrrdma_runtime.host.install import launcher
from migrrdma_runtime.shim import spec

_ID = "36733c8de943b32ee16572e01fd7d5fbe9aceda2b2dc8e413ab5688ef73fe7ce"
_STORAGE = f"overlay-containers/{_ID}/userdata"
_BUNDLE = f"/var/lib/containers/storage/{_STORAGE}"
_ELSEWHERE = "/root"


def podmans(**linux: Any) -> dict[str, Any]:
    """What Podman 5.4 writes, of what matters."""
    return {
        "ociVersion": "1.2.0",
        "process": {"args": ["sleep"], "env": ["PATH=/usr/bin", "container=podman"], "cwd": "/"},
        "root": {"path": "/var/lib/containers/storage/overlay/ac603efb/merged"},
        "mounts": [
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]},
            {
                "destination": "/run/.containerenv",
                "type": "bind",
                "source": f"/run/containers/storage/{_STORAGE}/.containerenv",
                "options": ["bind"],
            },
        ],
        "hooks": {},
        "annotations": {"io.container.manager": "libpod"},
        "linux": {
            "cgroupsPath": f"machine.slice:libpod:{_ID}",
            "devices": [{"path": "/dev/infiniband/uverbs0", "type": "c", "major": 231, "minor": 192}],
            **linux,
        },
    }


def call(installation: Installation, stdin: bytes, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Run it as Podman does, but for the one variable by which it finds this installation."""
    script = installation.root / "inject-guest"
    script.write_text(launcher.text(sys.executable, "inject_guest"))
    script.chmod(0o755)
    return subprocess.run(
        [script],
        input=stdin,
        cwd=folder,
        env={"MIGRRDMA_CONFIG": str(installation.config)},
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_a_container_with_an_rdma_device_gets_what_the_runtime_would_give_it(
    installation: Installation, tmp_path: Path
) -> None:
    done = call(installation, json.dumps(podmans()).encode(), tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    edited = json.loads(done.stdout)
    record = installation.run_dir / paths.CONTAINERS_DIR / _ID
    expected = podmans()
    spec.edit(
        expected,
        spec.Additions(
            guest_dir=str(installation.guest_dir),
            version=installation.version,
            socket_dir=str(record / paths.GUEST_SOCKET_DIR),
            hooks_dir=str(installation.hooks_dir),
            record_dir=str(record),
            criu_config=str(record / spec.CRIU_CONFIG_NAME),
        ),
    )
    assert edited == expected
    assert (record / paths.GUEST_SOCKET_DIR).is_dir()
    assert "libdir" in (record / spec.CRIU_CONFIG_NAME).read_text()


def test_the_runtimes_own_edit_after_it_leaves_nothing_twice(
    installation: Installation, tmp_path: Path
) -> None:
    edited = json.loads(call(installation, json.dumps(podmans()).encode(), tmp_path).stdout)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "config.json").write_text(json.dumps(edited))
    installation.configure(runtime="/bin/true")
    assert installation.run("create", "--bundle", bundle, _ID).returncode == 0
    both = json.loads((bundle / "config.json").read_text())
    assert both["annotations"].pop("org.criu.config") == str(bundle / spec.CRIU_CONFIG_NAME)
    assert edited["annotations"].pop("org.criu.config") != str(bundle / spec.CRIU_CONFIG_NAME)
    assert both == edited


_LEFT_ALONE = {
    "no device": json.dumps({**podmans(devices=[]), "x": "é"}, indent=3).encode() + b"\n\n",
    "not quite UTF-8": b'{"hostname": "\xff"}',
    "the word alone": b'{ "hostname":"infiniband" }',
    "switched off": json.dumps(
        {**podmans(), "annotations": {spec.ENABLE: "false"}}, separators=(" ,", " :")
    ).encode(),
    "not an object": b'["infiniband"]',
}


@pytest.mark.parametrize("text", _LEFT_ALONE.values(), ids=_LEFT_ALONE)
def test_every_other_container_gets_its_very_bytes_back(
    installation: Installation, tmp_path: Path, text: bytes
) -> None:
    done = call(installation, text, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, text, b"")
    assert not installation.run_dir.exists()


def test_a_container_without_rdma_costs_no_more_than_a_look_at_the_bytes() -> None:
    """What takes time to import is imported for the others."""
    text = json.dumps(podmans(devices=[]))
    script = (
        f"import sys; sys.path.insert(0, {str(Path(migrrdma_runtime.__file__).parents[1])!r})\n"
        "from migrrdma_runtime.inject_guest import filtered\n"
        f"assert filtered({text.encode()!r}, '/') == {text.encode()!r}\n"
        "print(*{'json', 're', 'socket', 'tomllib', 'typing'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-ISc", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []


_REFUSED = {
    "nothing": (b"", "line 1, column 1: not valid JSON"),
    "half a spec": (json.dumps(podmans()).encode()[:-20], "not valid JSON"),
    "a wrong wish": (
        json.dumps({"annotations": {spec.ENABLE: "maybe"}}).encode(),
        'must be "true" or "false"',
    ),
    "not UTF-8": (json.dumps(podmans()).encode().replace(b"sleep", b"sl\xffep"), "not UTF-8 at byte"),
    "a mount in our way": (
        json.dumps({**podmans(), "mounts": [{"destination": "/dev/migrrdma"}]}).encode(),
        "has a mount of its own on /dev/migrrdma",
    ),
}


@pytest.mark.parametrize(("text", "message"), _REFUSED.values(), ids=_REFUSED)
def test_a_spec_that_cannot_be_edited_is_refused_in_one_line(
    installation: Installation, tmp_path: Path, text: bytes, message: str
) -> None:
    done = call(installation, text, tmp_path)
    assert (done.returncode, done.stdout) == (1, b"")
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("migrrdma-inject-guest: the spec on stdin")
    assert message in line


def test_a_mistake_in_the_configuration_stops_only_containers_with_rdma(
    installation: Installation, tmp_path: Path
) -> None:
    installation.configure("no-such-key = true")
    assert call(installation, _LEFT_ALONE["the word alone"], tmp_path).returncode == 0
    done = call(installation, json.dumps(podmans()).encode(), tmp_path)
    assert done.returncode == 1
    assert b"unknown key" in done.stderr


def test_a_users_own_containers_are_left_as_they_are(
    installation: Installation,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In the name space of a user who runs Podman, nothing of the host's is theirs to write to."""
    monkeypatch.setenv("MIGRRDMA_CONFIG", str(installation.config))
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    text = json.dumps(podmans()).encode()
    assert inject_guest.filtered(text, _BUNDLE) == text
    assert "left as it is" in capsys.readouterr().err
    assert not installation.run_dir.exists()


_WITHOUT_A_TRACE: dict[str, Any] = {**podmans(cgroupsPath=""), "mounts": []}

_NAMED = {
    "systemd": (podmans(), _ELSEWHERE),
    "cgroupfs": (podmans(cgroupsPath=f"/libpod_parent/libpod-{_ID}"), _ELSEWHERE),
    "a part of Podman's own cgroup": (podmans(cgroupsPath=f"/x.slice/libpod-payload-{_ID}"), _ELSEWHERE),
    "no cgroup": (podmans(cgroupsPath=""), _ELSEWHERE),
    "no cgroup either": ({**podmans(), "linux": {}}, _ELSEWHERE),
    "the bundle alone": (_WITHOUT_A_TRACE, _BUNDLE),
}


@pytest.mark.parametrize(("value", "folder"), _NAMED.values(), ids=_NAMED)
def test_which_container_it_is_is_found(value: dict[str, Any], folder: str) -> None:
    assert inject_guest.container_of(copy.deepcopy(value), folder) == _ID


@pytest.mark.parametrize("folder", [_ELSEWHERE, f"/home/{_ID}", f"{_BUNDLE}/more"])
def test_a_spec_that_says_nowhere_which_container_it_is_is_refused(folder: str) -> None:
    with pytest.raises(SpecError, match="does not say which container"):
        inject_guest.container_of(copy.deepcopy(_WITHOUT_A_TRACE), folder)


def test_what_podman_reads_names_the_hook_where_it_is_installed() -> None:
    data = Path(migrrdma_runtime.__file__).parent / "_data" / "hooks.d"
    (file,) = data.iterdir()
    description = json.loads(file.read_text())
    assert description["hook"]["path"] == paths.INJECT_GUEST
    # A container's devices are no condition that can be asked for.
    assert (description["when"], description["stages"]) == ({"always": True}, ["precreate"])
