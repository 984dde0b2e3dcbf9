"""Letting the service manager know that the agent's one loop goes round: it ends and restarts an agent that hangs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable


async def feed(notify: Callable[[str], None]) -> None:
    """Say so three times within what ``WatchdogSec=`` allows, until cancelled; not at all where there is none."""
    within = _watchdog_s()
    while within:
        notify("WATCHDOG=1")
        await asyncio.sleep(within / 3)


def _watchdog_s() -> float:
    """The time within which the service manager wants to hear something; 0: it does not."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    try:
        return max(0, int(os.environ.get("WATCHDOG_USEC", "0"))) / 1e6
    except ValueError:
        return 0.0
