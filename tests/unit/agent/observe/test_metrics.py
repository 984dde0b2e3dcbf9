"""What happens to migrations is counted, and a scraper can read it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cluster import Cluster, Host
from guest_process import PATIENT_S
from moves import Move
from prometheus_client.parser import text_string_to_metric_families
from records import source_data

from migrrdma_runtime.agent.observe.metrics import MOST_SCRAPES, SILENT_S, Metrics, Server
from migrrdma_runtime.agent.roles.states import State
from migrrdma_runtime.agent.roles.store import Store
from migrrdma_runtime.base.errors import MigrRDMAError

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]
Figures = dict[tuple[str, ...], float]

MONITORING = Path(__file__).parents[4] / "monitoring"
OPERATIONS = Path(__file__).parents[4] / "docs/operations.md"


def figures(text: str) -> Figures:
    """Every sample, by its name and the values of its labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(port: int) -> Figures:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENT_S) as answer:
        return figures(answer.read().decode())


async def scrape_of(host: Host) -> Figures:
    async with asyncio.timeout(PATIENT_S):
        while host.daemon is None or host.daemon.metrics_port is None:
            await asyncio.sleep(0.02)  # offered some time after the start; nothing tells of it
    return await asyncio.to_thread(scrape, host.daemon.metrics_port)


async def observed(host: Host) -> None:
    """Have its next agent offer metrics, at a port of the kernel's choice."""
    host.config = replace(host.config, metrics="127.0.0.1:0")
    await host.restart()
    await scrape_of(host)


