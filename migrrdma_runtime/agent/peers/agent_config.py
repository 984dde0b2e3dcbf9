"""The agent's configuration, ``/etc/migrrdma/agent.toml``.

It is not part of ``config.toml`` because every container start reads that one and pays for what is in it.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from migrrdma_runtime.base import config, gids, paths
from migrrdma_runtime.base.errors import AgentError, ConfigError

DEFAULT_PORT = 50505
MOVER_PORT = 50507
"""The mover's: 50506 are the metrics."""

METRICS = "127.0.0.1:50506"
"""Where metrics are, unless the configuration says otherwise: on the host alone."""

DATABASE = "state.db"
"""In ``state_dir``."""


def _deadline(seconds: float, what: str) -> Any:
    return field(default=seconds, metadata={"what": what})


@dataclass(frozen=True)
class Deadlines:
    """How long anything may take, in seconds."""

    guest: float = _deadline(10, "How long a process of this host may take to answer.")
    peer: float = _deadline(10, "How long another host's agent may take to answer.")
    drain: float = _deadline(30, "How long both ends of all connections may take to drain.")
    reconnect: float = _deadline(
        60,
        "How long a restored process may take to connect to the agent, once the container was restored, "
        "and CRIU to let it go, once that is committed.",
    )
    doubt: float = _deadline(
        60, "How long a destination goes on asking when it cannot learn whether its commit was accepted."
    )
    partner: float = _deadline(
        900,
        "How long a suspended partner waits without a word on its migration before it gives the connection up.",
    )
    turn: float = _deadline(
        60, "How long a checkpoint waits for another migration that its container or a partner takes part in."
    )
    ask: float = _deadline(5, "How often one that hears nothing asks.")


_DEADLINES_TEXT = "\n".join(
    f"# {one.metadata['what']}\n# {one.name} = {one.default}" for one in fields(Deadlines)
)

DEFAULT_TEXT = f"""\
# Configuration of the MigrRDMA agent. Every key is optional; what is commented out is the default.

# Where agents of other hosts reach this one. Default: the addresses in this host's certificate.
# listen = ["192.0.2.11"]
# port = {DEFAULT_PORT}

# Where the movers of other hosts reach the one of this host: on the same addresses.
# mover_port = {MOVER_PORT}

# Where Prometheus finds this agent's metrics, by plain HTTP: whoever can connect there can read them. "" for nowhere.
# metrics = "{METRICS}"

# Where the agent keeps what must outlive it.
# state_dir = "{paths.AGENT_STATE_DIR}"

# Whether a process that has moved is found by what it gave out before (docs/protocol.md, "Late comers"): the same on
# all hosts. Every connection of RC and UC costs a question then.
# late_comers = false

[tls]
# What `migrrdma agent ca issue` made for this host.
# ca = "{paths.TLS_DIR}/ca.crt"
# certificate = "{paths.TLS_DIR}/agent.crt"
# key = "{paths.TLS_DIR}/agent.key"
# The file ca.crl beside the authority's certificate lists those that are not accepted any more; "crl" is another place.

[deadlines]
# In seconds.
{_DEADLINES_TEXT}

[peers]
# Which agent speaks for a GID, where that is not the host whose address the GID is: an address or a prefix,
# and the agent's host and port. What stands here is trusted, whatever the certificate says.
# "198.51.100.0/24" = "192.0.2.13:{DEFAULT_PORT}"
"""
"""What ``migrrdma install`` writes."""

_TEXT = {"type": "string", "minLength": 1}
_SECONDS = {"type": "number", "exclusiveMinimum": 0, "maximum": 1_000_000}
_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "listen": {"type": "array", "items": _TEXT, "minItems": 1},
        "port": {"type": "integer", "minimum": 1, "maximum": 65535},
        "mover_port": {"type": "integer", "minimum": 1, "maximum": 65535},
        "metrics": {"type": "string"},
        "late_comers": {"type": "boolean"},
        "state_dir": {"type": "string", "pattern": "^/"},
        "tls": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                name: {"type": "string", "pattern": "^/"} for name in ("ca", "certificate", "key", "crl")
            },
        },
        "deadlines": {
            "type": "object",
            "additionalProperties": False,
            "properties": {one.name: _SECONDS for one in fields(Deadlines)},
        },
        "peers": {"type": "object", "additionalProperties": _TEXT},
    },
}


@dataclass(frozen=True)
class TLSFiles:
    """The cluster's CA certificate, this host's certificate and key, and the list of those that were revoked."""

    ca: Path = Path(paths.TLS_DIR) / "ca.crt"
    certificate: Path = Path(paths.TLS_DIR) / "agent.crt"
    key: Path = Path(paths.TLS_DIR) / "agent.key"
    crl: Path | None = None

    @property
    def deny_list(self) -> Path:
        """The certificates that the authority has taken back: beside its own, unless told otherwise."""
        return self.crl or self.ca.with_suffix(".crl")


