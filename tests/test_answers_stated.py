"""Reading orders that stand in the ranks or scores of an answer rather than in its sequence."""

from __future__ import annotations

import json

import pytest

from answer_cases import LABELS, check, order
from uprank.scorers.llm.answers import parse_ranking
from uprank.scorers.llm.choices import parse_choice
from uprank.scorers.llm.grades import parse_grades

RANK, SCORE = "sorted by stated rank", "sorted by stated score"


def scored(*scores: object, key: str = "score", id_key: str = "label") -> list[dict[str, object]]:
    return [{id_key: label, key: score} for label, score in zip(LABELS, scores, strict=False)]


@pytest.mark.parametrize("key", ["score", "relevance", "relevance_score", "grade", "rating", "Relevance Score"])
def test_objects_with_scores_come_by_falling_score(key: str):
    for text in (
        json.dumps(scored(5, 9, 7, key=key)),
        json.dumps({"results": scored(5, 9, 7, key=key, id_key="passage_id")}),
        json.dumps({"ranking": scored("0.5", "0.9", "0.7", key=key)}),
        json.dumps({"verdicts": scored(-5.5, 9.25, 0, key=key)}),
    ):
        parsed = parse_ranking(text, 5, LABELS)
        check(parsed, 5)
        assert (parsed.order, parsed.repaired) == ((1, 2, 0), (SCORE,)), text
    assert order('{"results": [{"id": 1, "relevance": 5}, {"id": 2, "relevance": 9}]}', 2) == [2, 1]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((9, 9, 5), (0, 1, 2)),
        ((5, 9, 9, 5), (1, 2, 0, 3)),  # those of one score in the order in which they stand
        ((0, 0, 0), (0, 1, 2)),
    ],
)
def test_equal_scores_keep_their_order(scores: tuple[int, ...], expected: tuple[int, ...]):
    parsed = parse_ranking(json.dumps(scored(*scores)), 5, LABELS)
    assert parsed.order == expected
    assert parsed.repaired == (() if expected == tuple(sorted(expected)) else (SCORE,))


@pytest.mark.parametrize("odd", ["high", "8/10", None, True, [9], "NaN"])
def test_the_order_given_counts_unless_all_have_a_number(odd: object):
    for scores in ((5, odd, 9), (odd, 5, 9), (5, 9, odd)):
        parsed = parse_ranking(json.dumps({"ranking": scored(*scores)}), 5, LABELS)
        assert (parsed.order, parsed.repaired) == ((0, 1, 2), ())
    some = [{"label": "K7F", "score": 1}, {"label": "Q2M"}, {"label": "X9D", "score": 9}]
    assert order(json.dumps(some), 5, LABELS) == [1, 2, 3]
    assert order('[{"label": "K7F", "score": NaN}, {"label": "Q2M", "score": 9}]', 5, LABELS) == [1, 2]


def test_a_stated_rank_counts_more_than_a_score():
    entries = [{"id": 1, "rank": 1, "score": 2}, {"id": 2, "rank": 2, "score": 9}]
    assert parse_ranking(json.dumps(entries), 2).repaired == ()
    assert order(json.dumps(entries), 2) == [1, 2]
    same_rank = [{**entry, "rank": 1} for entry in entries]
    assert order(json.dumps(same_rank), 2) == [2, 1]


def test_how_sure_a_model_is_of_a_place_is_no_score():
    assert order(json.dumps({"ranking": scored(0.5, 0.9, key="confidence")}), 5, LABELS) == [1, 2]


@pytest.mark.parametrize(
    ("text", "expected", "repaired"),
    [
        ('[{"id": 1, "score": 5}, {"id": 2, "score": 9}, {"id": 3, "sc', [], ()),  # lists by themselves are whole
        ('{"ranking": [{"id": 1, "score": 5}, {"id": 2, "score": 9}, {"id": 3, "sc', [2, 1], (SCORE, "truncated")),
        ('{"ranking": [{"id": 1, "score": 5}, {"id": 2, "score": 9}, {"id"', [2, 1], (SCORE, "truncated")),
        ('{"ranking": [{"id": 3, "score": 9}, {"id": 1, "score": 5}, {"id"', [3, 1], ("truncated",)),
        ('{"ranking": [{"id": 1, "rank": 2}, {"id": 2, "rank": 1}, {"id": 3', [2, 1], (RANK, "truncated")),
    ],
)
def test_of_a_truncated_answer_the_complete_objects_are_sorted(text: str, expected: list[int], repaired: object):
    assert order(text, 20) == expected
    assert parse_ranking(text, 20).repaired == repaired


