"""Every form of an order, and what holds of every answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from uprank.scorers.llm.answers import ParsedRanking, parse_ranking

LABELS = ("K7F", "Q2M", "X9D", "B4T", "H3W")
REPAIRS = {
    "repeated ids dropped",
    "unknown ids dropped",
    "read as 0-based",
    "truncated",
    "sorted by stated rank",
    "sorted by stated score",
    "malformed JSON",
    "one of several orders",
}


def check(parsed: ParsedRanking, count: int) -> None:
    """What holds of every answer, whatever it is."""
    assert sorted((*parsed.order, *parsed.missing)) == list(range(count))
    assert list(parsed.missing) == sorted(parsed.missing)
    assert set(parsed.repaired) <= REPAIRS
    assert len(set(parsed.repaired)) == len(parsed.repaired)
    assert (parsed.failure is None) == bool(parsed.order or not count)


def order(text: object, count: int, labels: Sequence[str] | None = None) -> list[int]:
    """The ids that are read, as they are written: from 1, or as labels' positions from 1."""
    parsed = parse_ranking(text, count, labels)
    check(parsed, count)
    return [position + 1 for position in parsed.order]


FORMS: dict[str, Callable[[list[str]], str]] = {
    "chain": lambda ids: " > ".join(f"[{one}]" for one in ids),
    "chain without spaces": lambda ids: ">".join(f"[{one}]" for one in ids),
    "chain over lines": lambda ids: "Ranking:\n" + " >\n".join(f"[{one}]" for one in ids),
    "numbered chain": lambda ids: "1. " + " > ".join(f"[{one}]" for one in ids),
    "chain, each numbered": lambda ids: " > ".join(f"{n}. [{one}]" for n, one in enumerate(ids, 1)),
    "inline numbered list": lambda ids: " ".join(f"{n}. [{one}]" for n, one in enumerate(ids, 1)),
    "bold chain": lambda ids: "**" + " > ".join(f"**[{one}]**" for one in ids) + "**",
    "escaped chain": lambda ids: " > ".join(rf"\[{one}\]" for one in ids),
    "chain in HTML": lambda ids: "<b>" + " &gt; ".join(f"[{one}]" for one in ids) + "</b>",
    "chain with arrows": lambda ids: " → ".join(f"[{one}]" for one in ids),
    "chain with ASCII arrows": lambda ids: " -> ".join(f"[{one}]" for one in ids),
    "chain in full width": lambda ids: "＞".join(f"［{one}］" for one in ids),
    "chain in TeX": lambda ids: r"\boxed{" + r" \succ ".join(f"[{one}]" for one in ids) + "}",
    "chain in a fence": lambda ids: "```\n" + " > ".join(f"[{one}]" for one in ids) + "\n```",
    "chain in one bracket": lambda ids: "[" + " > ".join(ids) + "]",
    "chain of passages": lambda ids: " > ".join(f"Passage {one}" for one in ids),
    "chain of bracketed passages": lambda ids: " > ".join(f"Passage [{one}]" for one in ids),
    "chain without any bracket": lambda ids: " > ".join(ids),
    "announced chain without brackets": lambda ids: "Final answer: " + " > ".join(ids) + ".",
    "chain in parentheses": lambda ids: " > ".join(f"({one})" for one in ids),
    "chain without first bracket": lambda ids: " > ".join(f"[{one}]" for one in ids)[1:],
    "chain without opening brackets": lambda ids: " > ".join(f"{one}]" for one in ids),
    "chain without closing brackets": lambda ids: " > ".join(f"[{one}" for one in ids),
    "chain after prose": lambda ids: (
        f"Of {len(ids)} passages, 2 help. " + " > ".join(f"[{one}]" for one in ids) + ". 1!"
    ),
    "quoted chain": lambda ids: " > ".join(f"'{one}'" for one in ids),
    "chain of tags": lambda ids: " > ".join(f"<{one}>" for one in ids),
    "chain of double brackets": lambda ids: " > ".join(f"[[{one}]]" for one in ids),
    "table": lambda ids: "| # | id |\n|---|---|\n" + "\n".join(f"| {n} | [{one}] |" for n, one in enumerate(ids, 1)),
    "a sentence's list": lambda ids: "The final order is [" + ", ".join(ids) + "].",
    "numbered lines that compare": lambda ids: "\n".join(
        f"{n}. [{one}]: [{ids[2]}] > [{ids[1]}] in {n} ways" for n, one in enumerate(ids, 1)
    ),
    "lines": lambda ids: "\n".join(f"[{one}]" for one in ids),
    "bullets": lambda ids: "In order:\n" + "\n".join(f"- [{one}]" for one in ids),
    "starred": lambda ids: "\n".join(f"* **[{one}]**" for one in ids),
    "numbered lines": lambda ids: "\n".join(f"{n}. [{one}]" for n, one in enumerate(ids, 1)),
    "numbered lines with reasons": lambda ids: "\n".join(
        f"{n}) **[{one}]** - names {n + 3} dates" for n, one in enumerate(ids, 7)
    ),
    "ranks": lambda ids: "\n".join(f"Rank {n}: Passage {one}" for n, one in enumerate(ids, 1)),
    "a line of brackets": lambda ids: "Ranking: " + ", ".join(f"[{one}]" for one in ids),
    "a line": lambda ids: ", ".join(ids),
    "JSON": lambda ids: json.dumps({"ranking": ids}),
    "JSON, indented, in a fence": lambda ids: "Sure!\n```json\n" + json.dumps({"ranking": ids}, indent=2) + "\n```",
    "JSON under another name": lambda ids: json.dumps({"Ranked_Passages": ids, "confidence": 2}),
    "JSON under no known name": lambda ids: json.dumps({"best_to_worst": ids, "n": 1}),
    "JSON inside JSON": lambda ids: json.dumps({"result": {"order": ids}}),
    "JSON after prose": lambda ids: 'The [2] of "them": ' + json.dumps({"order": ids}) + " as [1] > [2].",
    "JSON of objects": lambda ids: json.dumps(
        {"ranking": [{"id": one, "score": 1, "why": "[1] > [2]"} for one in ids]}
    ),
    "JSON in a JSON string": lambda ids: json.dumps(json.dumps({"ranking": ids})),
    "JSON, then JSON cut off": lambda ids: json.dumps({"ranking": ids}) + '\n{"ranking": ["' + ids[1] + '", "',
    "JSON without commas": lambda ids: '{"n": "1" "ranking": [' + " ".join(f'"{one}"' for one in ids) + "]}",
    "JSON of a chain": lambda ids: json.dumps({"ranking": " > ".join(f"[{one}]" for one in ids)}),
    "JSON with single quotes": lambda ids: str({"ranking": list(ids)}),
    "JSON without quotes": lambda ids: "{ranking: [" + ", ".join(ids) + ",],}",
    "JSON list": lambda ids: "\n" + json.dumps(ids, indent=1),
    "JSON list of lists": lambda ids: json.dumps([[one] for one in ids]),
    "announced JSON list": lambda ids: "Ranked: " + json.dumps(ids),
    "after thinking": lambda ids: "<think>\n[1] > [2]?</think>\n\n" + " > ".join(f"[{one}]" for one in ids),
    "after thinking begun in the prompt": lambda ids: "so [1] > [2]</think>" + " > ".join(f"[{one}]" for one in ids),
    "in answer tags": lambda ids: "[1] > [2]: <answer>" + " > ".join(f"[{one}]" for one in ids) + "</answer> [2] > [1]",
    "in a channel": lambda ids: (
        "<|channel|>analysis<|message|>[1] > [2]<|end|><|start|>assistant<|channel|>final<|message|>"
        + " > ".join(f"[{one}]" for one in ids)
        + "<|return|>"
    ),
}
