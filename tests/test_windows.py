"""How a long text is split: what a window holds, where it ends, what two neighbours share."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uprank.scorers.combined.windows import sentence_ends, windows
from uprank.tokens import estimate_tokens

PROSE = (
    "BM25 counts words, e.g. rare ones more (Robertson et al., 1994). A cross-encoder reads both texts together! "
    "Is it slow? Yes, by Fig. 3 of that paper.\n\n* It reads every pair.\n* Nothing can be kept.\n\n"
    "Dr. J. Smith agrees. "
)
FAMILY = "👨\u200d👩\u200d👧"


def words_of(text: str) -> int:
    return len(text.split())


def parts(text: str, ends: list[int]) -> list[str]:
    return [text[start:end] for start, end in pairwise([0, *ends])]


def split(text: str, tokens: int, overlap: int, count: Callable[[str], int] = estimate_tokens) -> list[str]:
    return [text[start:end] for start, end in windows(text, tokens, overlap, count)]


def check(text: str, tokens: int, overlap: int, count: Callable[[str], int]) -> list[tuple[int, int]]:
    """What every splitting must hold to, whatever the text."""
    found = windows(text, tokens, overlap, count)
    assert found[0][0] == 0
    assert found[-1][1] == len(text)
    assert all(count(text[start:end]) <= tokens for start, end in found)
    for (start, end), (later_start, later_end) in pairwise(found):
        assert start < later_start <= end < later_end
        assert count(text[later_start:end]) <= overlap
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One. ", "Two! ", "Three? ", "Four"]),
        ("It works, e.g. Python, i.e. CPython. Good.", ["It works, e.g. Python, i.e. CPython. ", "Good."]),
        ("See Fig. 3 and Smith et al. (2019). Next.", ["See Fig. 3 and Smith et al. (2019). ", "Next."]),
        ("Dr. J. R. Smith of the U.S. Army left. He did.", ["Dr. J. R. Smith of the U.S. Army left. ", "He did."]),
        ('"Why?" he asked. "Because!" She left.', ['"Why?" he asked. ', '"Because!" ', "She left."]),
        (
            "It ended (at last.) Then 3.5 more in 1999. The rest.",
            ["It ended (at last.) ", "Then 3.5 more in 1999. ", "The rest."],
        ),
        ("1. First\n2. Second\n- Third", ["1. First\n", "2. Second\n", "- Third"]),
        ("A line that is\nbroken goes on.\nA new one", ["A line that is\nbroken goes on.\n", "A new one"]),
        ("a heading\n\nand what is below it", ["a heading\n\n", "and what is below it"]),
        ("Said Dr.\n\nno capital here", ["Said Dr.\n\n", "no capital here"]),
        ("東京は首都です。人口は？多い！「はい。」次", ["東京は首都です。", "人口は？", "多い！", "「はい。」", "次"]),
        ("वह आया। वह गया।", ["वह आया। ", "वह गया।"]),
        ("wait... what?! no", ["wait... what?! no"]),
        ("", [""]),
    ],
)
def test_sentences(text: str, expected: list[str]):
    assert parts(text, sentence_ends(text)) == expected


def test_a_text_that_fits_is_one_window():
    assert windows(PROSE, estimate_tokens(PROSE), 5, estimate_tokens) == [(0, len(PROSE))]
    assert windows("", 8, 2, estimate_tokens) == [(0, 0)]


def test_windows_end_with_sentences_where_these_fit():
    text = PROSE * 20
    ends = set(sentence_ends(text))
    found = check(text, 60, 12, estimate_tokens)
    assert len(found) > 10
    assert all(end in ends for _, end in found)
    fill = [estimate_tokens(text[start:end]) for start, end in found]
    assert sum(fill) / len(fill) > 40  # they are filled: the longest sentence has about thirty


def test_neighbours_share_whole_sentences_and_else_the_last_words():
    short = "One two. Three four five. Six seven. Eight nine ten. "
    assert split(short, 6, 3, words_of) == [
        "One two. Three four five. ",
        "Three four five. Six seven. ",
        "Six seven. Eight nine ten. ",
    ]
    long = "One two three four five six. Seven eight nine ten eleven. Twelve."
    assert split(long, 8, 2, words_of) == [
        "One two three four five six. ",
        "five six. Seven eight nine ten eleven. Twelve.",
    ]
    # The overlap gives way where the next sentence would not fit beside it.
    assert split("One two three four. A b c d e f g.", 8, 3, words_of) == [
        "One two three four. ",
        "four. A b c d e f g.",
    ]
    assert split("One two three four. A b c d e f g h.", 8, 3, words_of) == ["One two three four. ", "A b c d e f g h."]
    # Inside a long sentence too; but what is shared is never a whole window.
    assert split("One two. A b c d e f g h i j k l m n o p q r s t.", 8, 2, words_of) == [
        "One two. ",
        "A b c d e f g h ",
        "g h i j k l m n ",
        "m n o p q r s t.",
    ]
    assert split(short, 6, 0, words_of) == ["One two. Three four five. ", "Six seven. Eight nine ten. "]


def test_a_long_sentence_is_cut_at_words_and_a_long_word_between_characters():
    found = split("word " * 100, 16, 4)
    assert all(part.startswith("word") and part.endswith("word ") for part in found)
    found = check(FAMILY * 50, 40, 16, estimate_tokens)
    assert len(found) > 5
    assert all(start % len(FAMILY) == end % len(FAMILY) == 0 for start, end in found)
    address = "https://example.org/" + "a/b-c?d=" * 5  # more than 40 characters, and more than a window
    assert len(split(f"See {address} there.", 16, 4)) > 1
    word = "a" * 39  # no more than 40: kept in one piece
    assert all(part.split()[0] == part.split()[-1] == word for part in split(f"{word} " * 9, 30, 14))


def test_a_counter_whose_parts_have_fewer_tokens_than_the_whole_still_gives_windows_that_fit():
    def superadditive(text: str) -> int:
        return len(text) ** 2 // 1000

    found = check(PROSE * 3, 40, 5, superadditive)
    assert len(found) > 3
    check(PROSE * 3, 60, 10, lambda text: len(text.split()) + 2)  # as with a tokenizer's special tokens


TEXTS = st.lists(
    st.one_of(
        st.sampled_from(
            [PROSE, "。", "! ", ". ", "...", "\n", "\n\n", "   ", "\t", "é", FAMILY, "🇩🇪", "Yes. ", "\u3000"]
        ),
        st.text("ab1 .?!,)\n", max_size=30),
        st.text("東京。は\u0301", max_size=20),
        st.integers(1, 90).map("x".__mul__),
        st.integers(1, 60).map("京".__mul__),
    ),
    max_size=20,
).map("".join)


@settings(max_examples=60, deadline=None)
@given(text=TEXTS, tokens=st.integers(24, 80), share=st.floats(0, 0.5), words=st.booleans())
def test_every_character_is_in_a_window_and_every_window_fits(text: str, tokens: int, share: float, words: bool):
    count = words_of if words else estimate_tokens
    check(text, tokens, int(tokens * share), count)


@pytest.mark.no_cover
@pytest.mark.parametrize(
    "text",
    [
        "a" * 50_000,
        "." * 50_000,
        ".)" * 25_000,
        "京" * 50_000,
        "\n" * 50_000,
        " " * 50_000,
        PROSE * 200,
        "w " * 25_000,
    ],
    ids=["letters", "stops", "brackets", "ideographs", "lines", "spaces", "prose", "words"],
)
def test_long_texts_take_time_that_grows_with_their_length_alone(text: str):
    read = 0

    def count(part: str) -> int:
        nonlocal read
        read += len(part)
        return -(-len(part) // 4)

    check(text, 200, 30, count)
    read = 0
    found = windows(text, 200, 30, count)
    assert len(found) > len(text) // 800
    assert read < 7 * len(text)
