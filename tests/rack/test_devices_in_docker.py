"""``docker run --runtime=migrrdma`` with a real RDMA device: every way to hold one loads the guest library.

What needs no device is shown on the fast rack: `tests/docker`.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from in_docker import SLEEP, configured, maps_the_guest_library
from migrrdma_lab.containers import Container
from migrrdma_lab.errors import NodeCommandError
from migrrdma_lab.plan import DST
from migrrdma_lab.shell import Shell
from perftest import perftest

pytestmark = pytest.mark.needs("kernel-rdma")

Register = Callable[[Container], Container]

_RDMA = ("--device=/dev/infiniband/uverbs0", "--ulimit=memlock=-1")
_LINE_BY_LINE = "-t"  # perftest's output would stay in its buffer until it ends


@pytest.mark.parametrize("image", ["rdma-tools:trixie", "rdma-tools:bookworm"])
def test_an_rdma_container_loads_the_guest_library_and_still_does_rdma(
    src: Shell, dst: Shell, containers: Register, image: str
) -> None:
    options = (*_RDMA, "--network=host", _LINE_BY_LINE)
    server_command = perftest("ib_send_bw", "-n", "50", "-s", "4096")
    server = containers(Container(dst, "server", server_command, options, image)).run()
    server.wait_for_line("Waiting for client")
    client_command = (*server_command, DST.data_address)
    client = containers(Container(src, "client", client_command, options, image)).run()
    assert client.docker("wait", "client").stdout.strip() == "0", client.lines()
    assert server.docker("wait", "server").stdout.strip() == "0", server.lines()
    assert any(line.split()[:2] == ["4096", "50"] for line in client.lines())


@pytest.mark.parametrize(
    "options",
    [_RDMA, ("--privileged",), ("--annotation=org.migrrdma.enable=true",), ("--device=rack/rdma=all",)],
)
def test_every_way_to_hold_a_device_loads_the_guest_library(
    src: Shell, containers: Register, options: tuple[str, ...]
) -> None:
    container = containers(Container(src, "holder", SLEEP, options)).run()
    assert (
        "/dev/migrrdma/guest/" in src.sh("cat /proc/$(docker inspect -f {{.State.Pid}} holder)/maps").stdout
    )
    assert maps_the_guest_library(container)
    # A user's own preload in an exec survives, and ours is still there.
    assert maps_the_guest_library(container, "-e", "LD_PRELOAD=/lib/x86_64-linux-gnu/libm.so.6")


def test_what_the_container_left_on_the_host_goes_with_it(src: Shell, containers: Register) -> None:
    container = containers(Container(src, "tidy", SLEEP, _RDMA)).run()
    directory = f"/run/migrrdma/containers/{container.full_id()}"
    state = json.loads(src.run("cat", f"{directory}/state.json").stdout)
    assert state["pid"] == int(container.docker("inspect", "-f", "{{.State.Pid}}", "tidy").stdout)
    container.remove()
    with pytest.raises(NodeCommandError):
        src.run("test", "-e", directory)


def test_crun_can_do_the_work(src: Shell, containers: Register) -> None:
    with configured(src, 'runtime = "crun"'):
        container = containers(Container(src, "by-crun", SLEEP, _RDMA)).run()
        assert maps_the_guest_library(container)
        container.remove()


def test_the_doctor_finds_a_rack_node_healthy(src: Shell) -> None:
    report = json.loads(src.run("migrrdma", "check", "--json").stdout)
    assert report["ok"] is True
    assert {check["name"] for check in report["checks"] if check["status"] == "failure"} == set()
    by_name = {check["name"]: check for check in report["checks"]}
    assert "rxe0" in by_name["rdma-devices"]["detail"]
    assert by_name["rdma-netns"]["status"] == "ok", by_name["rdma-netns"]
