"""The configuration: its defaults, its two readers, and its complaints."""

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrrdma_runtime.base import config


def _load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | bytes
) -> tuple[config.Config, str | None]:
    file = tmp_path / "config.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    monkeypatch.setenv("MIGRRDMA_CONFIG", str(file))
    settings, broken = config.load()
    return settings, str(broken).replace(f"{file}", "FILE") if broken else None


def test_the_documented_defaults_are_the_defaults() -> None:
    uncommented = re.sub(r"(?m)^# (\w+ = )", r"\1", config.DEFAULT_TEXT)
    document = tomllib.loads(uncommented)
    criu = document.pop("criu")
    assert document | {f"criu.{key}": value for key, value in criu.items()} == config.DEFAULTS


def test_the_file_that_install_writes_changes_nothing() -> None:
    assert tomllib.loads(config.DEFAULT_TEXT) == {"criu": {}}


def test_without_a_file_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIGRRDMA_CONFIG", str(tmp_path / "none.toml"))
    settings, broken = config.load()
    assert broken is None
    assert (settings.runtime, settings.tcp_established) == ("runc", True)


@pytest.mark.parametrize(
    "text",
    [
        'runtime = "crun"\n[criu]\ntcp_established = false\n',
        "runtime = 'crun' # for its speed\ncriu.tcp_established = false",
        '"runtime" = """crun"""\r\ncriu = { tcp_established = false }\r\n',
    ],
    ids=["plain", "needs tomllib", "needs tomllib more"],
)
def test_keys_take_effect_however_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    settings, broken = _load(tmp_path, monkeypatch, text)
    assert broken is None
    assert (settings.runtime, settings.tcp_established) == ("crun", False)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('\nruntme = "crun"\n', "FILE, line 2: unknown key runtme (did you mean runtime?)"),
        ('[criu]\nfrobnicate = "x"\n', "FILE, line 2: unknown key criu.frobnicate"),
        ("runtime = true\n", "FILE, line 1: runtime must be a text in quotes, not True"),
        (
            '# criu\n[criu]\n# tcp\ntcp_established = "yes"\n',
            "FILE, line 4: criu.tcp_established must be true or false, not 'yes'",
        ),
        ("[criu]\ntcp_established = 1\n", "FILE, line 2: criu.tcp_established must be true or false, not 1"),
        (
            "criu.tcp_established = 1\n",
            "FILE, line 1: criu.tcp_established must be true or false, not 1",
        ),
        (
            'runtime = "bin/runc"\n',
            "FILE, line 1: runtime must be a name or an absolute path, not 'bin/runc'",
        ),
        ('runtime = ""\n', "FILE, line 1: runtime must be a name or an absolute path, not ''"),
        ('guest_dir = "guest"\n', "FILE, line 1: guest_dir must be an absolute path, not 'guest'"),
        ('runtime = "runc\n', "FILE: illegal character '\\n' (at line 1, column 16)"),
        ('runtime = "a"\nruntime = "b"\n', "FILE: cannot overwrite a value (at line 2, column 14)"),
        (b'runtime = "\xff"\n', "FILE: not UTF-8 at byte 11"),
    ],
)
def test_a_mistake_is_named_by_line_and_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | bytes, complaint: str
) -> None:
    assert _load(tmp_path, monkeypatch, text)[1] == complaint


@pytest.mark.parametrize("mistake", ["runtme = 1", "runtime", "[criu", 'run_dir = "here"'])
def test_what_is_right_in_a_broken_file_still_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: str
) -> None:
    """A host set up for crun goes on finding its containers."""
    settings, broken = _load(tmp_path, monkeypatch, f'runtime = "crun"\n{mistake}\n')
    assert broken is not None
    assert settings.runtime == "crun"


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIGRRDMA_CONFIG", str(tmp_path))
    assert str(config.load()[1]) == f"cannot read the configuration {tmp_path}: Is a directory"


_TRICKY = r"""
runtime = "crun"
runtime=true
[criu]
[ criu ]
[criu
criu = "x"
[runtime]
tcp_established = false
# text
x = 1
a.b = true
k = "a\"b"
k = 'v'
k = "é"
k = "a" # c
k = true x
k =
= true
"k" = true
é = true
-_9 = true
"""
_LINES = st.one_of(
    st.sampled_from([*_TRICKY.split("\n"), "#\t", " \t", "\r", 'k = "\x7f"', 'k = "\t"']),
    st.text(max_size=12),
)


@given(st.lists(_LINES, max_size=6))
def test_the_plain_reader_agrees_with_tomllib_wherever_it_judges(lines: list[str]) -> None:
    text = "\n".join(lines)
    values, strange = config._read_plain(text)
    if not strange:
        assert values == config._read_toml(text)
