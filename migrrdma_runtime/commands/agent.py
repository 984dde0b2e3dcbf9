"""``migrrdma agent``: run the host agent, and make the certificates by which agents know each other."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from migrrdma_runtime.base import paths
from migrrdma_runtime.commands.options import AS_JSON, require_root

GROUP_HELP = "The host agent, and the certificates by which agents know each other."

RUN_HELP = """Run the host agent in the foreground, until SIGTERM; systemd does this.

It listens for the processes of this host, for the OCI runtime, and on the addresses of its certificate for
the agents of other hosts. Stopping or restarting it disturbs no connection and loses no migration. It ends
with 78 if starting it again would not help: no certificate, or a mistake in the configuration.

\b
Examples:
  systemctl enable --now migrrdma-agent
  MIGRRDMA_LOG=debug migrrdma agent run
"""

CA_INIT_HELP = """Make the cluster's certificate authority, on one machine, once.

Whoever has its key can make agents that the others trust: keep the directory where only administrators get.

\b
Example:
  migrrdma agent ca init
"""

CA_ISSUE_HELP = """Make the key and certificate of a host's agent.

The addresses are those of the host's RDMA devices (their RoCE v2 GIDs) and the one at which other agents
reach it: of a connection that ends at a GID, only the agent whose certificate names that address may speak.
Without --out they are put in place for this very host.

\b
Examples:
  migrrdma agent ca issue src --address 10.78.0.11
  migrrdma agent ca issue dst --address 10.78.0.12 --address 192.0.2.12 --out dst/
  scp dst/* root@dst:/etc/migrrdma/tls/
"""

_CA = typer.Option(paths.CA_DIR, "--ca", metavar="DIR", help="The authority's directory.")
_HOST = typer.Argument(..., metavar="HOST", help="The host's name, as it will stand in messages and logs.")
_ADDRESS = typer.Option(..., "--address", metavar="IP", help="An address of the host; may be repeated.")
_OUT = typer.Option(paths.TLS_DIR, "--out", metavar="DIR", help="Where key and certificates go.")
_DAYS = typer.Option(825, "--days", min=1, max=3650, help="How long the certificate is valid.")
_NAME = typer.Option("migrrdma cluster", "--name", metavar="NAME", help="The authority's name.")
_LOG = typer.Option("info", "--log-level", envvar="MIGRRDMA_LOG", help="debug, info, warning or error.")

_LOG_FORMAT = typer.Option(
    "text", "--log-format", envvar="MIGRRDMA_LOG_FORMAT", help="text, or json: one object to a line."
)


def run(log_level: str = _LOG, log_format: str = _LOG_FORMAT) -> None:
    """Run the agent."""
    from migrrdma_runtime.agent import process
    from migrrdma_runtime.agent.observe.log_format import FORMATS

    require_root("migrrdma agent run")
    if log_format not in FORMATS:
        raise typer.BadParameter(f"{log_format!r} is none of {', '.join(FORMATS)}")
    if log_level.lower() not in process.LOG_LEVELS:
        raise typer.BadParameter(f"{log_level!r} is none of {', '.join(process.LOG_LEVELS)}")
    raise typer.Exit(process.main(log_level, log_format))


def ca_init(ca: str = _CA, name: str = _NAME, as_json: bool = AS_JSON) -> None:
    """Make the authority."""
    import socket

    from migrrdma_runtime.agent.peers import certificates

    certificates.make_ca(Path(ca), name)
    if as_json:
        typer.echo(json.dumps({"directory": ca, "name": name}, indent=2))
        return
    typer.echo(f"made the authority in {ca}: keep {ca}/ca.key secret")
    typer.echo(f"Next: migrrdma agent ca issue {socket.gethostname()} --address … for each host")


def ca_issue(
    host: str = _HOST,
    address: list[str] = _ADDRESS,
    ca: str = _CA,
    out: str = _OUT,
    days: int = _DAYS,
    as_json: bool = AS_JSON,
) -> None:
    """Issue a certificate."""
    from migrrdma_runtime.agent.peers import certificates

    certificates.issue(Path(ca), host, address, Path(out), days)
    if as_json:
        document = {"host": host, "addresses": address, "directory": out, "days": days}
        typer.echo(json.dumps(document, indent=2))
        return
    typer.echo(f"made {out}/agent.key, agent.crt and ca.crt for {host} ({', '.join(address)})")
    if out != paths.TLS_DIR:
        typer.echo(f"Next: copy them to {paths.TLS_DIR} on {host} and restart migrrdma-agent there")