def test_a_move_is_counted_at_all_three_hosts(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        for host in (move.src, move.dst, move.peer):
            await observed(host)
        await move.checkpoint()
        waiting = await scrape_of(move.src)
        assert waiting["migrrdma_migrations", "source", "parked"] == 1
        assert waiting["migrrdma_migration_since_timestamp_seconds", "source", "parked"] > 1e9
        assert waiting["migrrdma_step_seconds_count", "drain"] == 1
        await move.restore()
        async with asyncio.timeout(PATIENT_S):
            while move.src.state() != {"source": "done"}:
                await asyncio.sleep(0.02)  # the agent's own state
        source, restored, partner = [await scrape_of(one) for one in (move.src, move.dst, move.peer)]
        assert source["migrrdma_migrations", "source", "parked"] == 0
        assert source["migrrdma_migration_since_timestamp_seconds", "source", "parked"] == 0
        assert source["migrrdma_transitions_total", "source", "committed"] == 1
        assert source["migrrdma_step_seconds_count", "drain"] == 1
        assert restored["migrrdma_downtime_seconds_count",] == 1
        assert restored["migrrdma_step_seconds_count", "rebuild"] == 1
        assert ("migrrdma_step_seconds_count", "drain") not in restored  # that was the source's
        assert partner["migrrdma_blackout_seconds_count",] == 1
        assert partner["migrrdma_transitions_total", "partner", "switched"] == 1

    play(scenario)


def test_refusals_are_counted_by_their_reason(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await observed(move.src)
        await observed(move.peer)
        await move.partner.tell("fault QUIESCE the other end is slow")
        with pytest.raises(MigrRDMAError):
            await move.checkpoint()
        assert (await scrape_of(move.src))["migrrdma_refusals_total", "checkpoint", "drain"] == 1
        assert (await scrape_of(move.peer))["migrrdma_refusals_total", "drain", "drain"] == 1

    play(scenario)


def test_the_loops_lag_and_the_guests_are_looked_at(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await observed(move.src)
        async with asyncio.timeout(PATIENT_S):
            while not (await scrape_of(move.src))["migrrdma_loop_lag_seconds_count",]:
                await asyncio.sleep(0.1)  # looked at once a second
        assert (await scrape_of(move.src))["migrrdma_guests",] == 1

    play(scenario)


def test_an_address_that_somebody_else_has_costs_the_metrics_only(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        server = Server(Metrics("other", "0", []), ("127.0.0.1", 0))
        move.src.config = replace(move.src.config, metrics=f"127.0.0.1:{server.port}")
        await move.src.restart()
        async with asyncio.timeout(PATIENT_S):
            while "no metrics: cannot listen on" not in caplog.text:
                await asyncio.sleep(0.02)  # logged some time after the start
        await move.checkpoint()
        await move.restore()
        await move.both_go_on_after_the_move()
        await asyncio.to_thread(server.close)

    play(scenario)


def test_whoever_only_connects_is_given_so_many_threads_and_no_more() -> None:
    server = Server(Metrics("src", "0", []), ("127.0.0.1", 0))
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(MOST_SCRAPES)]
    # At once, and not when the first of them have been silent for too long.
    with socket.create_connection(("127.0.0.1", server.port), timeout=SILENT_S / 2) as one_more:
        assert one_more.recv(1) == b""
    assert sum("process_request_thread" in one.name for one in threading.enumerate()) <= MOST_SCRAPES
    for one in idle:
        one.close()
    deadline = time.monotonic() + PATIENT_S
    while True:  # until its threads have seen that they may end
        try:
            assert scrape(server.port)
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    server.close()


def test_what_a_former_agent_left_is_there_at_once_and_goes_when_it_is_settled() -> None:
    store = Store(":memory:")
    record = store.begin("m", source_data())
    store.move(record, State.DUMPING)
    store.move(record, State.PARKED)
    metrics = Metrics("src", "0", store.every())
    store.watch(metrics.changed)
    value = metrics.registry.get_sample_value
    labels = {"role": "source", "state": "parked"}
    assert value("migrrdma_migrations", labels) == 1
    assert value("migrrdma_migration_since_timestamp_seconds", labels) == record.updated
    store.note(record, pending=[])
    assert value("migrrdma_migration_since_timestamp_seconds", labels) < record.updated  # type: ignore[operator]
    store.move(record, State.ABANDONED, pending=["0" * 16])
    assert value("migrrdma_migrations", labels) == 0
    assert value("migrrdma_migrations", {"role": "source", "state": "abandoned"}) == 1
    store.note(record, pending=[])
    assert value("migrrdma_migrations", {"role": "source", "state": "abandoned"}) == 0
    store.close()


def test_a_watcher_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    store = Store(":memory:")
    store.watch(lambda _: 1 / 0)  # type: ignore[arg-type]
    record = store.begin("m", source_data())
    store.move(record, State.DUMPING)
    assert record.state is State.DUMPING
    assert "ZeroDivisionError" in caplog.text
    store.close()


# --- what is monitored -------------------------------------------------------------------------------------


def _offered() -> set[str]:
    metrics = Metrics("src", "0", [])
    names = set()
    for family in metrics.registry.collect():
        suffixes = {
            "counter": ("_total",),
            "histogram": ("_bucket", "_sum", "_count"),
            "info": ("_info",),
        }.get(family.type, ("",))
        names |= {family.name + suffix for suffix in suffixes}
    return names


@pytest.mark.parametrize("file", ["alerts.yml", "grafana-dashboard.json"])
def test_what_alerts_and_dashboard_ask_for_is_offered(file: str) -> None:
    asked = set(re.findall(r"\bmigrrdma_\w+", (MONITORING / file).read_text()))
    assert asked
    assert asked <= _offered()


def test_every_metric_and_every_alert_is_in_the_manual() -> None:
    text = OPERATIONS.read_text()
    described = set(re.findall(r"^\| `(migrrdma_\w+?)`", text, re.M))
    suffixes = {"counter": "_total", "info": "_info"}
    assert described == {
        one.name + suffixes.get(one.type, "") for one in Metrics("src", "0", []).registry.collect()
    }
    for alert in re.findall(r"alert: (\w+)", (MONITORING / "alerts.yml").read_text()):
        assert f"| `{alert}` |" in text


def test_the_dashboard_is_one_that_grafana_can_import() -> None:
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    assert dashboard["title"]
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert {"title", "type", "gridPos", "targets", "datasource"} <= panel.keys()
        assert all(target["expr"] for target in panel["targets"])
