"""Read and replace a JSON file that somebody else will read after us: a bundle's spec, an exec's process.

Most specs need no look inside: a scan of the raw bytes shows that they hold nothing of ours, and a container
start is spared the import of ``json``. Where a spec must be parsed, it is parsed as runc would (Go's decoder
stops after the first value and replaces invalid UTF-8), so that nothing runc accepts is refused here.
"""

import os

from migrrdma_runtime.base.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_EDITABLE = 16 << 20
"""A spec is read whole to be edited, and takes ten times its size in memory; real ones have 20 to 100 KB."""

_CHUNK = 1 << 20

_MARKERS = (b"infiniband", b"org.migrrdma")

_ESCAPED = (b"\\u002e", b"\\u002E", b"\\u006", b"\\u007")
"""Escapes of the characters that the markers are made of; what Go writes for ``<`` or ``&`` is not."""

_OVERLAP = max(len(marker) for marker in (*_MARKERS, *_ESCAPED)) - 1

_SPACE = b" \t\r\n"


def is_plain(path: str) -> bool:
    """Whether the spec at ``path`` looks whole, to judge by its ends, and holds no word of ours."""
    try:
        with open(path, "rb", buffering=0) as file:
            return are_plain(iter(lambda: file.read(_CHUNK), b""))
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error.strerror}") from error


def are_plain(chunks: "Iterable[bytes]") -> bool:
    """The same of a spec that comes in pieces."""
    first = last = tail = b""
    for chunk in chunks:
        window = tail + chunk
        if any(marker in window for marker in _MARKERS + _ESCAPED):
            return False
        tail = window[-_OVERLAP:]
        if text := chunk.strip(_SPACE):
            first, last = first or text[:1], text[-1:]
    return (first, last) == (b"{", b"}")


def read(path: str) -> tuple[object, SpecError | None]:
    """Parse ``path``; also say why the result must not be written back, if it must not."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error.strerror}") from error
    return parse(data, path)


def parse(data: bytes, path: str) -> tuple[object, SpecError | None]:
    """Parse what was read of ``path``; also say why the result must not be written back, if it must not.

    Go replaces bytes that are not UTF-8 by U+FFFD. So do we, to decide whether the file concerns us at all,
    but writing that back would change what the user wrote.
    """
    import json

    unsafe = None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        unsafe = SpecError(f"{path}: not UTF-8 at byte {error.start}, so it cannot be edited safely")
        text = data.decode(errors="replace")
    start = len(text) - len(text.lstrip(" \t\r\n"))
    try:
        value, _ = json.JSONDecoder(object_pairs_hook=_distinct).raw_decode(text, start)
    except json.JSONDecodeError as error:
        place = f"{path}, line {error.lineno}, column {error.colno}"
        raise SpecError(f"{place}: not valid JSON: {error.msg[:1].lower()}{error.msg[1:]}") from error
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path}: {error}") from error
    return value, unsafe


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Build an object, refusing a key that comes twice: runc merges the two, and we would drop one."""
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} appears twice in one object")
    return found


def require_editable(size: int) -> None:
    """Refuse, by `SpecError`, a spec of so many bytes if they are too many to be edited."""
    if size > MAX_EDITABLE:
        raise SpecError(f"larger than {MAX_EDITABLE >> 20} MiB, too large to be edited")


def as_text(value: object, path: str) -> bytes:
    """The spec's JSON, on one line; ``path`` is where it came from."""
    import json

    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except ValueError as error:
        raise SpecError(f"{path}: a number in it is too large to be written back") from error


def replace(path: str, value: object) -> None:
    """Replace the file by ``value``, all of it or nothing; mode, owner and a symbolic link to it are kept."""
    text = as_text(value, path)
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    prefix = f".{name}.migrrdma-"
    temporary = f"{folder}/{prefix}{os.getpid()}"
    try:
        _remove_stale(folder, prefix)
        try:
            _write_like(target, temporary, text)
            os.rename(temporary, target)
        except BaseException:
            if os.path.lexists(temporary):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise SpecError(f"cannot write {target}: {error.strerror}") from error


def _write_like(original: str, path: str, data: bytes) -> None:
    status = os.stat(original)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        os.fchown(descriptor, status.st_uid, status.st_gid)
        os.fchmod(descriptor, status.st_mode & 0o7777)
        file.write(data)
        file.flush()
        # Without it, a power cut soon after the rename can leave an empty file where the user's was.
        os.fsync(descriptor)


def _remove_stale(folder: str, prefix: str) -> None:
    """Remove what an edit killed half-way has left; its process is gone, which tells it from one at work."""
    for name in os.listdir(folder):
        if name.startswith(prefix) and name[len(prefix) :].isdigit():
            try:
                os.kill(int(name[len(prefix) :]), 0)
            except ProcessLookupError:
                os.unlink(f"{folder}/{name}")
            except (PermissionError, OverflowError):
                pass
