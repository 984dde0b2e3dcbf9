"""The configuration, ``/etc/migrrdma/config.toml``.

Every call of the OCI runtime reads it, and ``tomllib`` alone would cost such a call 12 ms. So the lines that
nearly every configuration is made of (a comment, a ``[table]``, ``key = "text"``, ``key = true``) are read
here, and only a file with anything else in it goes to ``tomllib``. A property test holds the two together.
"""

import os

from migrrdma_runtime.base import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from migrrdma_runtime.base.errors import ConfigError

_Value = str | bool

DEFAULTS: dict[str, _Value] = {
    "runtime": "runc",
    "guest_dir": paths.GUEST_DIR,
    "hooks_dir": paths.HOOKS_DIR,
    "run_dir": paths.RUN_DIR,
    "staged_dir": paths.STAGED_DIR,
    "criu_plugin": paths.CRIU_PLUGIN,
    "criu.tcp_established": True,
    "criu.late_commit": True,
}

DEFAULT_TEXT = f"""\
# Configuration of the MigrRDMA runtime. Every key is optional; what is commented out is the default.
# A mistake in this file stops only containers that hold an RDMA device; `migrrdma check` shows it.

# The low-level runtime that does the work: "runc", "crun", or an absolute path.
# A name is looked for in $PATH, then in the usual sbin, bin and libexec directories.
# runtime = "runc"

# Where the guest libraries are, one folder per version; mounted read-only at
# {paths.GUEST_DIR_IN_CONTAINER} in containers that hold an RDMA device.
# guest_dir = "{paths.GUEST_DIR}"

# Where the OCI hooks are.
# hooks_dir = "{paths.HOOKS_DIR}"

# Our plugin for CRIU.
# criu_plugin = "{paths.CRIU_PLUGIN}"

# State that ends with the boot: what is known of each container.
# run_dir = "{paths.RUN_DIR}"

# Checkpoints that wait for the next start of their container (migrrdma checkpoint import).
# staged_dir = "{paths.STAGED_DIR}"

[criu]
# Checkpoint and restore established TCP connections of containers that have a network namespace of their own
# (as if --tcp-established had been given). A container on the host's network is never treated so:
# its connections belong to an address that stays behind.
# tcp_established = true

# Commit a restore while CRIU holds the restored processes, before their first instruction. With false it is committed
# after CRIU has let them go: their verbs wait for it, and whatever else they do they have done if it is refused. Both
# hosts must have it true, and CRIU 4.1 or later; `migrrdma check` says whether this one has.
# late_commit = true
"""
"""What ``migrrdma install`` writes."""


class Config:
    """The configuration in force."""

    __slots__ = (
        "criu_plugin",
        "guest_dir",
        "hooks_dir",
        "late_commit",
        "run_dir",
        "runtime",
        "staged_dir",
        "tcp_established",
    )

    def __init__(self, values: "Mapping[str, _Value]") -> None:
        merged = {**DEFAULTS, **values}
        self.runtime = str(merged["runtime"])
        self.guest_dir = str(merged["guest_dir"])
        self.hooks_dir = str(merged["hooks_dir"])
        self.run_dir = str(merged["run_dir"])
        self.staged_dir = str(merged["staged_dir"])
        self.criu_plugin = str(merged["criu_plugin"])
        self.late_commit = bool(merged["criu.late_commit"])
        self.tcp_established = bool(merged["criu.tcp_established"])


def path() -> str:
    """The configuration file in force."""
    return os.environ.get("MIGRRDMA_CONFIG") or paths.CONFIG_FILE


def load() -> "tuple[Config, ConfigError | None]":
    """The configuration, and what is wrong with it.

    A broken file is no reason to stop containers that have nothing to do with us: the keys that can be used
    are, so that a host set up for crun goes on finding its containers, and the caller decides what to refuse.
    """
    file = path()
    try:
        with open(file, "rb", buffering=0) as stream:
            text = stream.read().decode()
    except FileNotFoundError:
        return Config({}), None
    except OSError as error:
        return Config({}), _broken(f"cannot read the configuration {file}: {error.strerror}")
    except UnicodeDecodeError as error:
        return Config({}), _broken(f"{file}: not UTF-8 at byte {error.start}")
    plain, strange = _read_plain(text)
    found: Mapping[str, object] = plain
    if strange:
        try:
            found = _read_toml(text)
        except ValueError as error:
            usable, _ = _validate(plain)
            return Config(usable), _broken(f"{file}: {_lower_first(str(error))}")
    usable, complaint = _validate(found)
    if complaint:
        key, reason = complaint
        return Config(usable), _broken(f"{file}, line {_line_of(text, key)}: {reason}")
    return Config(usable), None


