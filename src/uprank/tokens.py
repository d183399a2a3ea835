"""How many tokens a text has, without a tokenizer, and the longest beginning that fits into so many."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterator

__all__ = ["between_characters", "cut", "estimate_tokens"]

# Where one word of a byte-pair vocabulary must end: "parseJSON" is two, "HTTPServer" too.
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[A-Z]")
_SPACES = re.compile(r"[\r\n\v\f]+|[ \t]{2,}")
_OTHER_ASCII = re.compile(r"[!-/:-@\[-`{-~\x00-\x08\x0e-\x1f\x7f0-9]")
_COMMON_WORD = 10  # letters; longer words are rarer, and split finer
# Letters outside ASCII, and the tokens of four of them.
_SCRIPTS = (
    (re.compile("[\x80-\u036f\u0400-\u052f]"), 4),  # accented Latin, Cyrillic
    (re.compile("[\u0370-\u03ff\u0530-\u07ff]"), 5),  # Greek, Hebrew, Arabic and their neighbours
    (re.compile("[\u3000-\u30ff\u3400-\u9fff\uac00-\ud7a3\uff00-\uffef]"), 6),  # Chinese, Japanese, Korean
    (re.compile("[\u0800-\u0fff]"), 8),  # Indic scripts, Thai, Lao, Tibetan
    (re.compile("[\u1000-\u2fff\u3100-\u33ff\ua000-\uabff\ud7a4-\ufeff\ufff0-\uffff]"), 12),  # others of three bytes
    (re.compile("[\U00010000-\U0010ffff]"), 12),  # four bytes: emoji, historic scripts
)


def estimate_tokens(text: str) -> int:
    """How many tokens a text has: rather too many than too few, and seldom too low.

    No tokenizer is at hand for most models, and theirs differ. This counts what byte-pair vocabularies split
    at, with the dearer of their habits: a word of one case is one token for each five letters begun (for each
    three, if it has more than ten), each digit and each mark of punctuation is one, so is each
    break of lines, and sixteen spaces in a row. A letter outside ASCII is one token in Latin and Cyrillic, one and a
    quarter in Greek, Hebrew and Arabic, one and a half in Chinese, Japanese and Korean, two in
    Indic scripts and Thai, three in all others, and in emoji.

    Measured: of 1,500 abstracts of SciFact, 1.12 to 1.71 times the tokens of the byte-pair vocabulary
    ``cl100k_base``, and 1.02 to 1.71 times those of BERT's WordPiece; of code, Markdown, JSON and a paragraph each in a
    dozen languages, 1.03 to 1.9 times those of ``cl100k_base``. It is too low for base64 and the like (0.8) and for
    text in capitals (0.93), and against WordPiece for languages that its vocabulary hardly knows.

    Args:
        text: Any text.
    """
    count = 0
    for word in _WORDS.findall(text):
        letters = len(word)
        count += (letters + 4) // 5 if letters <= _COMMON_WORD else (letters + 2) // 3
    count += sum(1 + (len(spaces) - 1) // 16 for spaces in _SPACES.findall(text))
    count += len(_OTHER_ASCII.findall(text))
    if text.isascii():
        return count
    quarters = sum(weight * len(script.findall(text)) for script, weight in _SCRIPTS)
    return count + (quarters + 3) // 4


def cut(text: str, tokens: int, count: Callable[[str], int] = estimate_tokens) -> tuple[str, bool]:
    """The longest beginning of a text that has at most so many tokens, and whether it is shorter than the text.

    It ends at the end of a word. In a run of more than 40 characters without a space (Chinese, base64, a long
    address) it ends between two characters, as a reader sees them: never between a letter and
    its accent, or inside a flag or a family of emoji. Nothing is appended.

    Args:
        text: Any text.
        tokens: How many there may be; below 1 leaves nothing.
        count: Counts the tokens of a beginning. It is called about a dozen times, on beginnings near the
            result where tokens are spread evenly. A longer beginning should not have fewer tokens; where it
            has, what is returned still has at most ``tokens``, but need not be the longest.
    """
    if not text:
        return text, False
    if tokens < 1:
        return "", True
    whole = count(text)
    if whole <= tokens:
        return text, False
    ends = _ends(text)
    # ends[low] fits, ends[high] does not. The guess by proportion is near; halving in turn keeps the number of
    # calls small where it is not.
    low, high, fits, exceeds = 0, len(ends) - 1, 0, whole
    by_proportion = True
    while high - low > 1:
        middle = (low + high) // 2
        if by_proportion and exceeds > fits:
            share = (tokens - fits) / (exceeds - fits)
            position = ends[low] + (ends[high] - ends[low]) * share
            middle = min(max(bisect_right(ends, position) - 1, low + 1), high - 1)
        by_proportion = not by_proportion
        found = count(text[: ends[middle]])
        if found <= tokens:
            low, fits = middle, found
        else:
            high, exceeds = middle, found
    return text[: ends[low]], True


_RUN = re.compile(r"\S+")
_LONGEST_WORD = 40


def _ends(text: str) -> list[int]:
    """Where a text may end, from 0 to its length."""
    ends = [0]
    for run in _RUN.finditer(text):
        if run.end() - run.start() > _LONGEST_WORD:
            ends.extend(between_characters(text, run.start(), run.end()))
        ends.append(run.end())
    if ends[-1] != len(text):
        ends.append(len(text))
    return ends


_JOINER = "\u200d"


def between_characters(text: str, start: int, end: int) -> Iterator[int]:
    """Where a cut splits nothing that a reader sees as one character (a simple form of Unicode's UAX 29)."""
    half_flag = False  # flags are pairs of regional indicators: whether the last one here is the first of its pair
    for position in range(start + 1, end):
        before, after = text[position - 1], text[position]
        half_flag = not half_flag and "\U0001f1e6" <= before <= "\U0001f1ff"
        if after >= "\u0300" and (
            _joins(after) or before == _JOINER or (half_flag and "\U0001f1e6" <= after <= "\U0001f1ff")
        ):
            continue
        yield position


def _joins(character: str) -> bool:
    """Whether a character belongs to the one before it."""
    return (
        unicodedata.category(character) in ("Mn", "Mc", "Me")
        or character in (_JOINER, "\u200c")
        or "\u1160" <= character <= "\u11ff"  # the later parts of a Korean syllable
        or "\U0001f3fb" <= character <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= character <= "\U000e007f"  # tags, in flags of regions
        or "\udc00" <= character <= "\udfff"  # the second half of a surrogate pair
    )
