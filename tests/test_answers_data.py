"""Reading what real 7B to 13B models answered when asked to order 20 passages."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from uprank.scorers.llm.answers import parse_ranking

DATA = Path(os.environ.get("UPRANK_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
FOLDER = DATA / "llm-listwise-answers"
FINE_TUNED = "output_v2_aug_vicuna_7b_dl20_100_09-12T210630.jsonl"
CHECKPOINT = "vicuna-7b-checkpoint-800_dl19_20_09-10T155823.jsonl"
SEVEN = "vicuna-7b-v1.5_dl19_100_08-19T145259.jsonl"
THIRTEEN = "vicuna-13b-v1.5_dl19_100_08-19T162526.jsonl"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the answers are not in {FOLDER}; set UPRANK_DATA")

# A well-formed answer is one line of brackets and arrows, after a "1." or not; the rest was read by eye.
WELL_FORMED = re.compile(r"\s*(?:1\. )?(\[\d+\](?: > \[\d+\])+)\s*")
TO_20 = list(range(1, 21))
NUMBERED_TO_20 = (30, 133, 134, 154, 155, 163, 164, 249, 270, 273, 306)
BY_EYE: dict[tuple[str, int], list[int]] = {
    **{(SEVEN, line): TO_20 for line in NUMBERED_TO_20},
    **{(SEVEN, line): [] for line in (51, 175, 316)},  # "[] > []"
    (SEVEN, 42): [14, 15, 16, 17, 18, 19, 20],
    (SEVEN, 96): [*range(19, 0, -1), 20],
    (SEVEN, 101): TO_20[:19],  # "1. [1] > [2] 2. [1] > [3]" and so on to "18. [1] > [19] 1"
    (SEVEN, 198): [1, 4, 3, *range(6, 21)],
    (SEVEN, 286): [4, 14, 12, 11, 10, 15, 13, 16, 17, 18, 19, 20],
    (SEVEN, 311): [14, 19, 16, 17, 18, 11, 13, 15, 12, *range(10, 0, -1)],  # then from 18 down again
    (SEVEN, 312): [12, 14, 16, 17, 18, 19, 20],
    (SEVEN, 325): [1, *range(3, 21)],
    (THIRTEEN, 175): [1, 2],  # "1. [1] > [2] >"
}


def answers(name: str) -> Iterator[tuple[int, str]]:
    """The number of each line, and the answer there. All are about 20 passages."""
    with (FOLDER / name).open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            entry = json.loads(line)
            assert entry["num_passages"] == 20
            yield number, entry["response"]


def given(name: str, line: int, text: str) -> list[int]:
    """The ids that an answer gives in a ranked form, each once: by a reading that is not the parser's."""
    if (name, line) in BY_EYE:
        return BY_EYE[name, line]
    if found := WELL_FORMED.fullmatch(text):
        return list(dict.fromkeys(int(one[1:-1]) for one in found[1].split(" > ")))
    assert name == THIRTEEN, f"{name}:{line} was not looked at: {text!r}"
    return []  # "20 passages are provided." and other prose


@pytest.mark.parametrize("name", [FINE_TUNED, CHECKPOINT, SEVEN, THIRTEEN])
def test_every_id_given_is_recovered_in_its_place(name: str):
    wrong, ids, recovered = [], 0, 0
    for line, text in answers(name):
        expected = [one - 1 for one in given(name, line, text)]
        parsed = parse_ranking(text, 20)
        assert sorted((*parsed.order, *parsed.missing)) == list(range(20))
        assert (parsed.failure is None) == bool(expected), (line, text)
        ids += len(expected)
        recovered += sum(mine == theirs for mine, theirs in zip(parsed.order, expected, strict=False))
        if parsed.order != tuple(expected):
            wrong.append((line, text, parsed.order))
    assert ids == {FINE_TUNED: 9720, CHECKPOINT: 852, SEVEN: 7519, THIRTEEN: 2}[name]
    assert recovered >= 0.995 * ids
    assert wrong == []


def test_no_order_is_accepted_where_none_is_given():
    """387 answers of a model that did not understand, all but one of them prose that begins with a number."""
    read = {line: parse_ranking(text, 20) for line, text in answers(THIRTEEN)}
    assert len(read) == 387
    assert [line for line, parsed in read.items() if parsed.order] == [175]
    assert Counter(parsed.failure for parsed in read.values()) == {"no-ranking": 386, None: 1}


def test_repairs_are_reported_where_something_was_wrong_and_only_there():
    repaired = {
        (name, line): parsed.repaired
        for name in (FINE_TUNED, CHECKPOINT, SEVEN, THIRTEEN)
        for line, text in answers(name)
        if (parsed := parse_ranking(text, 20)).repaired
    }
    others = {(name, line): what for (name, line), what in repaired.items() if name in (SEVEN, THIRTEEN)}
    assert others == {
        (SEVEN, 101): ("repeated ids dropped",),
        (SEVEN, 185): ("repeated ids dropped",),
        (SEVEN, 311): ("truncated", "repeated ids dropped"),
        (THIRTEEN, 175): ("truncated",),
    }
    for name in (FINE_TUNED, CHECKPOINT):
        repeating = {
            (name, line) for line, text in answers(name) if len(set(re.findall(r"\d+", text))) < text.count("[")
        }
        assert {key for key in repaired if key[0] == name} == repeating
        assert all(repaired[key] == ("repeated ids dropped",) for key in repeating)
