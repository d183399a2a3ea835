"""Bars of throughput as an SVG: no package is needed to draw it, and a page shows it as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from speed_bench.contestants import OURS

__all__ = ["svg"]

_WIDTH, _LABELS, _BAR, _GAP, _HEAD = 820, 250, 16, 6, 34
_OURS, _THEIRS, _INK = "#1b7f5c", "#9aa5b1", "#222222"


def svg(result: Mapping[str, Any]) -> str:
    """Draw pairs a second of every contestant: a panel a model and kind of text, each with its own scale."""
    panels = [
        (f"{part['title']}, {workload} texts ({part['tokens'][workload]['mean']:.0f} tokens a pair)", game)
        for part in result["models"].values()
        for workload, game in part["throughput"].items()
    ]
    body: list[str] = []
    top = 10
    for title, game in panels:
        rates = dict(sorted(game["pairs_per_second"].items(), key=lambda item: -item[1]))
        body += _panel(title, rates, top)
        top += _HEAD + len(rates) * (_BAR + _GAP) + 12
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top}" '
            f'viewBox="0 0 {_WIDTH} {top}" font-family="sans-serif" font-size="13" fill="{_INK}" role="img">',
            "<title>Pairs a second</title>",
            '<rect width="100%" height="100%" fill="white"/>',
            *body,
            "</svg>\n",
        ]
    )


def _panel(title: str, rates: Mapping[str, float], top: int) -> Iterator[str]:
    yield f'<text x="10" y="{top + 18}" font-weight="bold">{escape(title)}: pairs a second</text>'
    most = max(rates.values(), default=1.0)
    room = _WIDTH - _LABELS - 80
    for line, (name, rate) in enumerate(rates.items()):
        y = top + _HEAD + line * (_BAR + _GAP)
        length = max(1.0, room * rate / most)
        colour = _OURS if name.startswith(OURS) else _THEIRS
        yield f'<text x="{_LABELS - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>'
        yield f'<rect x="{_LABELS}" y="{y}" width="{length:.1f}" height="{_BAR}" fill="{colour}"/>'
        yield f'<text x="{_LABELS + length + 6:.1f}" y="{y + 13}">{rate:,.0f}</text>'
