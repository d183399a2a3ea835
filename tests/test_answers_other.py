"""Reading grades, yes or no, and the probabilities of first tokens; and choices, grades and yes or no from any text."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence

import pytest

from uprank.scorers.llm.choices import parse_choice
from uprank.scorers.llm.grades import parse_grades, parse_yes_no
from uprank.scorers.llm.logprobs import expected_grade, label_probabilities, yes_probability

LABELS = ("K7F", "Q2M", "X9D", "B4T")


def logs(**probabilities: float) -> dict[str, float]:
    return {token: math.log(probability) for token, probability in probabilities.items()}


def position(probabilities: dict[str, float]) -> dict[str, float]:
    return logs(**probabilities)


# Grades


@pytest.mark.parametrize(
    "text",
    [
        '{"grades": [{"passage": "K7F", "grade": 2}, {"passage": "X9D", "grade": 0}, {"passage": "Q2M", "grade": 3}]}',
        '{"K7F": 2, "Q2M": 3, "X9D": 0}',
        '{"grades": {"k7f": "2", "Q2M": 3.0, "X9D": 0}}',
        '[{"label": "[K7F]", "score": 2, "why": "2 of 3"}, {"label": "Q2M", "score": 3}, {"label": "X9D", "score": 0}]',
        '{"K7F": {"grade": 2}, "Q2M": {"grade": 3}, "X9D": {"grade": 0}}',
        '{"K7F": {"Relevance Score": 2}, "Q2M": {"relevance_grade": 3}, "X9D": {"rating": 0}}',
        "K7F: 2\nQ2M: 3\nX9D: 0",
        "[K7F] = 2, [Q2M] = 3, [X9D] = 0",
        "- **K7F**: 2 (names the year)\n- **Q2M**: 3 - all of it\n- **X9D**: 0.",
        "1. Passage K7F: 2\n2. Passage Q2M: 3\n3. Passage X9D: 0",
        "Doc: K7F, Relevance: 2\nDoc: Q2M, Relevance: 3\nDoc: X9D, Relevance: 0",
        "| Passage | Grade |\n|---|---|\n| K7F | 2 |\n| Q2M | 3 |\n| X9D | 0 |",
        "<think>K7F: 1</think>K7F 2\nQ2M 3\nX9D 0",
        "K7F: 2\nK7F: 2\nQ2M: 3\nX9D: 0",
    ],
)
def test_grades_are_read_in_every_form(text: str):
    assert parse_grades(text, LABELS, 3) == (2 / 3, 1.0, 0.0, None)


@pytest.mark.parametrize(
    "grade", ["high", "8/10", "2 or 3", "2-3", "4", "-1", "NaN", "1e3", "9.7", "2%", "two", "3 out of 10", "true", ""]
)
@pytest.mark.parametrize("form", ["{}: {}\n", '{{"passage": "{}", "grade": "{}"}},', '{{"{}": "{}"}},'])
def test_what_is_no_grade_touches_no_other(grade: str, form: str):
    text = "".join(form.format(label, value) for label, value in zip(LABELS, ("1", grade, "2", "3"), strict=True))
    assert parse_grades(text, LABELS, 3) == (1 / 3, None, 2 / 3, 1.0)


@pytest.mark.parametrize(
    "grade", ["true", "null", "NaN", "Infinity", "-0.5", "3.01", "1e999", "[2]", "{}", '"high"', "8/10"]
)
def test_json_values_that_are_no_grade(grade: str):
    assert parse_grades(f'{{"K7F": 1, "Q2M": {grade}, "X9D": 2}}', LABELS, 3) == (1 / 3, None, 2 / 3, None)


def test_two_different_grades_are_none():
    assert parse_grades("K7F: 2\nQ2M: 1\nK7F: 3", LABELS, 3) == (None, 1 / 3, None, None)
    assert parse_grades('{"K7F": 2, "K7F": 1, "Q2M": 1}', LABELS, 3) == (None, 1 / 3, None, None)
    assert parse_grades("K7F: 2\nK7F: high", LABELS, 3) == (None,) * 4


def test_grades_of_a_truncated_answer_are_read_one_by_one():
    items = [{"passage": label, "grade": grade} for label, grade in zip(LABELS, (3, 12, 5, 1), strict=True)]
    text = json.dumps({"grades": items})
    assert parse_grades(text, LABELS, 20) == (0.15, 0.6, 0.25, 0.05)
    seen = {parse_grades(text[:length], LABELS, 20) for length in range(len(text))}
    # Each is there when its object is complete as far as the grade, and never as "1" of "12".
    assert seen == {
        (None, None, None, None),
        (0.15, None, None, None),
        (0.15, 0.6, None, None),
        (0.15, 0.6, 0.25, None),
        (0.15, 0.6, 0.25, 0.05),
    }


def test_a_repetition_that_is_cut_off_takes_nothing_back():
    text = '{"grades": [{"passage": "K7F", "grade": 2}, {"passage": "K7F"'
    assert parse_grades(text, LABELS, 3) == (2 / 3, None, None, None)


def test_labels_in_prose_get_no_grade():
    text = "K7F has 2 dates. In 3 ways Q2M is better than K7F, 2 of them new.\nI give X9D: 1"
    assert parse_grades(text, LABELS, 3) == (None,) * 4


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("2", 2),
        ("**2**", 2),
        ("Grade: 2.", 2),
        ('{"grade": 2}', 2),
        ("[K7F] 2", 2),
        ('{"passage": "K7F", "grade": 2, "why": "1', 2),
        ('{"passage": "K7F", "gr', None),
        ('[{"passage": "K7F"', None),
        ("<think>3</think>2", 2),
        ("2/3", None),
        ("2 of 3", None),
        ("high", None),
        ("4", None),
        ("", None),
        (None, None),
    ],
)
def test_a_grade_of_one_passage_may_stand_alone(text: object, grade: int | None):
    assert parse_grades(text, ["K7F"], 3) == (None if grade is None else grade / 3,)


def test_a_number_alone_is_no_grade_of_several():
    assert parse_grades("2", ["K7F", "Q2M"], 3) == (None, None)


def test_a_scale_needs_a_top():
    with pytest.raises(ValueError, match="grade"):
        parse_grades("K7F: 1", LABELS, 0)
    with pytest.raises(ValueError, match="grade"):
        expected_grade([{"1": 0.0}], 0)


def test_d31_a_word_for_a_grade_shifts_no_other():
    """LlamaIndex drops "Relevance: high" and gives every later document its predecessor's score; 9.7 becomes 9."""
    text = "Doc: 1, Relevance: high\nDoc: 2, Relevance: 9.7\nDoc: 3, Relevance: 1\nDoc: 0, Relevance: 5"
    assert parse_grades(text, ["1", "2", "3"], 10) == (None, 0.97, 0.1)


