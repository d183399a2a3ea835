"""Reading orders: what is given is found whatever its form, and what is not given is never made up."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from answer_cases import FORMS, LABELS, order
from uprank.scorers.llm.answers import ParsedRanking, parse_ranking

# Every form, round trip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("labels", [None, LABELS, "ABCDE"], ids=["numbers", "labels", "letters"])
def test_every_form_is_read_exactly(form: str, labels: Sequence[str] | None):
    chance = random.Random(form)
    for _ in range(4):
        expected = chance.sample(range(5), 5)
        ids = [labels[one] if labels else str(one + 1) for one in expected]
        assert parse_ranking(FORMS[form](ids), 5, labels) == ParsedRanking(tuple(expected), (), ()), FORMS[form](ids)


def test_numbers_in_json_need_no_quotes():
    assert order('{"ranking": [3, 1, 2]}', 3) == [3, 1, 2]
    assert order('{"ranking": [3.0, 1.5, 2]}', 3) == [3, 2]
    assert order("[3, 1, 2]", 3) == [3, 1, 2]
    assert order('[{"id": 2}, {"id": 1}]', 2) == [2, 1]


def test_digits_of_other_scripts_are_digits():
    assert order("[٣] > [１] > [२]", 3) == [3, 1, 2]
    assert order("2²", 3) == []
    assert order("[2] > [1²]", 3) == [2]


# What is wrong with an order is put right, and said


@pytest.mark.parametrize(
    ("text", "count", "expected", "repaired"),
    [
        ("[2] > [2] > [1]", 3, [2, 1], "repeated ids dropped"),
        ("[2] > [7] > [1]", 3, [2, 1], "unknown ids dropped"),
        ("[3] > [-1] > [2]", 3, [3, 2], "unknown ids dropped"),
        ("[2] > [] > [x] > [1]", 3, [2, 1], "unknown ids dropped"),
        ("[0] > [2] > [1]", 3, [1, 3, 2], "read as 0-based"),
        ('{"ranking": [0, 2, 1]}', 3, [1, 3, 2], "read as 0-based"),
        ("[0] > [2] > [3]", 3, [2, 3], "unknown ids dropped"),  # a 3 of 3 counts from 1
        ("[3] > [1] >", 3, [3, 1], "truncated"),
        ("[3] > [12] > [1", 20, [3, 12], "truncated"),  # of [1], or of [10]
        ("1. [14] > 2. [15] > 3", 20, [14, 15], "truncated"),  # a number of the list
        ('{"ranking": [3, 12, 1', 20, [3, 12], "truncated"),
        ('{"ranking": ["3", "12", "1', 20, [3, 12], "truncated"),
        ('{"ranking": [{"id": 3, "why": "x"}, {"id": 1', 20, [3], "truncated"),
        ('{"reason": "5", "ranking": [3, 12], "confidence": 1', 20, [3, 12], "truncated"),
        ('{"ranking": [{"id": 1, "rank": 2}, {"id": 2, "rank": 1}]}', 2, [2, 1], "sorted by stated rank"),
        ('{"ranking": [2, 1] oops}', 3, [2, 1], "malformed JSON"),
        ("[1] > [2] because.\n[3] > [1] > [2]", 3, [3, 1, 2], "one of several orders"),
    ],
)
def test_repairs_are_named(text: str, count: int, expected: list[int], repaired: str):
    assert order(text, count) == expected
    assert parse_ranking(text, count).repaired == (repaired,)


def test_an_id_the_text_breaks_off_in_counts_where_it_can_be_no_other():
    assert order("[3] > [12] > [13", 20) == [3, 12, 13]
    assert order("[K7F] > [Q2M", 5, LABELS) == [1, 2]
    assert order("[K7F] > [Q2", 5, LABELS) == [1]
    assert order("[A] > [B", 2, ("A", "BC")) == [1]


def test_several_repairs_are_each_named_once():
    parsed = parse_ranking("[9] > [2] > [2] > [8] > [2] > [0] > [1] >", 3)
    assert parsed == ParsedRanking(
        (2, 0, 1),
        (),
        ("truncated", "read as 0-based", "unknown ids dropped", "repeated ids dropped"),
    )


def test_of_several_chains_the_longest_counts_and_of_equals_the_last():
    assert order("[1] > [2]. Better: [2] > [3] > [1]. Surely [2] > [1].", 3) == [2, 3, 1]
    assert order("First [1] > [2] > [3]. No: [3] > [2] > [1].", 3) == [3, 2, 1]


def test_of_several_lists_each_begins_where_the_numbers_begin_again():
    assert order("1. [1]\n2. [2]\n\nBetter:\n1. [3]\n2. [2]\n3. [1]", 3) == [3, 2, 1]


def test_a_chain_after_a_list_counts():
    assert order("1. [1] is old.\n2. [3] is new.\n3. [2] is cold.\nSo [3] > [1]", 3) == [3, 1]


def test_of_several_json_objects_the_last_counts_and_known_names_come_first():
    assert order('{"ranking": [1, 2]} no, {"ranking": [2, 1]}', 2) == [2, 1]
    assert order('{"results": [1, 2, 3], "ranking": [3, 2, 1]}', 3) == [3, 2, 1]
    assert order('{"relevant": [3, 1], "irrelevant": [2, 4]}', 4) == []  # which of the two is not known


def test_ties_are_read_in_their_order():
    assert order("[3] = [1] > [2]", 3) == [3, 1, 2]
    assert order("[2] > [3, 1]", 3) == [2, 3, 1]
    assert order('{"ranking": [[2], [3, 1]]}', 3) == [2, 3, 1]


def test_lines_with_remarks_are_a_list_if_they_hold_every_id_in_another_order():
    assert order("[2] is best.\n[1]: names it.\n[4] - a bit.\n[3] not at all.", 4) == [2, 1, 4, 3]
    assert order("[1] is best.\n[2]: names it.\n[3] - a bit.\n[4] not at all.", 4) == []  # one by one, as shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": ' * 100 + '{"ranking": [2, 1]}' + "}" * 100, [2, 1]),
        ("[" * 100 + '{"ranking": [2, 1]}' + "]" * 100, [2, 1]),
        ('{"ranking": [2, 1}', [2, 1]),
        ('{"ranking",: [2, 1]}', []),
        ('{"note": "a \\"{[ b \\q", "ranking": [2, 1,, ]}', [2, 1]),
        ('{"ranking": [2, 1], "n": }', [2, 1]),
        ('{"ranking": ["\\u0032", "\\u0031"]}', [2, 1]),
        ('{ {"ranking": [2, 1]}', [2, 1]),
        ('[2 1, {"ranking": [2, 1]}', [2, 1]),
    ],
)
def test_broken_json_is_read_as_far_as_it_is_sound(text: str, expected: list[int]):
    assert order(text, 3) == expected


# Labels


def test_with_labels_numbers_are_no_ids():
    for text in ("[3] > [1] > [2]", "3, 1, 2", '{"ranking": [3, 1, 2]}', "1. [4]\n2. [2]", "[0] > [1]"):
        assert order(text, 5, LABELS) == []


def test_labels_are_matched_without_regard_to_case_only_if_that_tells_them_apart():
    assert order("[k7f] > Q2m > `X9D`", 5, LABELS) == [1, 2, 3]
    assert order("[a] > [A]", 2, ("A", "a")) == [2, 1]
    assert order("[B] > [A]", 2, ("A", "b")) == [2, 1]
    assert order("[B] > [A]", 3, ("A", "b", "a")) == [1]


def test_labels_are_matched_whole():
    assert order("[K7FF] > [7F] > [Q2M]", 5, LABELS) == [2]
    assert order("[X9D-1] > [Q2M]", 5, LABELS) == [2]


def test_labels_that_are_words_are_no_ids_in_prose():
    assert order("A passage I like. I > all, A plan", 20, "ABCDEFGHIJKLMNOPQRST") == []
    assert order("B > A is wrong, as I said.", 3, "ABI") == []
    assert order("A, well", 3, "ABI") == []
    assert order("[B] > [A]", 3, "ABI") == [2, 1]


def test_an_echo_of_labels_in_a_document_is_no_order():
    assert order("Passage K7F says: rank me above Q2M.", 5, LABELS) == []


# Where no order is given


@pytest.mark.parametrize(
    "text",
    [
        "20 passages are provided.",
        "10 passages will be listed.",
        "Passage 3 is the most relevant and passage 1 the least.",
        "Relevance: 9.8, 9.2 and 8/10",
        "Relevance: high",
        "See [3].",
        "I looked at [3] and [1], [2].",
        "Passages [1, 2] are relevant.",
        "Not relevant: 1, 2",
        "Since 9 > 7 it holds.",
        "3.5 > 2.5 > 1.5",
        "[3] < [1] < [2]",
        "[] > []",
        "[]",
        "{}",
        "0",
        "7",
        '{"ranking": []}',
        '{"ranking": [], "note": "[1] > [2] was no use"}',
        '{"ranking": null}',
        '{"ranking": [true, false, 1.5, "high", {"text": "3"}]}',
        '{"grades": {"1": 2, "2": 3}}',
        '{"score": 3, "count": 2',
        '{"scores": [3, 2, 1',
        "[2] is off topic.\n[1] is too.\n[3] is best.",
        "1. [1] is about cats.\n2. [2] is about dogs.\n3. [3] is about fish.",
        "[1] The Government of the\n[2] Another text\n[3] A third",
        "[1]\nThe text of the first.\n[2]\nThe text of the second.",
        "[7] > [8] > [9]",
        "> > >",
        "Error code: 400 - maximum context length is 8192 tokens, 20000 > 8192",
        "1 2 3",
        "There are\n3\n2\n1\nof them.",
        '{"seen": [2, 1]]',
        "\ud800[",
    ],
)
def test_no_order_is_made_up(text: str):
    assert order(text, 6) == []
    assert parse_ranking(text, 6).failure == "no-ranking"


@pytest.mark.parametrize(
    "text", ["", " \n\t", "\u200b", "**", "<think>[2] > [1]</think>", "```\n```", None, 3, b"[1]", []]
)
def test_no_text_is_empty(text: object):
    assert parse_ranking(text, 2) == ParsedRanking((), (0, 1), (), "empty")


@pytest.mark.parametrize(
    "text",
    [
        "I can't rank these 5 passages.",
        "I’m sorry, but I cannot help with that.",
        "I am unable to order passages 1, 2 and 3.",
        "As an AI language model, I have no view.",
        "Our policy does not allow ranking [1].",
        "Sorry, these 2 passages cannot be compared.",
    ],
)
def test_refusals_are_told_from_other_texts(text: str):
    assert parse_ranking(text, 5) == ParsedRanking((), (0, 1, 2, 3, 4), (), "refusal")


def test_what_sounds_like_a_refusal_but_gives_an_order_is_an_order():
    assert order("I'm sorry, I can't be sure, but [2] > [1].", 2) == [2, 1]


@pytest.mark.parametrize(
    "text",
    [
        "<think>so [3] > [1] > [2]",
        "<think>a</think>[1] > [2]<think>but no: [2] > [1]",
        "[THINK]so [3] > [1]",
        "<|channel|>analysis<|message|>so [3] > [1]",
    ],
)
def test_thinking_that_never_ends_gives_nothing(text: str):
    assert parse_ranking(text, 3).failure == "truncated-thinking"


def test_thinking_that_only_ends_is_not_read():
    assert order("so [1] > [2] > [3]</think>[2] > [1]", 3) == [2, 1]
    assert order("[1] > [2] > [3]<think>x</think>y</think>[2] > [1]", 3) == [2, 1]
    assert order("[1]</think>[1] > [3]<think>[1] > [2] > [3]</think> > [2]", 3) == [1, 3, 2]


def test_an_empty_answer_tag_is_no_answer():
    assert order("[1] > [2] > [3]: <answer>[2] > [1]</answer> <answer> </answer>", 3) == [2, 1]
    assert order("In <answer></answer> tags: <answer>[2] > [1]</answer> <answer> </answer>", 2) == [2, 1]
    assert order("<answer>[1] > [2]</answer> on reflection <answer>[2] > [1]", 2) == [2, 1]


@pytest.mark.parametrize(("count", "text"), [(3, "[2]"), (3, " **[2]**."), (3, "Passage 2"), (1, "Only [1] is there.")])
def test_a_single_id_counts_where_it_is_all_there_can_be(count: int, text: str):
    assert order(text, count) == [min(2, count)]


def test_no_passages_are_in_order():
    assert parse_ranking("[1] > [2]", 0) == ParsedRanking((), ())
    assert parse_ranking("", 0) == ParsedRanking((), ())


@pytest.mark.parametrize(("count", "labels"), [(-1, None), (2, ["A"]), (2, ["A", "A"])])
def test_a_callers_mistake_is_an_error(count: int, labels: list[str] | None):
    with pytest.raises(ValueError, match="passages"):
        parse_ranking("[1]", count, labels)


# Defects of others


def test_d10_digits_in_prose_are_no_ids():
    """rank_llm reads every digit: "2 of the 3 passages ... 1 match" before the chain came out as 1, 2, 0."""
    text = "In 2 of the 3 passages I found 1 match. Final: [3] > [1] > [2]"
    assert parse_ranking(text, 3) == ParsedRanking((2, 0, 1), ())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Here is the ranking of the 20 passages: [3] > [1] > [2]", [3, 1, 2]),
        ("[3] > [1] > [2]\nAs passage 12 says, confidence: 7", [3, 1, 2]),
        ('{"ranking": [3, 1, 2], "confidence": 7, "note": "passage 12"}', [3, 1, 2]),
        ("1. [4]\n2. [2]\n3. [1]\n4. [3]", [4, 2, 1, 3]),
        ("Error 400: 'max_tokens' must be 7, 3 or 1", []),
    ],
)
def test_d10_numbers_around_an_order_are_not_in_it(text: str, expected: list[int]):
    """rank_llm puts numbers from prose, list numbering, other JSON fields and error messages into the order."""
    assert order(text, 20) == expected


def test_d31_a_word_for_a_grade_makes_no_order():
    """LlamaIndex reads "Doc: 0" as the last document and shifts what follows a word; neither is an order here."""
    text = "Doc: 1, Relevance: high\nDoc: 0, Relevance: 9.7\nDoc: 2, Relevance: 1"
    assert parse_ranking(text, 3) == ParsedRanking((), (0, 1, 2), (), "no-ranking")


def test_r5_zero_and_negative_numbers_are_never_the_last_passage():
    """LlamaIndex's LLMRerank takes 0 and negative numbers from the end of the list, and returns repeats twice."""
    assert order("[3] > [-7] > [3] > [2]", 3) == [3, 2]
    assert order('{"ranking": [3, -1, 0, 1, 3]}', 3) == [3, 1]
