"""Thousands of QPs and a hundred thousand memory regions: it works, and no object costs more for there being many."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from guest_agent import MOVING, PARTNER, PATIENT_S, Agent, Program
from guest_build import Built, compile_c
from guest_moves import GIDS

SMALL, LARGE = (512, 12_500), (4096, 100_000)
SLOPE = 3.0
"""What is eight times as much costs an object eight times as much where a walk over all of them is made for each."""


class Times:
    """Nanoseconds of the program's processor time per object, of every step."""

    def __init__(self, pid: int, qps: int, mrs: int) -> None:
        # CPUCLOCK_SCHED of another process, as clock_getcpuclockid makes it.
        self.clock = ~pid << 3 | 2
        self.objects = {"qp": qps, "mr": mrs, "all": qps + mrs}
        self.per_object: dict[str, float] = {}

    def measure(self, name: str, kind: str, step: Callable[[], object]) -> None:
        begin = time.clock_gettime_ns(self.clock)
        step()
        spent = (time.clock_gettime_ns(self.clock) - begin) / self.objects[kind]
        self.per_object[name] = self.per_object.get(name, 0) + spent

    def told(self, name: str, answer: str) -> None:
        words = answer.split()
        assert len(words) % 2 == 0, answer
        for verb, nanoseconds in zip(words[::2], words[1::2], strict=True):
            self.per_object[f"{name}: {verb}"] = float(nanoseconds)


def run(built: Built, agent: Agent, program: Path, directory: Path, qps: int, mrs: int) -> dict[str, float]:
    environment = {**built.environment, **agent.environment}
    # Executed by whoever posts: the time is the calls' own.
    del environment["FAKE_ASYNC"]
    with Program([program], environment, directory / "log") as scale:
        agent.diagnosis = scale.diagnosis
        times = Times(scale.process.pid, qps, mrs)
        times.told("create", scale.tell(f"create {qps} {mrs}"))
        agent.accept()
        agent.connection.settimeout(120)
        times.told("talk", scale.tell("talk"))
        for turn, devices in enumerate([(0, 1), (1, 0)]):
            name = f"move {turn}"
            times.measure(f"{name}: quiesce", "qp", lambda: agent.quiesce(60000))
            times.measure(f"{name}: park", "all", lambda: agent.ask("PARK"))
            first, second = (c["context"] for c in agent.ask("LIST_CONTEXTS").records)
            for context, device in zip((first, second), devices, strict=True):
                gids = [{"port": 1, "index": 1, "new_port": 1, "new_index": 1}]
                body = {"context": context, "device": f"fake{device}"}
                times.measure(f"{name}: rebuild", "all", partial(agent.ask, "REBUILD", body, gids))
            moved = {first: (GIDS[devices[0]], MOVING), second: (GIDS[devices[1]], PARTNER)}
            times.measure(f"{name}: connect", "qp", partial(agent.connect_all, moved))
            times.measure(f"{name}: keys", "mr", partial(agent.give_keys, first, MOVING))
            times.measure(f"{name}: keys", "mr", partial(agent.give_keys, second, PARTNER))
            times.measure(f"{name}: resume", "all", agent.resume)
            times.told(f"{name}: talk", scale.tell("talk"))
            # Now the device hands out again what the application still knows as its own.
            assert scale.tell(f"numbers {devices[0]}") == "ok"
            times.told(f"{name}: more", scale.tell(f"more {qps // 8}"))
        times.told("end", scale.tell("end"))
        assert scale.process.wait(PATIENT_S) == 0
    return times.per_object


def measured(built: Built, program: Path, directory: Path, qps: int, mrs: int) -> dict[str, float]:
    directory.mkdir()
    with Agent(directory) as agent:
        return run(built, agent, program, directory, qps, mrs)


def test_no_object_costs_more_for_there_being_many(built: Built, tmp_path: Path) -> None:
    program = tmp_path / "scale"
    compile_c(program, Path(__file__).with_name("scale.c"), "-libverbs")
    steep: dict[str, str] = {}
    for attempt in range(4):
        small, large = (
            measured(built, program, tmp_path / f"{attempt}-{qps}", qps, mrs) for qps, mrs in (SMALL, LARGE)
        )
        for step, ns in large.items():
            print(f"{step:28}{small[step]:10.0f} ns{ns:10.0f} ns  x {ns / max(small[step], 1):.2f}")
        # A few hundred nanoseconds more are what caches cost.
        found = {s: f"{small[s]:.0f} {large[s]:.0f}" for s in large if large[s] > SLOPE * small[s] + 500}
        # What others do on the machine makes one step or another slow; a walk over everything is there every time.
        steep = {s: f"{steep[s]}, {t}" for s, t in found.items() if s in steep} if attempt else found
        if not steep:
            break
    assert not steep
