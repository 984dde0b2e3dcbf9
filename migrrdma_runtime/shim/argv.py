"""Read a low-level runtime's command line just far enough to know what is asked, and of which container.

runc 1.0 to 1.5 parses with Go's ``flag`` rules (``-name`` and ``--name`` are the same, ``--name=value`` or
``--name value``, a bare ``--`` ends the options) and, except for ``exec``, lets options follow positionals.
crun parses with GNU argp, which adds ``-bVALUE`` and abbreviated names. Both are understood here at once:
what only one of them accepts, the other refuses anyway, so nothing that would run is read differently.

The arguments themselves are never normalised. What is not understood stays as it came, for the low-level
runtime to judge.
"""

_GLOBAL_FLAGS = frozenset({"debug", "systemd-cgroup"})
_GLOBAL_VALUES = frozenset({"log", "log-format", "root", "rootless", "criu", "cgroup-manager"})

_BUNDLE_VALUES = frozenset(
    {"b", "bundle", "f", "config", "console-socket", "pid-file", "pidfd-socket", "preserve-fds"}
)
_CRIU_VALUES = frozenset(
    {
        "image-path",
        "work-path",
        "parent-path",
        "status-fd",
        "page-server",
        "manage-cgroups-mode",
        "empty-ns",
        "lsm-profile",
        "lsm-mount-context",
    }
)
_EXEC_VALUES = frozenset(
    {
        "additional-gids",
        "apparmor",
        "c",
        "cap",
        "cgroup",
        "console-socket",
        "cwd",
        "e",
        "env",
        "g",
        "p",
        "pid-file",
        "pidfd-socket",
        "preserve-fds",
        "process",
        "process-label",
        "u",
        "user",
    }
)

COMMANDS = {
    "create": _BUNDLE_VALUES,
    "run": _BUNDLE_VALUES,
    "restore": _BUNDLE_VALUES | _CRIU_VALUES,
    "checkpoint": _CRIU_VALUES,
    "exec": _EXEC_VALUES,
    "delete": frozenset(),
    "start": frozenset(),
}
"""The subcommands we may step into, each with the options of it that take a value (all versions together)."""

_HELP = frozenset({"h", "help", "?", "usage"})


class Option:
    """One option as it stands on the command line; ``index`` is the argument in which its value ends."""

    __slots__ = ("index", "name", "value")

    def __init__(self, name: str, value: str, index: int) -> None:
        self.name = name
        self.value = value
        self.index = index


class Invocation:
    """One call of the runtime: ``args`` as they came, and what could be read from them."""

    __slots__ = ("args", "command", "command_index", "globals", "options", "positionals")

    def __init__(self, args: list[str]) -> None:
        self.args = args
        self.globals: dict[str, str] = {}
        self.command = ""
        self.command_index = 0
        self.options: list[Option] = []
        self.positionals: list[str] = []

    @property
    def container_id(self) -> str:
        """The container's ID, or nothing when the call is not about one container.

        ``exec`` has its command behind the ID. Everywhere else the ID is last, which also holds when an
        option unknown to us has left its value among the positionals.
        """
        if not self.positionals or any(option.name in _HELP for option in self.options):
            return ""
        return self.positionals[0 if self.command == "exec" else -1]

    def option(self, *names: str) -> Option | None:
        """The last option of these names: the one that counts for runc and crun alike."""
        for option in reversed(self.options):
            if option.name in names:
                return option
        return None

    def value(self, *names: str) -> str:
        """The value of the last option of these names, or nothing."""
        option = self.option(*names)
        return option.value if option else ""

    def flag(self, *names: str) -> bool:
        """Whether a boolean option is set; Go's flag package takes ``--name=false`` as well."""
        option = self.option(*names)
        return option is not None and option.value.lower() not in ("false", "f", "0")

    def with_values(self, values: dict[Option, str]) -> list[str]:
        """The arguments with other values of these options; both ways to write one end in the value."""
        args = list(self.args)
        for option, value in values.items():
            old = args[option.index]
            args[option.index] = old[: len(old) - len(option.value)] + value
        return args

    def with_flag(self, flag: str) -> list[str]:
        """The arguments with a flag right behind the subcommand, where every parser still looks for options."""
        behind = self.command_index + 1
        return [*self.args[:behind], flag, *self.args[behind:]]


def parse(args: list[str]) -> Invocation:
    """Read a command line without its ``argv[0]``; a call that is not ours to touch has no ``command``."""
    invocation = Invocation(args)
    index = _parse_globals(invocation)
    if index < len(args) and args[index] in COMMANDS:
        invocation.command = args[index]
        invocation.command_index = index
        _parse_command(invocation, index + 1)
    return invocation


def _parse_globals(invocation: Invocation) -> int:
    """Read the options before the subcommand; return its index, or the end when that cannot be known."""
    args, index = invocation.args, 0
    while index < len(args):
        arg = args[index]
        if arg == "--":
            return index + 1
        if len(arg) < 2 or arg[0] != "-":
            return index
        name, equals, value = arg.lstrip("-").partition("=")
        if name in _GLOBAL_VALUES:
            if not equals:
                index += 1
                if index == len(args):
                    break
                value = args[index]
            invocation.globals[name] = value
        elif name not in _GLOBAL_FLAGS:
            break  # --help, --version or news to us: whether it takes a value cannot be known
        index += 1
    return len(args)


def _parse_command(invocation: Invocation, index: int) -> None:
    args, takes_value = invocation.args, COMMANDS[invocation.command]
    while index < len(args):
        arg = args[index]
        if arg == "--":
            invocation.positionals += args[index + 1 :]
            return
        if len(arg) < 2 or arg[0] != "-":
            if invocation.command == "exec":
                invocation.positionals += args[index:]
                return
            invocation.positionals.append(arg)
        else:
            name, value = _split(arg, takes_value)
            if value is None and name in takes_value:
                index += 1
                if index == len(args):
                    # The value is missing. Most low-level runtimes say so; runc up to 1.1 takes the first
                    # positional for it. Not ours to touch.
                    invocation.command = ""
                    return
                value = args[index]
            invocation.options.append(Option(name, value or "", index))
        index += 1


def _split(arg: str, takes_value: frozenset[str]) -> tuple[str, str | None]:
    """Split an option into its name and the value that is attached to it, if one is."""
    name, equals, value = arg.lstrip("-").partition("=")
    if name in takes_value or name in _HELP:
        return name, value if equals else None
    if arg.startswith("--"):
        longer = [known for known in takes_value if name and known.startswith(name)]
        return longer[0] if len(longer) == 1 else name, value if equals else None
    for position in range(1, len(arg)):
        if arg[position] in takes_value:
            return arg[position], arg[position + 1 :] or None
    return name, value if equals else None
