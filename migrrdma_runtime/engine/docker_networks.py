"""A container's place in Docker's networks: what was chosen, what came about, and what can be asked for elsewhere."""

from __future__ import annotations

import ipaddress
from typing import Any

Endpoint = dict[str, Any]
"""``EndpointSettings`` of Docker's API."""

DEFAULT = "bridge"
"""The network of a container for which none was chosen."""

WITHOUT_SETTINGS = {"host", "none"}

_IN_USE = {"IPAddress": "IPv4Address", "GlobalIPv6Address": "IPv6Address"}
"""Members with the addresses in use, and those by which one is asked for.

Docker takes the former in a request and pays no attention: a description has addresses there that nobody has chosen.
"""

_POOLS = [
    *(ipaddress.IPv4Network(f"172.{part}.0.0/16") for part in range(17, 32)),
    ipaddress.IPv4Network("192.168.0.0/16"),
]
_PREFIXES = {16, 20}
_POOL_6 = ipaddress.IPv6Network("fd00::/8")
_POOL_6_PREFIX = 64
"""From which Docker takes a subnet, and how large a one, for a network that was made without."""


def described(found: dict[str, Any], container_id: str, mac: str) -> Endpoint:
    """What an inspect shows, without what is only of this container on this host."""
    chosen = found.get("IPAMConfig") or {}
    endpoint: Endpoint = {"IPAMConfig": found.get("IPAMConfig")}
    # Docker before 26 names the beginning of the id among the aliases.
    if aliases := [one for one in found.get("Aliases") or [] if one != container_id[:12]]:
        endpoint["Aliases"] = aliases
    for member in ("Links", "DriverOpts", "GwPriority"):
        if (value := found.get(member)) is not None:
            endpoint[member] = value
    if mac:
        endpoint["MacAddress"] = mac
    for member, choice in _IN_USE.items():
        if (address := found.get(member)) and address != chosen.get(choice):
            endpoint[member] = address
    return endpoint


def as_chosen(endpoint: Endpoint) -> Endpoint:
    """With the addresses that were chosen, and no others."""
    return {name: value for name, value in endpoint.items() if name not in _IN_USE}


def in_use(endpoint: Endpoint) -> list[str]:
    """The addresses that the container has and nobody has chosen."""
    return [endpoint[member] for member in _IN_USE if endpoint.get(member)]


def settled(endpoint: Endpoint, here: dict[str, Any]) -> Endpoint:
    """What to ask of a network as it is here: the other addresses as well, if it takes them."""
    wishes = {
        choice: address
        for member, choice in _IN_USE.items()
        if (address := endpoint.get(member)) and may_ask(here, address)
    }
    if not wishes:
        return as_chosen(endpoint)
    return {**as_chosen(endpoint), "IPAMConfig": {**(endpoint.get("IPAMConfig") or {}), **wishes}}


def asked(endpoint: Endpoint, here: dict[str, Any]) -> list[str]:
    """The addresses that will be asked for."""
    choice = settled(endpoint, here).get("IPAMConfig") or {}
    return [choice[member] for member in _IN_USE.values() if choice.get(member)]


def may_ask(here: dict[str, Any], address: str) -> bool:
    """Whether a network gives an address that it is asked for: if its subnet is one that its maker has chosen.

    An inspect shows any other subnet in the same way, but with a gateway, and one of Docker's own pools.
    """
    if here["Name"] in {DEFAULT, *WITHOUT_SETTINGS}:
        return False
    config = subnet_with(here, address)
    if config is None:
        return False
    return not (here["Driver"] == "bridge" and bool(config.get("Gateway")) and _as_docker_chooses(config))


def _as_docker_chooses(config: dict[str, Any]) -> bool:
    subnet = ipaddress.ip_network(config["Subnet"], strict=False)
    if isinstance(subnet, ipaddress.IPv6Network):
        return subnet.subnet_of(_POOL_6) and subnet.prefixlen == _POOL_6_PREFIX
    return any(subnet.subnet_of(pool) for pool in _POOLS) and subnet.prefixlen in _PREFIXES


def gives_no_addresses(refusal: str) -> bool:
    """Whether Docker has refused an address because the network gives none that is asked for."""
    return "networks with user configured subnets" in refusal


def subnet_with(here: dict[str, Any], address: str) -> dict[str, Any] | None:
    """The subnet of a network that has the address."""
    wanted = ipaddress.ip_address(address)
    for config in (here.get("IPAM") or {}).get("Config") or []:
        if config.get("Subnet") and wanted in ipaddress.ip_network(config["Subnet"], strict=False):
            found: dict[str, Any] = config
            return found
    return None


def holder(here: dict[str, Any], address: str) -> str:
    """The container that has the address now; empty if none here has."""
    for one in (here.get("Containers") or {}).values():
        held = (one.get("IPv4Address"), one.get("IPv6Address"))
        if any(each and each.partition("/")[0] == address for each in held):
            return str(one["Name"])
    return ""
