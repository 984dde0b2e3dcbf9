"""An agent's metrics, as Prometheus reads them."""

from __future__ import annotations

from migrrdma_lab.shell import Shell

_ADDRESS = "http://127.0.0.1:50506/metrics"
_READ = f"from urllib.request import urlopen; print(urlopen('{_ADDRESS}', timeout=10).read().decode())"


def metrics(shell: Shell) -> dict[str, float]:
    """All samples of a node's agent, as they are at one moment."""
    lines = shell.run("python3", "-c", _READ).stdout.splitlines()
    samples = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
    return {sample: float(value) for sample, _, value in samples}


def metric(shell: Shell, sample: str) -> float:
    """One of them."""
    return metrics(shell)[sample]
