"""The command by which a container of Podman's was made, taken apart: options, image, and the container's own command.

Podman keeps the command of each container, and there is nothing else that it can make an equal one from: the
specification that ``podman generate spec`` writes lacks capabilities, DNS, sysctls, health checks and more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from migrrdma_runtime.base.errors import EngineError

Option = tuple[str, str | None]
"""Its long name, and its value; None: it was given without."""

_FLAGS = frozenset(
    [
        "detach",
        "disable-content-trust",
        "env-host",
        "help",
        "http-proxy",
        "init",
        "interactive",
        "no-healthcheck",
        "no-hostname",
        "no-hosts",
        "oom-kill-disable",
        "passwd",
        "privileged",
        "publish-all",
        "quiet",
        "read-only",
        "read-only-tmpfs",
        "replace",
        "rm",
        "rmi",
        "rootfs",
        "sig-proxy",
        "tls-verify",
        "tty",
        "unsetenv-all",
    ]
)
"""Options of ``podman create`` and ``podman run`` that have a value only behind an equals sign: Podman 4.3 to 5.4."""

_SHORT = {
    "a": "attach", "c": "cpu-shares", "d": "detach", "e": "env", "h": "hostname", "i": "interactive", "l": "label",
    "m": "memory", "P": "publish-all", "p": "publish", "q": "quiet", "t": "tty", "u": "user", "v": "volume",
    "w": "workdir",
}  # fmt: skip
_OTHER_NAMES = {"net": "network", "dns-opt": "dns-option"}

_OF_THE_NETWORK = frozenset({"network", "ip", "ip6", "mac-address", "network-alias"})

SETTLED = frozenset({"env", "hostname", "label", "runtime"})
"""What a container is asked for as it is now, and not as it was asked for."""

_FROM_ELSEWHERE = {"name", "restart", "env-file", "env-host", "env-merge", "label-file"}
"""What stands elsewhere in a description."""
_OF_THE_CALL = {
    "detach", "detach-keys", "attach", "sig-proxy", "replace", "cidfile", "pidfile", "conmon-pidfile", "pod-id-file",
    "quiet", "help", "preserve-fd", "preserve-fds", "pull", "authfile", "arch", "os", "platform", "variant",
    "decryption-key", "retry", "retry-delay", "tls-verify", "disable-content-trust",
}  # fmt: skip
"""Not of the container: who waited for it, where the call wrote files, from where it took the image."""
_LEFT_OUT = _OF_THE_NETWORK | _FROM_ELSEWHERE | _OF_THE_CALL


@dataclass(frozen=True)
class Command:
    """``podman create OPTIONS IMAGE WORDS``."""

    options: list[Option]
    image: str
    words: list[str]

    def values(self, name: str) -> list[str]:
        """What an option was given, each time."""
        return [value for option, value in self.options if option == name and value is not None]


def parse(words: list[str]) -> Command:
    """Of ``Config.CreateCommand``; `EngineError` if it is none that makes a container."""
    begin = next((at for at, word in enumerate(words) if word in ("create", "run")), None)
    if begin is None:
        raise EngineError(f"no podman create or podman run: {' '.join(words[:4])}")
    rest = list(words[begin + 1 :])
    options: list[Option] = []
    while rest:
        word = rest.pop(0)
        if word == "--" and rest:
            word = rest.pop(0)
        elif word.startswith("-") and len(word) > 1:
            options += _long(word, rest) if word.startswith("--") else _short(word, rest)
            continue
        return Command(options, word, rest)
    raise EngineError("podman's own record of how the container was made names no image")


def kept(options: list[Option]) -> list[Option]:
    """Those that make an equal container on another host, and what is settled anew."""
    return [one for one in options if one[0] not in _LEFT_OUT]


def written(options: list[Option]) -> list[str]:
    """As words of a command line."""
    return [f"--{name}" if value is None else f"--{name}={value}" for name, value in options]


def _long(word: str, rest: list[str]) -> Iterator[Option]:
    name, equals, value = word[2:].partition("=")
    name = _OTHER_NAMES.get(name, name)
    if equals:
        yield name, value
    elif name in _FLAGS:
        yield name, None
    else:
        yield name, _next(word, rest)


def _short(word: str, rest: list[str]) -> Iterator[Option]:
    """``-itd``, ``-vA:B``, ``-v=A:B``, ``-v A:B``."""
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        name = _SHORT.get(letter)
        if name is None:
            raise EngineError(f"podman's own record of how the container was made has an option -{letter}")
        if name in _FLAGS:
            yield name, None
            continue
        yield name, letters.removeprefix("=") if letters else _next(word, rest)
        return


def _next(word: str, rest: list[str]) -> str:
    if not rest:
        raise EngineError(f"podman's own record of how the container was made ends with {word}")
    return rest.pop(0)
