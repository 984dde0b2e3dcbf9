"""``lab/rack up``, interrupted at any change it makes, and the next one that finds nothing half-done."""

from __future__ import annotations

import signal
import tarfile
from pathlib import Path

import pytest
from kills import every_kill
from migrrdma_lab import plan
from migrrdma_lab.plan import NODES, PEER, RELEASES, SRC, Places
from migrrdma_lab.qemu import acceleration, network
from migrrdma_lab.qemu.rack import EmulatedRack
from pretend_rack import Machine, pretend
from trees import Tree, tree_of

from migrrdma_runtime.host.machine import Host


def _rack() -> EmulatedRack:
    return EmulatedRack(Places(RELEASES["trixie"]))


def up() -> None:
    _rack().up()


def left_by(directory: Path) -> Tree:
    found = {
        name: one
        for name, one in tree_of(Host(directory)).items()
        if not (name.startswith("/build/logs") or name.endswith(".draft"))
    }
    for name, (mode, _) in found.items():
        if name.endswith(".tar"):  # which holds times
            with tarfile.open(directory / name[1:]) as archive:
                found[name] = (mode, " ".join(f"{one.name}:{one.size}" for one in archive))
    return found


def take_down(directory: Path) -> None:
    for path in sorted(directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def test_only_root_reaches_what_a_rack_consists_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set-user-ID programs of whole Debians, agents' keys, sockets that containers may use; also of earlier racks."""
    pretend(monkeypatch, tmp_path)
    places = _rack().places
    places.images.mkdir(parents=True)
    up()
    for path in (places.images, places.disks, places.run):
        above = (path, *path.relative_to(tmp_path).parents)
        assert any((tmp_path / one).stat().st_mode & 0o077 == 0 for one in above), path


def test_all_nodes_are_made_named_and_carry_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, tmp_path)
    up()
    rack = _rack()
    for node in NODES:
        machine = Machine(rack.places, node, rack.image)
        assert machine.memory.read_text() == f"booted as {node.name}, project installed"
        assert machine.disk.read_text() == f"boot: {machine.memory.read_text()}\n"
    complete = left_by(tmp_path)
    up()
    assert left_by(tmp_path) == complete


def test_snapshots_of_another_emulator_are_not_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine's snapshot holds its QEMU's state: with KVM, or another QEMU, the machines are made anew."""
    pretend(monkeypatch, tmp_path)
    up()
    rack = _rack()
    disks = [Machine(rack.places, node, rack.image).disk for node in NODES]
    for disk in disks:
        disk.write_text("boot: in the state of the old one\n")
    monkeypatch.setattr(acceleration, "emulation", lambda _reason: acceleration.KVM)
    up()
    for disk, node in zip(disks, NODES, strict=True):
        assert disk.read_text() == f"boot: booted as {node.name}, project installed\n"


@pytest.mark.parametrize(
    ("kill", "apart"), [(signal.SIGKILL, 7), (signal.SIGINT, 11)], ids=["SIGKILL", "SIGINT"]
)
def test_an_interrupted_up_is_made_up_for_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill: signal.Signals, apart: int
) -> None:
    pretend(monkeypatch, tmp_path)
    up()
    complete = left_by(tmp_path)
    take_down(tmp_path)
    # There are some 250 changes, and three processes to each: a sample, the same for a given order of threads.
    for number in every_kill(up, kill, apart):
        up()
        found = left_by(tmp_path)
        assert found == complete, f"{kill.name} at change {number}"
        take_down(tmp_path)


def test_an_interrupted_up_of_one_node_leaves_the_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, tmp_path)
    _rack().up([SRC])
    places = Places(RELEASES["trixie"])
    source = Machine(places, SRC, _rack().image)
    source.note("in use")
    for _ in every_kill(lambda: _rack().up([PEER])):
        _rack().up([PEER])
        assert source.memory.read_text().endswith("in use")
        peer = Machine(places, PEER, _rack().image)
        peer.stop()
        peer.disk.unlink()


def test_two_checkouts_share_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[set[str]] = []
    for checkout in ("one", "other"):
        monkeypatch.setattr(plan, "REPOSITORY", tmp_path / checkout)
        monkeypatch.setenv("MIGRRDMA_LAB_DIR", str(tmp_path / "shared"))
        for release in RELEASES.values():
            places = Places(release)
            names.append({places.identity, places.namespace, str(places.disks), str(places.run)})
    assert len(names) == 4
    assert len(set.union(*names)) == sum(len(one) for one in names)
    monkeypatch.delenv("MIGRRDMA_LAB_DIR")
    builds = set()
    for checkout in ("one", "other"):
        monkeypatch.setattr(plan, "REPOSITORY", tmp_path / checkout)
        builds.add(Places(RELEASES["trixie"]).build)
    assert len(builds) == 2


def test_a_socket_of_a_rack_has_a_path_that_a_socket_can_have() -> None:
    run = Places(RELEASES["trixie"]).run
    # ssh adds a dot and 16 letters while it makes its control socket.
    assert all(len(f"{run}/{node.name}.ssh") + 17 < 108 for node in NODES)


# --- the network, which is real -----------------------------------------------------------------------------


def shape(places: Places) -> list[str]:
    """What there is in the namespace, without what is each time another."""
    links = network._ip("-o", "link", namespace=places.namespace).splitlines()
    kept = [line.split("\\")[0].split(": ", 1)[1].replace("state DOWN", "").split() for line in links]
    addresses = network._ip("-o", "-4", "addr", namespace=places.namespace).split("\n")
    return [*sorted(" ".join(words) for words in kept), *(line.split()[3] for line in addresses if line)]


def test_a_network_left_half_made_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "REPOSITORY", tmp_path)
    places = Places(RELEASES["trixie"])
    calls = 0
    real = network._ip

    def counted(*arguments: str, namespace: str | None = None) -> str:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise KeyboardInterrupt
        return real(*arguments, namespace=namespace)

    try:
        network.create(places)
        complete = shape(places)
        network.partition(places, SRC)
        network.create(places)
        assert network.partitioned(places, SRC)  # what was done on purpose stays
        network.destroy(places)
        monkeypatch.setattr(network, "_ip", counted)
        for stop_at in range(2, 60):
            calls = 0
            try:
                network.create(places)
            except KeyboardInterrupt:
                calls = 1000
                network.create(places)
                assert shape(places) == complete, f"interrupted at call {stop_at}"
                network.destroy(places)
            else:
                break
        else:
            raise AssertionError("it makes more calls than that")
    finally:
        monkeypatch.setattr(network, "_ip", real)
        network.destroy(places)


def test_two_checkouts_have_networks_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = []
    try:
        for checkout in ("one", "other"):
            monkeypatch.setattr(plan, "REPOSITORY", tmp_path / checkout)
            places = Places(RELEASES["trixie"])
            network.create(places)
            both.append((tmp_path / checkout, places.namespace))
        for directory, namespace in both:
            monkeypatch.setattr(plan, "REPOSITORY", directory)
            places = Places(RELEASES["trixie"])
            assert places.namespace == namespace
            assert network.exists(places)
        network.destroy(places)
        monkeypatch.setattr(plan, "REPOSITORY", both[0][0])
        assert network.exists(Places(RELEASES["trixie"]))
    finally:
        for directory, _ in both:
            monkeypatch.setattr(plan, "REPOSITORY", directory)
            network.destroy(Places(RELEASES["trixie"]))
