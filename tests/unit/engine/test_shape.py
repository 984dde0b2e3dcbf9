"""A description from another host is refused by the name of what is wrong in it, or is judged: nothing else happens."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from migrrdma_runtime.base.errors import EngineError, MessageError
from migrrdma_runtime.engine import docker_description, podman_description
from migrrdma_runtime.engine.description import Description
from migrrdma_runtime.engine.engine import Container
from migrrdma_runtime.engine.obstacles import obstacles

_MESSAGE: dict[str, Any] = {
    "engine": "docker",
    "name": "web",
    "image": "nginx:1.27",
    "image_id": "sha256:" + "1" * 64,
    "create": {
        "Labels": {"a": "b"},
        "Options": ["--tty"],
        "Command": ["x"],
        "HostConfig": {
            "NetworkMode": "data",
            "PidMode": "",
            "Runtime": "migrrdma",
            "Binds": ["/srv:/srv"],
            "VolumesFrom": None,
            "Links": [],
            "SecurityOpt": ["apparmor=tight"],
            "LogConfig": {"Type": "json-file"},
            "Mounts": [{"Type": "volume", "Source": "named", "Target": "/n"}],
            "Devices": [{"PathOnHost": "/dev/null"}],
            "DeviceRequests": [{"Driver": "cdi"}],
            "Ulimits": [{"Name": "nofile", "Hard": 1}],
            "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": ""}]},
            "Memory": 1,
            "CpusetCpus": "0",
            "StorageOpt": {},
            "Annotations": {},
        },
        "NetworkingConfig": {
            "EndpointsConfig": {
                "data": {
                    "IPAMConfig": {"IPv4Address": "10.78.0.140"},
                    "IPAddress": "10.78.0.2",
                    "Aliases": ["other"],
                    "Links": None,
                    "MacAddress": "02:00:00:00:00:01",
                }
            }
        },
        "Networks": {"data": {"Driver": "macvlan"}},
        "ImageStore": "docker",
    },
    "restart": {"Name": "no", "MaximumRetryCount": 0},
}


def _places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(place for name, one in inner for place in _places(one, (*way, name)))]


class _Here:
    api = (1, 45)

    def info(self) -> dict[str, Any]:
        return {"NCPU": 2, "MemTotal": 1 << 30, "Runtimes": {}}

    def has_runtime(self, name: str) -> bool:
        return bool(name)

    def container_named(self, name: str) -> Container | None:
        return Container("c0ffee", name, "runc", running=False)

    def network(self, name: str) -> dict[str, Any] | None:
        return {"Name": name, "Driver": "bridge", "IPAM": {"Config": [{"Subnet": "10.78.0.0/24"}]}}

    def volume(self, name: str) -> dict[str, Any] | None:
        return {"Name": name}

    def image(self, reference: str) -> dict[str, Any] | None:
        return {"Id": reference}


_VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    1 << 70,
    1.5,
    "",
    "x",
    "a:b:c",
    "--rm",
    [],
    [1],
    [[]],
    [{}],
    {},
    {"x": 1},
    {"x": {}},
]
_PLACES = [place for place in _places(_MESSAGE["create"]) if place]


@pytest.mark.parametrize("engine", ["docker", "podman"])
@pytest.mark.parametrize("place", _PLACES, ids=str)
def test_whatever_stands_anywhere_is_refused_or_judged(place: tuple[Any, ...], engine: str) -> None:
    for value in _VALUES:
        _judge(place, value, engine)


def _judge(place: tuple[Any, ...], value: Any, engine: str) -> None:
    message = copy.deepcopy(_MESSAGE) | {"engine": engine}
    part = message["create"]
    for name in place[:-1]:
        part = part[name]
    part[place[-1]] = value
    try:
        wanted = Description.from_message(message)
        assert isinstance(obstacles(wanted, engine, _Here(), Path("/nowhere")), list)
        if engine == "docker":
            docker_description.request(wanted, "x", (1, 45))
        else:
            podman_description.command(wanted, "x", {"data": _Here().network("data")})
    except (MessageError, EngineError):
        pass


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("HostConfig",), [], "create/HostConfig: "),
        (("HostConfig", "Binds"), [1], "create/HostConfig/Binds: 0: "),
        (("HostConfig", "Devices"), ["/dev/null"], "create/HostConfig/Devices: "),
        (("HostConfig", "PortBindings", "80/tcp"), {}, "create/HostConfig/PortBindings/80/tcp: "),
        (
            ("NetworkingConfig", "EndpointsConfig", "data", "IPAddress"),
            "10.78.0",
            "EndpointsConfig/data/IPAddress: '10.78.0' does not appear to be an IPv4 or IPv6 address",
        ),
        (("Networks", "data"), "macvlan", "create/Networks/data: "),
    ],
)
def test_the_part_is_named(place: tuple[str, ...], value: Any, said: str) -> None:
    message = copy.deepcopy(_MESSAGE)
    part = message["create"]
    for name in place[:-1]:
        part = part[name]
    part[place[-1]] = value
    with pytest.raises(MessageError, match=f"description of a container: .*{said}"):
        Description.from_message(message)


def test_what_is_right_is_taken() -> None:
    assert Description.from_message(_MESSAGE).as_message() == _MESSAGE