def test_r5_a_grade_belongs_to_its_own_passage():
    """LlamaIndex's LLMRerank gave document 1 document 2's score and dropped document 3; 0.87 was read as 0."""
    text = "Doc: 1, Relevance: high\nDoc: 2, Relevance: 9\nDoc: 3, Relevance: 0.87"
    assert parse_grades(text, ["1", "2", "3"], 10) == (None, 0.9, pytest.approx(0.087))


# Yes or no


@pytest.mark.parametrize(
    ("text", "said"),
    [
        *(
            (text, True)
            for text in ("Yes", "yes.", "**Yes**", " YES\n", "True", "Yes, it has no errors.", "Answer: yes")
        ),
        *(
            (text, True)
            for text in ("<think>no</think>Yes", '{"relevant": true}', '{"answer": "Yes"}', "It fits.\nYes")
        ),
        *(
            (text, False)
            for text in ("No", "no!", "**No**", "false", "No - it says yes to another.", '{"relevant": "no"}')
        ),
        *((text, None) for text in ("yes and no", "Yes, no.", "Yes, and no.", "Yes or no?", "Yes, but", "Yesterday")),
        *((text, None) for text in ("nothing", "maybe", "", None)),
        *(
            (text, None)
            for text in ("Yes.\nNo.", "<think>yes", '{"a": true, "b": false}', "yes yes", "...", "Not really")
        ),
    ],
)
def test_yes_or_no(text: object, said: bool | None):
    assert parse_yes_no(text) is said


# First tokens


def test_labels_share_their_probability():
    tokens = {" A": 0.4, "A": 0.1, "[A": 0.1, "B": 0.2, "the": 0.1}
    assert label_probabilities([position(tokens)], "ABC") == pytest.approx((0.75, 0.25, None))


def test_labels_are_read_where_they_are_named():
    start = [position({"{": 0.9, "A": 0.05}), position({'"': 0.99}), position({" The": 0.6, "A": 0.1, "B": 0.1})]
    named = position({"ĠB": 0.6, "▁A": 0.3})
    assert label_probabilities([*start, named], "AB") == pytest.approx((1 / 3, 2 / 3))
    assert label_probabilities(start, "AB") is None
    assert label_probabilities([], "AB") is None
    assert label_probabilities([{}], "AB") is None


def test_labels_in_thinking_are_not_read():
    thinking = [position({token: 0.9}) for token in ("<think>", "A", "</think>", "\n\n")]
    assert label_probabilities([*thinking, position({"B": 0.9, "A": 0.1})], "AB") == pytest.approx((0.1, 0.9))
    assert label_probabilities(thinking[:2], "AB") is None


