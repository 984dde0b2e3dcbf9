"""What keeps a container from a host, told before anything is touched; the daemon and the host are made up."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from migrrdma_runtime.engine.description import Description
from migrrdma_runtime.engine.engine import Container
from migrrdma_runtime.engine.obstacles import obstacles

_INFO = {
    "Runtimes": {"runc": {}, "migrrdma": {}},
    "Plugins": {"Log": ["json-file", "journald"]},
    "Driver": "overlay2",
    "DriverStatus": [["Backing Filesystem", "extfs"]],
    "DockerRootDir": "/var/lib/docker",
    "CgroupDriver": "systemd",
    "NCPU": 2,
    "MemTotal": 1 << 30,
    "MemoryLimit": True,
    "CpuCfsQuota": True,
    "CPUSet": True,
    "PidsLimit": True,
}
_DATA = {
    "Name": "data",
    "Driver": "macvlan",
    "IPAM": {"Config": [{"Subnet": "10.78.0.0/24"}]},
    "Containers": {"1": {"Name": "db", "IPv4Address": "10.78.0.141/24"}},
}


@dataclass
class _Here:
    networks: dict[str, dict[str, Any]] = field(default_factory=lambda: {"data": _DATA})
    volumes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    told: dict[str, Any] = field(default_factory=dict)
    api: tuple[int, ...] = (1, 45)

    def info(self) -> dict[str, Any]:
        return {**_INFO, **self.told}

    def has_runtime(self, name: str) -> bool:
        return name in self.info()["Runtimes"]

    def container_named(self, name: str) -> Container | None:
        return Container("c0ffee", name, "runc", running=False) if name in self.names else None

    def network(self, name: str) -> dict[str, Any] | None:
        return self.networks.get(name)

    def volume(self, name: str) -> dict[str, Any] | None:
        return {} if name in self.volumes else None

    def image(self, reference: str) -> dict[str, Any] | None:
        return None if reference == "gone" else {}


def _wanted(
    endpoints: dict[str, Any] | None = None, drivers: dict[str, str] | None = None, **host: Any
) -> Description:
    create: dict[str, Any] = {
        "HostConfig": {"Runtime": "migrrdma", "LogConfig": {"Type": "json-file"}, **host},
        "NetworkingConfig": {"EndpointsConfig": endpoints or {}},
        "Networks": {name: {"Driver": driver} for name, driver in (drivers or {}).items()},
    }
    return Description("docker", "web", "", "", create, {})


def _said(wanted: Description, here: _Here, root: Path = Path("/nowhere")) -> list[str]:
    found = obstacles(wanted, "docker", here, root)
    assert all(one.remedy and "\n" not in one.what + one.remedy for one in found)
    return [one.what for one in found]


def test_a_host_that_has_everything_is_no_obstacle(tmp_path: Path) -> None:
    for path in ("srv/bound", "dev/infiniband/uverbs0", "proc/sys/fs"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "proc/sys/fs/nr_open").write_text("1048576\n")
    wanted = _wanted(
        {"data": {"IPAMConfig": {"IPv4Address": "10.78.0.140"}}},
        {"data": "macvlan"},
        NetworkMode="data",
        Binds=["/srv/bound:/bound:ro", "named:/named"],
        Devices=[{"PathOnHost": "/dev/infiniband/uverbs0"}],
        Memory=1 << 29,
        NanoCpus=2_000_000_000,
        CpusetCpus="0-1",
        Ulimits=[{"Name": "nofile", "Hard": 1048576}, {"Name": "memlock", "Hard": -1}],
        PortBindings={"80/tcp": [{"HostPort": ""}], "81/tcp": None},
    )
    assert _said(wanted, _Here(volumes=("named",)), tmp_path) == []


@pytest.mark.parametrize(
    ("wanted", "here", "said"),
    [
        (_wanted(), _Here(names=("web",)), "there is a container web already (c0ffee)"),
        (_wanted(Runtime="kata"), _Here(), "Docker knows no runtime kata"),
        (_wanted(), _Here(told={"Runtimes": {"runc": {}}}), "Docker knows no runtime migrrdma"),
        (
            _wanted(NetworkMode="container:db"),
            _Here(),
            "it shares another container's namespace (--network=container:db)",
        ),
        (
            _wanted(PidMode="container:db"),
            _Here(),
            "it shares another container's namespace (--pid=container:db)",
        ),
        (
            _wanted(IpcMode="container:db"),
            _Here(),
            "it shares another container's namespace (--ipc=container:db)",
        ),
        (_wanted(VolumesFrom=["db", "cache"]), _Here(), "it has the volumes of db, cache (--volumes-from)"),
        (_wanted(Links=["/db:/web/db"]), _Here(), "it is linked to other containers (--link)"),
        (_wanted({"data": {"Links": ["db:db"]}}), _Here(), "it is linked to other containers (--link)"),
        (_wanted({"inner": {}}, NetworkMode="data"), _Here(), "there is no network inner"),
        (_wanted(NetworkMode="inner"), _Here(), "there is no network inner"),
        (
            _wanted({"data": {}}, {"data": "bridge"}),
            _Here(),
            "network data is macvlan here, and bridge where it is now",
        ),
        (
            _wanted({"data": {"IPAMConfig": {"IPv4Address": "10.79.0.1"}}}),
            _Here(),
            "network data has no subnet with 10.79.0.1",
        ),
        (
            _wanted({"data": {"IPAddress": "10.79.0.1"}}),
            _Here(),
            "network data has no subnet with 10.79.0.1, which the container has",
        ),
        (
            _wanted({"data": {"IPAMConfig": {"IPv4Address": "10.78.0.141"}}}),
            _Here(),
            "10.78.0.141 in network data is container db's here",
        ),
        (
            _wanted({"data": {"IPAddress": "10.78.0.141"}}),
            _Here(),
            "10.78.0.141 in network data is container db's here",
        ),
        (_wanted(Binds=["/srv/bound:/bound"]), _Here(), "there is no /srv/bound, which it mounts"),
        (
            _wanted(Mounts=[{"Type": "bind", "Source": "/srv/bound", "Target": "/b"}]),
            _Here(),
            "there is no /srv/bound, which it mounts",
        ),
        (_wanted(Binds=["named:/named"]), _Here(), "there is no volume named"),
        (
            _wanted(Mounts=[{"Type": "volume", "Source": "named", "Target": "/n"}, {"Type": "volume"}]),
            _Here(),
            "there is no volume named",
        ),
        (
            _wanted(Mounts=[{"Type": "image", "Source": "gone", "Target": "/n"}]),
            _Here(),
            "image gone, which it mounts, is not here",
        ),
        (_wanted(LogConfig={"Type": "loki"}), _Here(), "Docker has no log driver loki"),
        (
            _wanted(Devices=[{"PathOnHost": "/dev/infiniband/uverbs7"}]),
            _Here(),
            "there is no device /dev/infiniband/uverbs7",
        ),
        (
            _wanted(DeviceRequests=[{"Driver": "", "Capabilities": [["gpu"]]}]),
            _Here(),
            "it asks for GPUs, and NVIDIA's container toolkit is not here",
        ),
        (
            _wanted(Memory=1 << 20),
            _Here(told={"MemoryLimit": False}),
            "the memory of a container cannot be limited here",
        ),
        (
            _wanted(NanoCpus=500_000_000),
            _Here(told={"CpuCfsQuota": False}),
            "the processor time of a container cannot be limited here",
        ),
        (_wanted(Memory=1 << 31), _Here(), "it may use 2048 MiB, and this host has 1024"),
        (_wanted(NanoCpus=2_500_000_000), _Here(), "it may use 2.5 processors, and this host has 2"),
        (_wanted(CpusetCpus="0,3-4"), _Here(), "it is to run on processor 4, and this host has 2"),
        (
            _wanted(StorageOpt={"size": "1G"}),
            _Here(),
            "the size of its file system is limited (--storage-opt), which overlay2 can only on XFS",
        ),
        (
            _wanted(StorageOpt={"size": "1G"}),
            _Here(told={"Driver": "overlayfs"}),
            "the size of its file system is limited (--storage-opt), which overlayfs cannot",
        ),
        (_wanted(SecurityOpt=["apparmor=tight"]), _Here(), "there is no AppArmor profile tight"),
        (
            _wanted(CgroupParent="/batch"),
            _Here(),
            "its cgroup is to be below /batch, and Docker has systemd keep them here, in slices",
        ),
        (
            _wanted(Annotations={"a": "b"}),
            _Here(api=(1, 41)),
            "it has annotations, of which this Docker knows nothing",
        ),
        (
            _wanted({"data": {"MacAddress": "02:00:00:00:00:01"}}, NetworkMode="bridge"),
            _Here(api=(1, 43)),
            "it has a hardware address of its own in a second network, which this Docker cannot give",
        ),
    ],
    ids=str,
)
def test_each_obstacle_is_told(wanted: Description, here: _Here, said: str) -> None:
    assert _said(wanted, here) == [said]


def test_everything_is_told_at_once() -> None:
    wanted = _wanted({"inner": {}}, Runtime="kata", Binds=["/srv/bound:/b"], NetworkMode="inner")
    assert _said(wanted, _Here(names=("web",))) == [
        "there is a container web already (c0ffee)",
        "Docker knows no runtime kata",
        "there is no network inner",
        "there is no /srv/bound, which it mounts",
    ]


def test_addresses_of_dockers_own_choice_may_change_with_the_host() -> None:
    automatic = {
        "Name": "inner",
        "Driver": "bridge",
        "IPAM": {"Config": [{"Subnet": "172.19.0.0/16", "Gateway": "172.19.0.1"}]},
        "Containers": {"1": {"Name": "db", "IPv4Address": "172.19.0.2/16"}},
    }
    here = _Here(networks={"inner": automatic})
    for address in ("172.19.0.2", "172.18.0.2"):
        assert _said(_wanted({"inner": {"IPAddress": address}}), here) == []


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_port_that_is_taken_is_told(kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        protocol = "tcp" if kind is socket.SOCK_STREAM else "udp"
        bindings = {f"80/{protocol}": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]}
        said = f"port {port}/{protocol}, which is to lead to its 80: Address already in use"
        assert _said(_wanted(PortBindings=bindings), _Here()) == [said]
    assert _said(_wanted(PortBindings=bindings), _Here()) == []


def test_another_image_store_is_told() -> None:
    wanted = _wanted()
    wanted.create["ImageStore"] = "docker"
    assert _said(wanted, _Here()) == []
    by_containerd = [["driver-type", "io.containerd.snapshotter.v1"]]
    assert _said(wanted, _Here(told={"DriverStatus": by_containerd})) == [
        "Docker keeps images in containerd's store here, and in a store of its own where the container is now, "
        "and an image has another ID in each"
    ]


def test_an_open_file_limit_beyond_the_kernels_is_told(tmp_path: Path) -> None:
    (tmp_path / "proc/sys/fs").mkdir(parents=True)
    (tmp_path / "proc/sys/fs/nr_open").write_text("1024\n")
    wanted = _wanted(Ulimits=[{"Name": "nofile", "Hard": 2048}])
    assert _said(wanted, _Here(), tmp_path) == [
        "it may open 2048 files, and this host lets no process open more than 1024"
    ]


def test_an_apparmor_profile_that_is_loaded_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / "sys/kernel/security/apparmor"
    folder.mkdir(parents=True)
    (folder / "profiles").write_text("tight (enforce)\n")
    assert _said(_wanted(SecurityOpt=["apparmor=tight"]), _Here(), tmp_path) == []


def test_another_engines_container_is_an_obstacle() -> None:
    wanted = Description("podman", "web", "", "", {}, {})
    assert _said(wanted, _Here()) == ["it is a container of podman's"]
