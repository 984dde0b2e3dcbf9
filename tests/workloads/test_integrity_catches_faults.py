"""The integrity workload is content with a sound device and names what a broken one did.

Here the device is the fake one and both ends are threads of one process; in ``tests/rack`` they are two machines.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from free_port import free_port
from workload import Built, build, build_both_ends, judge, rates

_SECONDS = 60


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    built = build(tmp_path_factory.mktemp("workload"))
    build_both_ends(built)
    return built


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Built:
    built = Built(tmp_path_factory.mktemp("workload-sanitized"))
    build_both_ends(built, "address")
    return built


@dataclass
class Ends:
    """Both ends, running."""

    process: subprocess.Popen[bytes]
    outputs: tuple[Path, Path]

    def lines(self) -> tuple[list[str], list[str]]:
        server, client = (path.read_text().splitlines() for path in self.outputs)
        return server, client

    def verdicts(self) -> tuple[str, str]:
        """The last line of each; the exit code says the same."""
        code = self.process.wait(_SECONDS)
        server, client = (judge(lines) for lines in self.lines())
        assert code == (not server.ok) | (not client.ok) << 1, (code, server, client)
        return server.text, client.text


@contextmanager
def _running(built: Built, directory: Path, *options: str, fault: str = "") -> Iterator[Ends]:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(built.directory), "FAKE_ASYNC": "1"}
    if fault:
        environment |= {"LD_PRELOAD": str(built.faults), "FAULT": fault}
    outputs = directory / "server", directory / "client"
    for path in outputs:
        path.touch()
    command: list[str | Path] = [
        built.both_ends, *outputs, "fake1", "-d", "fake0", "-p", str(free_port()), "-w", "20", *options,
    ]  # fmt: skip
    with subprocess.Popen(command, env=environment) as process:
        try:
            yield Ends(process, outputs)
        finally:
            process.kill()


@pytest.mark.parametrize(
    "options",
    [(), ("-e",), ("-q", "1", "-l", "4", "-s", "64"), ("-q", "16", "-s", "4096", "-e"), ("-m", "huge"),
     ("-m", "shared", "-S", "77"), ("-r",), ("-r", "-q", "16", "-s", "4096", "-e")],
    ids=" ".join,
)  # fmt: skip
def test_a_sound_device_is_found_sound(sanitized: Built, tmp_path: Path, options: tuple[str, ...]) -> None:
    with _running(sanitized, tmp_path, "-n", "4000", *options) as ends:
        for verdict in ends.verdicts():
            found = re.match(r"integrity: ok, (\d+) operations \((.*)\), \d+ messages received", verdict)
            assert found, verdict
            counts = [int(part.split()[0]) for part in found[2].split(", ")]
            assert sum(counts) == int(found[1]) >= 4000
            # Each kind has its share.
            assert min(counts) > 4000 / len(counts) / 2


def test_either_end_is_told_to_stop_by_sigterm(built: Built, tmp_path: Path) -> None:
    with _running(built, tmp_path, "-e") as ends:
        _wait_for_rates(ends, 2)
        ends.process.terminate()
        for verdict in ends.verdicts():
            assert verdict.startswith("integrity: ok, "), verdict


_DETECTED = {
    "drop-send-completion": r"the completion of operation \d+ \(\w+\) is missing: that of \d+ came",
    "drop-receive-completion": r"the completion of receive \d+ is missing: that of \d+ came",
    "repeat-completion": r"(receive|operation) \d+ completed again",
    "wrong-wr-id": r"the completion of (receive|operation) \d+ .*is missing|not under way",
    "wrong-qp-num": r"the completion of (receive|operation) \d+ has qp_num 0x",
    "wrong-imm": r"message \d+ \(\w+\) came with imm_data 0x\w+, not 0x",
    "repeat-send": r"message \d+ .*duplicated or out of order",
    "repeat-write-imm": r"message \d+ .*the earlier operation \d+ (came again|is there)",
    "double-add": r"FETCH_ADD \(operation \d+\) found a sum of|the (shared )?sum of all FETCH_ADDs is",
    "lose-send": r"message \d+ .*lost.* or out of order",
    "lose-write": r"READ .* of what WRITE \(operation \d+\) wrote: (nothing|the earlier operation \d+) is there",
    "flip-send": r"message \d+ \(operation \d+, SEND\): byte \d+ of \d+ is corrupted",
    "flip-write": r"READ .* of what WRITE \(operation \d+\) wrote: byte \d+ of \d+ is corrupted",
    "flip-read": r"READ .* of what WRITE \(operation \d+\) wrote: byte 9 of \d+ is corrupted",
    "stray-write": r"READ .* of what WRITE .* wrote: (byte \d+ of \d+ is corrupted|the earlier operation)",
    "lose-events": r"a completion event is missing",
    "drop-all-completions": r"no progress for \d+ s: operations \d+ to \d+ are under way",
}


@pytest.mark.parametrize("fault", _DETECTED)
def test_a_broken_device_is_found_out_by_name(built: Built, tmp_path: Path, fault: str) -> None:
    options = {"lose-events": ["-e"], "drop-all-completions": ["-w", "2"]}.get(fault, [])
    with _running(built, tmp_path, "-n", "20000", *options, fault=f"{fault}:40") as ends:
        verdicts = ends.verdicts()
    assert all(verdict.startswith("integrity: FAILED: ") for verdict in verdicts), verdicts
    assert any(re.search(_DETECTED[fault], verdict) for verdict in verdicts), verdicts


_DETECTED_OF_SHARED = {
    "repeat-completion": r"no shared receive of that name waits|operation \d+ completed again",
    "wrong-wr-id": r"no shared receive of that name waits|the completion of operation \d+ .*is missing|not under way",
    "lose-send": r"message \d+ .*lost.* or out of order",
    "flip-send": r"message \d+ \(operation \d+, SEND\): byte \d+ of \d+ is corrupted",
}


@pytest.mark.parametrize("fault", _DETECTED_OF_SHARED)
def test_a_broken_device_is_found_out_when_receives_are_shared(
    built: Built, tmp_path: Path, fault: str
) -> None:
    with _running(built, tmp_path, "-n", "20000", "-r", fault=f"{fault}:40") as ends:
        verdicts = ends.verdicts()
    assert any(re.search(_DETECTED_OF_SHARED[fault], verdict) for verdict in verdicts), verdicts


def test_a_jumping_clock_disturbs_neither_the_rate_nor_the_watchdog(built: Built, tmp_path: Path) -> None:
    with _running(built, tmp_path, "-w", "5", fault="jumping-clock") as ends:
        _wait_for_rates(ends, 3)
        ends.process.terminate()
        for verdict in ends.verdicts():
            assert verdict.startswith("integrity: ok, "), verdict
        for lines in ends.lines():
            assert min(rates(lines)) > 0
            # A week would be 604800 s.
            assert all(int(line.split()[0]) < 100 for line in lines if " ops/s " in line)


def test_ends_that_were_given_different_options_say_so(built: Built) -> None:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(built.directory)}
    common = [str(built.program), "-p", str(free_port()), "-w", "20"]
    with subprocess.Popen([*common, "-q", "3"], env=environment, stdout=subprocess.PIPE, text=True) as server:
        client = subprocess.run(
            [*common, "-q", "5", "127.0.0.1"], env=environment, stdout=subprocess.PIPE, text=True, timeout=_SECONDS,
            check=False,
        )  # fmt: skip
        output, _ = server.communicate(timeout=_SECONDS)
    assert (client.returncode, server.returncode) == (1, 1)
    assert "the two ends were given different options: -q 5" in client.stdout
    assert "the two ends were given different options: -q 3" in output


def _wait_for_rates(ends: Ends, count: int) -> None:
    deadline = time.monotonic() + _SECONDS
    while min(len(rates(lines)) for lines in ends.lines()) < count:
        assert ends.process.poll() is None, ends.lines()
        assert time.monotonic() < deadline, f"not {count} rates in {_SECONDS} s: {ends.lines()}"
        os.sched_yield()
