"""What is ended for a CRIU that dies in a restore is what it has made, whoever its parent is by then."""

from __future__ import annotations

import json
import subprocess
import sys

_LOWLEVEL = """
import subprocess, sys
criu = subprocess.Popen(["sleep", "600"])
restored = subprocess.Popen(["unshare", "--mount", "sh", "-c", "echo there; exec sleep 600"], stdout=subprocess.PIPE)
assert restored.stdout.readline() == b"there\\n"
print(criu.pid, restored.pid, flush=True)
sys.stdin.read()
print(restored.poll())
criu.kill()
restored.kill()
"""
"""As the low-level runtime of a restore whose CRIU makes the processes beside itself."""

_RUNTIME = """
import subprocess, sys
from migrrdma_runtime.shim.restored import Restored
lowlevel = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
criu, _ = map(int, lowlevel.stdout.readline().split())
if sys.argv[2] == "killed":
    lowlevel.kill()
    lowlevel.wait()
    print(criu, flush=True)
    sys.stdin.read()
restored = Restored()
restored.note(criu, has_let_go=True)
restored.kill()
if sys.argv[2] == "alive":
    print(lowlevel.communicate()[0].decode())
"""

_ENGINE = """
import ctypes, json, os, signal, subprocess, sys
# As containerd's shim is, whose children are other containers of the pod, and their runtimes.
assert ctypes.CDLL(None).prctl(36, 1) == 0  # PR_SET_CHILD_SUBREAPER
ours = [sys.executable, "-c", *sys.argv[1:3], "killed"]
runtime = subprocess.Popen(ours, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
criu = int(runtime.stdout.readline())
made = ["unshare", "--mount", "sh", "-c", "echo there; exec sleep 600"]
neighbour = subprocess.Popen(made, stdout=subprocess.PIPE)
assert neighbour.stdout.readline() == b"there\\n"
runtime.communicate()
print(json.dumps([runtime.returncode, neighbour.poll()]))
neighbour.kill()
for pid in map(int, open(f"/proc/self/task/{os.getpid()}/children").read().split()):
    os.kill(pid, signal.SIGKILL)
"""


def _run(*program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", *program], stdout=subprocess.PIPE, text=True, timeout=60, check=True
    ).stdout


def test_what_it_has_made_beside_itself_is_ended() -> None:
    assert _run(_RUNTIME, _LOWLEVEL, "alive") == "-9\n\n"


def test_what_is_beside_it_after_the_runtimes_death_is_spared() -> None:
    """Its parent has other children by then, which are made meanwhile."""
    assert json.loads(_run(_ENGINE, _RUNTIME, _LOWLEVEL)) == [0, None]
