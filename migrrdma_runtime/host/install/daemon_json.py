"""The surgical edit of Docker's ``daemon.json``: one runtime goes in or out, nothing else moves.

The file belongs to the administrator, so it is never parsed and written back. An edit is one insertion into
the text, in the style of the lines around it, and taking it out again gives back the very bytes. Where the
administrator has changed the neighbourhood since, the entry alone is cut out. Pure functions of text; who
reads and writes the file is ``docker_config.py``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from migrrdma_runtime.base.errors import DockerError

_RUNTIMES = "runtimes"
_DEFAULT_INDENT = "  "  # what Docker's own documentation uses
_BLANK = " \t\r\n\ufeff"  # dockerd ≥ 23 skips a byte order mark, and so do we


@dataclass(frozen=True)
class Edit:
    """The text with the runtime in it, and what was inserted to get there."""

    text: str
    inserted: str


@dataclass(frozen=True)
class _Member:
    """One ``"key": value`` of an object, as offsets into the text."""

    key: str
    start: int
    value: int
    end: int


@dataclass(frozen=True)
class _Object:
    """An object's braces and members, as offsets into the text."""

    open: int
    close: int
    members: tuple[_Member, ...]

    def member(self, key: str) -> _Member | None:
        """The member of that name; two of them are refused, because readers disagree on which one counts."""
        found = [member for member in self.members if member.key == key]
        if len(found) > 1:
            raise DockerError(f'the key "{key}" is there twice; remove one of them')
        return found[0] if found else None


def parse(text: str) -> dict[str, Any]:
    """The document, read as strictly as dockerd reads it; the error names line and column."""
    if _is_blank(text):
        return {}
    try:
        document = json.loads(text.removeprefix("\ufeff"), parse_constant=_refuse_constant, parse_int=float)
    except json.JSONDecodeError as error:
        hint = _comment_hint(error.doc, error.pos)
        raise DockerError(f"line {error.lineno} column {error.colno}: {error.msg}{hint}") from error
    except RecursionError as error:
        raise DockerError("it is nested too deeply") from error
    if not isinstance(document, dict):
        raise DockerError("it must hold one JSON object, in braces")
    return document


def runtime_path(text: str, name: str) -> str | None:
    """The path of the runtime called ``name``: None when there is none, "" when it is not one with a path."""
    _, runtimes = _objects(text)
    if runtimes is None or runtimes.member(name) is None:
        return None
    entry = parse(text)[_RUNTIMES][name]
    path = entry.get("path") if isinstance(entry, dict) else None
    return path if isinstance(path, str) else ""


def default_runtime(text: str) -> object:
    """The runtime of containers that ask for none, if one is set."""
    return parse(text).get("default-runtime")


def add(text: str, name: str, path: str) -> Edit:
    """Insert the runtime ``name``, which must not be there yet."""
    entry = {"path": path}
    top, runtimes = _objects(text)
    if runtimes is not None:
        return _append(text, runtimes, name, entry)
    if top is not None:
        return _append(text, top, _RUNTIMES, {name: entry})
    document = json.dumps({_RUNTIMES: {name: entry}}, indent=_DEFAULT_INDENT)
    return _insert(text, len(text), document + "\n")


def remove(text: str, name: str, inserted: str = "") -> str:
    """Take the runtime ``name`` out again.

    ``inserted`` is what :func:`add` reported; without it a "runtimes" that :func:`add` made stays, empty.
    """
    top, runtimes = _objects(text)
    if top is None or runtimes is None or runtimes.member(name) is None:
        return text
    expected = parse(text)
    del expected[_RUNTIMES][name]
    # A "runtimes" that was not there before goes too, unless somebody else has moved in.
    with_parent = f'"{_RUNTIMES}"' in inserted and not expected[_RUNTIMES]
    if with_parent:
        del expected[_RUNTIMES]
    if inserted and text.count(inserted) == 1:
        candidate = text.replace(inserted, "")
        if _holds(candidate, expected):
            return candidate
    return _cut(text, top, _RUNTIMES) if with_parent else _cut(text, runtimes, name)


def _is_blank(text: str) -> bool:
    """Whether there is no document at all; dockerd ≥ 23 takes an empty file for an empty object."""
    return not text.strip(_BLANK)


def _refuse_constant(constant: str) -> NoReturn:
    # Python's reader takes NaN and Infinity, dockerd's does not.
    raise DockerError(f"{constant} is not JSON")


