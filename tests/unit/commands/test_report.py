"""A move is shown again, and drawn on a page that needs nothing else and believes no other host's words."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import pytest

from migrrdma_runtime.base.errors import AgentError, UsageError
from migrrdma_runtime.commands import report, report_page

_RECEIPT: dict[str, Any] = {
    "move": "0123456789abcdef", "container": "web", "source": "src", "destination": "dst",
    "steps": [
        {"name": "looking", "start": 100.0, "seconds": 0.25},
        {"name": "sending its memory, round 1", "start": 100.25, "seconds": 4.0},
        {"name": "draining and dumping", "start": 105.0, "seconds": 0.3},
        {"name": "restoring there", "start": 105.5, "seconds": 0.5},
    ],
    "timeline": [
        {"name": "drain", "host": "src", "start": 105.0, "seconds": 0.01},
        {"name": "dump", "host": "src", "start": 105.05, "seconds": 0.2},
        {"name": "restore", "host": "dst", "start": 105.6, "seconds": 0.3},
        {"name": "switch", "host": "dst", "start": 105.9, "seconds": 0.1},
    ],
    "downtime": 0.85, "expected_downtime": 0.7, "blackouts": {"peer": 0.95}, "lost": [],
    "bytes": {"memory, round 1": 200 << 20, "memory, the rest": 3 << 20},
}  # fmt: skip


class _Page(HTMLParser):
    """The tags that are open in the end, and the text of everything."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not [
            name for name, value in attrs if name in ("src", "href") or (value or "").startswith("http")
        ]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


class _Mover:
    departures: ClassVar[list[dict[str, Any]]] = []

    def __enter__(self) -> _Mover:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert request == {"op": "list"}
        return {"departures": self.departures}


@pytest.fixture(autouse=True)
def _mover(monkeypatch: pytest.MonkeyPatch) -> None:
    _Mover.departures = [
        {"move": "aa" * 8, "receipt": {**_RECEIPT, "move": "aa" * 8, "container": "older"}},
        {"move": "ab" * 8, "receipt": {}},
        {"move": _RECEIPT["move"], "receipt": _RECEIPT},
    ]
    monkeypatch.setattr(report, "mover_here", _Mover)
    monkeypatch.setattr(report, "require_root", lambda _command: None)


def test_the_last_move_is_shown_or_the_one_that_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    report.report("", "", as_json=False)
    assert "web has moved from src to dst" in capsys.readouterr().out
    report.report("a", "", as_json=False)
    assert "older has moved" in capsys.readouterr().out
    report.report("0123", "", as_json=True)
    assert json.loads(capsys.readouterr().out) == _RECEIPT


def test_a_move_that_is_not_known_is_an_error_that_says_where_to_look() -> None:
    with pytest.raises(AgentError, match="no move ff has moved from this host: `migrrdma migration moves`"):
        report.report("ff", "", as_json=False)
    _Mover.departures.append({"move": "ac" * 8, "receipt": _RECEIPT})
    with pytest.raises(AgentError, match="a could be any of aaaaaaaaaaaaaaaa, acacacacacacacac"):
        report.report("a", "", as_json=False)
    _Mover.departures = []
    with pytest.raises(AgentError, match="no container has moved"):
        report.report("", "", as_json=False)


def test_it_is_drawn_in_a_new_file_and_never_over_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = tmp_path / "move.html"
    report.report("", str(drawn), as_json=False)
    assert f"drawn in {drawn}" in capsys.readouterr().out
    before = drawn.read_text()
    with pytest.raises(UsageError, match="is there already"):
        report.report("", str(drawn), as_json=False)
    assert drawn.read_text() == before
    with pytest.raises(UsageError, match="No such file"):
        report.report("", str(tmp_path / "none/move.html"), as_json=False)


def test_the_page_is_whole_and_has_every_host_and_figure() -> None:
    page = _Page(report_page.page(_RECEIPT))
    assert not page.open
    text = "\n".join(page.text)
    for one in (
        "src",
        "dst",
        "peer",
        "850 ms",
        "blackout, 950 ms",
        "sending its memory, round 1",
        "203.0 MiB",
    ):
        assert one in text
    assert page.tags.count("rect") == 1 + 2 * 4 + 1  # the downtime's shade, the steps, the partner's blackout


def test_what_other_hosts_say_is_text_and_no_page() -> None:
    evil = "</svg><script>alert(1)</script>"
    receipt = {
        **_RECEIPT,
        "container": evil, "destination": evil, "blackouts": {evil: 0.5}, "lost": [evil],
        "timeline": [{"name": evil, "host": evil, "start": 105.0, "seconds": 0.1}],
        "bytes": {evil: 1},
    }  # fmt: skip
    page = _Page(report_page.page(receipt))
    assert not page.open
    assert "script" not in page.tags


@pytest.mark.parametrize("seconds", [0.0, 1e-6, 0.3, 12.0, 86400.0, 1e9])
def test_moves_of_every_length_can_be_drawn(seconds: float) -> None:
    receipt = {
        **_RECEIPT, "timeline": [], "blackouts": {}, "downtime": 0.0, "expected_downtime": 0.0,
        "steps": [{"name": "looking", "start": 1.7e9, "seconds": seconds}],
    }  # fmt: skip
    page = _Page(report_page.page(receipt))
    assert not page.open
    assert 1 <= page.tags.count("line") <= 14
