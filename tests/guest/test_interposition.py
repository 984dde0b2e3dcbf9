"""How the library gets between an application and its libibverbs, and that others do not notice it."""

from __future__ import annotations

import os
import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest
from guest_agent import PATIENT_S, Agent, Program
from guest_build import ROOT, Built, compile_c

EVERYWHERE = {
    "__errno_location", "access", "calloc", "clock_gettime", "close", "connect", "dl_iterate_phdr", "epoll_create1",
    "epoll_ctl", "eventfd", "fcntl", "free", "getenv", "getpid", "ioctl", "kill", "malloc", "memchr", "memcmp",
    "memcpy", "memmove", "memset", "nanosleep", "open", "poll", "posix_memalign", "prctl", "read", "readlink",
    "recv", "sched_yield", "send", "sigaction", "sigfillset", "sigprocmask", "snprintf", "socket", "strchr",
    "strcmp", "strcpy", "strerror", "strlen", "strncmp", "strrchr", "strstr", "syscall", "sysconf", "time", "vsnprintf",
    "write",
}  # fmt: skip
LIBIBVERBS = Path("/usr/lib/x86_64-linux-gnu/libibverbs.so.1")


def symbols(library: Path, *, undefined: bool = False) -> dict[str, str]:
    """The functions a library defines (or needs) with their default versions."""
    option = "--undefined-only" if undefined else "--defined-only"
    out = subprocess.run(
        ["nm", "-D", option, "--with-symbol-versions", library], capture_output=True, text=True, check=True
    ).stdout
    found = {}
    for line in out.splitlines():
        kind, name = line.split()[-2:]
        if kind.upper() in "TUW" and not re.search(r"[^@]@[^@]", name):
            plain, _, version = name.partition("@@")
            found[plain] = version
    return found


def quoted_names(array: str) -> set[str]:
    source = (ROOT / "guest" / "real" / "real.c").read_text()
    block = source[source.index(f"{array}[] = {{") :]
    return set(re.findall(r'"(\w+)"', block[: block.index("};")]))


def test_every_public_verb_is_either_ours_or_known_to_be_harmless(built: Built) -> None:
    ours = symbols(built.library)
    harmless = quoted_names("harmless")
    public = {
        n: v for n, v in symbols(LIBIBVERBS).items() if re.match(r"_?ibv_", n) and v.startswith("IBVERBS_1")
    }
    public.pop("ibv_cmd_create_ah", None)
    # Helpers of numbers and names only.
    plain = {n for n in public if re.match(r"ibv_(rate_to_|\w+_str$|get_sysfs_path|read_sysfs_file)", n)}
    assert len(public) > 60
    uncovered = {n for n in public if n not in ours} - harmless - plain
    assert not uncovered, "these would be handed our objects as if they were libibverbs' own"
    assert {n: ours[n] for n in public if n in ours} == {n: public[n] for n in public if n in ours}


def test_library_needs_no_other_and_no_symbol_version(built: Built) -> None:
    dynamic = subprocess.run(
        ["readelf", "-dV", built.library], capture_output=True, text=True, check=True
    ).stdout
    assert "NEEDED" not in dynamic
    assert ".gnu.version_r" not in dynamic


def test_library_uses_nothing_that_old_or_small_c_libraries_lack(built: Built) -> None:
    """Every name stands since glibc 2.17 in libc.so.6 itself, and in musl."""
    assert set(symbols(built.library, undefined=True)) <= EVERYWHERE


def test_application_that_opens_libibverbs_itself_gets_ours(built: Built, tmp_path: Path) -> None:
    compile_c(tmp_path / "probe", Path(__file__).with_name("opens_itself.c"))
    result = subprocess.run(
        [tmp_path / "probe"], env={**os.environ, **built.environment}, timeout=20, check=False
    )
    assert result.returncode == 0