def _comment_hint(text: str, position: int) -> str:
    return " (JSON has no comments)" if text[position : position + 1] in ("/", "#") else ""


def _holds(text: str, expected: dict[str, Any]) -> bool:
    try:
        return parse(text) == expected
    except DockerError:
        return False


def _objects(text: str) -> tuple[_Object | None, _Object | None]:
    """The top-level object and the one called "runtimes" in it, as far as they are there."""
    document = parse(text)
    if _is_blank(text):
        return None, None
    top = _scan(text, text.index("{"))
    member = top.member(_RUNTIMES)
    if member is None:
        return top, None
    if not isinstance(document[_RUNTIMES], dict):
        line = text.count("\n", 0, member.start) + 1
        raise DockerError(f'line {line}: "{_RUNTIMES}" must be an object, in braces')
    return top, _scan(text, member.value)


def _scan(text: str, at: int) -> _Object:
    """Where the members of the object at ``text[at]`` are. The text has been parsed, so it is well formed."""
    decoder = json.JSONDecoder(parse_int=float)
    members: list[_Member] = []
    position = _skip_blank(text, at + 1)
    while text[position] != "}":
        if text[position] == ",":
            position = _skip_blank(text, position + 1)
        key, colon = decoder.raw_decode(text, position)
        value = _skip_blank(text, _skip_blank(text, colon) + 1)
        _, end = decoder.raw_decode(text, value)
        members.append(_Member(key, position, value, end))
        position = _skip_blank(text, end)
    return _Object(at, position, tuple(members))


def _skip_blank(text: str, at: int) -> int:
    while text[at] in _BLANK:
        at += 1
    return at


def _insert(text: str, at: int, what: str) -> Edit:
    return Edit(text[:at] + what + text[at:], what)


def _append(text: str, owner: _Object, key: str, value: object) -> Edit:
    """Make ``key`` the owner's last member, on a line of its own where its neighbours have one."""
    newline = "\r\n" if "\r\n" in text else "\n"
    if owner.members:
        last = owner.members[-1]
        before = owner.members[-2].end if len(owner.members) > 1 else owner.open
        if "\n" in text[before : last.start]:
            lead = newline + _indent_at(text, last.start)
            return _insert(text, last.end, "," + lead + _render(text, key, value, lead))
        return _insert(text, last.end, _punctuation(text, ",") + _render(text, key, value))
    inside = text[owner.open + 1 : owner.close]
    is_document = _is_blank(text[: owner.open])
    if "\n" not in inside and (inside or (not is_document and "\n" not in text.strip(_BLANK))):
        return _insert(text, owner.open + 1, inside + _render(text, key, value))
    outer = newline + _indent_at(text, owner.open)
    lead = outer + _indent_unit(text)
    # "{\n}" already has the line its closing brace stands on.
    return _insert(text, owner.open + 1, lead + _render(text, key, value, lead) + ("" if inside else outer))


def _render(text: str, key: str, value: object, line_start: str | None = None) -> str:
    """The member as text: on one line, or on several that each begin with ``line_start``."""
    colon = _punctuation(text, ":")
    if line_start is None:
        return json.dumps(key) + colon + json.dumps(value, separators=(_punctuation(text, ","), colon))
    body = json.dumps(value, indent=_indent_unit(text), separators=(",", colon))
    return json.dumps(key) + colon + body.replace("\n", line_start)


def _punctuation(text: str, mark: str) -> str:
    """The colon or comma as the file's author writes it within a line: with a space unless seen without."""
    without = re.search(rf'["\d}}\]el]{mark}[^\s]', text)
    return mark if without and not re.search(rf'["\d}}\]el]{mark} ', text) else mark + " "


def _indent_at(text: str, at: int) -> str:
    """The white space the line of ``text[at]`` begins with."""
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _indent_unit(text: str) -> str:
    """One step of indentation, as the first indented line has it."""
    found = re.search(r"^([ \t]+)[^\s]", text, re.MULTILINE)
    return found[1] if found else _DEFAULT_INDENT


def _cut(text: str, owner: _Object, key: str) -> str:
    """Remove a member together with the one comma that is too many without it."""
    at = next(i for i, member in enumerate(owner.members) if member.key == key)
    if at > 0:
        return text[: owner.members[at - 1].end] + text[owner.members[at].end :]
    if len(owner.members) > 1:
        return text[: owner.members[0].start] + text[owner.members[1].start :]
    return text[: owner.open + 1] + text[owner.close :]
