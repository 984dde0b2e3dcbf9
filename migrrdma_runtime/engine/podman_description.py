"""From what Podman says of a container to the command that makes an equal one.

A description's ``create`` has the options and words of that command; beside them, in the form of Docker's API, what the
container needs of its host (``HostConfig``) and of its networks, so that what is in its way is found alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from migrrdma_runtime.base.errors import EngineError
from migrrdma_runtime.engine import docker_networks, podman_command
from migrrdma_runtime.engine.description import Description
from migrrdma_runtime.engine.docker_description import ANONYMOUS, NETWORKS, endpoints_of, host_config_of
from migrrdma_runtime.engine.docker_networks import Endpoint
from migrrdma_runtime.engine.podman_command import Command, Option

_IN_NETWORKS = "bridge"
"""The network mode of a container that is in networks of Podman's."""
_OWN_VARIABLES = {"HOSTNAME", "container"}
_NEEDED = ("LogConfig", "Memory", "MemoryReservation", "NanoCpus", "CpuQuota", "CpuShares", "CpusetCpus",
           "CpusetMems", "PidsLimit", "PortBindings", "SecurityOpt", "NetworkMode", "PidMode",
           "IpcMode", "VolumesFrom")  # fmt: skip


def description(found: dict[str, Any], networks: dict[str, dict[str, Any] | None]) -> Description:
    """Of what ``podman container inspect`` says, and of the networks that the container is in."""
    config, host = found["Config"], found["HostConfig"]
    name = str(found["Name"])
    words = config.get("CreateCommand")
    if not words:
        raise EngineError(f"podman keeps no command by which {name} was made: it was not made by one")
    command = podman_command.parse(words)
    options = [
        _absolute(one, found["Mounts"])
        for one in podman_command.kept(command.options)
        if one[0] not in podman_command.SETTLED
    ]
    policy = host.get("RestartPolicy") or {}
    return Description(
        engine="podman",
        name=name,
        image=found.get("ImageName") or "",
        image_id="sha256:" + found["Image"].removeprefix("sha256:"),
        create={
            "Options": podman_command.written(
                [
                    *options,
                    *_hostname(config, host),
                    *_environment(config),
                    *_labels(config),
                    *_log(command, host),
                    ("runtime", str(found["OCIRuntime"])),
                ]
            ),
            "Command": command.words,
            "HostConfig": _needs(found, command),
            "NetworkingConfig": {"EndpointsConfig": _endpoints(found, command)},
            NETWORKS: {one: {"Driver": here["Driver"]} for one, here in networks.items() if here},
        },
        restart={
            "Name": policy.get("Name") or "no",
            "MaximumRetryCount": policy.get("MaximumRetryCount") or 0,
        },
    )


def command(wanted: Description, image: str, networks: dict[str, dict[str, Any] | None]) -> list[str]:
    """The words behind ``podman``, on a host with these networks; `EngineError` if there are none in it."""
    if wanted.engine != "podman":
        raise EngineError(f"container {wanted.name} is {wanted.engine}'s, and is no container for Podman")
    options, words = _words(wanted, "Options"), _words(wanted, "Command")
    # Once more: these are from another host, and some have Podman write files here.
    given = podman_command.parse(["podman", "create", *options, "-", *words])
    if given.image != "-" or given.words != words:
        raise EngineError("description of a container: its options are no options")
    return [
        "create",
        f"--name={wanted.name}",
        "--restart=no",
        "--pull=never",
        *podman_command.written(podman_command.kept(given.options)),
        *_network_options(wanted, networks),
        "--",
        image,
        *words,
    ]


def restart_option(policy: dict[str, Any]) -> str:
    """A restart policy as Podman's options have it."""
    retries = policy.get("MaximumRetryCount") or 0
    return (
        f"{policy['Name']}:{retries}" if policy["Name"] == "on-failure" and retries else str(policy["Name"])
    )


def network(found: dict[str, Any]) -> dict[str, Any]:
    """What ``podman network inspect`` says, in the form of Docker's API.

    Without the gateway: Podman gives every address that it is asked for, whoever has chosen the subnet.
    """
    holders = {}
    for one, container in (found.get("containers") or {}).items():
        for interface in (container.get("interfaces") or {}).values():
            for at, subnet in enumerate(interface.get("subnets") or []):
                holders[f"{one}/{at}"] = {"Name": container["name"], "IPv4Address": subnet["ipnet"]}
    return {
        "Name": found["name"],
        "Driver": found["driver"],
        "IPAM": {"Config": [{"Subnet": one["subnet"]} for one in found.get("subnets") or []]},
        "Containers": holders,
    }


