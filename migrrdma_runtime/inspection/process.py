"""What a process with RDMA is doing, whether or not it answers; and the one thing about it that matters most."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from migrrdma_runtime.base import kernel_file
from migrrdma_runtime.base.errors import InspectionError
from migrrdma_runtime.inspection.memory import Memory, places
from migrrdma_runtime.inspection.threads import STATES, KernelThread, threads_of

_MOST_LINKS = 1 << 17
"""Elements of one list that are followed: a list that is being changed, or that lies, may have no end."""
_MOST_REASONS = 64
_NAME = 64

_PROCESS_STATES = {1: "running", 2: "quiescing", 3: "quiesced", 4: "parked", 5: "rebuilt"}
_QP_STATES = ("RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR")
_MARKERS = ("none", "wanted", "posted", "done", "failed")
_CONTROL_THREAD = "migrrdma"
"""What the guest calls its own (``MIG_THREAD_NAME`` in ``guest/wire/control.h``)."""

Places = dict[str, int]


@dataclass(frozen=True)
class Thread:
    """A thread: where the kernel has it, and where the guest library has it."""

    tid: int
    name: str
    state: str
    syscall: str
    verb: str = ""
    """The verb that it is in; not a call of the data path."""
    seconds: float = 0.0
    """For how long it has been in the verb."""
    waits: bool = False
    """For the process to be moved, or a quiesce to begin, before the verb may."""
    inside: bool = False
    """In a call of the data path: posting or polling."""

    def __str__(self) -> str:
        """In one line."""
        where = [self.state + (f", in {self.syscall}" if self.syscall else "")]
        if self.verb:
            what = "has waited to begin" if self.waits else "has been in"
            where.append(f"{what} {self.verb} for {self.seconds:.0f} s")
        if self.inside:
            where.append("inside a call that posts or polls")
        return f"thread {self.tid} ({self.name}): {'; '.join(where)}"


@dataclass(frozen=True)
class QueuePair:
    """A queue pair, as the guest library has it."""

    context: int
    device: str
    number: int
    state: str
    peer: int
    """The number of the other end, on the network."""
    quiesced: bool
    marker: str
    """How far the drain has come: ``posted``: what was sent before it has not all come back."""
    broken: bool
    """A completion with an error was seen."""
    kept: int
    """Sends that were kept back."""
    receives: int
    """Receives that were posted and not seen to complete."""

    def __str__(self) -> str:
        """In one line."""
        parts = [f"{self.state}, to QP {self.peer:#x}", f"{self.receives} receives posted"]
        if self.quiesced:
            drained = {"posted": "its sends have not come back", "done": "drained"}
            parts.append(
                f"quiesced, {drained.get(self.marker, f'marker {self.marker}')}, {self.kept} sends kept"
            )
        if self.broken:
            parts.append("has failed")
        return f"QP {self.number:#x} on {self.device}: {'; '.join(parts)}"


@dataclass(frozen=True)
class Process:
    """The whole."""

    pid: int
    state: str
    """Of the guest library; empty: there is none."""
    reasons: list[str] = field(default_factory=list)
    queue_pairs: list[QueuePair] = field(default_factory=list)
    threads: list[Thread] = field(default_factory=list)

    def stall(self) -> str:
        """The one thing that most likely keeps it from answering; empty: nothing is to be seen."""
        stopped = [one for one in self.threads if one.state.startswith("stopped")]
        if stopped:
            return f"thread {stopped[0].tid} is {stopped[0].state}"
        in_verbs = [one for one in self.threads if one.verb and not one.waits]
        if in_verbs:
            one = max(in_verbs, key=lambda each: each.seconds)
            return f"thread {one.tid} has been in {one.verb} for {one.seconds:.0f} s"
        inside = [one for one in self.threads if one.inside]
        if inside:
            call = f", in {inside[0].syscall}" if inside[0].syscall else ""
            return f"thread {inside[0].tid} is inside a call that posts or polls{call}"
        stuck = [one for one in self.queue_pairs if one.quiesced and one.marker in ("wanted", "posted")]
        if stuck:
            more = f", and {len(stuck) - 1} more" if len(stuck) > 1 else ""
            return f"QP {stuck[0].number:#x}{more}: its sends have not come back: does the other end post receives?"
        control = next((one for one in self.threads if one.name == _CONTROL_THREAD), None)
        if self.state and control is None:
            return "its control thread is not there"
        return ""


def look_into(pid: int) -> Process:
    """Read everything. Raises `InspectionError` where that is not allowed, or the process has ended."""
    kernel = threads_of(pid)
    if not kernel:
        raise InspectionError(f"there is no process {pid}")
    with Memory(pid) as memory:
        at = places(pid, memory)
        if at is None:
            return Process(pid, "", threads=[_thread(one, {}) for one in kernel])
        try:
            words = _words(pid, memory, at)
            process = at["process"]
            number = memory.number(process + at["process.state"])
            count = min(memory.number(process + at["process.reasons"]), _MOST_REASONS)
            reason = process + at["process.reason"]
            size = min(at["reason.size"], 4096)
            return Process(
                pid,
                _PROCESS_STATES.get(number, f"state {number}"),
                [memory.text(reason + each * size, size) for each in range(count)],
                list(_queue_pairs(memory, at)),
                [_thread(one, words) for one in kernel],
            )
        except KeyError as error:
            raise InspectionError(
                f"the guest library of process {pid} does not say where {error} is"
            ) from error


def stall_of(pid: int) -> str:
    """The one line for the error of a deadline that passed; empty: nothing is to be seen, or one may not look."""
    try:
        return look_into(pid).stall()
    except (InspectionError, OSError, ValueError):
        return ""


@dataclass(frozen=True)
class _Word:
    verb: str
    seconds: float
    waits: bool
    inside: bool


def _words(pid: int, memory: Memory, at: Places) -> dict[int, _Word]:
    """What the library notes of its threads, by their numbers inside."""
    now = time.clock_gettime(time.CLOCK_MONOTONIC) + _clock_offset(pid)
    words: dict[int, _Word] = {}
    address, seen = memory.word(at["sections"]), 0
    while address and seen < _MOST_LINKS:
        seen += 1
        if memory.number(address + at["section.taken"]):
            verb = memory.word(address + at["section.verb"])
            name = f"ibv_{memory.text(verb, _NAME).removeprefix('_').removeprefix('ibv_')}" if verb else ""
            since = memory.word(address + at["section.since_ns"]) / 1e9
            words[memory.number(address + at["section.tid"])] = _Word(
                name,
                max(0.0, now - since) if verb else 0.0,
                bool(memory.number(address + at["section.waits"])),
                memory.word(address + at["section.inside"]) != 0,
            )
        address = memory.word(address + at["section.next"])
    return words


def _clock_offset(pid: int) -> float:
    """What the process's monotonic clock is ahead of ours, in seconds: it may have a time namespace of its own."""
    lines = [line.split() for line in kernel_file.lines(f"/proc/{pid}/timens_offsets")]
    return sum(int(line[1]) + int(line[2]) / 1e9 for line in lines if line[0] in ("monotonic", "1"))


