"""The edit of Docker's daemon.json: what it inserts, what it refuses, and that it can be undone."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrrdma_runtime.base.errors import DockerError
from migrrdma_runtime.host.install import daemon_json

NAME = "migrrdma"
PATH = "/usr/local/bin/migrrdma-runtime"
ENTRY = f'"{NAME}": {{"path": "{PATH}"}}'
COMPACT = f'"{NAME}":{{"path":"{PATH}"}}'

EDITS = {
    "no file, or an empty one": (
        "",
        f'{{\n  "runtimes": {{\n    "{NAME}": {{\n      "path": "{PATH}"\n    }}\n  }}\n}}\n',
    ),
    "an empty object on one line": (
        "{}",
        f'{{\n  "runtimes": {{\n    "{NAME}": {{\n      "path": "{PATH}"\n    }}\n  }}\n}}',
    ),
    "an empty object on two lines": (
        "{\n}\n",
        f'{{\n  "runtimes": {{\n    "{NAME}": {{\n      "path": "{PATH}"\n    }}\n  }}\n}}\n',
    ),
    "one line": ('{"debug": true}', f'{{"debug": true, "runtimes": {{{ENTRY}}}}}'),
    "one line, tight": ('{"debug":true,"hosts":[]}', f'{{"debug":true,"hosts":[],"runtimes":{{{COMPACT}}}}}'),
    "one line, empty runtimes": ('{"runtimes": {}}', f'{{"runtimes": {{{ENTRY}}}}}'),
    "one line, airy": ("{ }", f'{{ "runtimes": {{{ENTRY}}} }}'),
    "four spaces": (
        '{\n    "debug": true\n}\n',
        '{\n    "debug": true,\n    "runtimes": {\n'
        f'        "{NAME}": {{\n            "path": "{PATH}"\n        }}\n    }}\n}}\n',
    ),
    "tabs, no newline at the end": (
        '{\n\t"debug": true\n}',
        f'{{\n\t"debug": true,\n\t"runtimes": {{\n\t\t"{NAME}": {{\n\t\t\t"path": "{PATH}"\n\t\t}}\n\t}}\n}}',
    ),
    "lines that end in CR LF": (
        '{\r\n  "debug": true\r\n}\r\n',
        '{\r\n  "debug": true,\r\n  "runtimes": {\r\n'
        f'    "{NAME}": {{\r\n      "path": "{PATH}"\r\n    }}\r\n  }}\r\n}}\r\n',
    ),
    "another runtime on a line of its own": (
        '{\n  "runtimes": {\n    "crun": {"path": "/usr/bin/crun"}\n  }\n}\n',
        '{\n  "runtimes": {\n    "crun": {"path": "/usr/bin/crun"},\n'
        f'    "{NAME}": {{\n      "path": "{PATH}"\n    }}\n  }}\n}}\n',
    ),
    "another runtime on the line of its object": (
        '{\n  "runtimes": {"crun": {"path": "/usr/bin/crun"}}\n}\n',
        f'{{\n  "runtimes": {{"crun": {{"path": "/usr/bin/crun"}}, {ENTRY}}}\n}}\n',
    ),
    "empty runtimes among other settings": (
        '{\n  "runtimes": {},\n  "debug": true\n}\n',
        f'{{\n  "runtimes": {{\n    "{NAME}": {{\n      "path": "{PATH}"\n    }}\n  }},\n'
        '  "debug": true\n}\n',
    ),
    "a key spelt with an escape": ('{"\\u0072untimes": {}}', f'{{"\\u0072untimes": {{{ENTRY}}}}}'),
}

REFUSED = {
    "a comment": ('{\n  // mirrors\n  "debug": true\n}', "line 2 column 3: .*JSON has no comments"),
    "a trailing comma": ('{\n  "debug": true,\n}', "line [23] column"),
    "two documents": ("{} {}", "line 1 column 4: Extra data"),
    "a list": ("[]", "must hold one JSON object"),
    "not a number": ('{"mtu": NaN}', "NaN is not JSON"),
    "runtimes twice": ('{"runtimes": {}, "runtimes": {}}', '"runtimes" is there twice'),
    "runtimes null": ('{\n "debug": true,\n "runtimes": null}', 'line 3: "runtimes" must be an object'),
    "nested without end": ('{"a": ' + "[" * 100_000, "nested too deeply"),
}


@pytest.mark.parametrize(("before", "after"), EDITS.values(), ids=EDITS.keys())
def test_the_edit_follows_the_style_of_the_file(before: str, after: str) -> None:
    assert daemon_json.add(before, NAME, PATH).text == after


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_dockerd_would_not_read_is_refused_with_the_place(text: str, message: str) -> None:
    with pytest.raises(DockerError, match=message):
        daemon_json.add(text, NAME, PATH)


def test_a_runtime_configured_twice_is_refused() -> None:
    text = '{"runtimes": {"migrrdma": {"path": "/a"}, "migrrdma": {"path": "/b"}}}'
    with pytest.raises(DockerError, match='"migrrdma" is there twice'):
        daemon_json.runtime_path(text, NAME)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", None),
        ('{"runtimes": {"crun": {"path": "/c"}}}', None),
        ('{"runtimes": {"migrrdma": {"path": "/x"}}}', "/x"),
        ('{"runtimes": {"migrrdma": {"runtimeType": "io.containerd.kata.v2"}}}', ""),
    ],
)
def test_the_path_of_a_runtime_is_found(text: str, path: str | None) -> None:
    assert daemon_json.runtime_path(text, NAME) == path


REMOVALS = {
    "the administrator appended a setting after ours": (
        "{}",
        lambda text: text[:-2] + ',\n  "debug": true\n}',
        {"debug": True},
    ),
    "the administrator added a runtime beside ours": (
        '{"debug": true}',
        lambda text: text.replace('"migrrdma"', '"crun": {"path": "/c"}, "migrrdma"'),
        {"debug": True, "runtimes": {"crun": {"path": "/c"}}},
    ),
    "the administrator reformatted the file": (
        '{"debug": true}',
        lambda text: json.dumps(json.loads(text), indent=8),
        {"debug": True},
    ),
    "the administrator sorted ours to the front": (
        '{"runtimes": {"a": {"path": "/a"}}}',
        lambda text: text.replace('"a": {"path": "/a"}, ' + ENTRY, ENTRY + ', "a": {"path": "/a"}'),
        {"runtimes": {"a": {"path": "/a"}}},
    ),
}


@pytest.mark.parametrize(("before", "change", "after"), REMOVALS.values(), ids=REMOVALS.keys())
def test_only_ours_goes_when_the_file_was_changed_meanwhile(before: str, change: Any, after: object) -> None:
    edit = daemon_json.add(before, NAME, PATH)
    changed = change(edit.text)
    assert changed != edit.text
    assert json.loads(daemon_json.remove(changed, NAME, edit.inserted)) == after


def test_removal_without_a_record_leaves_other_settings_alone() -> None:
    text = daemon_json.add('{\n  "debug": true\n}\n', NAME, PATH).text
    assert json.loads(daemon_json.remove(text, NAME)) == {"debug": True, "runtimes": {}}


def test_removing_what_is_not_there_changes_nothing() -> None:
    assert daemon_json.remove('{"runtimes": {}}', NAME) == '{"runtimes": {}}'


# --- properties -----------------------------------------------------------------------------------------

_scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_runtimes = st.dictionaries(
    st.text().filter(lambda name: name != NAME), st.fixed_dictionaries({"path": st.text()}), max_size=3
)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Any daemon.json: any settings, in any of the styles people and programs write."""
    document = draw(st.dictionaries(st.text().filter(lambda key: key != "runtimes"), _values, max_size=5))
    if draw(st.booleans()):
        items = [*document.items(), ("runtimes", draw(_runtimes))]
        document = dict(draw(st.permutations(items)))
    style = draw(st.sampled_from([None, 0, 1, 2, 4, "\t", " \t"]))
    tight = draw(st.booleans())
    text = json.dumps(
        document, indent=style, separators=(",", ":") if tight else None, ensure_ascii=draw(st.booleans())
    )
    text = (
        draw(st.sampled_from(["", "\ufeff", "\n", " \t"])) + text + draw(st.sampled_from(["", "\n", "\n\n "]))
    )
    return text.replace("\n", draw(st.sampled_from(["\n", "\r\n"])))


@given(documents())
def test_the_result_is_the_original_plus_our_runtime(text: str) -> None:
    expected = daemon_json.parse(text)
    expected.setdefault("runtimes", {})[NAME] = {"path": PATH}
    edited = daemon_json.add(text, NAME, PATH).text
    assert daemon_json.parse(edited) == expected
    assert daemon_json.runtime_path(edited, NAME) == PATH


@given(documents() | st.text(" \t\r\n"))
def test_adding_and_removing_gives_back_the_very_text(text: str) -> None:
    edit = daemon_json.add(text, NAME, PATH)
    assert daemon_json.remove(edit.text, NAME, edit.inserted) == text


@given(documents())
def test_removal_without_a_record_keeps_every_other_value(text: str) -> None:
    expected = daemon_json.parse(text)
    expected.setdefault("runtimes", {})
    edited = daemon_json.add(text, NAME, PATH).text
    assert daemon_json.parse(daemon_json.remove(edited, NAME)) == expected
