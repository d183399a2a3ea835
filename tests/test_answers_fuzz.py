"""Reading orders from any text at all: nothing raises, nothing is made up, nothing takes long."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import pytest

from answer_cases import FORMS, LABELS, check, order
from uprank.scorers.llm.answers import parse_ranking

FRAGMENTS = (
    *"[]{}<>(),:;=\"'\\/`*_#.-\n\t 0123456789AQxé٣＞→］\u200b\ud83d",
    *(
        "[1]",
        "[20]",
        " > ",
        "[K7F]",
        "Q2M",
        " > [3]",
        "1. [4]\n",
        '{"ranking": [',
        '"K7F",',
        "]}",
        "<think>",
        "</think>",
    ),
    *("<answer>", "</answer>", "```json\n", "passage 3", "Rank 2: ", "&gt;", "I cannot", "<|channel|>final<|message|>"),
    *("1e999", "NaN", "null", "-1", "9" * 30, "[0]", "\\u00", "\\boxed{", "[1, 2]", "{'id': 2, 'rank': 1}"),
)


def fuzzed(chance: random.Random, seeds: Sequence[str]) -> str:
    """A real answer cut, doubled and littered, or nothing but litter."""
    text = chance.choice(seeds) if chance.random() < 0.7 else ""
    for _ in range(chance.randint(1, 8)):
        at = chance.randint(0, len(text))
        match chance.randint(0, 3):
            case 0:
                text = text[:at]
            case 1:
                end = min(len(text), at + chance.randint(1, 9))
                text = text[:at] + text[end:]
            case 2:
                text = text[:at] + text[at : at + 20] + text[at:]
            case _:
                text = text[:at] + "".join(chance.choices(FRAGMENTS, k=chance.randint(1, 6))) + text[at:]
    return text


def fuzz(times: int) -> None:
    chance = random.Random(4)
    seeds = [form([str(one) for one in (3, 1, 5, 2, 4)]) for form in FORMS.values()]
    seeds += [form(list(LABELS)) for form in FORMS.values()]
    orders = 0
    for number in range(times):
        text = fuzzed(chance, seeds)
        labels = LABELS if number % 3 == 0 else None
        count = 5 if labels else chance.choice((0, 1, 4, 5, 20))
        parsed = parse_ranking(text, count, labels)
        check(parsed, count)
        orders += bool(parsed.order)
        lowest = 0 if "read as 0-based" in parsed.repaired else 1
        if labels or (text.isascii() and "\\u" not in text):  # an id stands in the text, or it was made up
            for position in parsed.order:
                written = labels[position] if labels else str(position + lowest)
                assert written.lower() in text.lower().translate(LITTER), (text, parsed)
    assert orders > times / 20  # most of what is read is litter, but not all


LITTER = {ord(sign): None for sign in "*`\u200b\\_"} | {code: chr(code - 0xFEE0) for code in (ord("＞"), ord("］"))}


@pytest.mark.no_cover
def test_no_text_raises_and_order_and_missing_are_all_passages():
    fuzz(10_000)


@pytest.mark.slow
@pytest.mark.no_cover
def test_no_text_of_100_000_raises():
    fuzz(100_000)


HOSTILE = {
    "brackets": "[" * 1_000_000,
    "arrows": ">" * 1_000_000,
    "nested objects": '{"ranking":' * 90_000,
    "nested lists": "[[1," * 250_000,
    "open strings": '"\\' * 500_000,
    "ids": "[1] > " * 170_000,
    "thinking": "<think>" * 140_000,
    "spaces": "[" + " " * 1_000_000 + "x",
}
MORE_HOSTILE = {
    "braces": "{" * 1_000_000,
    "mixed": "[{" * 500_000,
    "quotes": "'" * 1_000_000,
    "numbers": "1 " * 500_000,
    "numbered": "1. " * 330_000,
    "lines": "1\n" * 500_000,
    "endings": "</think>" * 120_000,
    "letters": "a" * 1_000_000,
    "dots": "[." + "." * 1_000_000 + "x]",
    "dashes": "-" * 1_000_000,
    "newlines": "\n" * 1_000_000 + "x",
    "answers": "<answer>" * 120_000,
    "digits": "٣" * 1_000_000,
    "a long list": '{"ranking":[' + "1," * 480_000,
    "entities": "&amp;" * 200_000,
    "policy": "x policy " * 110_000,
    "rank order": "rank order " * 90_000,
    "tables": "| Id | Rank |\n|---|---|\n|1|2|\n" * 30_000,
    "rules": "|x\n" + "|-" * 500_000,
    "marks of a list": "- " * 500_000 + "1、",
    "numbers of lines": "第1名：" * 200_000,
}


@pytest.mark.no_cover
@pytest.mark.parametrize("name", HOSTILE)
def test_a_megabyte_is_read_in_linear_time(name: str):
    started = time.monotonic()
    check(parse_ranking(HOSTILE[name], 20), 20)
    # A fraction of a second; what is not linear takes hours, so that a busy machine makes no difference.
    assert time.monotonic() - started < 10


@pytest.mark.slow
@pytest.mark.no_cover
@pytest.mark.parametrize("labels", [None, LABELS], ids=["numbers", "labels"])
@pytest.mark.parametrize("name", {**HOSTILE, **MORE_HOSTILE})
def test_any_megabyte_is_read_in_linear_time(name: str, labels: Sequence[str] | None):
    started = time.monotonic()
    check(parse_ranking({**HOSTILE, **MORE_HOSTILE}[name], 5, labels), 5)
    assert time.monotonic() - started < 10


def test_of_an_endless_answer_the_end_is_read():
    assert order("[1] > [2]\n" + "so it goes " * 20_000 + "[2] > [1]", 2) == [2, 1]
