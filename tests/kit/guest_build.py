"""Builds the guest library, a libibverbs with software devices and the programs of their tests, in several variants."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from migrrdma_lab.device.build import build_in_process

ROOT = Path(__file__).resolve().parents[2]
STRICT = ["-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror"]
SANITIZERS = {
    "plain": [],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"],
    "thread": ["-fsanitize=thread"],
}
GUEST_INCLUDES = f"-I{ROOT / 'guest'}"
GUEST = [GUEST_INCLUDES, "-fPIC", "-shared", "-fvisibility=hidden", "-ftls-model=initial-exec"]
STANDALONE = [
    "-nostdlib",
    "-fno-stack-protector",
    "-U_FORTIFY_SOURCE",
    "-include",
    str(ROOT / "guest" / "base" / "weak.h"),
]
"""As it is shipped: no other library needed, no symbol version asked for."""


@dataclass
class Built:
    """Where the pieces of one variant are, and the environment that puts them together."""

    directory: Path
    variant: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def library(self) -> Path:
        return self.directory / "libmigrrdma.so"

    @property
    def traffic(self) -> Path:
        return self.directory / "traffic"

    @property
    def without(self) -> dict[str, str]:
        """The environment with the software devices but without the guest library."""
        return {"LD_LIBRARY_PATH": str(self.directory), "FAKE_ASYNC": "1"}


def guest_sources(variant: str = "plain") -> list[Path]:
    # A sanitizer's runtime asks dlsym for its own functions before anything of it works.
    left_out = set() if variant == "plain" else {"dl.c"}
    return sorted(p for p in (ROOT / "guest").rglob("*.c") if p.name not in left_out)


def compile_c(output: Path, *arguments: str | Path) -> None:
    subprocess.run(["gcc", *STRICT, "-o", str(output), *map(str, arguments)], check=True)


def build(directory: Path, variant: str) -> Built:
    sanitizer = SANITIZERS[variant]
    # ThreadSanitizer is for libraries alone: the program has races of its own.
    around = [] if variant == "thread" else sanitizer
    build_in_process(directory / "libibverbs.so.1", *sanitizer)
    compile_c(
        directory / "libmigrrdma.so",
        *sanitizer, *GUEST, *(STANDALONE if variant == "plain" else []), *guest_sources(variant),
        "-Wl,--build-id=sha1", f"-Wl,--version-script,{ROOT / 'guest' / 'libmigrrdma.map'}",
    )  # fmt: skip
    programs = ROOT / "tests" / "guest"
    compile_c(
        directory / "traffic",
        *around, programs / "traffic.c", programs / "reconnects.c", "-libverbs", "-pthread",
    )  # fmt: skip
    built = Built(directory, variant)
    preload = [str(built.library)]
    if variant != "plain":
        runtime = {"address": "libasan.so", "thread": "libtsan.so"}[variant]
        found = subprocess.run(
            ["gcc", f"-print-file-name={runtime}"], capture_output=True, text=True, check=True
        )
        # The sanitizer's runtime must come before everything else.
        preload.insert(0, found.stdout.strip())
    built.environment = {
        **built.without,
        "LD_PRELOAD": ":".join(preload),
        # What a restored process leaves behind, it leaves behind on purpose.
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
        "TSAN_OPTIONS": "halt_on_error=1:exitcode=66:report_bugs=1",
    }
    return built
