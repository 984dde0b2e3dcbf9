"""Python packages that the agent and the command line can do without, and what is lost then."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from migrrdma_runtime.host.check.result import Machine, Result, ok, warning


def _without(module: str, package: str, lost: str) -> Callable[[Machine], Result]:
    """A check that looks for a module where this command runs; the agent runs by the same Python."""

    def look(_machine: Machine) -> Result:
        # Found and not imported: pyverbs takes its time, and loads libibverbs.
        if importlib.util.find_spec(module) is not None:
            return ok(f"{module} is there")
        return warning(
            f"{module} is not there: {lost}",
            f"apt install {package}; in a virtual environment, make it with --system-site-packages",
        )

    return look


pyverbs = _without(
    "pyverbs",
    "python3-pyverbs",
    "the limits of devices are not compared, so a container that holds more than the new host's device can is refused "
    "while it is rebuilt and not before",
)
python_ptrace = _without(
    "ptrace",
    "python3-ptrace",
    "`migrrdma inspect` cannot say where the threads of a process are, nor can the error of a deadline that passed",
)
prometheus_client = _without(
    "prometheus_client", "python3-prometheus-client", "the agent offers no metrics; it logs all the same"
)
