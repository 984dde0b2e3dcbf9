"""An equal container of Podman's on another host: what its inspect says of both, member by member."""

from __future__ import annotations

import fnmatch
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from engine_on_node import EngineOnNode, RefusedHereError, differences, of
from migrrdma_lab.plan import container_image
from migrrdma_lab.shell import Shell

_NAME = "clone"
_IMAGE = container_image("trixie")
_RUNTIME = "--runtime=/usr/local/bin/migrrdma-runtime"

_OPTIONS = f"""
{_RUNTIME} --hostname=inside --label=a=b -e FOO=bar --env=FROM_HERE --entrypoint=/bin/sh
--user=1000:1000 --ulimit=nofile=1000:2000 --log-driver=k8s-file --log-opt=max-size=1m --health-cmd=true
--health-interval=5s --restart=on-failure:3 --read-only --tmpfs=/scratch:size=1m -v /srv/bound:/bound:ro
--volume=named:/named -v./here:/here --volume=/nameless --mount=type=volume,dst=/nameless2
--mount=type=volume,src=named,dst=/named2,ro --add-host=elsewhere:192.0.2.1 --dns=192.0.2.53
--dns-search=example.org --network=data:alias=other --device=/dev/null:/dev/other:rw --cap-add=NET_ADMIN
--cap-drop=MKNOD --sysctl=net.ipv4.ip_forward=1 --security-opt=no-new-privileges --stop-signal=TERM
--stop-timeout=3 --workdir=/tmp --shm-size=32m --oom-score-adj=5 --group-add=44 -ti --ipc=private --pid=host
--expose=90 --annotation=org.example.a=b --umask=0027 --cidfile=/root/clone.id
"""

_BOOKKEEPING = (
    "Id", "Created", "ResolvConfPath", "HostnamePath", "HostsPath", "StaticDir", "ConmonPidFile", "PidFile",
    "OCIConfigPath", "lockNumber", "State.Pid", "State.ConmonPid", "State.StartedAt", "State.CgroupPath",
    "State.Health.*", "GraphDriver.Data.*", "NetworkSettings.SandboxKey", "NetworkSettings.Networks.*.NetworkID",
    "HostConfig.LogConfig.Path", "ExecIDs", "ExecIDs.*",
)  # fmt: skip
"""What Podman has of each container for itself."""

_ALLOWED = {
    # How it was made; the file with its id was the caller's.
    "Config.CreateCommand",
    "HostConfig.ContainerIDFile",
    # Nobody starts it again before it is decided where it goes on.
    "HostConfig.RestartPolicy.Name",
    "HostConfig.RestartPolicy.MaximumRetryCount",
    # Chosen anew by Podman at each start.
    "NetworkSettings.Networks.data.MacAddress",
    # The beginning of the id is one of a container's names.
    "NetworkSettings.Networks.data.Aliases.1",
    "Config.Annotations.io.podman.annotations.cid-file",
    "HostConfig.Annotations.io.podman.annotations.cid-file",
    # What the runtime has written into the bundle, whose path has the id in it.
    "Config.Annotations.org.criu.config",
    "HostConfig.Annotations.org.criu.config",
    # Volumes without a name.
    "Mounts./nameless.Name",
    "Mounts./nameless.Source",
    "Mounts./nameless2.Name",
    "Mounts./nameless2.Source",
}
"""What else may differ."""


@pytest.fixture(name="image", scope="module")
def _image(src: Shell, dst: Shell) -> Iterator[None]:
    """What Docker has of images on both hosts."""
    for node in (src, dst):
        node.sh(f"docker save {_IMAGE} | podman load -q")
    yield
    for node in (src, dst):
        node.run("podman", "rmi", "-af")


@pytest.fixture(name="both")
def _both(src: Shell, dst: Shell, image: None) -> Iterator[tuple[EngineOnNode, EngineOnNode]]:  # noqa: ARG001
    """Two hosts that have what such a container needs."""
    for node in (src, dst):
        _clear(node)
        node.sh(
            "podman network create -d macvlan --subnet 10.78.0.0/24 -o parent=rd0 data\n"
            "podman volume create named; mkdir -p /srv/bound /root/here"
        )
    yield EngineOnNode(src, "podman"), EngineOnNode(dst, "podman")
    for node in (src, dst):
        _clear(node)


def _clear(node: Shell) -> None:
    node.sh(
        f"for one in {_NAME} {_NAME}-elsewhere {_NAME}-first; do podman rm -fvi -t 0 $one; done\n"
        "podman network rm data; podman volume rm named\n"
        "rm -rf /srv/bound /root/here /root/clone.id",
        check=False,
    )


def _create(node: Shell, options: str, *command: str) -> None:
    words = shlex.join(
        ["podman", "create", f"--name={_NAME}", *shlex.split(options), *node.rdma_options, _IMAGE, *command]
    )
    node.sh(f"cd /root; FROM_HERE=yes {words}")


