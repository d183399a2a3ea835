"""Reading which of some passages an answer chooses."""

from __future__ import annotations

import json

import pytest

from uprank.scorers.llm.choices import parse_choice

LABELS = ("K7F", "Q2M", "X9D", "B4T")
LETTERS = "ABCI"


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ('{"best": ["Q2M"]}', 1),
        ('{"best": "Q2M"}', 1),
        ('```json\n{"answer": "Passage Q2M", "why": "K7F is short"}\n```', 1),
        ('{"best": ["Q2M"], "why": "K7F', 1),
        ("Q2M", 1),
        ("Q2M.", 1),
        ("q2m", 1),
        ("[Q2M]", 1),
        ("**Passage Q2M**", 1),
        ('"Q2M"', 1),
        ("<think>K7F? no, X9D.</think>\n\nQ2M", 1),
        ("<think>K7F?</think><answer>[Q2M]</answer>", 1),
        ("Answer: Q2M", 1),
        ("The most relevant passage is [Q2M].", 1),
        ("Passage Q2M is more relevant than passage K7F.", 1),
        ("K7F names the city, X9D the year.\nAnswer: Q2M", 1),
        ("K7F names the city, X9D the year.\n\nQ2M", 1),
        ("[Q2M] > [K7F] > [X9D]", 1),
        ("I would go with Q2M because it names the year.", 1),
        ("Q2M\n\nIt names the year, K7F does not.", 1),
        ('{"best": ["Q2M"] oops', 1),
        ('["Q2M"]', 1),
        ('{"ranking": ["Q2M", "K7F"]}', 1),
        ('{"answer": "I choose passage Q2M."}', 1),
        ("Q2M\nK7F", None),
        ("Q2M\nis good\nK7F", None),
        ("1. Q2M\n2. K7F", None),
        ("Q2M or K7F", None),
        ("Q2M, K7F", None),
        ('{"best": ["Q2M", "K7F"]}', None),
        ("Answer: Q2M\nAnswer: K7F", None),
        ("The best is Q2M or K7F.", None),
        ("Q2M is not relevant.", None),
        ("Neither Q2M nor K7F.", None),
        ("None.", None),
        ('{"best": []}', None),
        ('{"best": null}', None),
        ("I'm sorry, I cannot choose Q2M.", None),
        ("2", None),
        ("Passage 2", None),
        ("<think>Q2M", None),
        ("", None),
        (None, None),
    ],
)
def test_one_choice(text: object, chosen: int | None):
    assert parse_choice(text, LABELS) == (None if chosen is None else (chosen,))


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("A", 0),
        ("A.", 0),
        ("(B)", 1),
        ("Passage A", 0),
        ("B is more relevant.", 1),
        ("The answer is C.", 2),
        ("Answer: I", 3),
        ("A passage I like is about cats.", None),
        ("In a document I found a city.", None),
        ("I think a better one is needed", None),
        ("I prefer passage B.", 1),
        ("In this passage a man speaks.", None),
    ],
)
def test_a_letter_in_a_sentence_is_a_word(text: str, chosen: int | None):
    assert parse_choice(text, LETTERS) == (None if chosen is None else (chosen,))


def test_numbers_as_labels_are_not_scraped_from_prose():
    labels = ["1", "2", "3"]
    assert parse_choice("[3]", labels) == (2,)
    assert parse_choice("3", labels) == (2,)
    assert parse_choice("Passage 3 is best.", labels) == (2,)
    assert parse_choice("Of the 3 passages 2 help.", labels) is None
    assert parse_choice("All 3 are about cats.", labels) is None


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ('{"best": ["X9D", "K7F"]}', (2, 0)),
        ('{"best": ["X9D", "K7F", "X9D", "Q2M", "B4T"]}', (2, 0, 1)),
        ('{"best": ["X9D", "zzz"]}', (2,)),
        ("X9D, K7F and Q2M", (2, 0, 1)),
        ("[X9D] > [K7F] > [Q2M] > [B4T]", (2, 0, 1)),
        ("1. X9D\n2. K7F", (2, 0)),
        ("Best are X9D and K7F.", (2, 0)),
        ("K7F is off topic, so:\nX9D, Q2M", (2, 1)),
        ("One could name K7F, Q2M, X9D or B4T here.", None),
        ("none", None),
    ],
)
def test_several_choices_keep_their_order_and_no_more_are_taken_than_asked(text: str, chosen: tuple[int, ...] | None):
    assert parse_choice(text, LABELS, 3) == chosen


def test_a_choice_asked_of_no_one_is_a_mistake():
    with pytest.raises(ValueError, match="count"):
        parse_choice("K7F", LABELS, 0)
    with pytest.raises(ValueError, match="labels"):
        parse_choice("K7F", ["K7F", "K7F"])


# Long answers

REASONS = "It names the year, the city and the height of it. " * 500  # 25,000 characters


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"best": ["Q2M"], "why": REASONS}),
        json.dumps({"why": REASONS, "best": ["Q2M"]}),
        f"Q2M\n\n{REASONS}",
        f"{REASONS}\n\nQ2M",
        f"{REASONS}\nThe most relevant passage is [Q2M].",
        f"{REASONS}\n[Q2M] > [K7F]",
        f"<think>{REASONS}</think>Q2M",
        f"<think>{REASONS} K7F</think>Passage Q2M. {REASONS}",
    ],
)
def test_a_choice_is_found_at_the_beginning_or_the_end_of_long_reasons(text: str):
    assert parse_choice(text, LABELS) == (1,)


def test_of_an_endless_answer_the_middle_is_not_read():
    """Labels without end took over a second to read, and what was chosen in the midst of them was no choice."""
    assert parse_choice(f"{REASONS} passage Q2M {REASONS}", LABELS) is None
    assert parse_choice(f"{REASONS} passage Q2M.", LABELS) == (1,)


@pytest.mark.parametrize("kept", [1, 2])
def test_a_label_that_the_cut_goes_through_is_not_read_as_another(kept: int):
    labels = ["1", "11", "111"]
    # Of more than 4,000 characters the first 1,000 and the last 3,000 are read.
    beginning = "x " * 1_000
    beginning = beginning[: 1_000 - kept - len(" passage ")] + " passage 111"
    end = "111. So it is.".ljust(3_000 + 3 - kept)[: 3_000 + 3 - kept - 1] + "x"
    assert parse_choice(beginning + " x" * 2_000, labels) is None
    assert parse_choice("x " * 2_000 + end, labels) is None
    assert parse_choice(beginning[20:] + " x" * 2_000, labels) == (2,)
