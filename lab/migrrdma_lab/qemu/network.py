"""The rack's network: a namespace of its own with two bridges and one tap per machine on each.

Nothing in it reaches outside: the namespace has no other interface and no route. The bridge ``mgmt`` carries
ssh, the bridge ``data`` everything the project does, RDMA included.
"""

from __future__ import annotations

import subprocess

from ..errors import RackError
from ..plan import DATA_MTU, GATEWAY, NODES, Node, Places

BRIDGES = ("mgmt", "data")

_DRAFT = ".new"


def _ip(*arguments: str, namespace: str | None = None) -> str:
    command = ["ip", *(["-n", namespace] if namespace else []), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if result.returncode:
        raise RackError(f"`{' '.join(command)}` failed: {result.stderr.strip()}; the rack needs root")
    return result.stdout


def tap(bridge: str, node: Node) -> str:
    """The tap interface through which ``node`` hangs on ``bridge``."""
    return f"{bridge}-{node.name}"


def exists(places: Places) -> bool:
    """Whether the rack's namespace is there."""
    return any(line.split()[0] == places.namespace for line in _ip("netns", "list").splitlines() if line)


def create(places: Places) -> None:
    """Make the namespace, bridges and taps that are not there yet."""
    if not exists(places):
        _ip("netns", "add", places.namespace)
    namespace = places.namespace
    present = _links(namespace)
    _ip("link", "set", "lo", "up", namespace=namespace)
    for bridge in BRIDGES:
        mtu = str(DATA_MTU if bridge == "data" else 1500)
        if bridge not in present:
            # No spanning tree and no forwarding delay: a port carries frames at once.
            _ip("link", "add", bridge, "mtu", mtu, "type", "bridge", "stp_state", "0", "forward_delay", "0",
                namespace=namespace)  # fmt: skip
        _ip("link", "set", bridge, "up", namespace=namespace)
        for node in NODES:
            name = tap(bridge, node)
            if name not in present:
                # It gets its name when it hangs on the bridge: one that does not is there, but partitioned.
                draft = f"{name}{_DRAFT}"
                if draft not in present:
                    _ip("tuntap", "add", draft, "mode", "tap", namespace=namespace)
                _ip("link", "set", draft, "mtu", mtu, "master", bridge, namespace=namespace)
                _ip("link", "set", draft, "name", name, namespace=namespace)
            _ip("link", "set", name, "up", namespace=namespace)
    _ip("addr", "replace", f"{GATEWAY}/24", "dev", "mgmt", namespace=namespace)


def _links(namespace: str) -> set[str]:
    listing = _ip("-o", "link", namespace=namespace)
    return {line.split(":")[1].strip().split("@")[0] for line in listing.splitlines()}


def destroy(places: Places) -> None:
    """Remove the namespace; the kernel removes what is in it."""
    if exists(places):
        _ip("netns", "delete", places.namespace)


def forget_neighbour(places: Places, address: str) -> None:
    """Drop what is known about ``address``: it will be another machine's next."""
    _ip("neigh", "flush", "to", address, namespace=places.namespace)


def partition(places: Places, node: Node) -> None:
    """Cut ``node`` off the data network in both directions, silently, as a broken switch port does."""
    _ip("link", "set", tap("data", node), "nomaster", namespace=places.namespace)


def heal(places: Places, node: Node) -> None:
    """Undo `partition`."""
    _ip("link", "set", tap("data", node), "master", "data", namespace=places.namespace)


def partitioned(places: Places, node: Node) -> bool:
    """Whether `partition` is in force for ``node``."""
    return "master data" not in _ip("link", "show", tap("data", node), namespace=places.namespace)
