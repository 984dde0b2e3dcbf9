"""What of a description's ``create`` is read here, before the engine gets it: what shape each such part has.

Everything else in it is the engine's own to judge, members of versions to come among it.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from migrrdma_runtime.base.errors import MessageError
from migrrdma_runtime.wire import compiled_schema
from migrrdma_runtime.wire.compiled_schema import Schema

_TEXT: Schema = {"type": "string", "maxLength": 4096}
_ANY_MAP: Schema = {"type": "object", "additionalProperties": {}}
_NUMBER: Schema = {"type": "integer"}
_NULL: Schema = {"type": "null"}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items, "maxItems": 65_536}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, _NULL]}


_LIMITS = ("Memory", "MemoryReservation", "NanoCpus", "CpuQuota", "CpuShares", "PidsLimit")
_HOST: dict[str, Schema] = {
    **dict.fromkeys(
        ("NetworkMode", "PidMode", "IpcMode", "UTSMode", "Runtime", "CgroupParent", "Pod"), _TEXT
    ),
    **dict.fromkeys(("CpusetCpus", "CpusetMems"), _TEXT),
    **dict.fromkeys(_LIMITS, _NUMBER),
    **dict.fromkeys(("Binds", "VolumesFrom", "Links", "SecurityOpt"), _list(_TEXT)),
    **dict.fromkeys(("Annotations", "StorageOpt"), _ANY_MAP),
}
_PARTS: dict[str, dict[str, Schema]] = {
    "Mounts": {"Type": _TEXT, "Source": _TEXT, "Target": _TEXT},
    "Devices": {"PathOnHost": _TEXT},
    "DeviceRequests": {"Driver": _TEXT},
    "Ulimits": {"Name": _TEXT, "Hard": _NUMBER},
}
"""Members of ``HostConfig`` that are lists of what has members of its own."""
_PORT = {"HostPort": _TEXT, "HostIp": _TEXT}
_ENDPOINT: dict[str, Schema] = {
    "IPAMConfig": _ANY_MAP,
    "Links": _list(_TEXT),
    "Aliases": _list(_TEXT),
    **dict.fromkeys(("MacAddress", "Interface"), _TEXT),
}
_ADDRESSES = ("IPAddress", "GlobalIPv6Address", "IPv4Address", "IPv6Address")


def check(create: dict[str, Any]) -> None:
    """`MessageError` names the part that has another shape."""
    _members(create, {"Labels": _ANY_MAP, "ImageStore": _TEXT, "Image": _TEXT}, "create")
    host = _map(create, "HostConfig", "create")
    _members(host, _HOST, "create/HostConfig")
    _members(_map(host, "LogConfig", "create/HostConfig"), {"Type": _TEXT}, "create/HostConfig/LogConfig")
    for name, shapes in _PARTS.items():
        place = f"create/HostConfig/{name}"
        _fit(host.get(name), _or_null(_list(_ANY_MAP)), place)
        for one in host.get(name) or []:
            _members(one, shapes, place)
    for port, bindings in _map(host, "PortBindings", "create/HostConfig").items():
        place = f"create/HostConfig/PortBindings/{port!s:.60}"
        _fit(bindings, _or_null(_list(_ANY_MAP)), place)
        for binding in bindings or []:
            _members(binding, _PORT, place)
    for name, one in _map(create, "Networks", "create").items():
        place = f"create/Networks/{name!s:.60}"
        _members(_a_map(one, place), {"Driver": _TEXT}, place)
    networking = _map(create, "NetworkingConfig", "create")
    for name, one in _map(networking, "EndpointsConfig", "create/NetworkingConfig").items():
        place = f"create/NetworkingConfig/EndpointsConfig/{name!s:.60}"
        _members(_a_map(one, place), _ENDPOINT, place)
        for part in (one, one.get("IPAMConfig") or {}):
            for member in _ADDRESSES:
                if part.get(member):
                    _address(part[member], f"{place}/{member}")


def _members(of: dict[str, Any], shapes: dict[str, Schema], place: str) -> None:
    for name, schema in shapes.items():
        _fit(of.get(name), _or_null(schema), f"{place}/{name}")


def _map(of: dict[str, Any], name: str, place: str) -> dict[str, Any]:
    value = of.get(name)
    return {} if value is None else _a_map(value, f"{place}/{name}")


def _a_map(value: Any, place: str) -> dict[str, Any]:
    _fit(value, _ANY_MAP, place)
    checked: dict[str, Any] = value
    return checked


def _address(value: Any, place: str) -> None:
    try:
        ipaddress.ip_address(value if isinstance(value, str) else "")
    except ValueError as error:
        raise MessageError(f"description of a container: {place}: {error}") from error


def _fit(value: Any, schema: Schema, place: str) -> None:
    misfit = compiled_schema.misfit(value, schema)
    if misfit is not None:
        raise MessageError(f"description of a container: {place}: {misfit}")
