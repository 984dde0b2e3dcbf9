"""What is ended for a CRIU that dies in a restore is what it has made, whoever its parent is by then."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

_LOWLEVEL = """
import os, subprocess, sys
goes_inside = 'read -r pid || exec sleep 600; exec nsenter -m -t $pid sh -c "echo inside; exec sleep 600"'
both = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
criu = subprocess.Popen(["bash", "-c", goes_inside], **both)
made = ["unshare", "--mount", "sh", "-c", "echo there; exec tail -f /dev/null"]
restored = subprocess.Popen(made, stdout=subprocess.PIPE)
assert restored.stdout.readline() == b"there\\n"
begun = subprocess.Popen(["bash", "-c", "echo there; read -r line"], **both)
assert begun.stdout.readline() == "there\\n"
print(criu.pid, flush=True)
how = sys.stdin.readline()
if how == "inside\\n":
    print(restored.pid, file=criu.stdin, flush=True)
    assert criu.stdout.readline() == "inside\\n"
elif how == "zombie\\n":
    criu.kill()
    os.waitid(os.P_PID, criu.pid, os.WEXITED | os.WNOWAIT)
print("done", flush=True)
if sys.stdin.readline():
    print(begun.wait(), restored.poll(), flush=True)
sys.stdin.read()
print(restored.poll())
for process in (criu, restored, begun):
    process.kill()
"""
"""As the low-level runtime of a restore whose CRIU makes the processes beside itself, and is where it is told to be."""

_RUNTIME = """
import subprocess, sys
from migrrdma_runtime.shim.restored import Restored
ours = [sys.executable, "-c", sys.argv[1]]
lowlevel = subprocess.Popen(ours, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
criu = int(lowlevel.stdout.readline())
restored = Restored()
restored.meet(criu)
if sys.argv[2] == "killed":
    lowlevel.kill()
    lowlevel.wait()
    print(criu, flush=True)
    sys.stdin.read()
else:
    print(sys.argv[2], file=lowlevel.stdin, flush=True)
    assert lowlevel.stdout.readline() == "done\\n"
restored.note(criu, has_let_go=True)
if sys.argv[2] != "killed":
    print("noted", file=lowlevel.stdin, flush=True)
    print(lowlevel.stdout.readline(), end="")
restored.kill()
if sys.argv[2] != "killed":
    print(lowlevel.communicate()[0])
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


@pytest.mark.parametrize("where", ["outside", "inside", "zombie"])
def test_what_it_has_made_beside_itself_is_ended(where: str) -> None:
    """CRIU may be in the container's mounts, where it takes its own mounts down; or have died already, unseen.

    What is still CRIU's program is at once, before the low-level runtime has ended, which waits for that.
    """
    assert _run(_RUNTIME, _LOWLEVEL, where) == "-9 None\n-9\n\n"


def test_what_is_beside_it_after_the_runtimes_death_is_spared() -> None:
    """Its parent has other children by then, which are made meanwhile."""
    assert json.loads(_run(_ENGINE, _RUNTIME, _LOWLEVEL)) == [0, None]