def test_rtld_next_still_means_next_after_the_caller(built: Built, tmp_path: Path) -> None:
    """A chain of three libraries that each ask for the next ``answer``; ours stands in front of them."""
    for number in (1, 2, 3):
        source = tmp_path / f"link{number}.c"
        source.write_text(
            "#define _GNU_SOURCE\n#include <dlfcn.h>\n"
            "int answer(void)\n{\n\tint (*next)(void) = (int (*)(void))dlsym(RTLD_NEXT, \"answer\");\n"
            f"\treturn {number} + 10 * (next ? next() : 0);\n}}\n"
        )  # fmt: skip
        compile_c(tmp_path / f"liblink{number}.so", "-fPIC", "-shared", source)
    (tmp_path / "main.c").write_text(
        "int answer(void);\nint main(void) { return answer() == 321 ? 0 : 1; }\n"
    )
    libraries = [f"-L{tmp_path}", "-llink1", "-llink2", "-llink3"]
    compile_c(
        tmp_path / "main", tmp_path / "main.c", "-Wl,--no-as-needed", *libraries, f"-Wl,-rpath,{tmp_path}"
    )
    for preload in ({}, {"LD_PRELOAD": str(built.library)}):
        result = subprocess.run([tmp_path / "main"], env={**os.environ, **preload}, timeout=20, check=False)
        assert result.returncode == 0, preload


def test_process_without_verbs_gets_no_thread_and_no_descriptor(built: Built) -> None:
    def look(**extra: str) -> tuple[str, int]:
        script = "ls /proc/self/fd; grep Threads /proc/self/status"
        result = subprocess.run(
            ["sh", "-c", script], env={**os.environ, **extra}, capture_output=True, text=True, check=True
        )
        assert not result.stderr
        mappings = subprocess.run(
            ["cat", "/proc/self/maps"],
            env={**os.environ, **extra},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return result.stdout, sum("libmigrrdma" not in line for line in mappings.splitlines())

    bare, with_it = look(), look(LD_PRELOAD=str(built.library))
    assert bare[0] == with_it[0]
    # The library's own mappings, and what its zeroed memory adds to them.
    assert with_it[1] - bare[1] <= 1


@pytest.fixture
def fork_program(tmp_path: Path) -> Path:
    compile_c(tmp_path / "fork", Path(__file__).with_name("forks.c"), "-libverbs")
    return tmp_path / "fork"


def test_child_of_a_fork_that_opens_a_device_has_a_guest_of_its_own(
    built: Built, fork_program: Path, tmp_path: Path
) -> None:
    with (
        Agent(tmp_path) as agent,
        Program([fork_program], {**built.environment, **agent.environment}, tmp_path / "log") as program,
    ):
        parent = agent.accept()
        assert program.tell("fork") == "child"
        child = agent.accept(keep=True)
        assert child["token"] != parent["token"]
        assert child["pid"] != parent["pid"]
        assert agent.ask("INVENTORY").body["contexts"] == 1
        assert program.tell("go") == "parent"
        assert program.process.wait(PATIENT_S) == 0


def test_table_of_verbs_is_complete_and_true(built: Built) -> None:
    table = dict(
        re.findall(
            r"^\| `(_?ibv_\w+)` \| ([\w ,]+) \|", (ROOT / "docs" / "verbs.md").read_text(), re.MULTILINE
        )
    )
    installed = {
        n for n, v in symbols(LIBIBVERBS).items() if re.match(r"_?ibv_", n) and v.startswith("IBVERBS_1.")
    }
    assert installed - set(table) == set()
    ours = {n for n in symbols(built.library) if re.match(r"_?ibv_", n)}
    assert {n for n, status in table.items() if status != "not touched"} == ours
    assert {n for n, status in table.items() if status == "not touched"} >= quoted_names("harmless")


def test_table_of_inline_verbs_is_complete() -> None:
    """Every function that the installed ``verbs.h`` defines in a program is in the second table."""
    header = Path("/usr/include/infiniband/verbs.h").read_text()
    inline = set(re.findall(r"^static inline[^;{(]*?\s\**_*(ibv_\w+)\(", header, re.MULTILINE))
    assert len(inline) > 80
    patterns = re.findall(r"`(_?ibv_[\w*]+)`", (ROOT / "docs" / "verbs.md").read_text())
    assert {name for name in inline if not any(fnmatch(name, pattern) for pattern in patterns)} == set()
