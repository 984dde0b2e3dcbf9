"""An equal container on another host: what the engine's inspect says of both, member by member."""

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

_OPTIONS = """
--runtime=migrrdma --hostname=inside --domainname=example.org --label=a=b --env=FOO=bar --entrypoint=/bin/sh
--user=1000:1000 --ulimit=nofile=1000:2000 --log-driver=json-file --log-opt=max-size=1m --health-cmd=true
--health-interval=5s --restart=on-failure:3 --read-only --tmpfs=/scratch:size=1m --volume=/srv/bound:/bound:ro
--volume=named:/named --volume=/nameless --mount=type=volume,dst=/nameless2
--mount=type=volume,src=named,dst=/named2,readonly --add-host=elsewhere:192.0.2.1 --dns=192.0.2.53
--dns-search=example.org --network=data --ip=10.78.0.140 --network-alias=other --device=/dev/null:/dev/other:rw
--cap-add=NET_ADMIN --cap-drop=MKNOD --sysctl=net.ipv4.ip_forward=1 --security-opt=no-new-privileges --init
--stop-signal=TERM --stop-timeout=3 --workdir=/tmp --shm-size=32m --oom-score-adj=5 --group-add=44 --tty --interactive
--ipc=private --pid=host --expose=90 --device-cgroup-rule='c 1:3 rwm'
"""
_ANNOTATION = "--annotation=org.example.a=b"
"""For Docker from 24 on."""
_LIMITS = "--memory=64m --memory-swap=128m --cpus=0.5 --cpu-shares=512 --cpuset-cpus=0 --pids-limit=100"
"""Where the kernel can set them."""

_BOOKKEEPING = (
    "Id", "Created", "ResolvConfPath", "HostnamePath", "HostsPath", "LogPath", "GraphDriver.Data.*",
    "State.Pid", "State.StartedAt", "State.Health.*", "ExecIDs", "ExecIDs.*",
    "NetworkSettings.SandboxID", "NetworkSettings.SandboxKey", "NetworkSettings.Networks.*.EndpointID",
    "NetworkSettings.Networks.*.NetworkID", "NetworkSettings.EndpointID",
)  # fmt: skip
"""What Docker has of each container for itself."""

_ALLOWED = {
    # Nobody starts it again before it is decided where it goes on.
    "HostConfig.RestartPolicy.Name",
    "HostConfig.RestartPolicy.MaximumRetryCount",
    # The source's was chosen by Docker: here it is asked for.
    "NetworkSettings.Networks.inner.IPAMConfig.IPv4Address",
    # The beginning of the id is one of a container's names.
    "NetworkSettings.Networks.data.DNSNames.2",
    "NetworkSettings.Networks.inner.DNSNames.2",
    # Shown for the network that Docker has joined last, and it joins them in no order.
    "NetworkSettings.Ports.90/tcp",
    # Volumes without a name.
    "Mounts./nameless.Name",
    "Mounts./nameless.Source",
    "Mounts./nameless2.Name",
    "Mounts./nameless2.Source",
}
"""What else may differ."""


@pytest.fixture(name="both")
def _both(src: Shell, dst: Shell) -> Iterator[tuple[EngineOnNode, EngineOnNode]]:
    """Two hosts that have what such a container needs."""
    nodes = (src, dst)
    for node in nodes:
        _clear(node)
        node.sh(
            "docker network create -d macvlan --subnet 10.78.0.0/24 -o parent=rd0 data\n"
            "docker network create --subnet 172.30.0.0/24 inner\n"
            "docker network create automatic\n"
            "docker volume create named; mkdir -p /srv/bound"
        )
    yield EngineOnNode(src, "docker"), EngineOnNode(dst, "docker")
    for node in nodes:
        _clear(node)


def _clear(node: Shell) -> None:
    node.sh(
        f"docker rm -fv {_NAME} {_NAME}-first {_NAME}-elsewhere || :\n"
        "docker network rm data inner automatic || :\n"
        "docker volume rm named || :; rm -rf /srv/bound",
        check=False,
    )


