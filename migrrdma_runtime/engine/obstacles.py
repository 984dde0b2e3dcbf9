"""What would keep a container from being made or started on this host: everything at once, whichever its engine.

An engine itself finds some of it when it creates, some when it starts, and of some it says nothing: Docker makes a
folder for a bind that has none, and leaves a limit out that the kernel has no means for.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from migrrdma_runtime.base import paths
from migrrdma_runtime.engine import docker_networks
from migrrdma_runtime.engine.description import Description, Obstacle
from migrrdma_runtime.engine.docker_description import (
    ANONYMOUS,
    NETWORKS,
    STORE,
    endpoints_of,
    host_config_of,
    store,
)
from migrrdma_runtime.engine.engine import Container


class Here(Protocol):
    """What is asked of the engine; it answers in the form of Docker's API."""

    @property
    def api(self) -> tuple[int, ...]:
        """The version of that API which it speaks."""

    def info(self) -> dict[str, Any]:
        """``docker info``."""

    def has_runtime(self, name: str) -> bool:
        """Whether it can start containers by this one."""

    def container_named(self, name: str) -> Container | None:
        """One of exactly this name."""

    def network(self, name: str) -> dict[str, Any] | None:
        """One of exactly this name."""

    def volume(self, name: str) -> dict[str, Any] | None:
        """By its name."""

    def image(self, reference: str) -> dict[str, Any] | None:
        """By its name or ID."""


@dataclass(frozen=True)
class _Look:
    """What is wanted, and where."""

    wanted: Description
    here: Here
    root: Path

    @cached_property
    def info(self) -> dict[str, Any]:
        return self.here.info()

    @cached_property
    def host(self) -> dict[str, Any]:
        return host_config_of(self.wanted)

    @property
    def tool(self) -> str:
        """The engine's command."""
        return self.wanted.engine

    @property
    def title(self) -> str:
        return self.tool.capitalize()

    def on_host(self, path: str) -> Path:
        return self.root / path.lstrip("/")


def obstacles(wanted: Description, engine: str, here: Here, root: Path) -> list[Obstacle]:
    """All of them that there are with this engine; ``root`` is the host's."""
    if wanted.engine != engine:
        return [Obstacle(f"it is a container of {wanted.engine}'s", f"migrate it to {wanted.engine} there")]
    look = _Look(wanted, here, root)
    return [Obstacle(*one) for every in _EVERY for one in every(look)]


def left_behind(mounts: list[dict[str, Any]]) -> list[Obstacle]:
    """Of the mounts of a container on its host: volumes without a name, which nobody can bring to the other host.

    They are removed with it, with all that is in them.
    """
    return [
        Obstacle(
            f"it has written into a volume without a name, at {mount.get('Destination')}, which would not come along",
            f"--with-volumes takes it along; or create it with --volume NAME:{mount.get('Destination')}",
            str(mount.get("Name")),
        )
        for mount in mounts
        if mount.get("Type") == "volume"
        and ANONYMOUS.fullmatch(mount.get("Name") or "")
        and _has_anything(mount.get("Source") or "")
    ]


def _has_anything(folder: str) -> bool:
    try:
        return any(Path(folder).iterdir())
    except OSError:
        return True  # of another driver's: nobody knows


Found = Iterator[tuple[str, str] | tuple[str, str, str]]
"""What an `Obstacle` is made of."""


def _name(look: _Look) -> Found:
    name = look.wanted.name
    if other := look.here.container_named(name):
        yield (
            f"there is a container {name} already ({other.id[:12]})",
            f"{look.tool} rename {name} ANOTHER, or {look.tool} rm it",
        )


