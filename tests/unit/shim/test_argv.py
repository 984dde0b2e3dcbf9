"""The parser reads what runc and crun would read, and changes nothing."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from migrrdma_runtime.shim import argv


@pytest.mark.parametrize(
    ("line", "command", "container_id", "bundle"),
    [
        ("create c1", "create", "c1", ""),
        ("create --bundle /b c1", "create", "c1", "/b"),
        ("create --bundle=/b c1", "create", "c1", "/b"),
        ("create -b /b c1", "create", "c1", "/b"),
        ("create -b=/b c1", "create", "c1", "/b"),
        ("create -bundle /b c1", "create", "c1", "/b"),
        ("create c1 --bundle /b", "create", "c1", "/b"),
        ("create --bundle /a --bundle /b c1", "create", "c1", "/b"),
        ("create --no-pivot --bundle /b c1", "create", "c1", "/b"),
        ("create --preserve-fds 3 --pid-file p --console-socket s -b /b c1", "create", "c1", "/b"),
        ("create --pidfd-socket s -b /b c1", "create", "c1", "/b"),
        ("run -d -b /b -- c1", "run", "c1", "/b"),
        ("create -b /b -- --c1", "create", "--c1", "/b"),
        # Names that try to be something else.
        ("create create", "create", "create", ""),
        ("create --bundle create run", "create", "run", "create"),
        ("--log create state c1", "", "", ""),
        ("--log create create -b /b c1", "create", "c1", "/b"),
        ("--root run --log-format=create create c1", "create", "c1", ""),
        ("--criu exec --rootless restore --debug --systemd-cgroup run c1", "run", "c1", ""),
        ("-- create c1", "create", "c1", ""),
        # GNU argp, which is crun's.
        ("create -b/b c1", "create", "c1", "/b"),
        ("run -db/b c1", "run", "c1", "/b"),
        ("create --bund /b c1", "create", "c1", "/b"),
        ("--cgroup-manager create create c1", "create", "c1", ""),
        # exec: everything behind the ID belongs to the command.
        ("exec c1 runc create --bundle /b c2", "exec", "c1", ""),
        ("exec -e A=1 --user 1:1 -t c1 -p x", "exec", "c1", ""),
        # An option from the future: its value is among the positionals, and the ID still comes last.
        ("create --news value -b /b c1", "create", "c1", "/b"),
        # Not for us.
        ("", "", "", ""),
        ("--help", "", "", ""),
        ("--version create c1", "", "", ""),
        ("--news value create c1", "", "", ""),
        ("--log", "", "", ""),
        ("frobnicate create c1", "", "", ""),
        ("create --help c1", "create", "", ""),
        ("create -h", "create", "", ""),
        ("create", "create", "", ""),
    ],
)
def test_a_command_line_is_read_as_the_runtimes_read_it(
    line: str, command: str, container_id: str, bundle: str
) -> None:
    invocation = argv.parse(line.split())
    assert (invocation.command, invocation.container_id, invocation.value("b", "bundle")) == (
        command,
        container_id,
        bundle,
    )


def test_global_options_are_known_by_name() -> None:
    invocation = argv.parse(
        ["--log", "/l", "--log-format", "json", "--root=/r", "--debug", "checkpoint", "c1"]
    )
    assert invocation.globals == {"log": "/l", "log-format": "json", "root": "/r"}


@pytest.mark.parametrize(
    ("line", "rewritten"),
    [
        ("exec --process old c1", "exec --process new c1"),
        ("exec --process=old c1", "exec --process=new c1"),
        ("exec -p old c1", "exec -p new c1"),
        ("exec -pold c1", "exec -pnew c1"),
        ("exec --process old --process old c1", "exec --process old --process new c1"),
    ],
)
def test_an_option_gets_another_value_where_it_stands(line: str, rewritten: str) -> None:
    invocation = argv.parse(line.split())
    option = invocation.option("p", "process")
    assert option
    assert invocation.with_values({option: "new"}) == rewritten.split()
    assert invocation.args == line.split()


def test_a_flag_is_inserted_behind_the_subcommand() -> None:
    invocation = argv.parse(["--log", "checkpoint", "checkpoint", "--image-path", "/i", "c1"])
    with_flag = invocation.with_flag("--tcp-established")
    assert with_flag == ["--log", "checkpoint", "checkpoint", "--tcp-established", "--image-path", "/i", "c1"]


_VALUES = ("bundle", "b", "pid-file", "console-socket", "preserve-fds", "pidfd-socket")
_FLAGS = ("no-pivot", "no-new-keyring")
_TRICKY = """c1 create run -- - --bundle -b -bundle --bundle=/x -b=/y --pid-file --no-pivot --no-pivot=false
    /b --preserve-fds 3 --console-socket=-b"""
_WORDS = st.one_of(st.sampled_from(["", *_TRICKY.split()]), st.text(min_size=1, max_size=4))


class _RefusedError(Exception):
    """The reference parser does not accept the command line."""


def _go_parse(args: list[str]) -> tuple[dict[str, str], list[str]]:
    """Options and positionals by Go's ``flag`` package; raises when that would report an error."""
    options: dict[str, str] = {}
    while args and len(args[0]) > 1 and args[0].startswith("-"):
        arg, *args = args
        if arg == "--":
            break
        name, equals, value = arg.removeprefix("-").removeprefix("-").partition("=")
        if name in _FLAGS:
            options[name] = value
        elif name in _VALUES:
            if not equals:
                if not args:
                    raise _RefusedError
                value, *args = args
            options["bundle" if name == "b" else name] = value
        else:
            raise _RefusedError
    return options, args


def _reorder(args: list[str]) -> list[str]:
    """How urfave/cli 1.22.1, in runc up to 1.1, moves options before positionals."""
    options, others, value_may_follow = [], [], False
    for index, arg in enumerate(args):
        if arg == "--":
            others += args[index:]
            break
        if arg.startswith("-") and arg != "-":
            options.append(arg)
            value_may_follow = "=" not in arg
        else:
            (options if value_may_follow and not arg.startswith("-") else others).append(arg)
            value_may_follow = False
    return options + others


@given(st.lists(_WORDS, max_size=8))
@example(["0", "0", "--bundle"])
def test_whatever_runc_accepts_is_read_alike(words: list[str]) -> None:
    try:
        options, positionals = _go_parse(_reorder(words))
    except _RefusedError:
        return
    if len(positionals) != 1 or not positionals[0].strip("-"):
        return  # runc create takes one ID, and none that is only dashes is of use
    invocation = argv.parse(["create", *words])
    if not invocation.command:
        assert words[-1].startswith("-")  # an option whose value is missing, or somewhere else
        return
    assert invocation.container_id == positionals[0]
    assert invocation.value("b", "bundle") == options.get("bundle", "")


@given(st.lists(_WORDS, max_size=8))
def test_reading_changes_nothing(words: list[str]) -> None:
    assert argv.parse(list(words)).args == words
