"""The agent as a process: alone on its host, its sockets first, and an exit code that systemd understands."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from migrrdma_runtime.agent import watchdog
from migrrdma_runtime.agent.local.containers import Containers
from migrrdma_runtime.agent.local.local_sockets import LocalSockets
from migrrdma_runtime.agent.observe import log_format
from migrrdma_runtime.agent.peers import agent_config
from migrrdma_runtime.agent.peers.agent_config import AgentConfig
from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import AgentError, CertificateError, ConfigError, MigrRDMAError

if TYPE_CHECKING:
    from migrrdma_runtime.agent.daemon import Daemon

NOT_CONFIGURED = 78
"""``EX_CONFIG``: starting it again would not help. The unit's ``RestartPreventExitStatus``."""

LOG_LEVELS = ("debug", "info", "warning", "error")

_LOCK = "agent.lock"


def main(log_level: str, log_form: str = "text") -> int:
    """Run until SIGTERM or SIGINT; the exit code."""
    try:
        if log_level.lower() not in LOG_LEVELS:
            raise ConfigError(f"MIGRRDMA_LOG: {log_level!r} is none of {', '.join(LOG_LEVELS)}")
        if log_form not in log_format.FORMATS:
            raise ConfigError(f"MIGRRDMA_LOG_FORMAT: {log_form!r} is none of {', '.join(log_format.FORMATS)}")
        log_format.set_up(log_level, log_form)
        config = agent_config.load()
        with alone(config.run_dir, _LOCK, "agent"):
            asyncio.run(_run(config))
    except MigrRDMAError as error:
        print(f"migrrdma: error: {error}", file=sys.stderr)
        return NOT_CONFIGURED if isinstance(error, CertificateError | ConfigError) else 1
    return 0


async def _run(config: AgentConfig) -> None:
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, stopped.set)
    local = LocalSockets(Containers(config.run_dir), config.run_dir, answers=config.late_comers)
    await local.listen()
    daemon: Daemon | None = None
    try:
        imported = asyncio.ensure_future(asyncio.to_thread(_the_rest))
        stop = asyncio.ensure_future(stopped.wait())
        await asyncio.wait((imported, stop), return_when=asyncio.FIRST_COMPLETED)
        if not stopped.is_set():
            daemon = (await imported)(config, local=local)
            await daemon.start()
            notify_service_manager("READY=1")
            fed = asyncio.ensure_future(watchdog.feed(notify_service_manager))
            await stop
            fed.cancel()
        notify_service_manager("STOPPING=1")
    finally:
        await (daemon.stop() if daemon is not None else local.close())


def _the_rest() -> type[Daemon]:
    """Import everything else, in a thread, while guests are greeted."""
    from migrrdma_runtime.agent.daemon import Daemon

    return Daemon


@contextlib.contextmanager
def alone(run_dir: Path, name: str, what: str) -> Iterator[None]:
    """Keep a second one from taking this one's sockets, for as long as this process lives."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        run_dir.chmod(paths.RUN_DIR_MODE)
        with (run_dir / name).open("a+") as lock:
            # Whatever our umask is, and was when it was made: who may open it may lock it, and no agent would start.
            os.fchmod(lock.fileno(), 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.seek(0)
                raise AgentError(
                    f"there is one {what} on this host already, process {lock.read().strip() or '?'} "
                    f"({run_dir / name}): stop that one, or restart it by `systemctl restart migrrdma-{what}`"
                ) from error
            lock.truncate(0)
            print(os.getpid(), file=lock, flush=True)
            yield
    except OSError as error:
        raise AgentError(f"{error.filename or run_dir}: {error.strerror}") from error


def notify_service_manager(state: str) -> None:
    """Tell systemd, if it asked to be told: one datagram, and so no dependency.

    (`sdnotify`, which Debian has, has had no release since 2017; `systemd-python` brings libsystemd for these lines.)
    """
    path = os.environ.get("NOTIFY_SOCKET")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out, contextlib.suppress(OSError):
            out.sendto(state.encode(), "\0" + path[1:] if path.startswith("@") else path)
