"""The data network of the fast rack: a bridge in the rack's network namespace, a pair of interfaces for each node.

No interface of it is in this machine's own network namespace, and nothing in it reaches outside. A node's network
namespace is held by a file, for no process holds it while the node is powered off or boots.
"""

from __future__ import annotations

from pathlib import Path

from ..plan import DATA_MTU, Node
from .keeping import Keeper

_BRIDGE = "data"


def create(keeper: Keeper) -> None:
    """Make the bridge, if it is not there."""
    # No spanning tree and no forwarding delay: a port carries frames at once.
    script = """
    ip link show "$1" >/dev/null 2>&1 || ip link add "$1" mtu "$2" type bridge stp_state 0 forward_delay 0
    ip link set "$1" up
    """
    keeper.sh(script, _BRIDGE, str(DATA_MTU))


def plug_in(keeper: Keeper, node: Node, namespace: Path) -> None:
    """Make the node's network namespace, held by the file ``namespace``, with ``rd0`` on the data network in it."""
    script = """
    namespace=$1 port=$2 bridge=$3 mtu=$4 hardware=$5 address=$6
    touch "$namespace"
    unshare --net="$namespace" true
    ip link add "$port" mtu "$mtu" type veth peer name rd0 mtu "$mtu" address "$hardware" netns "$namespace"
    ip link set "$port" master "$bridge" up
    nsenter --net="$namespace" sh -euc 'ip link set lo up; ip addr add "$1" dev rd0; ip link set rd0 up' node "$address"
    """
    keeper.sh(
        script, namespace, _port(node), _BRIDGE, str(DATA_MTU), f"52:54:00:78:00:{node.index:02}",
        f"{node.data_address}/24",
    )  # fmt: skip


def unplug(keeper: Keeper, node: Node, namespace: Path) -> None:
    """Undo `plug_in`; what of it is not there is no error."""
    script = """
    ! ip link show "$2" >/dev/null 2>&1 || ip link delete "$2"
    [ ! -e "$1" ] || { ! mountpoint -q "$1" || umount "$1"; rm "$1"; }
    """
    keeper.sh(script, namespace, _port(node))


def cut(keeper: Keeper, node: Node) -> None:
    """Let nothing more out of the node, which is to be unplugged; one that is not plugged in is no error."""
    keeper.sh('! ip link show "$1" >/dev/null 2>&1 || ip link set "$1" nomaster', _port(node))


def partition(keeper: Keeper, node: Node) -> None:
    """Cut ``node`` off in both directions, silently: both ends keep their carrier, as with a broken switch port."""
    keeper.run("ip", "link", "set", _port(node), "nomaster")


def heal(keeper: Keeper, node: Node) -> None:
    """Undo `partition`."""
    keeper.run("ip", "link", "set", _port(node), "master", _BRIDGE)


def partitioned(keeper: Keeper, node: Node) -> bool:
    """Whether `partition` is in force for ``node``."""
    return f"master {_BRIDGE}" not in keeper.run("ip", "link", "show", _port(node))


def _port(node: Node) -> str:
    """The node's port of the switch, so to speak."""
    return f"{_BRIDGE}-{node.name}"
