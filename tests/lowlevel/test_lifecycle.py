"""A container's whole life through the launcher, with and without RDMA."""

import json
from pathlib import Path

import pytest
from bundles import Bundle
from installed import Installation

_LIBRARY = "/dev/migrrdma/guest/{version}/libmigrrdma.so"


def _succeed(host: Installation, *args: str | Path) -> str:
    result = host.run(*args)
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout.decode()


def test_an_rdma_container_lives_with_the_guest_library_and_leaves_nothing(
    host: Installation, bundle: Bundle
) -> None:
    library = _LIBRARY.format(version=host.version)
    bundle.enable_rdma()
    bundle.command("sleep 60")
    record = host.run_dir / "containers" / "c1" / "state.json"

    host.create(bundle.path)
    state = json.loads(_succeed(host, "state", "c1"))
    assert state["status"] == "created"
    assert json.loads(record.read_text())["id"] == "c1"
    assert json.loads(record.read_text())["pid"] == state["pid"]
    assert list((record.parent / "agent").iterdir()) == []

    _succeed(host, "start", "c1")
    assert json.loads(_succeed(host, "state", "c1"))["status"] == "running"
    # The shell is init now; the library came with its own exec.
    assert library in _succeed(host, "exec", "c1", "/bin/cat", "/proc/1/maps")

    _succeed(host, "kill", "c1", "KILL")
    _succeed(host, "delete", "--force", "c1")
    assert not record.parent.exists()


def test_a_container_sees_no_agents_directory_but_its_own(host: Installation, bundle: Bundle) -> None:
    """What lies there is for its processes: the socket that names them, and the files that call them after a dump."""
    other = host.run_dir / "containers" / "other" / "agent"
    other.mkdir(parents=True)
    (other / "resume-0123456789abcdef").touch()
    (host.run_dir / "agent").mkdir()
    (host.run_dir / "agent" / "resume-00000000000000ff").touch()
    bundle.enable_rdma()
    bundle.command("ls -a /dev/migrrdma/agent; sleep 60")
    host.create(bundle.path)
    mine = host.run_dir / "containers" / "c1" / "agent"
    (mine / "of-c1").touch()  # after the mount, as the agent does
    output = _succeed(host, "exec", "c1", "/bin/ls", "/dev/migrrdma/agent")
    assert output.split() == ["of-c1"]
    refused = host.run("exec", "c1", "/bin/sh", "-c", ": >/dev/migrrdma/agent/made-inside")
    assert refused.returncode != 0
    _succeed(host, "delete", "--force", "c1")
    assert not mine.exists()


def test_an_ordinary_container_gets_nothing(host: Installation, bundle: Bundle) -> None:
    bundle.command("cat /proc/self/maps; ls /dev/migrrdma/guest")
    before = bundle.spec.read_bytes()
    result = host.run("run", "--bundle", bundle.path, "c1")
    assert "migrrdma" not in result.stdout.decode()
    assert bundle.spec.read_bytes() == before
    assert sorted(path.name for path in bundle.path.iterdir()) == ["config.json"]
    assert not host.run_dir.exists()


def test_a_device_is_enough(host: Installation, bundle: Bundle) -> None:
    """As ``docker run --device=/dev/infiniband/uverbs0`` gives it; the node works without the driver."""
    device = {"path": "/dev/infiniband/uverbs0", "type": "c", "major": 231, "minor": 192}
    bundle.change(linux={"devices": [device]})
    bundle.command("test -c /dev/infiniband/uverbs0 && cat /proc/self/maps")
    assert _LIBRARY.format(version=host.version) in _succeed(host, "run", "--bundle", bundle.path, "c1")


def test_what_the_user_preloads_is_loaded_too(host: Installation, bundle: Bundle, rootfs: Path) -> None:
    theirs = rootfs / "tmp" / "theirs.so"
    theirs.write_bytes((host.guest_dir / "current" / "libmigrrdma.so").read_bytes())
    bundle.enable_rdma()
    bundle.add_environment("LD_PRELOAD=/tmp/theirs.so")
    bundle.command("cat /proc/self/maps")
    output = _succeed(host, "run", "--bundle", bundle.path, "c1")
    assert "/tmp/theirs.so" in output
    assert _LIBRARY.format(version=host.version) in output


@pytest.mark.parametrize("rdma", [True, False])
@pytest.mark.parametrize("way", ["arguments", "process file", "env option"])
def test_an_execd_process_has_the_library_if_its_container_has(
    host: Installation, bundle: Bundle, tmp_path: Path, way: str, rdma: bool
) -> None:
    bundle.command("sleep 60")
    if rdma:
        bundle.enable_rdma()
    host.create(bundle.path)
    _succeed(host, "start", "c1")

    process = bundle.read()["process"] | {"args": ["/bin/cat", "/proc/self/maps"], "env": ["PATH=/bin"]}
    file = tmp_path / "process.json"
    file.write_text(json.dumps(process))
    arguments = {
        "arguments": ["c1", "/bin/cat", "/proc/self/maps"],
        "process file": ["--process", str(file), "c1"],
        "env option": ["--env", "LD_PRELOAD=/none.so", "c1", "/bin/cat", "/proc/self/maps"],
    }
    output = host.run("exec", *arguments[way])
    assert (_LIBRARY.format(version=host.version) in output.stdout.decode()) is rdma
    assert ("/none.so" in output.stderr.decode()) is (way == "env option"), "the user's own was lost"
    assert json.loads(file.read_text()) == process, "the caller's file was changed"


def test_the_edit_takes_the_newest_library_and_the_older_stays_mounted(
    host: Installation, bundle: Bundle
) -> None:
    """Edited before, created again: as after an upgrade."""
    bundle.enable_rdma()
    older = host.version
    bundle.command("cat /proc/self/maps; ls /dev/migrrdma/guest")
    _succeed(host, "run", "--bundle", bundle.path, "c1")
    host.add_guest("1" * 40)
    output = _succeed(host, "run", "--bundle", bundle.path, "c1")
    assert _LIBRARY.format(version=host.version) in output
    assert _LIBRARY.format(version=older) not in output
    assert older in output.split()


def test_disabled_again_the_container_is_as_it_was(host: Installation, bundle: Bundle) -> None:
    original = bundle.read()
    bundle.enable_rdma()
    _succeed(host, "run", "--bundle", bundle.path, "c1")
    bundle.change(annotations={"org.migrrdma.enable": "false"})
    _succeed(host, "run", "--bundle", bundle.path, "c1")
    assert bundle.read() == original | {"annotations": {"org.migrrdma.enable": "false"}}