def _thread(one: KernelThread, words: dict[int, _Word]) -> Thread:
    word = words.get(one.tid_inside, _Word("", 0.0, False, False))
    return Thread(
        one.tid,
        one.name,
        STATES.get(one.state, one.state),
        one.syscall,
        word.verb,
        word.seconds,
        word.waits,
        word.inside,
    )


def _queue_pairs(memory: Memory, at: Places) -> Iterator[QueuePair]:
    for context in _list(memory, at["process"] + at["process.contexts"], at["context.link"]):
        device = memory.text(memory.word(context + at["context.device"]) + at["device.name"], _NAME)
        number = memory.number(context + at["context.id"])
        for qp in _list(memory, context + at["context.qps"], at["qp.link"]):
            state, marker = memory.number(qp + at["qp.state"]), memory.number(qp + at["qp.marker"])
            head = memory.number(qp + at["qp.receives.head"])
            yield QueuePair(
                number,
                device,
                memory.number(qp + at["qp.number"]),
                _QP_STATES[state] if state < len(_QP_STATES) else f"state {state}",
                memory.number(qp + at["qp.peer"]),
                bool(memory.number(qp + at["qp.quiesced"])),
                _MARKERS[marker] if marker < len(_MARKERS) else str(marker),
                bool(memory.number(qp + at["qp.broken"])),
                memory.number(qp + at["qp.kept"]),
                (_tail(memory, qp, at) - head) % (1 << 32),
            )


def _tail(memory: Memory, qp: int, at: Places) -> int:
    """Which of all receives of a queue pair is posted next."""
    if "qp.receives.tail" in at:
        return memory.number(qp + at["qp.receives.tail"])  # the library of an earlier release
    until, stride = (memory.number(qp + at[f"qp.receives.{name}"]) for name in ("until", "stride"))
    here, stop = (memory.word(qp + at[f"qp.receives.{name}"]) for name in ("at", "stop"))
    return until - (stop - here) // stride if stride else until


def _list(memory: Memory, head: int, link: int) -> Iterator[int]:
    """The elements of a list of ``guest/base/list.h``."""
    at, seen = memory.word(head), 0
    while at != head and seen < _MOST_LINKS:
        seen += 1
        yield at - link
        at = memory.word(at)
