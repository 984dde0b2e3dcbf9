"""From what ``docker inspect`` says of a container to what ``docker create`` takes for an equal one.

Nearly all of an inspect's ``Config`` and ``HostConfig`` is what a user has asked for or what Docker has chosen once
and for all, and is taken as it is: members of Docker versions to come as well. Docker's bookkeeping is left out.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from migrrdma_runtime.base.errors import DockerError
from migrrdma_runtime.engine import docker_networks
from migrrdma_runtime.engine.description import Description
from migrrdma_runtime.engine.docker_networks import Endpoint

NETWORKS = "Networks"
"""A member of ``create`` that is not Docker's: the drivers of the source's networks, by name."""
STORE = "ImageStore"
"""Another: where the source's images are. The same image has another ID in each store."""

_NEVER = {"Name": "no", "MaximumRetryCount": 0}
ANONYMOUS = re.compile("[0-9a-f]{64}")
"""The name of an anonymous volume. Compose has them bound by it."""
_MAC_OF_ENDPOINTS = (1, 44)
"""From this version on, each network has a hardware address of its own."""


@dataclass(frozen=True)
class Request:
    """How a container is made: created, then disconnected from one network, and connected to its own."""

    body: dict[str, Any]
    disconnect: str
    """The network that Docker connects it to by itself, without what is to be asked there; empty: none."""
    endpoints: dict[str, Endpoint]


def description(
    found: dict[str, Any], chosen_macs: dict[str, str], networks: dict[str, dict[str, Any] | None], store: str
) -> Description:
    """Of what is inspected; with the hardware addresses that the user has chosen, its networks, its image's store."""
    host = dict(found["HostConfig"])
    endpoints = found["NetworkSettings"]["Networks"] or {}
    policy = host["RestartPolicy"]
    host["RestartPolicy"] = _NEVER
    host["ContainerIDFile"] = ""
    host["NetworkMode"] = _by_name(host["NetworkMode"], endpoints)
    _forget_generated_names(host)
    config = dict(found["Config"])
    if host.get("UTSMode") == "host":
        # Docker has noted the host's name, and refuses to be asked for one.
        config.pop("Hostname", None)
        config.pop("Domainname", None)
    macs = dict(chosen_macs)
    if mac := config.get("MacAddress"):
        macs.setdefault(_first(host["NetworkMode"]), mac)
    return Description(
        engine="docker",
        name=found["Name"].removeprefix("/"),
        image=config.get("Image") or "",
        image_id=found["Image"],
        create={
            **config,
            "HostConfig": host,
            "NetworkingConfig": {
                "EndpointsConfig": {
                    name: docker_networks.described(one, found["Id"], macs.get(name, ""))
                    for name, one in endpoints.items()
                    if name not in docker_networks.WITHOUT_SETTINGS
                }
            },
            NETWORKS: {name: {"Driver": one["Driver"]} for name, one in networks.items() if one},
            STORE: store,
        },
        restart={
            "Name": policy.get("Name") or _NEVER["Name"],
            "MaximumRetryCount": policy.get("MaximumRetryCount") or 0,
        },
    )


def request(wanted: Description, image: str, api: tuple[int, ...]) -> Request:
    """How an equal container is made of ``image`` at a daemon of this version; `DockerError` if that is not said."""
    if wanted.engine != "docker":
        raise DockerError(f"container {wanted.name} is {wanted.engine}'s, and is no container for Docker")
    body = {name: value for name, value in wanted.create.items() if name not in (NETWORKS, STORE)}
    endpoints = dict(endpoints_of(wanted))
    first = _first(_member(wanted.create, "HostConfig").get("NetworkMode") or "")
    body["Image"] = image
    body["HostConfig"] = {**_member(wanted.create, "HostConfig"), "RestartPolicy": _NEVER}
    body["NetworkingConfig"] = {}
    if api >= _MAC_OF_ENDPOINTS:
        body.pop("MacAddress", None)
    if first in docker_networks.WITHOUT_SETTINGS:
        return Request(body, "", endpoints)
    if first == docker_networks.DEFAULT and first in endpoints:
        body["NetworkingConfig"] = {
            "EndpointsConfig": {first: docker_networks.as_chosen(endpoints.pop(first))}
        }
        return Request(body, "", endpoints)
    return Request(body, first, endpoints)


def endpoints_of(wanted: Description) -> dict[str, Endpoint]:
    """What is to be asked of each network."""
    return _member(_member(wanted.create, "NetworkingConfig"), "EndpointsConfig")


def host_config_of(wanted: Description) -> dict[str, Any]:
    """What the host is asked for."""
    return _member(wanted.create, "HostConfig")


def store(info: dict[str, Any]) -> str:
    """Where a daemon keeps its images."""
    by_containerd = any("snapshotter" in str(value) for _, value in info.get("DriverStatus") or [])
    return "containerd" if by_containerd else "docker"


def chosen_macs(config: bytes) -> dict[str, str]:
    """The hardware addresses that the user has chosen, by network, of dockerd's own file about a container.

    An inspect shows the addresses that are in use, whoever has chosen them.
    """
    networks = json.loads(config)["NetworkSettings"]["Networks"] or {}
    return {name: mac for name, one in networks.items() if (mac := one.get("DesiredMacAddress"))}


def shim_root(options: bytes) -> Path:
    """Below which containerd's shim has the low-level runtime keep its state."""
    return Path(json.loads(options)["root"])


def _first(mode: str) -> str:
    """The network that a container is in by its mode."""
    return docker_networks.DEFAULT if mode in ("", "default") else mode


def _by_name(mode: str, endpoints: dict[str, Any]) -> str:
    """A network that was asked for by its id has another one elsewhere."""
    if mode in endpoints or not mode:
        return mode
    return next((name for name, one in endpoints.items() if one["NetworkID"].startswith(mode)), mode)


def _forget_generated_names(host: dict[str, Any]) -> None:
    """Have volumes without a name of the user's made anew."""
    mounts, binds = [dict(one) for one in host.get("Mounts") or []], []
    for one in mounts:
        if one["Type"] == "volume" and ANONYMOUS.fullmatch(one.get("Source") or ""):
            del one["Source"]
    for bind in host.get("Binds") or []:
        source, target, *options = bind.split(":")
        if ANONYMOUS.fullmatch(source):
            mounts.append(
                {"Type": "volume", "Target": target, "ReadOnly": "ro" in "".join(options).split(",")}
            )
        else:
            binds.append(bind)
    if host.get("Mounts") or mounts:
        host["Mounts"] = mounts
    if host.get("Binds"):
        host["Binds"] = binds


def _member(of: dict[str, Any], name: str) -> dict[str, Any]:
    member = of.get(name) or {}
    if not isinstance(member, dict):
        raise DockerError(f"description of a container: {name} is no object")
    return member
