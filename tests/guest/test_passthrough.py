"""What is not virtualised works, and marks the process."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from guest_agent import PATIENT_S, Agent, GuestError, Program
from guest_build import SANITIZERS, Built, compile_c
from migrrdma_lab.device.build import build_in_process

from migrrdma_runtime.wire.guest_messages import WIRE, text

REASONS = [
    "a shared receive queue whose receives complete on an extended CQ",
    "a QP with a shared receive queue that cannot be moved",
    "an extended CQ with more than standard completions", "a QP with an extended CQ",
]  # fmt: skip


NEWER = [
    "_ibv_query_comp_cntr_caps", "ibv_create_comp_cntr", "ibv_destroy_comp_cntr", "ibv_export_buf_dmabuf_fd",
    "ibv_inc_comp_cntr", "ibv_inc_err_comp_cntr", "ibv_qp_attach_comp_cntr", "ibv_read_comp_cntr",
    "ibv_read_err_comp_cntr", "ibv_set_comp_cntr", "ibv_set_err_comp_cntr",
]  # fmt: skip

SHARED_DOMAIN = "an XRC domain that was open already when this process opened its file"
ENDED_ALONE = {
    "counters": True, "flow steering": True, "a flow action": True, "a work queue": True,
    "a receive work queue table": True,
    "a DMA handle": True, "a buffer made by ibv_alloc_buf": False,
    "an imported protection domain": False,
}  # fmt: skip
"""Each with whether the device refuses its first end."""

ENDED_FIRST = {"a QP with a shared receive queue that cannot be moved"}


def reasons(agent: Agent) -> list[str]:
    """What the process says stands against a move; none, and only then, means that it can be moved."""
    inventory = agent.ask("INVENTORY")
    found = sorted(text(one["text"]) for one in inventory.records)
    assert bool(inventory.body["migratable"]) is not bool(found)
    return found


@pytest.mark.parametrize("variant", ["plain", "address"])
def test_mixed_objects_work_and_are_reasons_as_long_as_they_live(
    builds: Callable[[str], Built], agent: Agent, tmp_path: Path, variant: str
) -> None:
    built = builds(variant)
    compile_c(tmp_path / "mixes", Path(__file__).with_name("mixes.c"), "-libverbs")
    environment = {**built.environment, **agent.environment}
    with Program([tmp_path / "mixes"], environment, tmp_path / "log") as program:
        agent.accept()
        assert reasons(agent) == sorted(REASONS)
        with pytest.raises(GuestError, match="cannot be migrated"):
            agent.quiesce()
        assert program.tell("go on") == "a shared receive queue is left"
        assert reasons(agent) == sorted(set(REASONS) - ENDED_FIRST)
        assert program.tell("go on") == "ended"
        assert reasons(agent) == []
        agent.quiesce()
        agent.ask("UNDO")
        assert program.tell("go on") == "imported"
        assert reasons(agent) == ["an imported device"]
        assert program.tell("go on") == "the imported device is closed"
        assert reasons(agent) == []
        assert program.tell("go on") == "done"
        assert program.process.wait(PATIENT_S) == 0, program.diagnosis()


def test_what_pins_a_partner_pins_only_who_is_connected_to_it(
    start_stalls: Callable[..., Program], agent: Agent
) -> None:
    """A shared XRC domain is its own affair; a queue pair that cannot be moved is that of who is at its other end."""
    program = start_stalls()
    first, second = [{"context": one["context"], "vqpn": one["vqpn"]} for one in agent.qps()]

    def quiesce(*names: dict[str, int]) -> None:
        agent.ask(
            "QUIESCE", {"kind": WIRE.constants["MIG_SCOPE_LISTED"], "timeout_ms": 1000 * PATIENT_S}, names
        )

    assert program.tell("domain") == "ok"
    with pytest.raises(GuestError, match="cannot be migrated"):
        agent.quiesce()
    quiesce(first, second)
    agent.ask("UNDO")
    assert program.tell("alternate") == "ok"
    with pytest.raises(GuestError, match="a QP with an alternate path"):
        quiesce(first, second)
    quiesce(second)
    agent.ask("UNDO")
    assert reasons(agent) == ["a QP with an alternate path", SHARED_DOMAIN]


def test_process_that_holds_the_connection_manager_says_so(
    start: Callable[..., Program], agent: Agent, tmp_path: Path
) -> None:
    """A device of that name, whatever it is; and a file of that name, which is none."""
    program = start("-q", "1")
    (tmp_path / "infiniband").mkdir()
    device, file = tmp_path / "infiniband" / "rdma_cm", tmp_path / "rdma_cm"
    os.mknod(device, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    file.touch()
    for path, expected in ((device, ["an open /dev/infiniband/rdma_cm"]), (file, [])):
        assert agent.ask("INVENTORY").body["migratable"]
        program.tell(f"hold {path}")
        inventory = agent.ask("INVENTORY")
        assert bool(inventory.body["migratable"]) is not bool(expected)
        assert [text(r["text"]).partition(":")[0] for r in inventory.records] == expected
        program.tell("release")
    assert program.verdict() == "exact"


def test_process_that_could_not_be_called_after_a_restore_says_so(
    start: Callable[..., Program], agent: Agent
) -> None:
    """It has left its root, or taken the mount away: whoever is dumped so never goes on."""
    program = start("-q", "1")
    assert agent.ask("INVENTORY").body["migratable"]
    elsewhere = agent.path.with_name("elsewhere")
    agent.path.rename(elsewhere)
    inventory = agent.ask("INVENTORY")
    assert not inventory.body["migratable"]
    assert "hides /dev/migrrdma/agent" in text(inventory.records[0]["text"])
    agent.quiesce()
    with pytest.raises(GuestError, match="hides /dev/migrrdma/agent"):
        agent.ask("PARK")
    agent.ask("UNDO")
    elsewhere.rename(agent.path)
    assert agent.ask("INVENTORY").body["migratable"]
    assert program.verdict() == "exact"


def test_a_newer_libibverbs_is_known_and_its_counters_are_reasons_as_long_as_they_live(
    built: Built, agent: Agent, tmp_path: Path
) -> None:
    """The verbs that it has and ours has not: they are handed the real objects in place of ours."""
    sources = Path(__file__).parent
    build_in_process(
        tmp_path / "libibverbs.so.1",
        more=[sources / "newer.c"],
        versions=f"IBVERBS_1.18 {{ global: {' '.join(f'{name};' for name in NEWER)} }} IBVERBS_1.14;\n",
    )
    compile_c(tmp_path / "counters", sources / "counters.c", "-libverbs")
    environment = {**built.environment, **agent.environment, "LD_LIBRARY_PATH": str(tmp_path)}
    with Program([tmp_path / "counters"], environment, tmp_path / "log") as program:
        agent.accept()
        assert reasons(agent) == []
        assert program.tell("create") == "ok"
        assert program.tell("attach") == "ok"
        assert reasons(agent) == ["a completion counter"]
        assert program.tell("end QP") == "ok"
        assert reasons(agent) == ["a completion counter"]
        assert program.tell("destroy") == "ok"
        assert reasons(agent) == []


@pytest.mark.parametrize("variant", ["plain", "address"])
def test_the_mark_of_an_object_ends_with_it(
    builds: Callable[[str], Built], agent: Agent, tmp_path: Path, variant: str
) -> None:
    """Also of those that are ended by inline functions, to which the real library's table leads; and by newer verbs."""
    built, sources = builds(variant), Path(__file__).parent
    build_in_process(
        tmp_path / "libibverbs.so.1",
        *SANITIZERS[variant],
        more=[sources / "rare.c"],
        versions="IBVERBS_1.15 { global: ibv_alloc_dmah; ibv_dealloc_dmah; } IBVERBS_1.14;\n"
        "IBVERBS_1.17 { global: ibv_alloc_buf; ibv_free_buf; } IBVERBS_1.15;\n",
    )
    compile_c(tmp_path / "ends", sources / "ends.c", "-libverbs")
    environment = {**built.environment, **agent.environment, "LD_LIBRARY_PATH": str(tmp_path)}
    with Program([tmp_path / "ends"], environment, tmp_path / "log") as program:
        agent.accept()
        for kind, refuses in ENDED_ALONE.items():
            assert program.tell(f"make {kind}") == "ok", kind
            assert reasons(agent) == [kind]
            if refuses:
                assert program.tell(f"end {kind}") == "EBUSY", kind
                assert reasons(agent) == [kind]
            assert program.tell(f"end {kind}") == "ok", kind
            assert reasons(agent) == []


def test_libibverbs_with_many_unknown_verbs_is_left_alone(built: Built, agent: Agent, tmp_path: Path) -> None:
    """Any of more than there are entrances for could be handed our objects: then there are none."""
    verbs = [f"ibv_verb_{number}_of_the_future" for number in range(65)]
    (tmp_path / "future.c").write_text(
        "".join(
            f'int {verb}(void);\n__attribute__((visibility("default"))) int {verb}(void) {{ return 0; }}\n'
            for verb in verbs
        )
    )
    build_in_process(
        tmp_path / "libibverbs.so.1",
        more=[tmp_path / "future.c"],
        versions=f"IBVERBS_1.99 {{ global: {' '.join(f'{verb};' for verb in verbs)} }} IBVERBS_1.14;\n",
    )
    environment = {**os.environ, **built.environment, **agent.environment, "LD_LIBRARY_PATH": str(tmp_path)}
    log = tmp_path / "log"
    result = subprocess.run(
        [built.traffic, "-q", "1"],
        env={**environment, "MIGRRDMA_LOG": f"info:{log}"},
        input="stop\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout.split()) == (0, ["ready", "exact"]), result.stderr
    assert re.search("ibv_verb_[0-9]+_of_the_future.*: not virtualised", log.read_text())
