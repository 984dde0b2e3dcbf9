"""Runs RDMA tools, each as a pair on one device, and prints what each did, made comparable: run in a container.

One line of JSON for each case: how both ends ended and what they printed, with every number that a run cannot repeat
(rates, QPNs, keys, addresses, PSNs) replaced by ``#``. Two runs, with and without the guest library, must print the
same. Nothing here knows of the library.

perftest's ``-R`` is left out: its client (25.01) now and then crashes in rdma_resolve_addr, with and without the
library, when it comes before the server listens for the second time. rping and the others below use rdma_cm, too.

    tools.py DEVICE GID_INDEX ADDRESS [CASE…]
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

_SECONDS = 60
"""Until a tool that hangs is ended; it hangs without the library as well, or the comparison fails."""


@dataclass(frozen=True)
class Case:
    """Two ends, or one program; the client gets the server's address as its last word."""

    name: str
    server: list[str]
    client: list[str] = field(default_factory=list)
    port: int = 0
    """TCP port on which a server that is ready listens; 0: it listens with rdma_cm."""
    last_words: list[str] = field(default_factory=list)


def _perftest(device: str, gid: str) -> list[Case]:
    cases: list[Case] = []
    for verb in ("send", "write", "read", "atomic"):
        for kind in ("bw", "lat"):
            tool = f"ib_{verb}_{kind}"
            some = ["-n", "100", "-F"] + ([] if verb == "atomic" else ["-s", "2048"])
            extra: list[list[str]] = [[]]
            if verb in ("send", "write"):
                extra.append(["-c", "UC"])
            if verb == "send":
                extra += [["-c", "UD"], ["-e"], ["-e", "-c", "UD"]]
            if verb != "atomic":
                extra.append(["-I", "16"])
            if kind == "bw":
                extra += [["-q", "8"], ["-b"], ["--use_old_post_send"]]
                if verb == "send":
                    extra += [["--use-srq"], ["--use-srq", "-q", "4"], ["-b", "-q", "4", "-e"]]
                if verb in ("send", "write", "read"):
                    extra.append(["-e"])
            extra = [one for at, one in enumerate(extra) if one not in extra[:at]]
            for one in extra:
                words = [tool, "-d", device, "-x", gid, *some, *one]
                # Each pair on a port of its own: one that was just closed cannot be opened again at once.
                port = 20000 + len(cases)
                both = [*words, "-p", str(port)]
                cases.append(Case(" ".join([tool, *one]), both, both, port))
    return cases


_PINGPONGS = ("rc", "rc -e", "rc -t", "rc -N", "uc", "ud", "srq", "xsrq")


def _pingpongs(device: str, gid: str) -> list[Case]:
    cases: list[Case] = []
    for tool, *options in map(str.split, _PINGPONGS):
        check = ["-c"] if tool == "rc" else []
        port = 22000 + len(cases)
        words = [f"ibv_{tool}_pingpong", "-d", device, "-g", gid, "-n", "50", *options]
        both = [*words, *check, "-p", str(port)]
        cases.append(Case(" ".join([words[0], *options]), both, both, port))
    return cases


def _rdmacm(address: str) -> list[Case]:
    return [
        Case("rping", ["rping", "-s", "-a", address, "-C", "20", "-p", "23001"],
             ["rping", "-c", "-C", "20", "-V", "-v", "-S", "64", "-p", "23001", "-a"]),
        Case("ucmatose", ["ucmatose", "-p", "23002", "-c", "4"], ["ucmatose", "-p", "23002", "-c", "4", "-s"]),
        Case("udaddy", ["udaddy", "-p", "23003"], ["udaddy", "-p", "23003", "-s"]),
        Case("rdma_server", ["rdma_server", "-p", "23004"], ["rdma_client", "-p", "23004", "-s"]),
    ]  # fmt: skip