def test_an_object_is_known_by_the_first_key_that_holds_an_id():
    entries = [{"passage": "The text.", "label": "Q2M"}, {"passage": "K7F", "label": "relevant"}]
    assert order(json.dumps({"ranking": entries}), 5, LABELS) == [2, 1]
    graded = [{**entry, "grade": grade} for entry, grade in zip(entries, (3, 1), strict=True)]
    assert parse_grades(json.dumps(graded), LABELS[:2], 3) == (1 / 3, 1.0)


def test_several_choices_come_by_their_scores():
    assert parse_choice(json.dumps({"best": scored(5, 9)}), LABELS, 2) == (1, 0)


# Tables


def table(head: str, *rows: str) -> str:
    line = "|".join("---" for _ in head.split("|"))
    return "\n".join((f"|{head}|", f"|{line}|", *(f"|{row}|" for row in rows)))


@pytest.mark.parametrize(
    ("text", "expected", "repaired"),
    [
        (table("Label | Rank", "K7F | 3", "Q2M | 1", "X9D | 2"), [2, 3, 1], (RANK,)),
        (table("Label | Rank", "[K7F] | 3", "**Q2M** | 1", "`X9D` | 2"), [2, 3, 1], (RANK,)),
        (table("Rank | Label", "3 | K7F", "1 | Q2M", "2 | X9D"), [2, 3, 1], (RANK,)),
        (table("Rank | Passage | Score", "1 | Q2M | 3", "2 | K7F | 9"), [2, 1], ()),
        (table("Passage | Why | Rank (1 = best)", "K7F | 3 dates | 2", "Q2M | [X9D] > [K7F] | 1"), [2, 1], (RANK,)),
        (table("Passage ID | Relevance Score", "K7F | 2", "Q2M | 9.5", "X9D | 7"), [2, 3, 1], (SCORE,)),
        (table("Label | Rank", "K7F | 1", "Q2M | 2"), [1, 2], ()),
        (table("Label | Rank", "K7F | 2", "zzz | 3", "Q2M | 1"), [2, 1], (RANK, "unknown ids dropped")),
        (table("Label | Rank", "K7F | 3", "Q2M | 1", "X9D | 2")[:-3], [2, 1], (RANK, "truncated")),
        ("Label | Rank\n---|---\nK7F | 2\nQ2M | 1", [2, 1], (RANK,)),
        (table("Label | Rank", "K7F | 2", "Q2M | 1") + "\n\nSo: [X9D] > [Q2M] > [K7F]", [3, 2, 1], ()),
        (table("Label | Rank", "K7F | 1", "Q2M | 1"), [], ()),  # which of two firsts is not said
        (table("Label | Rank", "K7F | first", "Q2M | second"), [], ()),
        (table("Label | Rank", "K7F | 2"), [], ()),
        (table("Label | Year", "K7F | 2", "Q2M | 1"), [], ()),
    ],
)
def test_a_table_is_read_by_its_head(text: str, expected: list[int], repaired: tuple[str, ...]):
    assert order(text, 5, LABELS) == expected
    assert parse_ranking(text, 5, LABELS).repaired == repaired


def test_ids_and_ranks_in_a_table_of_numbers_are_told_apart():
    """Read without its head, a table of passages and their ranks gives the inverse of the order."""
    assert order(table("Passage | Rank", "1 | 3", "2 | 1", "3 | 2"), 3) == [2, 3, 1]
    assert order(table("Rank | Passage", "1 | 3", "2 | 1", "3 | 2"), 3) == [3, 1, 2]
    assert order(table("Passage | Rank", "1 | 2", "2 | 2", "3 | 1"), 3) == []


# Spaces alone


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        ("Q2M K7F X9D", 3, [2, 1, 3]),
        ("Ranking: Q2M K7F X9D.", 3, [2, 1, 3]),
        ("Q2M K7F", 3, []),  # not all of them
        ("Q2M K7F K7F", 3, []),
        ("Q2M K7F X9D B4T", 3, []),
        ("Passages Q2M K7F X9D", 3, []),
        ("Q2M K7F X9D help", 3, []),
        ("Q2M K7F and X9D", 3, []),
        ("They are\nQ2M K7F X9D", 3, []),
    ],
)
def test_all_labels_on_the_only_line_need_no_commas(text: str, count: int, expected: list[int]):
    assert order(text, count, LABELS[:count]) == expected


def test_letters_and_numbers_with_spaces_alone_may_be_words():
    assert order("B A I", 3, "ABI") == []
    assert order("2 1 3", 3) == []
    assert order("2 1 3", 3, ["1", "2", "3"]) == []
