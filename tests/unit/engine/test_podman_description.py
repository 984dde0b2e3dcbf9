"""How a container of Podman's was made, and how an equal one is made elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from migrrdma_runtime.base.errors import EngineError
from migrrdma_runtime.engine import podman_command, podman_description
from migrrdma_runtime.engine.description import Description
from migrrdma_runtime.engine.docker_description import endpoints_of, host_config_of

ID = "c0ffee" + "0" * 58
GENERATED = "a" * 64
_RUNTIME = "/usr/local/bin/migrrdma-runtime"


@pytest.mark.parametrize(
    ("line", "options", "words"),
    [
        ("podman run -itd IMAGE", [("interactive", None), ("tty", None), ("detach", None)], []),
        (
            "podman create -v/a:/b -v=/c:/d -v /e:/f IMAGE -v x",
            [("volume", "/a:/b"), ("volume", "/c:/d"), ("volume", "/e:/f")],
            ["-v", "x"],
        ),
        ("podman run -tv /a:/b IMAGE", [("tty", None), ("volume", "/a:/b")], []),
        ("podman run --init --env A=B IMAGE run", [("init", None), ("env", "A=B")], ["run"]),
        ("podman run --rm=false --net host IMAGE", [("rm", "false"), ("network", "host")], []),
        ("/usr/bin/podman --log-level debug container run -- IMAGE x", [], ["x"]),
    ],
)
def test_a_command_is_taken_apart(line: str, options: list[podman_command.Option], words: list[str]) -> None:
    parsed = podman_command.parse(line.split())
    assert (parsed.options, parsed.image, parsed.words) == (options, "IMAGE", words)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("podman kube play x", "no podman create or podman run: podman kube play x"),
        ("podman run -it", "names no image"),
        ("podman run --env", "ends with --env"),
        ("podman run -Z IMAGE", "has an option -Z"),
    ],
)
def test_what_makes_no_container_is_refused(line: str, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        podman_command.parse(line.split())


def _inspected(line: str, networks: dict[str, Any] | None = None, **host: Any) -> dict[str, Any]:
    return {
        "Id": ID,
        "Name": "web",
        "Image": "1" * 64,
        "ImageName": "docker.io/library/nginx:1.27",
        "OCIRuntime": _RUNTIME,
        "Mounts": [
            {"Type": "bind", "Source": "/home/me/here", "Destination": "/here"},
            {"Type": "volume", "Name": "named", "Destination": "/named"},
            {"Type": "volume", "Name": GENERATED, "Destination": "/nameless"},
        ],
        "NetworkSettings": {"Networks": networks or {}},
        "Config": {
            "CreateCommand": line.split(),
            "Hostname": "inside",
            "Env": ["A=B", "HOSTNAME=inside", "container=podman"],
            "Labels": {"a": "b"},
        },
        "HostConfig": {
            "NetworkMode": "bridge",
            "RestartPolicy": {"Name": "", "MaximumRetryCount": 0},
            "LogConfig": {"Type": "journald"},
            **host,
        },
    }


def _described(line: str, networks: dict[str, Any] | None = None, **host: Any) -> Description:
    return podman_description.description(_inspected(line, networks, **host), {})


def test_what_was_of_the_call_stays_behind() -> None:
    described = _described(
        "podman run -dit --name web --restart always --cidfile /root/id --env-file ./env --pull always "
        "-v ./here:/here:ro -v named:/named --cap-add NET_ADMIN -h other nginx:1.27 -g x"
    )
    assert described.create["Options"] == [
        "--interactive", "--tty", "--volume=/home/me/here:/here:ro", "--volume=named:/named", "--cap-add=NET_ADMIN",
        "--hostname=inside", "--env=A=B", "--label=a=b", "--log-driver=journald", f"--runtime={_RUNTIME}",
    ]  # fmt: skip
    assert described.create["Command"] == ["-g", "x"]
    assert described.image == "docker.io/library/nginx:1.27"
    assert described.restart == {"Name": "no", "MaximumRetryCount": 0}
    assert host_config_of(described)["Binds"] == ["/home/me/here:", "named:"]
    assert Description.from_message(described.as_message()) == described


def test_a_container_that_no_command_has_made_is_refused() -> None:
    found = _inspected("podman run x")
    del found["Config"]["CreateCommand"]
    with pytest.raises(EngineError, match="podman keeps no command by which web was made"):
        podman_description.description(found, {})


def _connected(address: str, *aliases: str) -> dict[str, Any]:
    return {"IPAddress": address, "MacAddress": "be:7d:72:e1:b4:4b", "Aliases": [*aliases, ID[:12], "inside"]}


def test_networks_come_in_the_order_of_the_interfaces() -> None:
    line = "podman run --network inner:mac=02:00:00:00:00:01 --network data:ip=10.78.0.140,alias=x nginx"
    networks = {
        "data": _connected("10.78.0.140", "x"),
        "inner": _connected("10.89.0.5"),
        "later": _connected("10.90.0.5"),
    }
    endpoints = endpoints_of(_described(line, networks))
    assert list(endpoints.items()) == [
        ("inner", {"IPAMConfig": None, "MacAddress": "02:00:00:00:00:01", "IPAddress": "10.89.0.5"}),
        ("data", {"IPAMConfig": {"IPv4Address": "10.78.0.140"}, "Aliases": ["x"]}),
        ("later", {"IPAMConfig": None, "IPAddress": "10.90.0.5"}),
    ]


def test_options_of_the_only_network_are_its() -> None:
    line = "podman run --ip 10.78.0.140 --mac-address 02:00:00:00:00:01 --network data nginx"
    (endpoint,) = endpoints_of(_described(line, {"data": _connected("10.78.0.140")})).values()
    assert endpoint == {"IPAMConfig": {"IPv4Address": "10.78.0.140"}, "MacAddress": "02:00:00:00:00:01"}


def _here(subnet: str, name: str = "data") -> dict[str, Any]:
    return podman_description.network(
        {
            "name": name,
            "driver": "macvlan",
            "subnets": [{"subnet": subnet, "gateway": "10.78.0.1"}],
            "containers": {
                "1": {"name": "db", "interfaces": {"eth0": {"subnets": [{"ipnet": "10.78.0.9/24"}]}}}
            },
        }
    )


def _network_options(words: list[str]) -> list[str]:
    return [one for one in words if one.startswith("--network")]


def test_an_equal_container_is_asked_for() -> None:
    described = _described(
        "podman run -it --network data nginx -g x", {"data": _connected("10.78.0.2", "other")}
    )
    words = podman_description.command(described, "nginx:1.27", {"data": _here("10.78.0.0/24")})
    assert words[:4] == ["create", "--name=web", "--restart=no", "--pull=never"]
    assert words[-4:] == ["--", "nginx:1.27", "-g", "x"]
    assert _network_options(words) == ["--network=data:ip=10.78.0.2,alias=other,interface_name=eth0"]
    words = podman_description.command(described, "nginx:1.27", {"data": _here("10.79.0.0/24")})
    assert _network_options(words) == ["--network=data:alias=other,interface_name=eth0"]


@pytest.mark.parametrize("mode", ["host", "none"])
def test_without_a_network_of_podmans_the_mode_says_all(mode: str) -> None:
    described = _described(f"podman run --network {mode} nginx", NetworkMode=mode)
    assert _network_options(podman_description.command(described, "x", {})) == [f"--network={mode}"]


@pytest.mark.parametrize(
    ("create", "said"),
    [
        ({"Options": ["--label"]}, "names no image"),
        ({"Options": ["alpine", "rm"]}, "its options are no options"),
        ({"Options": [1]}, "Options is no list of words"),
        ({"Command": "x"}, "Command is no list of words"),
    ],
)
def test_what_is_no_command_is_refused(create: dict[str, Any], said: str) -> None:
    message = _described("podman run nginx").as_message()
    wanted = Description.from_message({**message, "create": {**message["create"], **create}})
    with pytest.raises(EngineError, match=said):
        podman_description.command(wanted, "x", {})


def test_no_other_host_has_podman_write_files_here() -> None:
    message = _described("podman run nginx").as_message()
    message["create"]["Options"] = [
        "--cidfile=/etc/passwd",
        "--pidfile",
        "/etc/shadow",
        "--network=host",
        "--tty",
    ]
    words = podman_description.command(Description.from_message(message), "x", {})
    assert words == [
        "create",
        "--name=web",
        "--restart=no",
        "--pull=never",
        "--tty",
        "--network=none",
        "--",
        "x",
    ]


def test_another_engines_container_is_refused() -> None:
    wanted = Description("docker", "web", "", "", {}, {})
    with pytest.raises(EngineError, match="container web is docker's"):
        podman_description.command(wanted, "x", {})
