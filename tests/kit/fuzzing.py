"""Random changes of sound input, for as long as there is time; each round can be had again by its name.

Not coverage-guided: atheris has no release that runs on both Pythons that are supported. What is changed here has a
structure that is kept most of the time, so that what lies behind the first check is reached all the same.
"""

from __future__ import annotations

import copy
import json
import os
import random
import resource
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

AGAIN = "MIGRRDMA_FUZZ_ROUND"
"""The environment variable that names the only round to be run."""

ROUND_S = 2
"""Of processor time, that no input may take."""

MEMORY = 512 << 20
"""Bytes by which no input may make the process grow."""

ODD: tuple[Any, ...] = (
    *(0, 1, -1, 255, 1 << 16, (1 << 24) - 1, (1 << 31) - 1, 1 << 31, -(1 << 31)),
    *((1 << 32) - 1, 1 << 63, 1 << 64, 10**300, 0.5, -0.0, 1e308, True, False, None),
    *("", "\0", "\n", "..", "/", "../../etc/passwd", "\udc80", "\u00e9", "x" * 5000, "0" * 16, "f" * 64),
    *("[::1]:99999", "a:0", [], {}, [[]], [{}], {"": 0}, [0] * 100),
)


_ODD_WORDS = tuple(word.to_bytes(4, "little") for word in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF))


@dataclass
class Fuzzer:
    """Rounds of random input for so many seconds: the same ones each time, unless ``seed`` is another."""

    seconds: float
    seed: str = "0"
    rounds: int = 0

    def run(self, one: Callable[[random.Random], None]) -> None:
        """Run rounds of this."""
        for rng in self._rounds():
            with self._judged():
                one(rng)

    async def arun(self, one: Callable[[random.Random], Awaitable[None]]) -> None:
        """Run rounds of this, one after the other."""
        for rng in self._rounds():
            with self._judged():
                await one(rng)

    def _rounds(self) -> Iterator[random.Random]:
        if AGAIN in os.environ:
            self._name = os.environ[AGAIN]
            yield random.Random(self._name)  # noqa: S311 (not for keys)
            return
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            self._name = f"{self.seed}/{self.rounds}"
            yield random.Random(self._name)  # noqa: S311 (not for keys)
            self.rounds += 1

    @contextmanager
    def _judged(self) -> Iterator[None]:
        start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            yield
            took = time.process_time() - start
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
            assert took < ROUND_S, f"it took {took:.1f} s of processor time"
            assert grown < MEMORY, f"it took {grown >> 20} MiB of memory"
        except BaseException as error:
            error.add_note(f"again: {AGAIN}={self._name}")
            raise


def changed_bytes(rng: random.Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Some bytes changed, cut out, doubled, or put in from elsewhere."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(found) + 1)
        end = min(len(found), at + rng.choice((1, 2, 4, 8, 64)))
        match rng.randrange(8):
            case 6 | 7:
                at = at // 4 * 4
                found[at : at + 4] = rng.choice(_ODD_WORDS)
            case 0 if at < len(found):
                found[at] ^= 1 << rng.randrange(8)
            case 1:
                found[at:end] = rng.choice((b"\0", b"\xff", b"\x7f")) * (end - at)
            case 2:
                del found[at:end]
            case 3:
                found[at:at] = found[at:end] * rng.choice((1, 2, 50))
            case 4:
                other = rng.choice((*others, rng.randbytes(16)))
                start = rng.randrange(len(other) + 1)
                found[at:end] = other[start : start + rng.choice((1, 4, 16, 256))]
            case 5:
                del found[at:]
    return bytes(found)


def changed_json(rng: random.Random, value: Any) -> Any:
    """A copy of parsed JSON in which some parts are odd, missing, doubled or elsewhere."""
    found = [copy.deepcopy(value)]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        held, name = rng.choice(_places(found))
        match rng.randrange(6):
            case 0 | 1:
                held[name] = copy.deepcopy(rng.choice(ODD))
            case 2 if held is not found:
                del held[name]
            case 3:
                other, there = rng.choice(_places(found))
                held[name] = copy.deepcopy(other[there])
            case 4 if isinstance(held, dict):
                held[rng.choice(("", "x", "\0", *map(str, held)))] = copy.deepcopy(rng.choice(ODD))
            case 5 if isinstance(held, list) and held is not found:
                held.insert(name, copy.deepcopy(held[name]))
    return found[0]


def changed_text(rng: random.Random, value: Any) -> bytes:
    """Parsed JSON as text, changed before or after it was written."""
    if rng.random() < 0.8:
        value = changed_json(rng, value)
    data = json.dumps(value).encode()
    return changed_bytes(rng, data) if rng.random() < 0.2 else data


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every part of a value: what holds it, and its index or name there."""
    found: list[tuple[Any, Any]] = []
    parts = [value]
    while parts:
        held = parts.pop()
        for name in list(held) if isinstance(held, dict) else range(len(held)):
            found.append((held, name))
            if isinstance(held[name], dict | list):
                parts.append(held[name])
    return found
