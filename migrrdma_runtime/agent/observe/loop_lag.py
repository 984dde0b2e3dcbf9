"""How late the agent's loop comes to what is due: the one figure that says whether anything keeps it from working."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_PERIOD_S = 1.0


async def watch(late: Callable[[float], None]) -> None:
    """Say once a second by how many seconds the loop was late, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _PERIOD_S
        await asyncio.sleep(_PERIOD_S)
        late(max(0.0, loop.time() - due))