def test_case_counts_where_it_tells_labels_apart():
    tokens = position({"a": 0.5, "B": 0.25})
    assert label_probabilities([tokens], "AB") == pytest.approx((2 / 3, 1 / 3))
    assert label_probabilities([position({"ab": 0.5, "Q": 0.25})], ["Ab", "aB", "Q"]) is None
    assert label_probabilities([tokens], ["A", "a", "B"]) == pytest.approx((None, 2 / 3, 1 / 3))


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ({"Yes": 0.6, " no": 0.2}, 0.75),
        ({"Yes": 0.3, " yes": 0.2, "YES": 0.1, "No": 0.2, "maybe": 0.1}, 0.75),
        ({"true": 0.6, "False": 0.2}, 0.75),
        ({"Yes": 0.9, "maybe": 0.06}, 0.9 / 0.94),  # "no" has at most the 0.04 that are left
        ({"No": 0.7, "maybe": 0.1, "x": 0.01}, 0.01 / 0.71),  # "yes" is at most as likely as the least likely
        ({"Yes": 1.0}, 1.0),
        ({"maybe": 0.9}, None),
        ({}, None),
    ],
)
def test_yes_against_no(tokens: dict[str, float], expected: float | None):
    got = yes_probability([position(tokens)])
    assert got == (None if expected is None else pytest.approx(expected))


def test_yes_is_read_at_the_first_word():
    before = [position({token: 0.9, "No": 0.05}) for token in ("<think>", "\n\n", "</think>", "\n\n", "**")]
    assert yes_probability([*before, position({"Yes": 0.8, "No": 0.2})]) == pytest.approx(0.8)
    pieces = [position({token: 1.0}) for token in ("<", "think", ">", "no", "</", "think", ">", "Ġ")]
    assert yes_probability([*pieces, position({"Yes": 0.8, "No": 0.2})]) == pytest.approx(0.8)
    prose = [position({"The": 0.9}), position({"Yes": 0.8, "No": 0.2})]
    assert yes_probability(prose) is None
    assert yes_probability([position({"<think>": 0.9}), position({"Yes": 0.8, "No": 0.2})]) is None
    assert yes_probability([]) is None


def test_probabilities_that_are_none_are_passed_over():
    assert yes_probability([{"Yes": math.log(0.5), "No": math.nan, "no": -9999.0}]) == pytest.approx(1.0)
    assert yes_probability([{"Yes": -math.inf, "No": -math.inf}]) is None
    assert yes_probability([{"Yes": 1e-9, "No": -math.inf}]) == pytest.approx(1.0)
    assert label_probabilities([{"A": -math.inf}], "AB") is None
    assert expected_grade([{"1": -math.inf}], 3) is None
    # Far below what exp() can hold, and still two to one.
    assert expected_grade([{"3": -2000.0, "0": -2000.0 - math.log(2)}], 3) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("tokens", "top", "expected"),
    [
        ({"2": 0.5, "3": 0.5}, 3, 2.5 / 3),
        ({"2": 0.25, " 2": 0.25, "0": 0.25, "7": 0.2}, 3, 4 / 9),
        ({"1": 0.5, "high": 0.5}, 1, 1.0),
        ({"high": 0.9}, 3, None),
        ({"1": 0.9}, 10, None),
    ],
)
def test_expected_grades(tokens: dict[str, float], top: int, expected: float | None):
    got = expected_grade([position({"\n": 1.0}), position(tokens)], top)
    assert got == (None if expected is None else pytest.approx(expected))


# Any text at all


def pieces(chance: random.Random, extra: Sequence[str]) -> str:
    parts = (*LABELS, *"AI123.,:;[]{}\"'>=\n ", "yes", "no", "best", "grade", '{"best": [', '{"grades": [', *extra)
    return "".join(chance.choices(parts, k=chance.randint(0, 12)))


@pytest.mark.no_cover
def test_no_text_raises():
    chance = random.Random(5)
    chosen = graded = said = 0
    for _ in range(4_000):
        text = pieces(chance, ('{"passage": "K7F", "grade": ', "<think>", "</think>", "9" * 400, "\ud800", "-"))
        count = chance.randint(1, 3)
        choice = parse_choice(text, LABELS, count)
        if choice is not None:
            assert 1 <= len(set(choice)) == len(choice) <= count
            assert all(LABELS[one] in text for one in choice)
            chosen += 1
        grades = parse_grades(text, LABELS, 3)
        assert len(grades) == len(LABELS)
        for label, grade in zip(LABELS, grades, strict=True):
            assert grade is None or (0 <= grade <= 1 and label in text)
        graded += any(grade is not None for grade in grades)
        said += parse_yes_no(text) is not None
    assert min(chosen, graded, said) > 10