def _broken(message: str) -> "ConfigError":
    from migrrdma_runtime.base.errors import ConfigError  # only now: see oci.py

    return ConfigError(message)


def _read_plain(text: str) -> tuple[dict[str, _Value], bool]:
    """Read the plain lines; also say whether there are others, which only ``tomllib`` can judge."""
    values: dict[str, _Value] = {}
    tables: set[str] = set()
    prefix, strange = "", False
    for raw in text.split("\n"):
        line = raw.strip(" \t")
        if not line or (line[0] == "#" and line.isprintable()):
            continue
        if line[0] == "[":
            prefix = line[1:-1] + "."
            strange = strange or line[-1] != "]" or not _is_bare(line[1:-1]) or prefix in tables
            tables.add(prefix)
            continue
        name, _, literal = line.partition("=")
        key = prefix + name.rstrip(" \t")
        value = _plain_value(literal.lstrip(" \t"))
        if value is not None and _is_bare(name.rstrip(" \t")) and key not in values:
            values[key] = value
        else:
            strange = True
    # A key and a table of one name clash, which is for tomllib to say.
    return values, strange or any(f"{key}." in tables for key in values)


def _is_bare(name: str) -> bool:
    return name.isascii() and name.replace("_", "a").replace("-", "a").isalnum()


def _plain_value(literal: str) -> _Value | None:
    if literal in ("true", "false"):
        return literal == "true"
    body = literal[1:-1]
    if len(literal) >= 2 and literal[0] == literal[-1] == '"' and body.isprintable():
        return None if '"' in body or "\\" in body else body
    return None


def _read_toml(text: str) -> dict[str, object]:
    import tomllib

    flat: dict[str, object] = {}
    for key, value in tomllib.loads(text).items():
        if isinstance(value, dict):
            flat.update({f"{key}.{name}": inner for name, inner in value.items()})
        else:
            flat[key] = value
    return flat


def _validate(found: "Mapping[str, object]") -> tuple[dict[str, _Value], tuple[str, str] | None]:
    """Split into the values that can be used and the first complaint: the key and what is wrong with it."""
    usable: dict[str, _Value] = {}
    complaint = None
    for key, value in found.items():
        problem = _problem(key, value)
        if problem is None and isinstance(value, str | bool):
            usable[key] = value
        elif complaint is None:
            complaint = key, problem or ""
    return usable, complaint


def _problem(key: str, value: object) -> str | None:
    if key not in DEFAULTS:
        return _unknown(key)
    wanted = type(DEFAULTS[key])
    if type(value) is not wanted:
        return f"{key} must be {'true or false' if wanted is bool else 'a text in quotes'}, not {value!r}"
    if key == "runtime" and (not value or ("/" in str(value) and not str(value).startswith("/"))):
        return f"runtime must be a name or an absolute path, not {value!r}"
    if key.endswith("_dir") and not str(value).startswith("/"):
        return f"{key} must be an absolute path, not {value!r}"
    return None


def _unknown(key: str) -> str:
    import difflib

    near = difflib.get_close_matches(key, DEFAULTS, n=1)
    return f"unknown key {key}" + (f" (did you mean {near[0]}?)" if near else "")


def _line_of(text: str, key: str) -> int:
    """The line on which ``key`` is set, or the first that looks like it."""
    table, _, name = key.rpartition(".")
    current = ""
    lines = text.split("\n")
    for number, raw in enumerate(lines, 1):
        line = raw.strip()
        if line.startswith("["):
            current = line.strip("[] \t")
        bare = line.partition("=")[0].strip(" \t\"'")
        if (current == table and bare == name) or bare.replace(" ", "") == key:
            return number
    return next((number for number, line in enumerate(lines, 1) if name in line), 1)


def _lower_first(message: str) -> str:
    return message[:1].lower() + message[1:]
