"""RDMA devices, and whether containers can see them."""

from __future__ import annotations

import json
from itertools import pairwise

from migrrdma_runtime.host.check.result import Machine, Result, ok, warning
from migrrdma_runtime.host.machine import Host

_DEVICES = "/sys/class/infiniband"
_VERBS = "/sys/class/infiniband_verbs"
_TOOL = "install iproute2's rdma tool"


def devices(machine: Machine) -> Result:
    """The devices, their ports, and the device nodes that applications open."""
    names = _names(machine.host)
    if not names:
        return warning(
            "no RDMA device; containers without RDMA are not affected",
            "load the NIC's driver, or make a Soft-RoCE device: rdma link add rxe0 type rxe netdev eth0",
        )
    ports = {name: _ports(machine.host, name) for name in names}
    detail = ", ".join(f"{name} ({'; '.join(states) or 'no port'})" for name, states in ports.items())
    if hidden := [name for name in names if name not in _with_verbs(machine.host)]:
        return warning(f"{detail}; no /dev/infiniband/uverbs* for {', '.join(hidden)}", "modprobe ib_uverbs")
    if down := [name for name, states in ports.items() if not any("ACTIVE" in one for one in states)]:
        return warning(f"{detail}; {', '.join(down)} has no active port", "bring up its link: rdma link show")
    return ok(detail)


def netns_mode(machine: Machine) -> Result:
    """In the exclusive mode a device belongs to one network namespace, which is not the container's."""
    # Not `rdma -j`: iproute2 6.15 ignores it for this object, older releases wrap the object in a list.
    done = machine.run(["rdma", "system", "show"])
    if done is None:
        return warning("not examined: the rdma tool is missing", _TOOL)
    mode = _netns(done.stdout) if done.status == 0 else None
    if mode is None:
        if not _names(machine.host):
            return ok("no RDMA in this kernel, so no mode")
        return warning(f"rdma system show: {done.complaint}", _TOOL)
    if mode != "shared":
        return warning(
            f"RDMA network namespace mode is {mode}: only containers on the host's network see the devices",
            "rdma system set netns shared (before any container runs)",
        )
    return ok("RDMA network namespace mode is shared: containers with a network of their own see the devices")


def owners(machine: Machine) -> Result:
    """Whether the agent can learn from the kernel whose a queue pair is (``agent/local/resources.py``)."""
    lost = "the agent believes what containers say of their queue pairs"
    done = machine.run(["rdma", "-j", "resource", "show", "qp"])
    if done is None:
        return warning(f"the rdma tool is missing: {lost}", _TOOL)
    try:
        said = json.loads(done.stdout or "[]") if done.status == 0 else None
    except ValueError:
        said = None
    if not isinstance(said, list):
        if not _names(machine.host):
            return ok("no RDMA in this kernel, so no queue pairs")
        return warning(
            f"rdma resource show qp: {done.complaint}: {lost}", f"{_TOOL}, of a release that writes JSON"
        )
    return ok("the kernel says whose each queue pair is, and containers are held to that")


def _names(host: Host) -> list[str]:
    return sorted(path.name for path in host.path(_DEVICES).glob("*"))


def _ports(host: Host, device: str) -> list[str]:
    numbers = sorted(path.name for path in host.path(f"{_DEVICES}/{device}/ports").glob("*"))
    states = {one: host.read(f"{_DEVICES}/{device}/ports/{one}/state") or "unknown" for one in numbers}
    return [f"port {one} {state.rpartition(': ')[2]}" for one, state in states.items()]


def _with_verbs(host: Host) -> set[str]:
    return {
        host.read(f"{_VERBS}/{path.name}/ibdev") or ""
        for path in host.path(_VERBS).glob("uverbs*")
        if host.path(f"/dev/infiniband/{path.name}").exists()
    }


def _netns(text: str) -> str | None:
    """The mode in an answer like ``netns shared copy-on-fork on``."""
    return dict(pairwise(text.split())).get("netns")
