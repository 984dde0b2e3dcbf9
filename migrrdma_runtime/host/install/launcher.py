"""The script that starts Python as the OCI runtime, or as a hook: an interpreter's path and a handful of lines.

The launcher, a program in C (``launcher/``), runs it for the calls that are not the low-level runtime's alone;
where that was not built, it is what Docker runs. It is not a console script, because one started by ``pip``
imports the site packages' machinery and costs a container start several times what the whole runtime does.
"""

import os
import sys
from pathlib import Path

from migrrdma_runtime.base.errors import UsageError

_SHEBANG_LIMIT = 255
"""The kernel reads this much of the first line (``BINPRM_BUF_SIZE``), and cuts off the rest."""

_TEMPLATE = """\
#!{interpreter} -ISXutf8
import sys
sys.path.insert(0, {package_parent!r})
from migrrdma_runtime.{entrance} import main
del sys.path[0]
main()
"""


def text(interpreter: str | None = None, entrance: str = "oci") -> str:
    """The script for this very package's ``entrance``, run by ``interpreter`` (default: the one that runs now).

    ``-I -S``: no environment variable, no user site, no ``site`` at all, so that nothing in the caller's
    environment can change what runs, and nothing unneeded is imported. ``-X utf8``: arguments that are not
    valid in the caller's locale still come back as the very same bytes.
    """
    interpreter = interpreter or sys.executable
    if not interpreter.startswith("/") or any(character.isspace() for character in interpreter):
        raise UsageError(
            f"the Python interpreter must be an absolute path without spaces, not {interpreter!r}"
        )
    script = _TEMPLATE.format(
        interpreter=interpreter,
        package_parent=str(Path(__file__).resolve().parents[3]),
        entrance=entrance,
    )
    first_line = os.fsencode(script.partition("\n")[0])
    if len(first_line) > _SHEBANG_LIMIT:
        raise UsageError(
            f"the Python interpreter's path is too long for a script's first line: {interpreter} makes it "
            f"{len(first_line)} bytes, and the kernel reads {_SHEBANG_LIMIT}"
        )
    return script


def write(path: Path, interpreter: str | None = None) -> None:
    """Write the script; atomically, because a container may be starting through the old one just now."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text(interpreter))
        temporary.chmod(0o755)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
