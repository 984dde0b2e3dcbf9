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

CA_ISSUE_HELP = """Make the certificate of a host's agent, and its key, if that is not to stay on the host.

The addresses are those of the host's RDMA devices (their RoCE v2 GIDs) and the one at which other agents
reach it: of a connection that ends at a GID, only the agent whose certificate names that address may speak.
With --request the key is one that the host has made (migrrdma agent ca request) and never leaves it; name and
addresses are those given here, whatever the request says. Without --out the files are put in place for this very host.

\b
Examples:
  migrrdma agent ca issue src --address 10.78.0.11
  migrrdma agent ca issue dst --address 10.78.0.12 --address 192.0.2.12 --out dst/
  migrrdma agent ca issue peer --address 10.78.0.13 --request peer.csr --out peer/
  scp dst/* root@dst:/etc/migrrdma/tls/
"""

CA_REQUEST_HELP = """Make this host's key, and a request for its certificate: the key stays here.

Where there is a key already, make the new one elsewhere (--out), and move key and certificate into place together when
the certificate is there.

\b
Examples:
  migrrdma agent ca request peer
  migrrdma agent ca request peer --out /etc/migrrdma/tls/next
  scp /etc/migrrdma/tls/agent.csr admin@authority:peer.csr
"""

CA_RENEW_HELP = """Make a host's certificate anew, for the same key, name and addresses.

The one before stays valid until it expires. The agent uses the new one when it is started again, which disturbs no
connection.

\b
Examples:
  migrrdma agent ca renew dst --out dst/
  scp dst/* root@dst:/etc/migrrdma/tls/ && ssh root@dst systemctl restart migrrdma-agent
"""

CA_REVOKE_HELP = """Take a certificate back: that of a host that is gone, or whose key somebody may have read.

It is put on the list ca.crl in the authority's directory. Copy that file to every host's /etc/migrrdma/tls: agents go
by it from the next request on, without being started again.

\b
Examples:
  migrrdma agent ca revoke dst                 every certificate of that host
  migrrdma agent ca revoke 5f3c…               one, by its serial number
  scp /etc/migrrdma/ca/ca.crl root@src:/etc/migrrdma/tls/
"""

CA_LIST_HELP = """List the certificates that the authority has made.

Serial number, host, until when it is valid, whether it was revoked, addresses.

\b
Examples:
  migrrdma agent ca list
  migrrdma agent ca list --json | jq -r '.[] | select(.valid) | [.until, .host] | @tsv' | sort
"""

_CA = typer.Option(paths.CA_DIR, "--ca", metavar="DIR", help="The authority's directory.")
_HOST = typer.Argument(..., metavar="HOST", help="The host's name, as it will stand in messages and logs.")
_ADDRESS = typer.Option(..., "--address", metavar="IP", help="An address of the host; may be repeated.")
_OUT = typer.Option(paths.TLS_DIR, "--out", metavar="DIR", help="Where key and certificates go.")
_DAYS = typer.Option(825, "--days", min=1, max=3650, help="How long the certificate is valid.")
_NAME = typer.Option("migrrdma cluster", "--name", metavar="NAME", help="The authority's name.")
_REQUEST = typer.Option(
    "", "--request", metavar="FILE", help="The host's request; its key stays on the host."
)
_WHO = typer.Argument(..., metavar="HOST|SERIAL", help="A host, or the serial number of one certificate.")
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
    request: str = _REQUEST,
    ca: str = _CA,
    out: str = _OUT,
    days: int = _DAYS,
    as_json: bool = AS_JSON,
) -> None:
    """Issue a certificate."""
    from migrrdma_runtime.agent.peers import authority, certificates

    if request:
        authority.issue_for_request(Path(ca), host, address, Path(request), Path(out), days)
    else:
        certificates.issue(Path(ca), host, address, Path(out), days)
    if as_json:
        document = {"host": host, "addresses": address, "directory": out, "days": days}
        typer.echo(json.dumps(document, indent=2))
        return
    made = "agent.crt" if request else "agent.key, agent.crt"
    typer.echo(f"made {out}/{made}, ca.crt and ca.crl for {host} ({', '.join(address)})")
    _say_where_to(host, out)


def ca_request(host: str = _HOST, out: str = _OUT, as_json: bool = AS_JSON) -> None:
    """Make a key and a certificate request."""
    from migrrdma_runtime.agent.peers import authority

    authority.request(host, Path(out))
    if as_json:
        typer.echo(json.dumps({"host": host, "directory": out, "request": f"{out}/agent.csr"}, indent=2))
        return
    typer.echo(f"made {out}/agent.key, which stays here, and {out}/agent.csr")
    typer.echo(f"Next: migrrdma agent ca issue {host} --address … --request agent.csr, at the authority")


def ca_renew(
    host: str = _HOST, ca: str = _CA, out: str = _OUT, days: int = _DAYS, as_json: bool = AS_JSON
) -> None:
    """Renew a certificate."""
    from migrrdma_runtime.agent.peers import authority

    last = authority.renew(Path(ca), host, Path(out), days)
    if as_json:
        document = {"host": host, "addresses": last.addresses, "directory": out, "days": days}
        typer.echo(json.dumps(document, indent=2))
        return
    typer.echo(f"made {out}/agent.crt anew for {host} ({', '.join(last.addresses)})")
    _say_where_to(host, out)


def ca_revoke(who: str = _WHO, ca: str = _CA, as_json: bool = AS_JSON) -> None:
    """Revoke certificates."""
    from migrrdma_runtime.agent.peers import authority

    found = authority.revoke(Path(ca), who)
    if as_json:
        typer.echo(json.dumps([f"{one.serial:x}" for one in found], indent=2))
        return
    for one in found:
        typer.echo(f"revoked {one.serial:x} of {one.host}, valid until {one.until:%Y-%m-%d}")
    typer.echo(f"Next: copy {ca}/ca.crl to {paths.TLS_DIR} on every host; agents go by it at once")


def ca_list(ca: str = _CA, as_json: bool = AS_JSON) -> None:
    """List certificates."""
    from migrrdma_runtime.agent.peers import authority

    found = authority.issued(Path(ca))
    if as_json:
        document = [
            {
                "serial": f"{one.serial:x}",
                "host": one.host,
                "addresses": one.addresses,
                "until": one.until.isoformat(),
                "revoked": one.revoked,
                "valid": one.is_valid,
            }
            for one in found
        ]
        typer.echo(json.dumps(document, indent=2))
        return
    for one in found:
        state = "revoked" if one.revoked else "valid" if one.is_valid else "expired"
        typer.echo(
            f"{one.serial:040x}  {one.host}  until {one.until:%Y-%m-%d}  {state}  {', '.join(one.addresses)}"
        )


def _say_where_to(host: str, out: str) -> None:
    if out != paths.TLS_DIR:
        typer.echo(f"Next: copy them to {paths.TLS_DIR} on {host} and restart migrrdma-agent there")