def _alone(device: str, gid: str) -> list[Case]:
    here = str(Path(__file__).parent)
    programs = [["ibv_devices"], ["ibv_devinfo", "-v", "-d", device], ["ib_send_bw", "--version"],
                ["python3", f"{here}/with_pyverbs.py", device],
                [f"{here}/extended", device, gid]]  # fmt: skip
    return [Case(" ".join([Path(words[0]).name, *words[1:]]), words) for words in programs]


def _listens(port: int) -> bool:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
                return True
    return False


def _waits_for_rdma_cm(port: int) -> bool:
    found = subprocess.run(
        ["rdma", "resource", "show", "cm_id", "lport", str(port)], capture_output=True, text=True, check=False
    )
    return "LISTEN" in found.stdout


def _until_ready(case: Case, server: subprocess.Popen[bytes]) -> None:
    port = case.port or int(case.server[case.server.index("-p") + 1])
    deadline = time.monotonic() + _SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        if _listens(port) if case.port else _waits_for_rdma_cm(port):
            return
        time.sleep(
            0.05
        )  # nothing tells when a socket or a cm_id begins to listen; the machine has one processor


_VARIES = [
    (re.compile(r"0x[0-9a-fA-F]+"), "#"),
    (re.compile(r"\b[0-9a-f]{16}\b|[0-9a-f]{0,4}(::?[0-9a-f]{1,4}){3,}"), "#"),
    # A time of perftest's is infinite where it did not find the processor's counter go with the clock.
    (re.compile(r"[0-9]+\.[0-9]+|(?<!\w)-?(inf|nan)\b"), "#"),
    (re.compile(r"(?<=QPN:)\w+|(?<=PSN:)\w+|(?<=QPN )\w+|(?<=PSN )\w+"), "#"),
    (re.compile(r"[0-9a-f]{6}"), "#"),
    (re.compile(r"#(usec|Gb)?[ \t]+"), "# "),
]


_ONLY_SOMETIMES = (
    # rping's client, if the server's disconnection reaches it before its own exit: a race of its two threads.
    "client DISCONNECT EVENT...",
    # perftest, if the processor was taken away from it between the readings of its two clocks.
    "Correlation coefficient r^2:",
)
"""How the lines begin that a program prints or not, with and without the library."""


def _comparable(output: bytes) -> list[str]:
    lines = []
    for line in output.decode(errors="replace").splitlines():
        text = line
        for pattern, instead in _VARIES:
            text = pattern.sub(instead, text)
        lines.append(" ".join(text.split()))
    return [line for line in lines if not line.startswith(_ONLY_SOMETIMES)]


def _run(case: Case, address: str) -> dict[str, object]:
    with tempfile.TemporaryFile() as told_by_server, tempfile.TemporaryFile() as told_by_client:
        server = subprocess.Popen(case.server, stdin=subprocess.DEVNULL, stdout=told_by_server,
                                  stderr=subprocess.STDOUT)  # fmt: skip
        codes: list[int | str] = []
        ends = [server]
        if case.client:
            _until_ready(case, server)
            ends.append(subprocess.Popen([*case.client, address], stdin=subprocess.DEVNULL, stdout=told_by_client,
                                         stderr=subprocess.STDOUT))  # fmt: skip
        for end in reversed(ends):
            try:
                # A server whose client has failed may wait for the next one.
                codes.append(end.wait(5 if codes and codes[0] else _SECONDS))
            except subprocess.TimeoutExpired:
                end.kill()
                end.wait()
                codes.append("hung")
        result: dict[str, object] = {"case": case.name, "codes": codes}
        for name, file in (("server", told_by_server), ("client", told_by_client)):
            file.seek(0)
            result[name] = _comparable(file.read())
        return result


def main(device: str, gid: str, address: str, *wanted: str) -> None:
    """Run every case, or those named."""
    socket.setdefaulttimeout(_SECONDS)
    os.environ["LC_ALL"] = "C"
    for case in [*_alone(device, gid), *_perftest(device, gid), *_pingpongs(device, gid), *_rdmacm(address)]:
        if wanted and case.name not in wanted:
            continue
        print(json.dumps(_run(case, address)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