def _endpoints(found: dict[str, Any], command: Command) -> dict[str, Endpoint]:
    """In the order of the interfaces."""
    if found["HostConfig"]["NetworkMode"] != _IN_NETWORKS:
        return {}
    chosen = dict(_asked(command))
    connected = found["NetworkSettings"].get("Networks") or {}
    hostname = found["Config"].get("Hostname")
    endpoints = {}
    for name in [
        *(one for one in chosen if one in connected),
        *(one for one in connected if one not in chosen),
    ]:
        asked = chosen.get(name) or {}
        addresses = asked.get("ip", []) + asked.get("ip6", [])
        endpoint: Endpoint = {
            "IPAMConfig": {"IPv6Address" if ":" in one else "IPv4Address": one for one in addresses} or None
        }
        aliases = [
            one for one in connected[name].get("Aliases") or [] if one not in (found["Id"][:12], hostname)
        ]
        if aliases:
            endpoint["Aliases"] = aliases
        if mac := asked.get("mac"):
            endpoint["MacAddress"] = mac[0]
        if interface := asked.get("interface_name"):
            endpoint["Interface"] = interface[0]
        for member in ("IPAddress", "GlobalIPv6Address"):
            if (address := connected[name].get(member)) and address not in addresses:
                endpoint[member] = address
        endpoints[name] = endpoint
    return endpoints


def _asked(command: Command) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """What was asked of each network: ``--network=NAME:ip=…,mac=…``, or by options of their own for the only one."""
    names = [name for one in command.values("network") for name in one.split(":", 1)[0].split(",")]
    for one in command.values("network"):
        name, _, settings = one.partition(":")
        pairs: dict[str, list[str]] = {}
        for setting in filter(None, settings.split(",")):
            key, _, value = setting.partition("=")
            pairs.setdefault(key, []).append(value)
        for each in name.split(","):
            yield each, pairs if len(names) > 1 else {**_alone(command), **pairs}
    if not names and (alone := _alone(command)):
        yield "podman", alone


def _alone(command: Command) -> dict[str, list[str]]:
    options = {"ip": "ip", "ip6": "ip6", "mac": "mac-address"}
    return {key: found for key, option in options.items() if (found := command.values(option))}


def _network_options(wanted: Description, networks: dict[str, dict[str, Any] | None]) -> Iterator[str]:
    mode = host_config_of(wanted).get("NetworkMode") or ""
    endpoints = endpoints_of(wanted)
    if mode != _IN_NETWORKS:
        yield f"--network={mode}"
    elif not endpoints:
        yield "--network=none"
    for at, (name, endpoint) in enumerate(endpoints.items()):
        here = networks.get(name)
        settled = docker_networks.settled(endpoint, here) if here else endpoint
        addresses = (settled.get("IPAMConfig") or {}).values()
        settings = [f"ip={one}" for one in addresses]
        settings += [f"mac={settled['MacAddress']}"] if settled.get("MacAddress") else []
        settings += [f"alias={one}" for one in settled.get("Aliases") or []]
        settings += [f"interface_name={settled.get('Interface') or f'eth{at}'}"]
        yield f"--network={name}:{','.join(settings)}"


def _hostname(config: dict[str, Any], host: dict[str, Any]) -> list[Option]:
    """Also where Podman has made one up from the id: the processes know it."""
    shared = host.get("UTSMode") == "host" or str(host.get("NetworkMode")).startswith("container:")
    return [] if shared or not config.get("Hostname") else [("hostname", config["Hostname"])]


def _environment(config: dict[str, Any]) -> list[Option]:
    """All of it: the command may have taken values from a file, or from the environment it was given in."""
    return [
        ("env", str(one)) for one in config.get("Env") or [] if one.partition("=")[0] not in _OWN_VARIABLES
    ]


def _labels(config: dict[str, Any]) -> list[Option]:
    """The image's as well; the command may have taken some from a file."""
    return [("label", f"{name}={value}") for name, value in (config.get("Labels") or {}).items()]


def _log(command: Command, host: dict[str, Any]) -> list[Option]:
    kind = (host.get("LogConfig") or {}).get("Type")
    return [("log-driver", kind)] if kind and not command.values("log-driver") else []


def _absolute(option: Option, mounts: list[dict[str, Any]]) -> Option:
    """A bind's source from where the command was given, which is another folder elsewhere."""
    name, value = option
    if name == "volume" and value and value.startswith("."):
        _, _, rest = value.partition(":")
        target = rest.partition(":")[0]
        for mount in mounts:
            if mount["Destination"] == target:
                return name, f"{mount['Source']}:{rest}"
    return option


def _needs(found: dict[str, Any], command: Command) -> dict[str, Any]:
    host = found["HostConfig"]
    mounts = found["Mounts"]
    binds = [one["Source"] for one in mounts if one["Type"] == "bind"]
    volumes = [
        one["Name"] for one in mounts if one["Type"] == "volume" and not ANONYMOUS.fullmatch(one["Name"])
    ]
    needs = {name: host[name] for name in _NEEDED if host.get(name)}
    needs["Binds"] = [f"{one}:" for one in [*binds, *volumes]]
    needs["Devices"] = [{"PathOnHost": one["PathOnHost"]} for one in host.get("Devices") or []]
    needs["Ulimits"] = [
        {**one, "Name": one["Name"].removeprefix("RLIMIT_").lower()}
        for one in host.get("Ulimits") or []
        if command.values("ulimit")
    ]
    needs["Runtime"] = found["OCIRuntime"]
    needs["Pod"] = found.get("Pod") or ""
    return needs


def _words(wanted: Description, member: str) -> list[str]:
    value = wanted.create.get(member)
    if not isinstance(value, list) or not all(isinstance(one, str) and "\0" not in one for one in value):
        raise EngineError(f"description of a container: {member} is no list of words")
    return value
