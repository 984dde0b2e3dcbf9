"""What goes wrong before a container exists: one clear line, exit code 1, and nothing half-done."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import Bundle
from installed import Installation


def _refused(host: Installation, *args: str | Path) -> str:
    """The one line with which a call is refused, the same on stderr as in the log."""
    log = host.root / "log.json"
    log.unlink(missing_ok=True)
    result = host.run("--log", log, "--log-format", "json", *args)
    assert result.returncode == 1
    assert result.stdout == b""
    record = json.loads(log.read_text().splitlines()[-1])
    assert sorted(record) == ["level", "msg", "time"]
    assert record["level"] == "error"
    assert result.stderr.decode() == record["msg"] + "\n"
    return str(record["msg"])


def test_a_missing_spec_is_named(host: Installation, tmp_path: Path) -> None:
    message = _refused(host, "create", "--bundle", tmp_path, "c1")
    assert message == f"cannot read {tmp_path}/config.json: No such file or directory"


def test_a_spec_that_cannot_be_read_is_named(host: Installation, tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    message = _refused(host, "create", "--bundle", tmp_path, "c1")
    assert message == f"cannot read {tmp_path}/config.json: Is a directory"


def test_a_bundle_that_is_a_file_is_named(host: Installation, bundle: Bundle) -> None:
    message = _refused(host, "create", "--bundle", bundle.spec, "c1")
    assert message == f"cannot read {bundle.spec}/config.json: Not a directory"


def test_a_truncated_spec_is_named_with_the_place(host: Installation, bundle: Bundle) -> None:
    bundle.spec.write_text('{\n  "ociVersion": "1.0.2",\n  "process": {')
    message = _refused(host, "run", "--bundle", bundle.path, "c1")
    assert message.startswith(f"{bundle.spec}, line 3, column 15: not valid JSON: ")


def test_invalid_utf8_does_not_stop_an_ordinary_container(
    host: Installation, bundle: Bundle, lowlevel: str
) -> None:
    """It is for the low-level runtime to judge: runc replaces it, crun refuses it."""
    bundle.command("echo fine")
    _spoil(bundle)
    directly = subprocess.run(
        [lowlevel, *host.options, "run", "--bundle", bundle.path, "c1"], capture_output=True, check=False
    )
    result = host.run("run", "--bundle", bundle.path, "c1")
    assert (result.returncode, result.stdout) == (directly.returncode, directly.stdout)
    assert result.returncode == 0 or lowlevel.endswith("crun")


def test_invalid_utf8_in_the_spec_of_an_rdma_container_is_refused(host: Installation, bundle: Bundle) -> None:
    bundle.enable_rdma()
    _spoil(bundle)
    before = bundle.spec.read_bytes()
    message = _refused(host, "create", "--bundle", bundle.path, "c1")
    assert message == f"{bundle.spec}: not UTF-8 at byte {before.index(0xFF)}, so it cannot be edited safely"
    assert bundle.spec.read_bytes() == before


def _spoil(bundle: Bundle) -> None:
    bundle.change(hostname="SPOILED")
    bundle.spec.write_bytes(bundle.spec.read_bytes().replace(b"SPOILED", b"a\xff"))


def test_a_huge_ordinary_spec_is_no_obstacle(host: Installation, bundle: Bundle) -> None:
    bundle.command("echo fine")
    bundle.change(padding="x" * 50_000_000)
    assert host.run("run", "--bundle", bundle.path, "c1").stdout == b"fine\n"


def test_a_huge_spec_that_must_be_edited_is_refused(host: Installation, bundle: Bundle) -> None:
    bundle.enable_rdma()
    bundle.change(padding="x" * (16 << 20))
    message = _refused(host, "create", "--bundle", bundle.path, "c1")
    assert message == f"{bundle.spec}: larger than 16 MiB, too large to be edited"


def test_a_missing_low_level_runtime_is_named(host: Installation, bundle: Bundle) -> None:
    host.configure(runtime="norunc")
    message = _refused(host, "create", "--bundle", bundle.path, "c1")
    assert message.startswith("cannot find the low-level runtime 'norunc' in /")
    assert message.endswith(f": install it, or set `runtime` in {host.config}")


def test_a_low_level_runtime_that_cannot_be_run_is_named(host: Installation, bundle: Bundle) -> None:
    broken = host.root / "broken"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    host.configure(runtime=broken)
    message = _refused(host, "create", "--bundle", bundle.path, "c1")
    assert message == f"cannot run the low-level runtime {broken}: Exec format error"


def test_a_missing_guest_library_stops_only_rdma_containers(host: Installation, bundle: Bundle) -> None:
    (host.guest_dir / "current").unlink()
    bundle.command("echo fine")
    assert host.run("run", "--bundle", bundle.path, "c1").stdout == b"fine\n"
    bundle.enable_rdma()
    message = _refused(host, "run", "--bundle", bundle.path, "c1")
    assert message == (
        f"{bundle.spec}: the container holds an RDMA device, but no guest library is installed "
        f"({host.guest_dir}/current: No such file or directory): run `migrrdma install`"
    )


def test_a_broken_configuration_stops_only_rdma_containers(host: Installation, bundle: Bundle) -> None:
    with host.config.open("a") as config:
        config.write("frobnicate = true\n")
    log = host.root / "log"
    bundle.command("echo fine")
    result = host.run("--log", log, "run", "--bundle", bundle.path, "c1")
    complaint = f"{host.config}, line 7: unknown key frobnicate"
    assert (result.returncode, result.stdout, result.stderr) == (0, b"fine\n", b"")
    assert f'level=warning msg="{complaint}; containers without an RDMA device' in log.read_text()
    bundle.enable_rdma()
    assert _refused(host, "run", "--bundle", bundle.path, "c1") == complaint


def test_an_annotation_that_makes_no_sense_is_named(host: Installation, bundle: Bundle) -> None:
    bundle.change(annotations={"org.migrrdma.enable": "yes"})
    message = _refused(host, "run", "--bundle", bundle.path, "c1")
    assert (
        message == f'{bundle.spec}: the annotation org.migrrdma.enable must be "true" or "false", not \'yes\''
    )


@pytest.fixture
def full_disk(bundle: Bundle) -> Iterator[Bundle]:
    """The bundle on a file system with less room than a second copy of its spec takes."""
    bundle.enable_rdma()
    bundle.change(padding="x" * 40_000)
    spec = bundle.spec.read_bytes()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", bundle.path], check=True)
    try:
        bundle.spec.write_bytes(spec)
        yield bundle
    finally:
        subprocess.run(["umount", bundle.path], check=True)


def test_a_full_disk_leaves_the_spec_as_it_was(host: Installation, full_disk: Bundle) -> None:
    before = full_disk.spec.read_bytes()
    message = _refused(host, "create", "--bundle", full_disk.path, "c1")
    assert message == f"cannot write {full_disk.spec}: No space left on device"
    assert full_disk.spec.read_bytes() == before
    assert not list(full_disk.path.glob(".config.json*"))


def test_killed_in_the_middle_of_the_edit_it_can_simply_be_called_again(
    host: Installation, bundle: Bundle
) -> None:
    bundle.enable_rdma()
    bundle.command("echo fine")
    before = bundle.spec.read_bytes()
    call = [host.runtime, *host.options, "run", "--bundle", bundle.path, "c1"]
    # At fsync the new spec is written, and not yet in its place.
    strace = ["strace", "-qq", "-o", "/dev/null", "-e", "inject=fsync:signal=KILL"]
    assert subprocess.run([*strace, *call], env=host.environment, check=False).returncode == -9
    assert bundle.spec.read_bytes() == before
    assert list(bundle.path.glob(".config.json*")), "the half-done edit should have left its file"
    assert host.run("run", "--bundle", bundle.path, "c1").stdout == b"fine\n"
    assert not list(bundle.path.glob(".config.json*"))
