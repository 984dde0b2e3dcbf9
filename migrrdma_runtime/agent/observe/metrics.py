"""The agent's metrics, for Prometheus: docs/operations.md has them in a table, with the alerts that are worth having.

Everything is counted in the agent's own thread when it happens; the HTTP server, a thread of its own, only reads.
Whatever a container or another host can choose (names, reasons) is no label: a label's values are ours.
"""

from __future__ import annotations

import socket
import threading
from http.server import ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import MetricsHandler

from migrrdma_runtime.agent.roles.records import AnyRecord, DestinationData, PartnerData
from migrrdma_runtime.agent.roles.states import TRANSITIONS, Role, State
from migrrdma_runtime.agent.roles.store import Change
from migrrdma_runtime.base.errors import MigrRDMAError

_STEP_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_LAG_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30)

MOST_SCRAPES = 8
"""At once: whoever reaches the port can have so many threads of the agent wait for it, and no more."""

SILENT_S = 10.0
"""After so long without a word a connection ends: it keeps no thread."""

_STEPS = (
    "suspend",
    "drain",
    "dump",
    "claim",
    "restore",
    "reconnect",
    "rebuild",
    "connect",
    "commit",
    "switch",
)
"""The agent's own steps. What the runtime measures besides has names of its choice, and counts as ``other``."""


class Metrics:
    """The figures of one agent."""

    def __init__(self, name: str, version: str, records: list[AnyRecord]) -> None:
        self.registry = registry = CollectorRegistry()
        labels = ("role", "state")
        Info("migrrdma_agent", "This host's agent.", registry=registry).info(
            {"name": name, "version": version}
        )
        self._waiting = Gauge(
            "migrrdma_migrations",
            "Migrations in a state that somebody is waited for in.",
            labels,
            registry=registry,
        )
        self._since = Gauge(
            "migrrdma_migration_since_timestamp_seconds",
            "When the migration that has been in this state longest came to it, in seconds since 1970; 0: none is.",
            labels,
            registry=registry,
        )
        self._transitions = Counter(
            "migrrdma_transitions", "Changes of a migration's state.", labels, registry=registry
        )
        self._steps = Histogram(
            "migrrdma_step_seconds", "How long a step took.", ("step",), buckets=_STEP_S, registry=registry
        )
        self._blackout = Histogram(
            "migrrdma_blackout_seconds",
            "For how long the sends of a partner of this host were kept back.",
            buckets=_STEP_S,
            registry=registry,
        )
        self._downtime = Histogram(
            "migrrdma_downtime_seconds",
            "From the begin of a dump to the end of its restore on this host.",
            buckets=_STEP_S,
            registry=registry,
        )
        self._refusals = Counter(
            "migrrdma_refusals",
            "Requests that were not carried out.",
            ("operation", "reason"),
            registry=registry,
        )
        self._lag = Histogram(
            "migrrdma_loop_lag_seconds",
            "How late the agent's loop came to what was due, looked at once a second.",
            buckets=_LAG_S,
            registry=registry,
        )
        self._guests = Gauge(
            "migrrdma_guests", "Processes that are connected to the agent.", registry=registry
        )
        self._unsettled: dict[tuple[str, Role], tuple[State, float]] = {}
        for role, states in TRANSITIONS.items():
            for state in states:
                self._transitions.labels(role.value, state.value)
                self._show(role, state)
        for record in records:
            self._note(record)

    def changed(self, change: Change) -> None:
        """Count what is new of a record."""
        record = change.record
        for step in change.new_steps:
            name = step["name"] if step["name"] in _STEPS else "other"
            self._steps.labels(name).observe(step["seconds"])
        data = record.data
        if change.before is not record.state:
            self._transitions.labels(record.role.value, record.state.value).inc()
            if isinstance(data, PartnerData) and record.state is State.SWITCHED and data.blackout is not None:
                self._blackout.observe(data.blackout)
        if (
            isinstance(data, DestinationData)
            and data.downtime
            and any(step["name"] == "switch" for step in change.new_steps)
        ):
            self._downtime.observe(data.downtime)
        self._note(record)

    def refused(self, operation: str, error: MigrRDMAError) -> None:
        """Count a request that was not carried out, by the kind of error."""
        self._refusals.labels(operation, type(error).__name__.removesuffix("Error").lower()).inc()

    def looked(self, lag: float, guests: int) -> None:
        """Note how late the loop was, in seconds, and how many processes are connected."""
        self._lag.observe(lag)
        self._guests.set(guests)

    def _note(self, record: AnyRecord) -> None:
        key = record.id, record.role
        old = self._unsettled.pop(key, None)
        if not record.is_settled:
            since = old[1] if old is not None and old[0] is record.state else record.updated
            self._unsettled[key] = record.state, since
        for state in {record.state, old[0] if old else record.state}:
            self._show(record.role, state)

    def _show(self, role: Role, state: State) -> None:
        since = [when for (_, of), (now, when) in self._unsettled.items() if of is role and now is state]
        self._waiting.labels(role.value, state.value).set(len(since))
        self._since.labels(role.value, state.value).set(min(since, default=0))


class Server:
    """Answers scrapes, in threads of its own."""

    def __init__(self, metrics: Metrics, address: tuple[str, int]) -> None:
        handler: Any = MetricsHandler.factory(metrics.registry)
        handler.timeout = SILENT_S
        self._server = _server_class(address[0])(address, handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _server_class(host: str) -> type[ThreadingHTTPServer]:
    slots = threading.BoundedSemaphore(MOST_SCRAPES)

    class Listening(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        daemon_threads = True
        block_on_close = False

        def process_request(self, request: Any, client_address: Any) -> None:
            if slots.acquire(blocking=False):
                super().process_request(request, client_address)
            else:
                self.shutdown_request(request)

        def process_request_thread(self, request: Any, client_address: Any) -> None:
            try:
                super().process_request_thread(request, client_address)
            finally:
                slots.release()

    return Listening
