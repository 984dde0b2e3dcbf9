"""What of an inspect becomes a request for an equal container, and what stays behind."""

from __future__ import annotations

import json
from typing import Any

import pytest

from migrrdma_runtime.base.errors import DockerError, MessageError
from migrrdma_runtime.engine import docker_description, docker_networks
from migrrdma_runtime.engine.description import MAX_BYTES, Description

ID = "c0ffee" + "0" * 58
IMAGE = "sha256:" + "1" * 64
GENERATED = "a" * 64


def inspected(**host: Any) -> dict[str, Any]:
    """What ``docker inspect`` says, as far as it matters here."""
    return {
        "Id": ID,
        "Name": "/web",
        "Image": IMAGE,
        "Config": {"Hostname": ID[:12], "Domainname": "", "Image": "nginx:1.27", "Labels": {"a": "b"}},
        "HostConfig": {
            "NetworkMode": "data",
            "ContainerIDFile": "/run/web.id",
            "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0},
            "Runtime": "migrrdma",
            **host,
        },
        "NetworkSettings": {
            "Networks": {
                "data": {
                    "IPAMConfig": {"IPv4Address": "10.78.0.140"},
                    "Links": None,
                    "Aliases": [ID[:12], "other"],
                    "MacAddress": "02:42:0a:4e:00:8c",
                    "NetworkID": "d" * 64,
                    "EndpointID": "e" * 64,
                    "IPAddress": "10.78.0.140",
                    "GlobalIPv6Address": "",
                    "DriverOpts": None,
                    "DNSNames": ["web", "other", ID[:12]],
                },
                "inner": {"IPAMConfig": None, "NetworkID": "f" * 64, "IPAddress": "172.30.0.3"},
            }
        },
    }


def describe(found: dict[str, Any], **macs: str) -> Description:
    return docker_description.description(
        found, macs, {"data": {"Driver": "macvlan"}, "inner": None}, "docker"
    )


def test_bookkeeping_stays_behind() -> None:
    described = describe(inspected())
    assert (described.engine, described.name, described.image, described.image_id) == (
        "docker", "web", "nginx:1.27", IMAGE,
    )  # fmt: skip
    assert described.restart == {"Name": "always", "MaximumRetryCount": 0}
    assert described.create["HostConfig"] == {
        "NetworkMode": "data",
        "ContainerIDFile": "",
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "Runtime": "migrrdma",
    }
    assert docker_description.endpoints_of(described) == {
        "data": {"IPAMConfig": {"IPv4Address": "10.78.0.140"}, "Aliases": ["other"]},
        "inner": {"IPAMConfig": None, "IPAddress": "172.30.0.3"},
    }
    assert described.create["Networks"] == {"data": {"Driver": "macvlan"}}


def test_a_hardware_address_comes_along_if_the_user_has_chosen_it() -> None:
    endpoints = docker_description.endpoints_of(describe(inspected(), inner="02:00:00:00:00:01"))
    assert endpoints["inner"]["MacAddress"] == "02:00:00:00:00:01"
    assert "MacAddress" not in endpoints["data"]
    older = inspected()
    older["Config"]["MacAddress"] = "02:00:00:00:00:02"
    described = describe(older)
    assert docker_description.endpoints_of(described)["data"]["MacAddress"] == "02:00:00:00:00:02"
    for api, wanted in (((1, 41), "02:00:00:00:00:02"), ((1, 45), None)):
        assert docker_description.request(described, "x", api).body.get("MacAddress") == wanted


def test_dockerds_own_file_says_which_address_was_chosen() -> None:
    networks = {"data": {"DesiredMacAddress": "02:00:00:00:00:01"}, "inner": {"DesiredMacAddress": ""}}
    file = json.dumps({"NetworkSettings": {"Networks": networks}}).encode()
    assert docker_description.chosen_macs(file) == {"data": "02:00:00:00:00:01"}


def test_a_network_is_called_by_its_name() -> None:
    assert (
        docker_description.host_config_of(describe(inspected(NetworkMode="ddddd")))["NetworkMode"] == "data"
    )


def test_volumes_without_a_name_are_made_anew() -> None:
    host = docker_description.host_config_of(
        describe(
            inspected(
                Binds=[f"{GENERATED}:/a:rw", f"{GENERATED}:/b:z,ro", "named:/c", "/srv:/d:ro"],
                Mounts=[
                    {"Type": "volume", "Source": GENERATED, "Target": "/e"},
                    {"Type": "bind", "Source": "/srv", "Target": "/f"},
                ],
            )
        )
    )
    assert host["Binds"] == ["named:/c", "/srv:/d:ro"]
    assert host["Mounts"] == [
        {"Type": "volume", "Target": "/e"},
        {"Type": "bind", "Source": "/srv", "Target": "/f"},
        {"Type": "volume", "Target": "/a", "ReadOnly": False},
        {"Type": "volume", "Target": "/b", "ReadOnly": True},
    ]


