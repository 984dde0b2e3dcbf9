"""What the low-level runtime gets when a call is not ours to touch: the very call."""

import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from installed import BOTH_WAYS, FakeRuntime, Installation

_OPTIONS = """--bundle --log --log-format --root --debug --help --version --process -e --tty --pid-file
    --image-path --work-path --news --cgroup-manager -- -"""
_COMMANDS = "create run exec restore state kill delete features checkpoint spec news c1 json . text"
_WORDS = st.one_of(
    st.sampled_from([*_OPTIONS.split(), *_COMMANDS.split()]).map(os.fsencode),
    st.binary(max_size=6).filter(lambda word: b"\0" not in word),
)

pytestmark = BOTH_WAYS

MakeFake = Callable[[str], FakeRuntime]


@pytest.fixture
def plain_bundle(tmp_path: Path) -> Path:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "config.json").write_text('{"ociVersion": "1.0.2"}')
    return bundle


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_WORDS, max_size=7))
def test_any_arguments_arrive_to_the_byte(
    installation: Installation, fake_runtime: MakeFake, plain_bundle: Path, words: list[bytes]
) -> None:
    fake = fake_runtime("")
    result = installation.run(*words, cwd=plain_bundle)
    if fake.was_called:
        assert fake.arguments() == words
    else:
        # The one reason not to pass a call on: a container to create, and no spec of it where it should be.
        assert result.returncode == 1
        assert b"cannot read " in result.stderr


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"LC_ALL": "C"},
        {"LC_CTYPE": "C.UTF-8"},
        {"LC_CTYPE": "POSIX"},
        {"LANG": "C", "A": "\udcff"},
        {"PYTHONHOME": "/x"},
    ],
    ids=str,
)
def test_the_environment_arrives_to_the_byte(
    installation: Installation, fake_runtime: MakeFake, setting: dict[str, str]
) -> None:
    """Also what Python itself would like to change or obey."""
    fake = fake_runtime("")
    environment = {"MIGRRDMA_CONFIG": str(installation.config), **setting}
    subprocess.run([installation.runtime, "state", "c1"], env=environment, check=True)
    assert fake.environment() == [os.fsencode(f"{key}={value}") for key, value in environment.items()]


def test_descriptors_arrive_and_none_is_added(installation: Installation, fake_runtime: MakeFake) -> None:
    fake = fake_runtime("")
    with Path("/dev/full").open("wb") as full, Path("/dev/zero").open("rb") as zero:
        subprocess.run(
            [installation.runtime, "state", "c1"],
            env=installation.environment,
            pass_fds=[full.fileno(), zero.fileno()],
            stdin=zero,
            stdout=full,
            stderr=full,
            check=True,
        )
        assert fake.descriptors() == {
            **dict.fromkeys((0, zero.fileno()), "/dev/zero"),
            **dict.fromkeys((1, 2, full.fileno()), "/dev/full"),
        }


def test_signals_are_as_the_caller_left_them(installation: Installation) -> None:
    """Python ignores two signals; a C runtime would hand that on to the container."""
    installation.configure(runtime="/bin/grep")
    result = subprocess.run(
        [installation.runtime, "-E", "^Sig(Ign|Blk)", "/proc/self/status"],
        env=installation.environment,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: (
            signal.signal(signal.SIGHUP, signal.SIG_IGN),
            signal.pthread_sigmask(signal.SIG_SETMASK, [signal.SIGUSR1]),
        ),
        check=True,
    )
    fields = dict(line.split(b":\t") for line in result.stdout.splitlines())
    # Whoever runs the tests may ignore signals of their own, of which Python knows only some.
    status = re.search(r"^SigIgn:\t(\w+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert status
    before = int(status[1], 16)
    pythons = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    assert int(fields[b"SigIgn"], 16) == before & ~pythons | 1 << (signal.SIGHUP - 1)
    assert int(fields[b"SigBlk"], 16) == 1 << (signal.SIGUSR1 - 1)


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_the_exit_code_is_the_low_level_runtimes(
    installation: Installation, fake_runtime: MakeFake, code: int
) -> None:
    fake_runtime(f"exit {code}")
    assert installation.run("state", "c1").returncode == code


def test_the_process_stays_the_one_that_was_started(
    installation: Installation, fake_runtime: MakeFake
) -> None:
    fake_runtime("echo $$")
    process = subprocess.Popen(
        [installation.runtime, "state", "c1"], env=installation.environment, stdout=subprocess.PIPE
    )
    assert int(process.communicate()[0]) == process.pid


def test_nothing_heavy_is_imported(installation: Installation, fake_runtime: MakeFake) -> None:
    """The budget of a passed-through call is spent on starting the interpreter."""
    fake_runtime("")
    interpreter, flags = installation.script.read_text().partition("\n")[0].removeprefix("#!").split()
    result = subprocess.run(
        [interpreter, "-Ximporttime", flags, installation.script, "state", "c1"],
        env=installation.environment,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert {name for name in imported if name.startswith("migrrdma_runtime.")} == {
        f"migrrdma_runtime.{name}"
        for name in (
            "base",
            "base.config",
            "base.paths",
            "oci",
            "shim",
            "shim.argv",
            "shim.lowlevel",
        )
    }
    assert imported.isdisjoint({"json", "re", "enum", "typing", "pathlib", "subprocess", "signal", "tomllib"})


def test_an_ordinary_spec_is_not_parsed_whatever_its_size(
    installation: Installation, fake_runtime: MakeFake, plain_bundle: Path
) -> None:
    spec = plain_bundle / "config.json"
    spec.write_bytes(b'{"ociVersion": "1.0.2", "pad": "\xff' + b"x" * 50_000_000 + b'"}')
    before = spec.stat()
    fake = fake_runtime("")
    assert installation.run("create", "--bundle", plain_bundle, "c1").returncode == 0
    assert fake.arguments() == [b"create", b"--bundle", os.fsencode(plain_bundle), b"c1"]
    assert (spec.stat().st_ino, spec.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
