"""The registry of fault points: switched on by a file that only root can write, free without, complete."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import fault_cases
import pytest
from guest_build import ROOT

from migrrdma_runtime.agent.roles.states import TRANSITIONS
from migrrdma_runtime.base import fault_points
from migrrdma_runtime.base.errors import AgentError
from migrrdma_runtime.base.fault_points import Action, Kind, Moment, around
from migrrdma_runtime.wire.agent_messages import EXCHANGES

_POINT = Action.ASK_CLAIM


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(fault_points, "FOLDER", str(tmp_path))
    return tmp_path


def _arm(folder: Path, text: str, moment: Moment = Moment.BEFORE) -> Path:
    path = folder / fault_points.name_of(_POINT, moment)
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_a_point_that_is_not_armed_does_nothing(folder: Path) -> None:
    with around(_POINT):
        pass
    assert not list(folder.iterdir())


def test_an_error_is_the_one_that_the_action_would_raise_and_comes_once(folder: Path) -> None:
    armed, done = _arm(folder, "error"), []
    with pytest.raises(AgentError, match=r"planted at ask\.claim\.before"), around(_POINT, AgentError):
        done.append(1)
    assert not armed.exists()
    with around(_POINT, AgentError):
        done.append(2)
    assert done == [2]


def test_an_error_afterwards_comes_when_the_action_is_done(folder: Path) -> None:
    _arm(folder, "error", Moment.AFTER)
    done = []
    with pytest.raises(OSError, match="planted"), around(_POINT):
        done.append(1)
    assert done == [1]


def test_an_action_that_fails_by_itself_does_not_come_to_its_second_point(folder: Path) -> None:
    armed = _arm(folder, "kill", Moment.AFTER)
    with pytest.raises(ValueError, match="by itself"), around(_POINT):
        raise ValueError("by itself")
    assert armed.exists()


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_could_have_written_is_not_obeyed(folder: Path, mode: int) -> None:
    path = _arm(folder, "kill")
    path.chmod(mode)
    with around(_POINT):
        pass
    assert path.exists()


def test_a_symbolic_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("kill")
    (folder / fault_points.name_of(_POINT, Moment.BEFORE)).symlink_to(tmp_path / "elsewhere")
    with around(_POINT):
        pass


def test_a_killed_process_has_not_done_it(folder: Path) -> None:
    _arm(folder, "kill")
    code = f"from migrrdma_runtime.base import fault_points as f; f.FOLDER = {str(folder)!r}\n"
    code += "with f.around(f.Action.ASK_CLAIM): print('done')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (-9, "")


def test_a_process_is_held_until_somebody_lets_it_go(folder: Path) -> None:
    _arm(folder, "hold")
    code = f"from migrrdma_runtime.base import fault_points as f; f.FOLDER = {str(folder)!r}\n"
    code += "with f.around(f.Action.ASK_CLAIM): print('done')"
    held = folder / f"{fault_points.name_of(_POINT, Moment.BEFORE)}{fault_points.HELD}"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        while not held.exists() and process.poll() is None:
            os.sched_yield()
        assert process.poll() is None
        held.unlink()
        assert process.communicate(timeout=30)[0] == "done\n"


_OF_NO_MIGRATION = {"where", "moved_on", "FIND", "WHERE"}
"""Late comers: whoever hears nothing asks again, and there is nothing that could be half done."""


def test_every_state_message_and_order_has_its_action() -> None:
    known = {one.value for one in Action}
    states = {f"store.{role.value}.{state.value}" for role, ways in TRANSITIONS.items() for state in ways}
    assert {one for one in known if one.startswith("store.")} == states
    for way in ("ask", "answer"):
        named = {f"{way}.{name}" for name in EXCHANGES.keys() - _OF_NO_MIGRATION}
        assert {one for one in known if one.startswith(f"{way}.")} == named
    asked = re.findall(
        r'(?:_command|_request)\(\s*"([A-Z_]+)"', (_PACKAGE / "agent/local/guest.py").read_text()
    )
    assert {one for one in known if one.startswith("tell.")} == {
        f"tell.{name}" for name in asked if name not in _OF_NO_MIGRATION
    }


_PACKAGE = ROOT / "migrrdma_runtime"


def test_every_action_is_somewhere_in_the_code() -> None:
    """Those with a name of their own; the others are put together from a state's or message's."""
    text = "\n".join(path.read_text() for path in _PACKAGE.rglob("*.py") if path.name != "fault_points.py")
    made = ("store.", "note.", "ask.", "answer.", "tell.", "guest.", "plugin.")
    named = [one for one in Action if not one.value.startswith(made)]
    assert [one for one in named if f"Action.{one.name}" not in text] == []


def test_the_plugins_points_are_those_of_the_registry_and_in_its_code() -> None:
    header = (ROOT / "criu_plugin/fault_points.h").read_text()
    twins = dict(re.findall(r'^#define (PLUGIN_\w+) "([\w.]+)"', header, re.M))
    assert twins == {one.name: one.value for one in Action if one.value.startswith("plugin.")}
    code = "\n".join(path.read_text() for path in (ROOT / "criu_plugin").glob("*.c"))
    for name in twins:
        assert f"fault_before({name})" in code and f"fault_after({name})" in code, name


def test_the_guests_points_are_all_that_an_agent_may_ask_of_one() -> None:
    header = (ROOT / "guest/wire/control.h").read_text()
    asked = re.findall(r"^\s*X\(\d+, (\w+), \w+, \w+, (?!NONE|WELCOME)\w+\)", header, re.M)
    assert {one.value for one in Action if one.value.startswith("guest.")} == {
        f"guest.{name}" for name in asked if name not in _OF_NO_MIGRATION
    }


def test_every_point_has_a_case_and_every_blow_comes() -> None:
    assert fault_cases.REACHED.keys() == set(Action)
    usual = fault_cases.one_case_for_each_point()
    assert [(one.action, one.moment) for one in usual] == fault_cases.points()
    assert {one.blow for one in usual} == set(fault_cases.Blow)
    assert {one.blow.kind for one in usual} == set(Kind)
    assert set(usual) | set(fault_cases.CRIU_DIES) <= set(fault_cases.every_case())
    assert set(fault_cases.AFTERWARDS) <= set(fault_cases.all_afterwards())


def test_the_list_in_the_documents_is_the_registry() -> None:
    text = (ROOT / "docs/failures.md").read_text()
    listed = re.findall(r"^\| `([a-z]+(?:\.[a-zA-Z_]+)+)` \|", text, re.M)
    assert sorted(listed) == sorted(one.value for one in Action)
