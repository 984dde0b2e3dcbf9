"""What an agent did not expect: errors that are none of ours, in its log or in its loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from migrrdma_runtime.base.errors import MigrRDMAError


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.errors: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] and not isinstance(record.exc_info[1], MigrRDMAError):
            self.errors.append(record.exc_info[1])


@contextmanager
def unexpected_errors() -> Iterator[list[BaseException]]:
    """Those that come up meanwhile; to be asked for within a loop."""
    kept, loop, logger = _Kept(), asyncio.get_running_loop(), logging.getLogger("migrrdma_runtime")

    def note(_loop: Any, context: dict[str, Any]) -> None:
        kept.errors.append(context.get("exception") or RuntimeError(context["message"]))

    logger.addHandler(kept)
    loop.set_exception_handler(note)
    try:
        yield kept.errors
    finally:
        logger.removeHandler(kept)
        loop.set_exception_handler(None)