def _comparable(inspected: dict[str, Any]) -> dict[str, Any]:
    """With what is listed in no order by its name."""
    host = inspected["HostConfig"]
    binds = {one.split(":")[1]: one.split(":")[2:] for one in host["Binds"]}
    return {
        **inspected,
        "Mounts": {one["Destination"]: one for one in inspected["Mounts"]},
        "Config": {**inspected["Config"], "Env": sorted(inspected["Config"]["Env"])},
        "HostConfig": {**host, "Binds": binds},
    }


def _unexpected(source: dict[str, Any], made: dict[str, Any]) -> list[str]:
    found = differences(_comparable(source), _comparable(made))
    allowed = (*_BOOKKEEPING, *_ALLOWED)
    return [one for one in found if not any(fnmatch.fnmatchcase(one, pattern) for pattern in allowed)]


def test_a_container_with_everything_is_equal_elsewhere(both: tuple[EngineOnNode, EngineOnNode]) -> None:
    source, destination = both
    # Podman's own choice of an address is another one on the destination, where nobody has the first yet.
    source.shell.run("podman", "run", "-d", f"--name={_NAME}-first", "--network=data", _IMAGE, "sleep", "600")
    _create(source.shell, _OPTIONS, "-c", "exec sleep 600")
    source.shell.run("podman", "start", _NAME)
    described = source.ask("describe", of(_NAME))
    original = source.inspect(_NAME)
    assert described["restart"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert destination.ask("obstacles", described) == []
    source.ask("set_restart", of(_NAME), {"Name": "no"})
    source.ask("kill", of(_NAME))
    made = destination.ask("create", described)
    assert made["running"] is False
    destination.shell.run("podman", "start", _NAME)
    assert _unexpected(original, destination.inspect(_NAME)) == []
    assert destination.shell.run("test", "-e", "/root/clone.id", check=False).returncode == 1


def test_what_was_made_is_driven_to_its_end(both: tuple[EngineOnNode, EngineOnNode]) -> None:
    source, destination = both
    _create(source.shell, _OPTIONS, "-c", "exec sleep 600")
    described = source.ask("describe", of(_NAME))
    destination.ask("create", described)
    node = destination.shell
    node.run("podman", "start", _NAME)
    container = destination.ask("container", _NAME)
    assert container["pid"]
    root = destination.ask("low_level_root", of(_NAME))
    assert node.run("runc", "--root", root, "state", container["id"]).returncode == 0
    assert node.run("ls", destination.ask("layer", of(_NAME))).returncode == 0
    destination.ask("set_restart", of(_NAME), described["restart"])
    assert destination.inspect(_NAME)["HostConfig"]["RestartPolicy"]["Name"] == "on-failure"
    destination.ask("set_restart", of(_NAME), {"Name": "no"})
    assert destination.inspect(_NAME)["HostConfig"]["RestartPolicy"]["Name"] == "no"
    node.run("podman", "pause", _NAME)
    paused = destination.ask("container", _NAME)
    assert (paused["running"], paused["paused"]) == (True, True)
    destination.ask("kill", of(_NAME))
    assert destination.ask("container", _NAME)["running"] is False
    destination.ask("kill", of(_NAME))
    destination.ask("rename", of(_NAME), f"{_NAME}-elsewhere")
    before = node.run("podman", "volume", "ls", "-q").stdout.split()
    destination.ask("remove", of(f"{_NAME}-elsewhere"))
    after = node.run("podman", "volume", "ls", "-q").stdout.split()
    assert "named" in after
    assert len(after) == len(before) - 2


def test_everything_that_is_missing_is_told_at_once(both: tuple[EngineOnNode, EngineOnNode]) -> None:
    source, destination = both
    _create(source.shell, _OPTIONS.replace("alias=other", "ip=10.78.0.140"), "-c", "exec sleep 600")
    described = source.ask("describe", of(_NAME))
    node = destination.shell
    node.run(
        "podman", "run", "-d", f"--name={_NAME}", "--network=data:ip=10.78.0.140", _IMAGE, "sleep", "600"
    )
    node.sh("podman volume rm named; rmdir /srv/bound")
    said = [one["what"] for one in destination.ask("obstacles", described)]
    assert [one.partition(" (")[0] for one in said] == [
        "there is a container clone already",
        "10.78.0.140 in network data is container clone's here",
        "there is no /srv/bound, which it mounts",
        "there is no volume named",
    ]


def test_an_image_arrives_with_its_name(both: tuple[EngineOnNode, EngineOnNode]) -> None:
    source, destination = both
    _create(source.shell, _RUNTIME, "true")
    described = source.ask("describe", of(_NAME))
    image, name = described["image_id"], described["image"]
    destination.shell.run("podman", "rmi", "-f", _IMAGE)
    assert destination.ask("has_image", image) is False
    archive = source.save(image, name)
    with pytest.raises(RefusedHereError, match="it is removed again"):
        destination.load(archive, "sha256:" + "0" * 64)
    assert destination.ask("has_image", image) is False
    with pytest.raises(RefusedHereError, match="archive cannot be read"):
        destination.load(archive[: len(archive) // 2], image)
    destination.load(archive, image)
    assert destination.ask("has_image", image) is True
    assert name in destination.shell.run("podman", "images", "--format={{.Repository}}:{{.Tag}}").stdout
    destination.ask("create", described)
    assert destination.inspect(_NAME)["ImageName"] == name
