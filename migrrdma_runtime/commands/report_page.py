"""A move as one page that needs nothing else: hosts on a time axis, downtime and blackouts marked, a table of figures.

Names of steps and hosts come from other hosts, too: everything is escaped that did not begin here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from string import Template
from typing import Any

Receipt = dict[str, Any]

_WIDTH, _LEFT, _RIGHT, _ROW, _TOP = 1000, 150, 36, 26, 34
"""In the picture's own units: its width, what is left and right of the axis, a row's height, where the first begins."""
_LETTER = 6.6
"""About as wide is a letter of a label."""
_MOST_ROWS = 200

_PAGE = Template("""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: light-dark(#1c2024, #e8e8e6); --paper: light-dark(#fff, #16181b);
  --line: light-dark(#d8dce0, #3a3e44); --bar: light-dark(#7aa2c8, #4d7ba6); --still: light-dark(#c0392b, #e0695c);
  --quiet: light-dark(#5d656d, #9aa2aa); }
body { margin: 2rem auto; max-width: 64rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.35rem; margin: 0; } h2 { font-size: 1rem; margin: 2rem 0 .5rem; }
.under { color: var(--quiet); margin: .2rem 0 1.2rem; }
.figures { display: flex; flex-wrap: wrap; gap: .5rem 2.2rem; margin: 0 0 1.5rem; }
.figures div { font-size: 1.5rem; font-variant-numeric: tabular-nums; }
.figures small { display: block; font-size: .8rem; color: var(--quiet); }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; }
svg text { fill: var(--ink); } svg .tick { fill: var(--quiet); }
svg line { stroke: var(--line); } svg .bar { fill: var(--bar); } svg .still { fill: var(--still); }
svg .shade { fill: var(--still); opacity: .12; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
td, th { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--line); font-weight: normal; }
td.n, th.n { text-align: right; } th { color: var(--quiet); }
</style></head><body>
<h1>$title</h1>
<p class="under">$under</p>
<div class="figures">$figures</div>
$picture
<h2>Steps</h2>
<table><tr><th>host</th><th>step</th><th class="n">at</th><th class="n">seconds</th></tr>$steps</table>
<h2>Sent</h2>
<table><tr><th>what</th><th class="n">MiB</th></tr>$sent</table>
$lost</body></html>
""")


@dataclass(frozen=True)
class _Bar:
    host: str
    name: str
    start: float
    seconds: float
    still: bool = False
    """Of it somebody has noticed that it stood still."""


def page(receipt: Receipt) -> str:
    """The page."""
    bars = _bars(receipt)
    begin = min(one.start for one in bars)
    title = f"{receipt['container']}: {receipt['source']} to {receipt['destination']}"
    lost = "".join(f"<li>{escape(str(one))}</li>" for one in receipt.get("lost", []))
    return _PAGE.substitute(
        title=escape(title),
        under=escape(f"move {receipt['move']}"),
        figures="".join(
            f"<div>{escape(value)}<small>{escape(name)}</small></div>"
            for name, value in _figures(receipt, bars)
        ),
        picture=_picture(bars, _still(receipt)),
        steps="".join(_step_row(one, begin) for one in bars),
        sent="".join(
            f'<tr><td>{escape(str(what))}</td><td class="n">{count / (1 << 20):.2f}</td></tr>'
            for what, count in receipt["bytes"].items()
        ),
        lost=f"<h2>Lost</h2><ul>{lost}</ul>" if lost else "",
    )


def _bars(receipt: Receipt) -> list[_Bar]:
    """The source's own steps, then what the agents measured, then how long partners noticed; each by its begin."""
    own = [_Bar(receipt["source"], one["name"], one["start"], one["seconds"]) for one in receipt["steps"]]
    measured = [
        _Bar(one["host"], one["name"], one["start"], one["seconds"]) for one in receipt.get("timeline", [])
    ]
    hosts: dict[str, list[_Bar]] = {receipt["source"]: [], receipt["destination"]: []}
    for one in sorted(own, key=_begin) + sorted(measured, key=_begin):
        hosts.setdefault(one.host, []).append(one)
    # Of a blackout it is known how long it was, and that it ended when the partners had switched.
    switches = [one.start + one.seconds for one in measured if one.name == "switch"]
    end = max(switches or [one.start + one.seconds for one in own])
    for partner, seconds in sorted(receipt.get("blackouts", {}).items()):
        hosts.setdefault(partner, []).append(_Bar(partner, "blackout", end - seconds, seconds, still=True))
    return [one for bars in hosts.values() for one in bars][:_MOST_ROWS]


def _begin(bar: _Bar) -> float:
    return bar.start


def _still(receipt: Receipt) -> tuple[float, float] | None:
    """When the container stood still: from the dump on."""
    starts = [one["start"] for one in receipt.get("timeline", []) if one["name"] == "dump"]
    seconds = float(receipt.get("downtime") or 0.0)
    return (starts[0], seconds) if starts and seconds else None


def _figures(receipt: Receipt, bars: list[_Bar]) -> Iterator[tuple[str, str]]:
    if downtime := receipt.get("downtime"):
        yield "it stood still", _seconds(downtime)
    if expected := receipt.get("expected_downtime"):
        yield "as was expected", _seconds(expected)
    for partner, seconds in sorted(receipt.get("blackouts", {}).items()):
        yield f"blackout at {partner}", _seconds(seconds)
    yield "in all", _seconds(max(one.start + one.seconds for one in bars) - min(one.start for one in bars))
    yield "sent", f"{sum(receipt['bytes'].values()) / (1 << 20):.1f} MiB"


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def _step_row(bar: _Bar, begin: float) -> str:
    return (
        f"<tr><td>{escape(bar.host)}</td><td>{escape(bar.name)}</td>"
        f'<td class="n">{bar.start - begin:.3f}</td><td class="n">{bar.seconds:.3f}</td></tr>'
    )


def _picture(bars: list[_Bar], still: tuple[float, float] | None) -> str:
    begin = min(one.start for one in bars)
    length = max(one.start + one.seconds for one in bars) - begin or 1.0
    height = _TOP + _ROW * len(bars) + 4

    def x(at: float) -> float:
        return _LEFT + (at - begin) / length * (_WIDTH - _LEFT - _RIGHT)

    def width(seconds: float) -> float:
        return max(1.5, seconds / length * (_WIDTH - _LEFT - _RIGHT))

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="the hosts\' steps on a time axis">'
    ]
    for tick in _ticks(length):
        at = x(begin + tick)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP - 8}" y2="{height}"/>')
        parts.append(f'<text class="tick" x="{at + 3:.1f}" y="{_TOP - 14}">{tick:g} s</text>')
    if still is not None:
        start, seconds = still
        parts.append(
            f'<rect class="shade" x="{x(start):.1f}" y="{_TOP - 8}" width="{width(seconds):.1f}" '
            f'height="{height - _TOP + 8}"><title>it stood still for {_seconds(seconds)}</title></rect>'
            f'<text class="tick" x="{x(start):.1f}" y="{_TOP - 25}">stood still</text>'
        )
    for row, bar in enumerate(bars):
        y = _TOP + row * _ROW
        if row == 0 or bars[row - 1].host != bar.host:
            parts.append(f'<line x1="0" x2="{_WIDTH}" y1="{y - 2}" y2="{y - 2}"/>')
            parts.append(f'<text x="0" y="{y + 15}" font-weight="600">{escape(bar.host[:20])}</text>')
        kind, label = "still" if bar.still else "bar", f"{bar.name}, {_seconds(bar.seconds)}"
        left, wide = x(bar.start), width(bar.seconds)
        parts.append(
            f'<rect class="{kind}" x="{left:.1f}" y="{y + 3}" width="{wide:.1f}" height="{_ROW - 9}" rx="2">'
            f"<title>{escape(label)}</title></rect>"
        )
        # Behind the bar, or before it where there is no room behind.
        behind = left + wide + 5
        if behind + len(label) * _LETTER > _WIDTH and left - len(label) * _LETTER > _LEFT:
            parts.append(f'<text x="{left - 5:.1f}" y="{y + 15}" text-anchor="end">{escape(label)}</text>')
        elif behind + len(label) * _LETTER > _WIDTH:
            parts.append(f'<text x="{left + 6:.1f}" y="{y + 15}">{escape(label)}</text>')
        else:
            parts.append(f'<text x="{behind:.1f}" y="{y + 15}">{escape(label)}</text>')
    return "".join([*parts, "</svg>"])


def _ticks(length: float) -> list[float]:
    """Five to twelve round numbers of seconds."""
    step = 10 ** math.floor(math.log10(length))
    for part in (0.1, 0.2, 0.5, 1):
        if length / (step * part) <= 12:
            step *= part
            break
    return [round(step * number, 6) for number in range(int(length / step) + 1)]
