"""The mover as a process: one on a host, an exit code that systemd understands."""

from __future__ import annotations

import asyncio
import signal
import sys

from migrrdma_runtime.agent.observe import log_format
from migrrdma_runtime.agent.peers import agent_config
from migrrdma_runtime.agent.peers.agent_config import AgentConfig
from migrrdma_runtime.agent.process import LOG_LEVELS, NOT_CONFIGURED, alone, notify_service_manager
from migrrdma_runtime.base import config
from migrrdma_runtime.base.config import Config
from migrrdma_runtime.base.errors import CertificateError, ConfigError, MigrRDMAError
from migrrdma_runtime.mover.daemon import Daemon

_LOCK = "mover.lock"


def main(log_level: str, log_form: str = "text") -> int:
    """Run until SIGTERM or SIGINT; the exit code."""
    try:
        if log_level.lower() not in LOG_LEVELS:
            raise ConfigError(f"MIGRRDMA_LOG: {log_level!r} is none of {', '.join(LOG_LEVELS)}")
        log_format.set_up(log_level, log_form)
        shared, broken = config.load()
        if broken:
            raise broken
        found = agent_config.load()
        with alone(found.run_dir, _LOCK, "mover"):
            asyncio.run(_run(found, shared))
    except MigrRDMAError as error:
        print(f"migrrdma: error: {error}", file=sys.stderr)
        return NOT_CONFIGURED if isinstance(error, CertificateError | ConfigError) else 1
    return 0


async def _run(found: AgentConfig, shared: Config) -> None:
    daemon = Daemon(found, shared)  # gRPC's server is its loop's
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, stopped.set)
    await daemon.start()
    notify_service_manager("READY=1")
    try:
        await stopped.wait()
    finally:
        notify_service_manager("STOPPING=1")
        await daemon.stop()
