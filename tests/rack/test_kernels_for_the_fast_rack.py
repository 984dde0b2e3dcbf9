"""The distribution's own kernel has all that the fast rack needs of one; `RELEASE=bookworm` asks the older one."""

from __future__ import annotations

import json

import pytest
from migrrdma_lab.plan import REPOSITORY
from migrrdma_lab.shell import Shell

_LACKS = """
import json
from migrrdma_lab.namespaces import requirements
print(json.dumps(requirements.kernel_lacks()))
"""


@pytest.mark.needs("own-kernel")
def test_the_kernel_of_a_node_can_run_the_fast_rack(peer: Shell) -> None:
    peer.run("mkdir", "-p", "/root/requirements")
    peer.copy(str(REPOSITORY / "lab" / "migrrdma_lab"), ":/root/requirements")
    said = peer.run("env", "PYTHONPATH=/root/requirements", "python3", "-c", _LACKS)
    assert json.loads(said.stdout) == []


@pytest.mark.needs("own-kernel")
def test_what_a_kernel_lacks_is_seen(peer: Shell) -> None:
    """The trials are real: with the module of one kept out, that one fails, and no other."""
    peer.run("mkdir", "-p", "/root/requirements")
    peer.copy(str(REPOSITORY / "lab" / "migrrdma_lab"), ":/root/requirements")
    peer.sh("echo 'install macvlan /bin/false' >/etc/modprobe.d/no-macvlan.conf; modprobe -r macvlan || :")
    try:
        said = peer.run("env", "PYTHONPATH=/root/requirements", "python3", "-c", _LACKS)
    finally:
        peer.run("rm", "/etc/modprobe.d/no-macvlan.conf")
    (line,) = json.loads(said.stdout)
    assert line.startswith("a macvlan interface failed (")
    assert line.endswith("a kernel with CONFIG_MACVLAN; modprobe macvlan")
