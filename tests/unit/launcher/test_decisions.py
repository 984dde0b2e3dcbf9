"""Whatever the launcher passes on, Python would have passed on, to the same runtime and unchanged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from launcher_site import Site

from migrrdma_runtime.base import config
from migrrdma_runtime.shim import argv, bundle

_EXAMPLES = settings(max_examples=1500, suppress_health_check=[HealthCheck.function_scoped_fixture])

_DOCKER = "--root state --log log.json --log-format json"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--version",
        "-v",
        "--help",
        "features",
        "state c1",
        f"{_DOCKER} state c1",
        f"{_DOCKER} --systemd-cgroup create --bundle plain --pid-file pid c1",
        f"{_DOCKER} create --bundle plain --console-socket s --no-pivot --preserve-fds 3 c1",
        f"{_DOCKER} run --detach -b plain --keep c1",
        "--debug --root=state create --bundle=plain -- c1",
        f"{_DOCKER} start c1",
        f"{_DOCKER} exec --process p --detach --pid-file pid c1",
        f"{_DOCKER} exec -t -e A=1 --cwd / c1 create --bundle rdma c2",
        f"{_DOCKER} exec missing true",
        f"{_DOCKER} kill --all c1 9",
        f"{_DOCKER} delete --force c1",
        f"{_DOCKER} pause c1",
        f"{_DOCKER} update --resources - c1",
        f"{_DOCKER} events --stats c1",
        "-- state c1",
        "list --quiet",
    ],
)
def test_calls_of_every_container_start_no_interpreter(site: Site, line: str) -> None:
    args = [os.fsencode(word) for word in line.split()]
    assert site.launcher(args) == os.fsencode(site.runc)
    assert site.python(args) == os.fsencode(site.runc)


@pytest.mark.parametrize(
    "line",
    [
        f"{_DOCKER} create --bundle rdma c1",
        f"{_DOCKER} create --bundle broken c1",
        f"{_DOCKER} create --bundle missing c1",
        f"{_DOCKER} create --bundle plain/../rdma c1",
        f"{_DOCKER} create --bundle link/.. c1",
        f"{_DOCKER} create c1 --bundle rdma",
        f"{_DOCKER} create --bundle plain --bundle rdma c1",
        f"{_DOCKER} run --bundle=rdma -- c1",
        f"{_DOCKER} run -b=rdma c1",
        f"{_DOCKER} run -db rdma c1",
        f"{_DOCKER} run -dbrdma c1",
        f"{_DOCKER} run --bund rdma c1",
        f"{_DOCKER} run --bundle rdma --news value c1",
        f"{_DOCKER} exec --process p c2",
        f"{_DOCKER} exec -- c2 true",
        f"{_DOCKER} exec -t c2 state c1",
        f"{_DOCKER} checkpoint --image-path i c1",
        f"{_DOCKER} restore --bundle plain c1",
        "--news create state --bundle rdma c1",
        "--root create create --bundle rdma c1",
        "--log state create --bundle rdma c1",
        "frobnicate",
    ],
)
def test_calls_that_may_concern_us_are_pythons(site: Site, line: str) -> None:
    assert site.launcher([os.fsencode(word) for word in line.split()]) == b""


@pytest.mark.parametrize("command", ["create", "run"])
def test_what_a_checkpoint_is_staged_for_is_pythons(site: Site, command: str) -> None:
    site.config.write_text(f'staged_dir = "{site.root}/staged"\n')
    call = [b"--root", b"state", command.encode(), b"--bundle", b"plain", b"c1"]
    assert site.launcher(call) == os.fsencode(site.runc)
    (site.root / "staged").mkdir()
    (site.root / "staged" / "c1").symlink_to(site.root / "away")
    assert site.launcher(call) == b""
    (site.root / "staged" / "c1").unlink()
    (site.root / "staged" / "c1").symlink_to("gone")
    assert site.launcher(call) == b""


def test_the_start_of_what_was_restored_by_its_create_is_pythons(site: Site) -> None:
    assert site.launcher([b"--root", b"state", b"start", b"c2"]) == os.fsencode(site.runc)
    (site.root / "state" / "c2" / "state.json").write_text('{"labels": ["org.migrrdma.adopted=4-2"]}')
    assert site.launcher([b"--root", b"state", b"start", b"c2"]) == b""
    assert site.launcher([b"--root", b"state", b"start", b"c1"]) == os.fsencode(site.runc)


def test_it_knows_the_parsers_options() -> None:
    """An option that only Python knows costs every call with it an interpreter; these are runc's and Docker's."""
    source = (Path(__file__).parents[3] / "launcher" / "command_line.c").read_text()
    left_out = {"f", "config", "c", "g"}  # crun's alone, or another thing in each of the two
    for command in ("create", "exec"):
        for option in argv.COMMANDS[command] - left_out:
            assert f'"{option}"' in source


_NAMES = """b bundle c1 c2 config config-path console-socket create cgroup-manager d debug delete detach e env exec
    f h help kill log log-format no-pivot p pid-file plain preserve-fds process rdma restore root run state t tty
    v version systemd-cgroup rootless criu news"""
_VALUES = """plain rdma broken missing . .. / plain/ ./plain plain/../rdma link/..
    state c1 c2 c3 3 - -- --- a=b create exec run"""
_ANY = st.binary(max_size=5).map(lambda word: word.replace(b"\0", b""))
_NAME = st.sampled_from([os.fsencode(name) for name in _NAMES.split()])
_VALUE = st.one_of(st.sampled_from([os.fsencode(value) for value in (*_VALUES.split(), "")]), _ANY)
_OPTION = st.one_of(
    st.builds(lambda dashes, name: [dashes + name], st.sampled_from([b"-", b"--", b"---"]), _NAME),
    st.builds(
        lambda dashes, name, value: [dashes + name + b"=" + value],
        st.sampled_from([b"-", b"--"]),
        _NAME,
        _VALUE,
    ),
    st.builds(
        lambda dashes, name, value: [dashes + name, value], st.sampled_from([b"-", b"--"]), _NAME, _VALUE
    ),
    st.builds(lambda name, value: [b"-" + name + value], _NAME, _VALUE),
)
_OPTIONS = st.lists(_OPTION, max_size=3).map(lambda options: [word for option in options for word in option])
_COMMAND = st.one_of(
    st.sampled_from([b"create", b"run", b"exec", b"state", b"checkpoint", b"restore", b"start"]), _NAME
)
_CALL = st.builds(
    lambda before, command, options, values, after: [*before, command, *options, *values, *after],
    _OPTIONS,
    _COMMAND,
    _OPTIONS,
    st.lists(_VALUE, max_size=2),
    _OPTIONS,
)
_CALLS = st.one_of(_CALL, st.lists(st.one_of(_NAME, _VALUE, _ANY), max_size=7))


@_EXAMPLES
@given(_CALLS)
@example([b"--root", b"state", b"exec", b"\xff", b"true"])
@example([b"", b"create"])
@example([b"create", b""])
@example([b"create", b"--bundle", b"", b"c1"])
@example([b"--root=", b"exec", b"c1"])
def test_nothing_is_passed_on_that_python_would_not_pass_on(site: Site, args: list[bytes]) -> None:
    passed_to = site.launcher(args)
    if passed_to:
        assert site.python(args) == passed_to


_TOML_VALUE = st.one_of(
    st.sampled_from(
        [
            '"runc"',
            '"crun"',
            '""',
            '"missing"',
            '"a/b"',
            '"/none"',
            "true",
            "false",
            "'runc'",
            '"ru\\u006ec"',
            '"r" # "x"',
            "1",
        ]
    ),
    st.text(max_size=4),
    st.text(max_size=4).map(lambda text: f'"{text}"'),
)
_TOML_KEY = st.one_of(
    st.sampled_from([*config.DEFAULTS, "tcp_established", "criu", "news", '"runtime"', "", "run time"]),
    st.text(max_size=3),
)
_TOML_LINE = st.one_of(
    st.builds(
        lambda key, value, blank: f"{blank}{key}{blank}={blank}{value}{blank}",
        _TOML_KEY,
        _TOML_VALUE,
        st.sampled_from(["", " ", "\t", "\r", "\x0b"]),
    ),
    st.sampled_from(
        [
            "",
            "  ",
            "# comment",
            "#\tcomment",
            "# \xfc",
            "[criu]",
            "[ criu ]",
            "[criu",
            "[other]",
            "[[criu]]",
            "x",
        ]
    ),
)


@_EXAMPLES
@given(st.lists(_TOML_LINE, max_size=5), st.sampled_from(["\n", "\r\n"]))
@example(['runtime = "other"'], "\n")
@example(["[criu]", "tcp_established = true", "[criu]"], "\n")
@example(["[criu]", 'runtime = "crun"'], "\n")
@example(['runtime = "crun"', 'runtime = "runc"'], "\n")
def test_a_configuration_is_read_alike_or_left_to_python(site: Site, lines: list[str], end: str) -> None:
    site.config.write_bytes(end.join(lines).encode(errors="surrogatepass"))
    for args in ([b"state", b"c1"], [b"create", b"--bundle", b"plain", b"c1"]):
        passed_to = site.launcher(args)
        if passed_to:
            assert site.python(args) == passed_to


def test_a_usual_configuration_is_understood(site: Site) -> None:
    """What `migrrdma install` writes, and what it becomes when every default in it is made explicit."""
    explicit = config.DEFAULT_TEXT.replace('# runtime = "runc"', '  runtime = "crun"')
    for key in config.DEFAULTS:
        explicit = explicit.replace(f"# {key.rpartition('.')[2]} =", f"{key.rpartition('.')[2]} =")
    assert explicit.count("\n# ") < config.DEFAULT_TEXT.count("\n# ") - len(config.DEFAULTS) + 2
    for text, runtime in ((config.DEFAULT_TEXT, site.runc), (explicit, site.crun)):
        site.config.write_text(text)
        assert site.launcher([b"state", b"c1"]) == os.fsencode(runtime) == site.python([b"state", b"c1"])


@pytest.mark.parametrize("size", [0, 100, (16 << 10) - 30, 16 << 10, 70_000])
def test_a_long_configuration_is_read_alike_or_left_to_python(site: Site, size: int) -> None:
    site.config.write_text("#" * size + '\nruntime = "crun"\n')
    assert site.launcher([b"state"]) in (b"", os.fsencode(site.crun))


@_EXAMPLES
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=8),
            st.sampled_from(
                [
                    b"infiniband",
                    b"org.migrrdma",
                    b"\\u006",
                    b"\\u007",
                    b"\\u002e",
                    b"\\u002E",
                    b"\\u002f",
                    b"{",
                    b"}",
                ]
            ),
            st.sampled_from(
                [b"inf\\u0069niband", b"infini", b"band", b" ", b"\r\n", b"org", b".migrrdma", b"\0"]
            ),
        ),
        max_size=6,
    ),
    st.sampled_from([b"", b" ", b"\n"]),
)
def test_a_spec_is_looked_at_alike(site: Site, parts: list[bytes], blank: bytes) -> None:
    (site.root / "plain" / "config.json").write_bytes(blank + b"{" + b"".join(parts) + b"}" + blank)
    found = site.launcher([b"create", b"--bundle", b"plain", b"c1"])
    assert bool(found) == bundle.is_plain(str(site.root / "plain" / "config.json"))


@pytest.mark.parametrize("word", [b"infiniband", b"org.migrrdma", b"\\u0069"])
def test_a_word_is_found_wherever_the_file_is_cut_to_be_read(site: Site, word: bytes) -> None:
    chunk = 128 << 10
    spec = site.root / "plain" / "config.json"
    args = [b"create", b"--bundle", b"plain", b"c1"]
    for at in range(chunk - len(word) - 1, chunk + 1):
        spec.write_bytes(b"{" + b"x" * (at - 1) + word + b"x" * 40 + b"}")
        assert site.launcher(args) == b"", at
    spec.write_bytes(b"{" + b"x" * (3 * chunk) + b"}")
    assert site.launcher(args)


@pytest.mark.parametrize("variable", ["", "xdg"])
@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_without_a_root_a_container_is_looked_up_where_the_runtime_keeps_it(
    site: Site, monkeypatch: pytest.MonkeyPatch, variable: str, runtime: str
) -> None:
    """A user other than root, in whose case that can be a directory of the test's."""
    site.config.write_text(f'runtime = "{runtime}"\n')
    monkeypatch.setenv("XDG_RUNTIME_DIR", f"{site.root}/{variable}" if variable else "")
    kept = site.root / "xdg" / runtime / "c1"
    kept.mkdir(parents=True)
    (kept / "state.json").write_bytes(b'{"labels": ["org.migrrdma.guest=0123"]}')
    # In a user namespace that maps nobody, so that it also works for root.
    site.close()
    site.start("/usr/bin/unshare", "--user")
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    args = [b"exec", b"--env", b"LD_PRELOAD=/theirs.so", b"c1", b"true"]
    passed_to = b"" if variable else os.fsencode(site.crun if runtime == "crun" else site.runc)
    assert site.launcher(args) == site.python(args) == passed_to