def test_with_the_hosts_name_no_name_is_asked_for() -> None:
    described = describe(inspected(UTSMode="host"))
    assert not {"Hostname", "Domainname"} & described.create.keys()


def test_each_network_is_connected_by_itself() -> None:
    request = docker_description.request(describe(inspected()), "nginx:1.27", (1, 45))
    assert request.body["Image"] == "nginx:1.27"
    assert request.body["NetworkingConfig"] == {}
    assert not {"Networks", "ImageStore"} & request.body.keys()
    assert request.disconnect == "data"
    assert list(request.endpoints) == ["data", "inner"]


def test_dockers_default_network_is_left_as_docker_does_it() -> None:
    found = inspected(NetworkMode="default")
    networks = found["NetworkSettings"]["Networks"]
    networks["bridge"] = {"IPAMConfig": None, "NetworkID": "b", "IPAddress": "172.17.0.2"}
    request = docker_description.request(describe(found), "x", (1, 45))
    assert request.disconnect == ""
    assert request.body["NetworkingConfig"] == {"EndpointsConfig": {"bridge": {"IPAMConfig": None}}}
    assert list(request.endpoints) == ["data", "inner"]


@pytest.mark.parametrize("mode", ["host", "none"])
def test_without_a_network_there_is_nothing_to_connect(mode: str) -> None:
    found = inspected(NetworkMode=mode)
    found["NetworkSettings"]["Networks"] = {mode: {"IPAMConfig": None, "NetworkID": "b", "IPAddress": ""}}
    request = docker_description.request(describe(found), "x", (1, 45))
    assert (request.disconnect, request.endpoints) == ("", {})


def test_it_travels_as_a_message() -> None:
    described = describe(inspected())
    assert Description.from_message(json.loads(json.dumps(described.as_message()))) == described


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"name": "--privileged"}, "name: "),
        ({"engine": "rkt"}, "engine: "),
        ({"image_id": "1" * 64}, "image_id: "),
        ({"image": "-it"}, "image: "),
        ({"restart": {"Name": "sometimes", "MaximumRetryCount": 0}}, "restart/Name: "),
        ({"create": []}, "create: "),
        ({"create": {"--volume": "/:/host"}}, "create/--volume: "),
        ({"create": {"Env": ["a" * MAX_BYTES]}}, "more than the 1048576 that are allowed"),
        ({"more": 1}, "'more' is not known"),
    ],
)
def test_what_is_no_description_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(MessageError, match=named):
        Description.from_message({**describe(inspected()).as_message(), **change})


def test_what_is_nested_too_deeply_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(200_000):
        deep = [deep]
    message = {**describe(inspected()).as_message(), "create": {"Env": deep}}
    with pytest.raises(MessageError, match="nested too deeply"):
        Description.from_message(message)


def test_another_engines_container_is_refused() -> None:
    message = {**describe(inspected()).as_message(), "engine": "podman"}
    with pytest.raises(DockerError, match="container web is podman's"):
        docker_description.request(Description.from_message(message), "x", (1, 45))


@pytest.mark.parametrize(
    ("network", "address", "may"),
    [
        ({"Subnet": "172.30.0.0/24"}, "172.30.0.3", True),
        ({"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}, "172.18.0.3", False),
        ({"Subnet": "192.168.16.0/20", "Gateway": "192.168.16.1"}, "192.168.16.3", False),
        ({"Subnet": "10.1.0.0/16", "Gateway": "10.1.0.1"}, "10.1.0.3", True),
        ({"Subnet": "10.1.0.0/16"}, "10.2.0.3", False),
        ({"Subnet": "fd12:3456::/64", "Gateway": "fd12:3456::1"}, "fd12:3456::3", False),
        ({"Subnet": "2001:db8::/64", "Gateway": "2001:db8::1"}, "2001:db8::3", True),
    ],
)
def test_an_address_is_asked_for_where_the_network_gives_it(
    network: dict[str, str], address: str, may: bool
) -> None:
    here = {"Name": "inner", "Driver": "bridge", "IPAM": {"Config": [network]}}
    assert docker_networks.may_ask(here, address) is may
    assert not docker_networks.may_ask({**here, "Name": "bridge"}, address)