def _others(look: _Look) -> Found:
    """Containers on which it depends: they have other ids elsewhere, and processes of their own."""
    for member, option in (("NetworkMode", "network"), ("PidMode", "pid"), ("IpcMode", "ipc")):
        mode = look.host.get(member) or ""
        if mode.startswith("container:"):
            yield (
                f"it shares another container's namespace (--{option}={mode})",
                f"create it without --{option}=container:…: both would have to move as one",
            )
    if look.host.get("Pod"):
        yield "it belongs to a pod", "create it without --pod: all of a pod would have to move as one"
    if look.host.get("VolumesFrom"):
        named = ", ".join(look.host["VolumesFrom"])
        yield f"it has the volumes of {named} (--volumes-from)", "name its volumes with --volume instead"
    if look.host.get("Links") or any(one.get("Links") for one in endpoints_of(look.wanted).values()):
        yield "it is linked to other containers (--link)", "put both into a network of their own instead"
    labels = look.wanted.create.get("Labels") or {}
    if "com.docker.swarm.service.id" in labels:
        yield "it belongs to a service of a swarm", "let the swarm place it: docker service update"


def _runtime(look: _Look) -> Found:
    runtime = look.host.get("Runtime") or ""
    if not runtime or look.here.has_runtime(runtime):
        return
    if runtime in (paths.RUNTIME_NAME, paths.RUNTIME):
        remedy = "run migrrdma install" + (", then systemctl reload docker" if look.tool == "docker" else "")
    else:
        remedy = f"enter it in {'daemon.json' if look.tool == 'docker' else 'containers.conf'}"
    yield f"{look.title} knows no runtime {runtime}", remedy


def _networks(look: _Look) -> Found:
    drivers = look.wanted.create.get(NETWORKS) or {}
    mode = look.host.get("NetworkMode") or ""
    names = dict(endpoints_of(look.wanted))
    predefined = {"", "default", docker_networks.DEFAULT, *docker_networks.WITHOUT_SETTINGS}
    if look.tool == "docker" and mode not in predefined and not mode.startswith("container:"):
        names.setdefault(mode, {})
    for name, endpoint in names.items():
        driver = (drivers.get(name) or {}).get("Driver") or ""
        here = look.here.network(name)
        if here is None:
            yield (
                f"there is no network {name}",
                f"{look.tool} network create {f'--driver {driver} ' if driver else ''}… {name}, as on its host now",
            )
            continue
        if driver and here["Driver"] != driver:
            yield (
                f"network {name} is {here['Driver']} here, and {driver} where it is now",
                f"make it anew with --driver {driver}",
            )
        yield from _addresses(look, name, endpoint, here)


def _addresses(look: _Look, name: str, endpoint: dict[str, Any], here: dict[str, Any]) -> Found:
    chosen = endpoint.get("IPAMConfig") or {}
    for member in ("IPv4Address", "IPv6Address"):
        address = chosen.get(member)
        if address and docker_networks.subnet_with(here, address) is None:
            yield (
                f"network {name} has no subnet with {address}",
                f"make it anew with --subnet, as on its host now: {name} is another network here",
            )
        elif address and not docker_networks.may_ask(here, address):
            yield (
                f"network {name} gives no address that is asked for, as {address} is",
                "make it anew with --subnet",
            )
    for address in docker_networks.asked(endpoint, here):
        if other := docker_networks.holder(here, address):
            yield (
                f"{address} in network {name} is container {other}'s here",
                f"{look.tool} network disconnect {name} {other}, or stop it",
            )
    for address in docker_networks.in_use(endpoint):
        # Networks of bridges end at the host: Docker chooses another address on each, and the container has another.
        if here["Driver"] != "bridge" and docker_networks.subnet_with(here, address) is None:
            yield (
                f"network {name} has no subnet with {address}, which the container has",
                f"make it anew with --subnet, as on its host now: {name} is another network here",
            )


def _ports(look: _Look) -> Found:
    for port, bindings in (look.host.get("PortBindings") or {}).items():
        number, _, protocol = port.partition("/")
        for binding in bindings or []:
            host_port, address = binding.get("HostPort") or "0", binding.get("HostIp") or ""
            if not host_port.isdecimal() or host_port == "0":
                continue  # any, or one of a range
            if why := _taken(address, int(host_port), protocol or "tcp"):
                yield (
                    f"port {host_port}/{protocol or 'tcp'}, which is to lead to its {number}: {why}",
                    f"end what has the port: ss -lpn 'sport = :{host_port}'",
                )


