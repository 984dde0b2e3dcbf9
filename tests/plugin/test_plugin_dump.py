"""What the plugin says to CRIU while it dumps: what it takes, what it leaves to others, what it refuses."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from criu_image import DEVICE, File, image, parse
from criu_stand_in import StandIn

UVERBS, UMAD, ISSM, RDMA_CM, OTHER = "/dev/zero", "/dev/full", "/dev/urandom", "/dev/random", "/dev/null"

_REFUSED, _NOT_OURS = "-1", "-95"
COMM = Path(sys.executable).name


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """A file that a process maps executable: to the plugin, the guest library."""
    library = tmp_path / "0123abcd" / "libmigrrdma.so"
    library.parent.mkdir()
    library.write_bytes(bytes(4096))
    return library


def holder(script: str, guest: Path | None = None) -> list[str]:
    """A process that runs ``script``, says that it is ready and waits."""
    lines = ["import mmap, os, signal, socket, sys"]
    if guest:
        lines.append(
            f"library = mmap.mmap(os.open({str(guest)!r}, os.O_RDONLY), 4096, "
            "prot=mmap.PROT_READ | mmap.PROT_EXEC, flags=mmap.MAP_PRIVATE)"
        )
    lines += [script, 'print("ready", flush=True)', "signal.pause()"]
    return [sys.executable, "-c", "\n".join(lines)]


def opened(path: str, number: int, flags: str = "os.O_RDWR") -> str:
    return f"fd = os.open({path!r}, {flags}); os.dup2(fd, {number}); os.close(fd)"


def answers(stdout: str, what: str) -> list[str]:
    """The last word of the lines that begin with ``what``."""
    return [
        line.split()[-1] for line in stdout.splitlines() if line.split()[: len(what.split())] == what.split()
    ]


def recorded(criu: StandIn) -> Sequence[File]:
    return [
        record for record in parse((criu.images / "migrrdma.img").read_bytes()) if isinstance(record, File)
    ]


def test_a_device_is_recorded_with_its_process_descriptor_and_name(criu: StandIn, guest: Path) -> None:
    result = criu.dump(*holder(opened(UVERBS, 40, "os.O_RDWR | os.O_NONBLOCK"), guest))
    assert answers(result.stdout, "file 40") == ["0"]
    (file,) = recorded(criu)
    assert (file.kind, file.fd, file.node, file.ibdev) == (DEVICE, 40, b"uverbs0", b"rxe0")
    assert file.flags & 0o4000
    assert file.pid == file.vpid > 0


def test_the_inventory_learns_of_the_plugin_only_when_it_took_something(criu: StandIn, guest: Path) -> None:
    script = f"{opened(UVERBS, 40)}\n{opened(UVERBS, 41)}"
    assert answers(criu.dump(*holder(script, guest)).stdout, "inventory") == ["migrrdma_plugin"]
    assert not answers(criu.dump(*holder(opened(OTHER, 40))).stdout, "inventory")


def test_what_is_not_of_rdma_is_left_to_other_plugins(criu: StandIn) -> None:
    script = f"{opened(OTHER, 40)}\nos.dup2(os.eventfd(0), 41)"
    result = criu.dump(*holder(script))
    assert answers(result.stdout, "file 40") == answers(result.stdout, "file 41") == [_NOT_OURS]
    assert not (criu.images / "migrrdma.img").exists()


def test_a_device_without_the_guest_library_is_refused_by_process_and_name(criu: StandIn) -> None:
    result = criu.dump(*holder(opened(UVERBS, 40)))
    assert answers(result.stdout, "file 40") == [_REFUSED]
    assert f"({COMM}) holds an RDMA device but runs without libmigrrdma.so" in result.stderr


def test_every_process_of_the_tree_needs_the_guest_library(criu: StandIn, guest: Path) -> None:
    script = f"""
{opened(UVERBS, 40)}
done, tell = os.pipe()
if not os.fork():
    library.close()  # as executing another program would
    os.write(tell, b"1")
    signal.pause()
