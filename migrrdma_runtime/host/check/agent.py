"""The host agent: it runs, and other agents will know it."""

from __future__ import annotations

import datetime

from migrrdma_runtime.base import config, paths
from migrrdma_runtime.base.errors import CertificateError, MigrRDMAError
from migrrdma_runtime.host.check.result import Machine, Result, ok, warning

_START = (
    "`journalctl -u migrrdma-agent` says why; then systemctl reset-failed migrrdma-agent; "
    "systemctl enable --now migrrdma-agent"
)
"""After ten attempts systemd has given it up (see its unit), and refuses to start it until it is told to forget."""

_ISSUE = "migrrdma agent ca issue HOST --address IP, on the machine that holds the cluster's authority"
_SOON = datetime.timedelta(days=30)


def certificate(machine: Machine) -> Result:
    """The certificate is there and will be valid for a while."""
    from cryptography import x509

    path = machine.host.path(f"{paths.TLS_DIR}/agent.crt")
    if not path.exists():
        return warning(f"{paths.TLS_DIR}/agent.crt is missing: the agent cannot run", _ISSUE)
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        return warning(f"{paths.TLS_DIR}/agent.crt is no certificate: {error}", _ISSUE)
    # cryptography 42 brought the aware name; 38 (Debian 12) knows the naive one, which 42 warns of.
    end = getattr(found, "not_valid_after_utc", None) or found.not_valid_after.replace(tzinfo=datetime.UTC)
    if end - datetime.datetime.now(datetime.UTC) < _SOON:
        return warning(f"{paths.TLS_DIR}/agent.crt ends on {end:%Y-%m-%d}", _ISSUE)
    if damage := _damage_of_the_list(machine):
        return warning(
            f"{damage}: an agent that starts neither asks nor answers another one",
            f"copy ca.crl from the directory of the cluster's authority to {paths.TLS_DIR}/ca.crl",
        )
    return ok(f"the agent's certificate is valid until {end:%Y-%m-%d}")


def _damage_of_the_list(machine: Machine) -> str:
    """What is wrong with the list of revoked certificates; empty: nothing, or there is no authority to judge it by."""
    from cryptography import x509

    from migrrdma_runtime.agent.peers import deny_list

    authority, listed = (machine.host.path(f"{paths.TLS_DIR}/{name}") for name in ("ca.crt", "ca.crl"))
    if not authority.exists():
        return ""
    try:
        deny_list.read(listed, x509.load_pem_x509_certificate(authority.read_bytes()))
    except ValueError as error:
        return f"{authority} is no certificate ({error})"
    except CertificateError as error:
        return str(error)
    return ""


def service(_machine: Machine) -> Result:
    """It answers."""
    from migrrdma_runtime.wire import runtime_client

    configured, _ = config.load()
    try:
        with runtime_client.connect(configured.run_dir) as agent:
            found = agent.status()
    except MigrRDMAError as error:
        return warning(f"{error}; ordinary containers are not affected", _START)
    return ok(f"agent {found['agent']['name']} answers at {found['agent']['address']}")
