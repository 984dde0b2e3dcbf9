"""What the plugin makes of its image: placeholders from a good one, a reason from any other."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from criu_image import EVENTS, HEADER, PAGE, File, Mapping, image, sealed
from criu_stand_in import StandIn

NONBLOCK = os.O_NONBLOCK


@pytest.fixture
def put(criu: StandIn) -> Path:
    """Where the image goes."""
    return criu.images / "migrrdma.img"


def test_a_device_becomes_a_pipe_that_takes_no_command(criu: StandIn, put: Path) -> None:
    put.write_bytes(image(File(id=7)))
    line = criu.restore("file", 7).stdout.splitlines()[-1]
    assert line.startswith("file 0 pipe:")
    assert line.endswith("read 0 0 write -1")


def test_an_event_channel_becomes_an_eventfd_with_its_flags_and_no_event(criu: StandIn, put: Path) -> None:
    put.write_bytes(image(File(id=7, kind=EVENTS), File(id=8, kind=EVENTS, flags=NONBLOCK)))
    lines = criu.restore("file", 7, "file", 8).stdout.splitlines()[-2:]
    assert lines[0].startswith("file 0 anon_inode:[eventfd] read -1 0")
    assert lines[1].startswith("file 0 anon_inode:[eventfd] nonblocking read -1 0")


def test_an_unread_event_is_not_handed_out_as_a_number(criu: StandIn, put: Path) -> None:
    put.write_bytes(image(File(id=7, kind=EVENTS, state=1)))
    assert "read -1 0" in criu.restore("file", 7).stdout


def test_a_mapping_becomes_zeros_of_its_size(criu: StandIn, put: Path) -> None:
    mapping = Mapping(length=5 * PAGE)
    put.write_bytes(image(mapping, Mapping(start=mapping.start + mapping.length)))
    line = criu.restore("mapping", hex(mapping.start), hex(mapping.offset)).stdout.splitlines()[-1]
    assert line == f"mapping 1 offset 0 size {5 * PAGE} /memfd:migrrdma-device (deleted)"


def test_what_the_image_does_not_know_is_left_to_other_plugins(criu: StandIn, put: Path) -> None:
    put.write_bytes(image(File(id=7), Mapping(vpid=2)))
    lines = criu.restore(
        "file", 8, "mapping", hex(Mapping().start), hex(Mapping().offset)
    ).stdout.splitlines()
    assert lines[-2:] == ["file -95", "mapping -95"]


def test_a_mapping_of_another_checkpoint_is_refused(criu: StandIn, put: Path) -> None:
    put.write_bytes(image(Mapping()))
    result = criu.restore("mapping", hex(Mapping().start), 0)
    assert result.stdout.splitlines()[-1] == "mapping -22"
    assert "they are not of one checkpoint" in result.stderr


def test_a_missing_image_is_named_when_the_inventory_names_the_plugin(criu: StandIn) -> None:
    result = criu.restore(MIGRRDMA_TEST_INVENTORY="named")
    assert result.returncode == 1
    assert "its migrrdma.img is missing" in result.stderr


@pytest.mark.parametrize("inventory", ["unnamed", "old"])
def test_a_checkpoint_without_rdma_is_none_of_its_business(criu: StandIn, inventory: str) -> None:
    result = criu.restore("file", 1, "mapping", hex(PAGE), 0, MIGRRDMA_TEST_INVENTORY=inventory)
    assert result.stdout.splitlines() == ["init 0", "file -95", "mapping -95"]
    # Where nobody knows whether there should be an image, a hint stands in the log.
    hint = "if file 0x1 was an RDMA device, migrrdma.img is missing"
    assert (hint in result.stderr) == (inventory == "old")


@pytest.mark.parametrize("inventory", ["unnamed", "old"])
def test_an_image_counts_even_where_the_inventory_names_nobody(
    criu: StandIn, put: Path, inventory: str
) -> None:
    put.write_bytes(image(File(id=7)))
    assert "pipe:" in criu.restore("file", 7, MIGRRDMA_TEST_INVENTORY=inventory).stdout


def test_an_older_criu_that_keeps_no_list_of_plugins_is_served_as_well(old_criu: StandIn) -> None:
    assert old_criu.restore("file", 7).stdout.splitlines() == ["init 0", "file -95"]
    (old_criu.images / "migrrdma.img").write_bytes(image(File(id=7)))
    assert "pipe:" in old_criu.restore("file", 7).stdout


_GOOD = image(File(id=1), File(id=2, kind=EVENTS), Mapping(), Mapping(vpid=2))
_ENDLESS = b"x" * 64

DAMAGED = {
    "empty": (b"", "it has 0 bytes"),
    "shorter than its header": (_GOOD[:31], "it has 31 bytes"),
    "another magic": (b"x" + _GOOD[1:], "does not begin with MIGRRDMA"),
    "another version": (_GOOD[:8] + b"\3" + _GOOD[9:], "has version 3, this plugin reads versions 1 to 2"),
    "a longer header": (_GOOD[:12] + b"\x21" + _GOOD[13:], "its header claims 33 bytes"),
    "cut": (_GOOD[:-1], "announces"),
    "something appended": (_GOOD + b"\0", "announces"),
    "a flipped bit": (_GOOD[:-1] + b"\1", "checksum"),
    "a record too few": (sealed(_GOOD[HEADER.size :], 5), "1 records are missing"),
    "a record too many": (sealed(_GOOD[HEADER.size :], 3), "120 bytes follow its last record"),
    "a record of no length": (image(b"\1\0\0\0\0\0\0\0"), "a record claims 0"),
    "a record beyond the end": (image(b"\1\0\0\0\xff\xff\xff\xff"), "a record claims 4294967295"),
    "a record of another length": (image(b"\1\0\0\0\x09\0\0\0x"), "a record of type 1 and 9 bytes"),
    "a record of another type": (image(b"\x09\0\0\0\x08\0\0\0"), "a record of type 9"),
    "a file of another kind": (image(File(kind=3)), "is of the unknown kind 3"),
    "a file in another state": (image(File(state=2)), "has the unknown state 0x2"),
    "a file with an endless name": (image(File(node=_ENDLESS)), "a device name without an end"),
    "a file with an endless device": (image(File(ibdev=_ENDLESS)), "a device name without an end"),
    "a file twice": (image(File(), Mapping(), File(kind=EVENTS)), "file 0x1 is there twice"),
    "a mapping of no process": (image(Mapping(vpid=0)), "belongs to process 0"),
    "a mapping of no length": (image(Mapping(length=0)), "not made of whole pages"),
    "a crooked mapping": (image(Mapping(start=1)), "not made of whole pages"),
    "a huge mapping": (image(Mapping(length=1 << 41)), "has 2199023255552 bytes"),
    "a mapping that wraps": (image(Mapping(start=2**64 - PAGE, length=2 * PAGE)), "has 8192 bytes"),
    "a mapping with a strange protection": (image(Mapping(prot=8)), "has the protection 0x8"),
    "a mapping with an endless name": (image(Mapping(node=_ENDLESS)), "a device name without an end"),
    "overlapping mappings": (
        image(Mapping(), Mapping(start=Mapping().start + PAGE)),
        "two mappings of process 1",
    ),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_image_fails_the_restore_with_the_damage(criu: StandIn, put: Path, how: str) -> None:
    data, reason = DAMAGED[how]
    put.write_bytes(data)
    result = criu.restore()
    assert (result.returncode, result.stdout) == (1, "init -1\n")
    assert "migrrdma_plugin: migrrdma.img" in result.stderr
    assert reason in result.stderr
    assert result.stderr.count("Error") == 1


def test_an_image_that_is_no_file_fails_the_restore(criu: StandIn, put: Path) -> None:
    put.mkdir()
    assert "is not a file of at most" in criu.restore().stderr


def test_thousands_of_garbled_images_are_taken_or_refused_and_never_crash(
    criu: StandIn, tmp_path: Path
) -> None:
    chance = random.Random(20)  # noqa: S311
    directory = tmp_path / "garbled"
    for number in range(3000):
        body = bytearray(_GOOD[HEADER.size :])
        for _ in range(chance.randint(1, 8)):
            body[chance.randrange(len(body))] = chance.choice((0, 1, 127, 255, chance.randrange(256)))
        body = body[: len(body) if chance.random() < 0.7 else chance.randrange(len(body))]
        # Half of them get past the checksum, so that what comes after it is tried, too.
        data = bytearray(sealed(bytes(body), chance.choice((4, 4, 4, 3, 2**32 - 1))))
        if number % 2:
            data[chance.randrange(HEADER.size)] ^= 1 << chance.randrange(8)
        (directory / str(number)).mkdir(parents=True)
        (directory / str(number) / "migrrdma.img").write_bytes(data)
    taken = criu.judge(directory)
    assert len(taken) == 3000
    assert any(taken.values())
    assert not any(taken[str(number)] for number in range(1, 3000, 2))