os.read(done, 1)"""
    result = criu.dump(*holder(script, guest))
    assert answers(result.stdout, "file 40") == [_REFUSED, _REFUSED]
    assert result.stderr.count("runs without libmigrrdma.so") == 1


def test_a_child_that_inherited_the_device_with_the_library_is_taken(criu: StandIn, guest: Path) -> None:
    result = criu.dump(*holder(f"{opened(UVERBS, 40)}\nif not os.fork():\n    signal.pause()", guest))
    assert answers(result.stdout, "file 40") == ["0", "0"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (RDMA_CM, "the RDMA connection manager (rdma_cm)"),
        (UMAD, "a management datagram device (umad)"),
        (ISSM, "a subnet manager device (issm)"),
    ],
)
def test_what_cannot_be_taken_is_refused_by_descriptor_and_name(
    criu: StandIn, guest: Path, path: str, name: str
) -> None:
    result = criu.dump(*holder(f"{opened(UVERBS, 40)}\n{opened(path, 41)}", guest))
    assert _NOT_OURS not in answers(result.stdout, "file 41")
    assert f"({COMM}): descriptor 41 is {name}" in result.stderr


def test_all_reasons_are_named_not_only_the_first(criu: StandIn) -> None:
    result = criu.dump(*holder(f"{opened(UVERBS, 40)}\n{opened(RDMA_CM, 41)}\n{opened(UMAD, 42)}"))
    for reason in (
        "descriptor 41 is the RDMA",
        "descriptor 42 is a management",
        "runs without libmigrrdma.so",
    ):
        assert result.stderr.count(reason) == 1


def test_a_device_under_way_in_a_socket_is_refused(criu: StandIn, guest: Path) -> None:
    script = opened(UVERBS, 40)
    result = criu.dump(*holder(script, guest), MIGRRDMA_TEST_IN_FLIGHT=UVERBS)
    assert answers(result.stdout, "in-flight") == [_REFUSED]
    assert "uverbs0, is held by no process: it is under way in a unix socket" in result.stderr


def test_a_private_mapping_of_a_device_is_refused_by_address(criu: StandIn, guest: Path) -> None:
    script = f"kept = mmap.mmap(os.open({UVERBS!r}, os.O_RDWR), 4096, flags=mmap.MAP_PRIVATE)"
    result = criu.dump(*holder(script, guest))
    assert answers(result.stdout, "mapping") == [_REFUSED]
    assert "the mapping of uverbs0 at 0x" in result.stderr


def test_a_pre_dump_judges_but_writes_nothing(criu: StandIn, guest: Path) -> None:
    script = f"kept = mmap.mmap(os.open({UVERBS!r}, os.O_RDWR), 4096, flags=mmap.MAP_PRIVATE)"
    result = criu.dump(*holder(script, guest), stage="pre-dump")
    assert answers(result.stdout, "mapping") == [_REFUSED]
    assert not (criu.images / "migrrdma.img").exists()


def test_the_image_of_an_earlier_dump_does_not_survive(criu: StandIn) -> None:
    (criu.images / "migrrdma.img").write_bytes(image(File()))
    criu.dump(*holder(opened(OTHER, 40)))
    assert not (criu.images / "migrrdma.img").exists()


def test_an_image_that_cannot_be_written_fails_the_dump(criu: StandIn, guest: Path) -> None:
    (criu.images / "migrrdma.img").mkdir()
    result = criu.dump(*holder(opened(UVERBS, 40), guest))
    assert result.returncode == 1
    assert "removing the migrrdma.img of an earlier dump: Is a directory" in result.stderr


def test_an_older_criu_that_keeps_no_list_of_plugins_is_served_as_well(
    old_criu: StandIn, guest: Path
) -> None:
    result = old_criu.dump(*holder(opened(UVERBS, 40), guest))
    assert answers(result.stdout, "file 40") == ["0"]
    assert not answers(result.stdout, "inventory")
    assert [file.fd for file in recorded(old_criu)] == [40]