@dataclass(frozen=True)
class AgentConfig:
    """The configuration in force."""

    run_dir: Path = Path(paths.RUN_DIR)
    guest_dir: Path = Path(paths.GUEST_DIR)
    state_dir: Path = Path(paths.AGENT_STATE_DIR)
    listen: tuple[str, ...] = ()
    port: int = DEFAULT_PORT
    mover_port: int = MOVER_PORT
    metrics: str = ""
    """``host:port``; empty: there are none."""
    late_comers: bool = False
    """Whether processes here are told where queue pairs are that have moved, and others of those that are here."""
    tls: TLSFiles = field(default_factory=TLSFiles)
    deadlines: Deadlines = field(default_factory=Deadlines)
    peers: tuple[tuple[str, str], ...] = ()

    @property
    def guest_socket(self) -> Path:
        """Where guests connect."""
        return self.run_dir / paths.GUEST_SOCKET_DIR / paths.GUEST_SOCKET

    @property
    def runtime_socket(self) -> Path:
        """Where the OCI runtime connects; no container sees it."""
        return self.run_dir / paths.RUNTIME_SOCKET

    @property
    def database(self) -> Path:
        """The agent's state."""
        return self.state_dir / DATABASE

    @property
    def outcomes(self) -> Path:
        """Where runtimes say that a dump has succeeded (``wire/dump_outcome.py``)."""
        return self.state_dir / "outcomes"

    @property
    def kept(self) -> Path:
        """Pointers to the images that runtimes have kept (``wire/kept_images.py``)."""
        return self.state_dir / "kept"

    def agent_for(self, gid: str) -> str:
        """``host:port`` of the agent that speaks for a GID: by ``[peers]``, else at the GID's own address."""
        address = gids.address(gid)
        matching = [
            (network.prefixlen, agent)
            for network, agent in ((ipaddress.ip_network(key), agent) for key, agent in self.peers)
            if address.version == network.version and address in network
        ]
        if matching:
            return max(matching)[1]
        if address.is_link_local or address.is_unspecified:
            raise AgentError(
                f"no agent is known for GID {gids.shown(gid)}, which is no address that can be reached: "
                'add it to [peers] in agent.toml, or use a RoCE v2 GID (see "rdma link", show_gids)'
            )
        return join(str(address), self.port)


def join(host: str, port: int) -> str:
    """``host:port``, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def host_of(address: str) -> str:
    """The host of a ``host:port``."""
    return address.rpartition(":")[0].strip("[]")


def path() -> str:
    """The configuration file in force."""
    return os.environ.get("MIGRRDMA_AGENT_CONFIG") or paths.AGENT_CONFIG_FILE


def load() -> AgentConfig:
    """Read it; the directories it shares with the runtime come from the runtime's own."""
    shared, broken = config.load()
    if broken:
        raise broken
    file = path()
    try:
        text = Path(file).read_text(encoding="utf-8")
        found = tomllib.loads(text)
    except FileNotFoundError:
        found = {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: {error}") from error
    return parse(found, file, Path(shared.run_dir), Path(shared.guest_dir))


def parse(found: dict[str, Any], file: str, run_dir: Path, guest_dir: Path) -> AgentConfig:
    """The configuration in a parsed file."""
    if found not in ({}, tomllib.loads(DEFAULT_TEXT)):
        _check(file, found)
    peers = dict(found.get("peers", {}))
    for prefix, agent in peers.items():
        _check_peer(file, prefix, agent)
    for address in found.get("listen", []):
        try:
            ipaddress.ip_address(address)
        except ValueError as error:
            raise ConfigError(f"{file}: listen: {address!r} is not an IP address") from error
    metrics = found.get("metrics", METRICS)
    if metrics:
        _check_metrics(file, metrics)
    tls = {key: Path(value) for key, value in found.get("tls", {}).items()}
    return AgentConfig(
        run_dir=run_dir,
        guest_dir=guest_dir,
        state_dir=Path(found.get("state_dir", paths.AGENT_STATE_DIR)),
        listen=tuple(found.get("listen", ())),
        port=found.get("port", DEFAULT_PORT),
        mover_port=found.get("mover_port", MOVER_PORT),
        metrics=metrics,
        late_comers=found.get("late_comers", False),
        tls=TLSFiles(**{one.name: tls[one.name] for one in fields(TLSFiles) if one.name in tls}),
        deadlines=Deadlines(**found.get("deadlines", {})),
        peers=tuple(peers.items()),
    )


def _check(file: str, found: dict[str, Any]) -> None:
    """Whether the file says what it may; one that nobody has changed need not wait for these imports."""
    import jsonschema
    from jsonschema.exceptions import best_match

    problem = best_match(jsonschema.Draft202012Validator(_SCHEMA).iter_errors(found))
    if problem is not None:
        key = ".".join(str(part) for part in problem.absolute_path)
        raise ConfigError(f"{file}: {key + ': ' if key else ''}{problem.message}")


def _check_metrics(file: str, metrics: str) -> None:
    _, _, port = metrics.rpartition(":")
    try:
        ipaddress.ip_address(host_of(metrics))
    except ValueError as error:
        raise ConfigError(f"{file}: metrics: {metrics!r} is not an IP address and a port") from error
    if not port.isdecimal() or not int(port) < 65536:
        raise ConfigError(f"{file}: metrics: {metrics!r} is not an IP address and a port")


def _check_peer(file: str, prefix: str, agent: str) -> None:
    try:
        ipaddress.ip_network(prefix)
    except ValueError as error:
        raise ConfigError(f"{file}: peers: {error}") from error
    host, _, port = agent.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f'{file}: peers."{prefix}": {agent!r} is not host:port')