def _create(node: Shell, options: str, *command: str) -> None:
    node.run("docker", "create", f"--name={_NAME}", *shlex.split(options), _IMAGE, *command)


def _options(node: Shell) -> str:
    """Every kind that there is on this node."""
    options = f"{_OPTIONS} {shlex.join(node.rdma_options)}"
    if "--annotation " in node.run("docker", "create", "--help").stdout:
        options += f" {_ANNOTATION}"
    if node.run("docker", "info", "-f", "{{.MemoryLimit}} {{.CPUCfsQuota}}").stdout.split() == [
        "true",
        "true",
    ]:
        options += f" {_LIMITS}"
    return options


def _by_destination(inspected: dict[str, Any]) -> dict[str, Any]:
    return {**inspected, "Mounts": {one["Destination"]: one for one in inspected["Mounts"]}}


def _unexpected(source: dict[str, Any], made: dict[str, Any]) -> list[str]:
    found = differences(_by_destination(source), _by_destination(made))
    allowed = (*_BOOKKEEPING, *_ALLOWED)
    return [one for one in found if not any(fnmatch.fnmatchcase(one, pattern) for pattern in allowed)]


def test_a_container_with_everything_is_equal_elsewhere(both: tuple[EngineOnNode, EngineOnNode]) -> None:
    source, destination = both
    _create(source.shell, _options(source.shell), "-c", "exec sleep 600")
    source.shell.run("docker", "network", "connect", "--alias=second", "inner", _NAME)
    # Docker's own choice of an address is another one on the destination, where nobody has the first yet.
    source.shell.run(
        "docker", "run", "-d", f"--name={_NAME}-first", "--network=inner", _IMAGE, "sleep", "600"
    )
    source.shell.run("docker", "start", _NAME)
    described = source.ask("describe", of(_NAME))
    original = source.inspect(_NAME)
    assert described["restart"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert destination.ask("obstacles", described) == []
    source.ask("kill", of(_NAME))
    made = destination.ask("create", described)
    assert made["running"] is False
    destination.shell.run("docker", "start", _NAME)
    assert _unexpected(original, destination.inspect(_NAME)) == []


def test_a_plain_container_is_equal_elsewhere(both: tuple[EngineOnNode, EngineOnNode]) -> None:
    source, destination = both
    _create(source.shell, "", "sleep", "600")
    source.shell.run("docker", "start", _NAME)
    original = source.inspect(_NAME)
    destination.ask("create", source.ask("describe", of(_NAME)))
    destination.shell.run("docker", "start", _NAME)
    assert _unexpected(original, destination.inspect(_NAME)) == []


def test_what_was_made_is_driven_to_its_end(both: tuple[EngineOnNode, EngineOnNode]) -> None:
    source, destination = both
    _create(source.shell, _options(source.shell), "-c", "exec sleep 600")
    described = source.ask("describe", of(_NAME))
    destination.ask("create", described)
    node = destination.shell
    node.run("docker", "start", _NAME)
    container = destination.ask("container", _NAME)
    assert container["pid"]
    root = destination.ask("low_level_root", of(_NAME))
    assert node.run("runc", "--root", root, "state", container["id"]).returncode == 0
    node.run("docker", "exec", "--user=0", _NAME, "sh", "-c", "echo here >/scratch/a")
    layer = destination.ask("layer", of(_NAME))
    assert node.run("ls", layer).returncode == 0
    destination.ask("set_restart", of(_NAME), described["restart"])
    assert destination.inspect(_NAME)["HostConfig"]["RestartPolicy"]["Name"] == "on-failure"
    destination.ask("set_restart", of(_NAME), {"Name": "no"})
    assert destination.inspect(_NAME)["HostConfig"]["RestartPolicy"]["Name"] == "no"
    destination.ask("kill", of(_NAME))
    assert destination.ask("container", _NAME)["running"] is False
    destination.ask("kill", of(_NAME))
    destination.ask("rename", of(_NAME), f"{_NAME}-elsewhere")
    before = node.run("docker", "volume", "ls", "-q").stdout.split()
    destination.ask("remove", of(f"{_NAME}-elsewhere"))
    after = node.run("docker", "volume", "ls", "-q").stdout.split()
    assert "named" in after
    assert len(after) == len(before) - 2


def test_everything_that_is_missing_is_told_at_once(both: tuple[EngineOnNode, EngineOnNode]) -> None:
    source, destination = both
    _create(source.shell, _options(source.shell), "-c", "exec sleep 600")
    described = source.ask("describe", of(_NAME))
    _clear(destination.shell)
    _create(destination.shell, "", "true")
    said = [one["what"] for one in destination.ask("obstacles", described)]
    assert [one for one in said if "there is a container clone already" in one]
    for missing in ("network data", "/srv/bound, which it mounts", "volume named"):
        assert f"there is no {missing}" in said
    with pytest.raises(RefusedHereError, match="is already in use by container"):
        destination.ask("create", described)


@pytest.fixture(name="images")
def _images(both: tuple[EngineOnNode, EngineOnNode]) -> Iterator[tuple[EngineOnNode, EngineOnNode]]:
    """Two hosts, the first of which has an image that the second lacks but for its lowest layer."""
    source, _ = both
    source.shell.sh(
        f"docker create --name={_NAME} {_IMAGE} true\n"
        f"echo more >/root/more; docker cp /root/more {_NAME}:/more; docker commit {_NAME} registry.example/own:1\n"
        f"docker rm {_NAME}"
    )
    yield both
    for node in both:
        node.shell.sh("docker rmi -f registry.example/own:1 || :; docker image prune -f", check=False)


def _image_id(engine: EngineOnNode, reference: str) -> str:
    return engine.shell.run("docker", "image", "inspect", "-f", "{{.Id}}", reference).stdout.strip()


def test_an_image_arrives_with_its_name_and_without_the_layers_that_are_here(
    images: tuple[EngineOnNode, EngineOnNode],
) -> None:
    source, destination = images
    image = _image_id(source, "registry.example/own:1")
    assert destination.ask("has_image", image) is False
    here = destination.ask("layers_here", source.ask("layers", image))
    assert here == 1
    archive = source.save(image, "registry.example/own:1", here)
    assert len(archive) < 1 << 20
    destination.load(archive, image)
    assert destination.ask("has_image", image) is True
    assert _image_id(destination, "registry.example/own:1") == image
    said = destination.shell.run("docker", "run", "--rm", "registry.example/own:1", "cat", "/more").stdout
    assert said == "more\n"


def test_a_name_that_is_anothers_here_stays_with_it(images: tuple[EngineOnNode, EngineOnNode]) -> None:
    source, destination = images
    image = _image_id(source, "registry.example/own:1")
    destination.shell.run("docker", "tag", _IMAGE, "registry.example/own:1")
    destination.load(source.save(image, "registry.example/own:1", 1), image)
    assert _image_id(destination, "registry.example/own:1") == _image_id(destination, _IMAGE)
    _create(source.shell, "", "true")
    described = {**source.ask("describe", of(_NAME)), "image": "registry.example/own:1", "image_id": image}
    destination.ask("create", described)
    assert destination.inspect(_NAME)["Image"] == image
    destination.ask("remove", of(_NAME))
    destination.shell.run("docker", "rmi", image)


def test_another_image_than_was_wanted_is_removed_again(images: tuple[EngineOnNode, EngineOnNode]) -> None:
    source, destination = images
    image = _image_id(source, "registry.example/own:1")
    with pytest.raises(RefusedHereError, match=f"but {image}; it is removed again"):
        destination.load(source.save(image, "registry.example/own:1", 1), "sha256:" + "0" * 64)
    assert destination.ask("has_image", image) is False
    with pytest.raises(RefusedHereError, match="archive cannot be read"):
        destination.load(b"no archive" * 1000, image)