def _taken(address: str, port: int, protocol: str) -> str:
    """Why a port cannot be listened on; empty if it can."""
    kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}.get(protocol)
    if kind is None:
        return ""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as one:
        if kind is socket.SOCK_STREAM:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((address, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
                return os.strerror(error.errno)
    return ""


def _mounts(look: _Look) -> Found:
    binds: set[str] = set()
    volumes: set[str] = set()
    for bind in look.host.get("Binds") or []:
        source = bind.split(":")[0]
        (binds if source.startswith("/") else volumes).add(source)
    for mount in look.host.get("Mounts") or []:
        source = mount.get("Source") or ""
        if mount.get("Type") == "bind":
            binds.add(source)
        elif mount.get("Type") == "volume" and source:
            volumes.add(source)
        elif mount.get("Type") == "image" and not look.here.image(source):
            yield f"image {source}, which it mounts, is not here", f"{look.tool} pull {source}"
    for source in sorted(binds):
        if not os.path.lexists(look.on_host(source)):
            yield (
                f"there is no {source}, which it mounts",
                f"--with-volumes brings {source} from its host, with what is in it",
                source,
            )
    for name in sorted(volumes):
        if look.here.volume(name) is None:
            yield (
                f"there is no volume {name}",
                "--with-volumes brings it from its host, with what is in it",
                name,
            )


def _logs(look: _Look) -> Found:
    driver = (look.host.get("LogConfig") or {}).get("Type") or ""
    known = (look.info.get("Plugins") or {}).get("Log") or []
    if driver not in ("", "none", *known):
        yield (
            f"{look.title} has no log driver {driver}",
            "install it, or create the container with another one",
        )


def _devices(look: _Look) -> Found:
    for device in look.host.get("Devices") or []:
        path = device.get("PathOnHost") or ""
        if path.startswith("/") and not look.on_host(path).exists():
            yield f"there is no device {path}", f"load its driver, or make it {path} by a udev rule"
    for asked in look.host.get("DeviceRequests") or []:
        driver = asked.get("Driver") or "nvidia"
        if driver == "nvidia" and not look.on_host("/usr/bin/nvidia-container-runtime-hook").exists():
            yield (
                "it asks for GPUs, and NVIDIA's container toolkit is not here",
                "install nvidia-container-toolkit",
            )


_LIMITS = {
    "Memory": ("MemoryLimit", "memory"),
    "MemoryReservation": ("MemoryLimit", "memory"),
    "PidsLimit": ("PidsLimit", "number of processes"),
    "NanoCpus": ("CpuCfsQuota", "processor time"),
    "CpuQuota": ("CpuCfsQuota", "processor time"),
    "CpuShares": ("CPUShares", "share of processors"),
    "CpusetCpus": ("CPUSet", "set of processors"),
    "CpusetMems": ("CPUSet", "set of memory nodes"),
}
"""Limits, and what ``docker info`` says of the kernel's means for each."""


def _limits(look: _Look) -> Found:
    missing = {
        what
        for limit, (means, what) in _LIMITS.items()
        if _is_set(look.host.get(limit)) and look.info.get(means) is False
    }
    for what in sorted(missing):
        yield f"the {what} of a container cannot be limited here", "mount cgroup v2 with all its controllers"
    memory, total = look.host.get("Memory") or 0, look.info.get("MemTotal") or 0
    if total and memory > total:
        yield (
            f"it may use {memory >> 20} MiB, and this host has {total >> 20}",
            f"{look.tool} update --memory it where it is now, or choose a larger host",
        )
    cpus = look.info.get("NCPU") or 0
    wanted = (look.host.get("NanoCpus") or 0) / 1e9
    if cpus and wanted > cpus:
        yield (
            f"it may use {wanted:g} processors, and this host has {cpus}",
            f"{look.tool} update --cpus it where it is now, or choose a larger host",
        )
    beyond = [one for one in _numbers(look.host.get("CpusetCpus") or "") if one >= cpus > 0]
    if beyond:
        yield (
            f"it is to run on processor {beyond[0]}, and this host has {cpus}",
            f"{look.tool} update --cpuset-cpus it where it is now, or choose a larger host",
        )
    for limit in look.host.get("Ulimits") or []:
        most = look.on_host("/proc/sys/fs/nr_open")
        if limit.get("Name") == "nofile" and most.exists() and limit.get("Hard", 0) > int(most.read_text()):
            yield (
                f"it may open {limit['Hard']} files, and this host lets no process open more than "
                f"{most.read_text().strip()}",
                f"sysctl -w fs.nr_open={limit['Hard']}",
            )


def _is_set(limit: object) -> bool:
    return limit not in (None, 0, -1, "")


def _numbers(ranges: str) -> list[int]:
    """Of ``0-2,4``, the last of each part."""
    last = [part.rpartition("-")[2] for part in ranges.split(",")]
    return [int(one) for one in last if one.isdecimal()]


def _storage(look: _Look) -> Found:
    if not look.host.get("StorageOpt"):
        return
    status = dict(pair for pair in look.info.get("DriverStatus") or [] if len(pair) == 2)
    driver = look.info.get("Driver") or ""
    if driver == "overlay2" and status.get("Backing Filesystem") != "xfs":
        yield (
            "the size of its file system is limited (--storage-opt), which overlay2 can only on XFS",
            f"put {look.info.get('DockerRootDir')} on XFS with the option pquota",
        )
    elif driver in ("overlayfs", "vfs", "fuse-overlayfs"):
        yield (
            f"the size of its file system is limited (--storage-opt), which {driver} cannot",
            "use overlay2 on XFS with the option pquota",
        )


_STORES = {"docker": "a store of its own", "containerd": "containerd's store"}


def _image(look: _Look) -> Found:
    there, here = look.wanted.create.get(STORE) or "", store(look.info)
    if there in _STORES and there != here:
        yield (
            f"Docker keeps images in {_STORES[here]} here, and in {_STORES[there]} where the container is now, "
            "and an image has another ID in each",
            'set "features": {"containerd-snapshotter": …} alike in daemon.json on both hosts',
        )


def _confinement(look: _Look) -> Found:
    for option in look.host.get("SecurityOpt") or []:
        kind, _, value = option.replace(":", "=", 1).partition("=")
        if kind == "apparmor" and value not in ("", "unconfined", "docker-default"):
            loaded = look.on_host("/sys/kernel/security/apparmor/profiles")
            known = loaded.read_text().splitlines() if loaded.exists() else []
            if not any(line.rpartition(" (")[0] == value for line in known):
                yield f"there is no AppArmor profile {value}", f"load it: apparmor_parser -r FILE of {value}"
    parent = look.host.get("CgroupParent") or ""
    if look.info.get("CgroupDriver") == "systemd" and parent and not parent.endswith(".slice"):
        yield (
            f"its cgroup is to be below {parent}, and Docker has systemd keep them here, in slices",
            'set "exec-opts": ["native.cgroupdriver=cgroupfs"] in daemon.json, as on its host',
        )


def _version(look: _Look) -> Found:
    """What an older daemon passes over in silence."""
    if look.host.get("Annotations") and look.here.api < (1, 43):
        yield "it has annotations, of which this Docker knows nothing", "install Docker 24 or newer"
    macs = [name for name, one in endpoints_of(look.wanted).items() if one.get("MacAddress")]
    first = look.host.get("NetworkMode") or docker_networks.DEFAULT
    if look.here.api < (1, 44) and any(name != first for name in macs):
        yield (
            "it has a hardware address of its own in a second network, which this Docker cannot give",
            "install Docker 25 or newer",
        )


_EVERY: tuple[Callable[[_Look], Found], ...] = (
    _name, _others, _runtime, _version, _networks, _ports, _mounts, _devices, _logs, _limits, _storage,
    _confinement, _image,
)  # fmt: skip
