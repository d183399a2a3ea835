"""The strategies as a Markdown table, for ``docs/llm.md``: every figure is a plan's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from uprank.scorers.llm.conversions import JudgeKind
from uprank.scorers.llm.planning import Plan, Range
from uprank.scorers.llm.scorer import LLMScorer
from uprank.scorers.llm.setup import Method
from uprank.scorers.llm.strategies import STRATEGIES

__all__ = ["BEGIN", "END", "strategies_table", "with_table"]

BEGIN = "<!-- strategies: written by `make strategies` -->"
END = "<!-- /strategies -->"

_METHODS: dict[JudgeKind, Method] = {
    "order": "listwise",
    "select": "setwise",
    "prefer": "pairwise",
    "score": "pointwise",
}
_SIZES = (20, 50, 100)
_TOKENS_AT = 100


def strategies_table() -> str:
    """One row a strategy and combination: calls and rounds by the number of documents, tokens at 100."""
    lines = [
        "| `method` | `strategy` | " + " | ".join(f"N = {size}" for size in _SIZES) + " | tokens in / out, N = 100 |",
        "|---|---|" + "---|" * (len(_SIZES) + 1),
    ]
    rows: list[tuple[str, Method, dict[str, Any]]] = [
        (f"`{name}`", _METHODS[row.asks], {"strategy": name}) for name, row in STRATEGIES.items()
    ]
    # Any: options of the scorer
    rows += [
        ('`auto`, `quality="fast"`', "listwise", {"quality": "fast"}),
        ('`auto`, `quality="balanced"`', "listwise", {}),
        ('`auto`, `quality="high"`', "listwise", {"quality": "high"}),
        ("`auto`, `scores=True`", "listwise", {"scores": True}),
        ("`pointwise`, with log probabilities", "pointwise", {"batch": 1}),
    ]
    for label, method, options in rows:
        scorer = LLMScorer(_nobody, method=method, **options)
        plans = {size: scorer.plan(size) for size in _SIZES}
        cells = [_cell(plans[size]) for size in _SIZES]
        tokens = plans[_TOKENS_AT]
        cells.append(f"{_thousands(tokens.input_tokens)} / {_thousands(tokens.output_tokens)}")
        lines.append(f"| {method} | {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def with_table(page: str) -> str:
    """A page with its table brought up to date."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{strategies_table()}\n\n{END}{tail}"


def _nobody(messages: list[dict[str, str]]) -> str:
    raise AssertionError("a plan asks nobody")


def _cell(plan: Plan) -> str:
    return f"{_number(plan.calls)} / {_number(plan.rounds)}"


def _number(found: Range) -> str:
    return f"{found.least:,}" if found.exact else f"{found.typical:.1f} ({found.least}–{found.most})"


def _thousands(found: Range) -> str:
    return f"{found.typical / 1000:,.1f}k"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(with_table(target.read_text(encoding="utf-8")), encoding="utf-8")
