"""What a model's answer is once thinking, markup and typography are taken off, and what in it can be an id."""

from __future__ import annotations

import contextlib
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Token", "Vocabulary", "answer_part", "ends_of", "flat", "refuses"]

# Every pattern here takes time in proportion to the text, whatever the text: what repeats is bounded, or is followed by
# something that it cannot itself match.

_MOST = 60_000  # characters of an answer, 15,000 tokens or more
_CUT_WORD = re.compile(r"^\S{1,200}")
_ARROWS = "→➔➜➙➡⟶⇒⟹≻≽≥⩾›»❯〉》⟩▶"
_SIGNS: dict[int, str | None] = {
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # full width
    **dict.fromkeys(map(ord, _ARROWS), ">"),
    **dict.fromkeys(map(ord, "【〔〖⟦"), "["),
    **dict.fromkeys(map(ord, "】〕〗⟧"), "]"),
    **dict.fromkeys(map(ord, "•·‣▪◦●"), "-"),
    **dict.fromkeys(map(ord, "。｡"), "."),
    ord("､"): "、",
    **dict.fromkeys(map(ord, "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad\ufe0f")),
}
_QUOTES: dict[str, dict[int, str | None]] = {
    '"': dict.fromkeys(map(ord, "“”„‟″「」『』｢｣"), '"'),
    "'": dict.fromkeys(map(ord, "‘’‚‛′"), "'"),
}
_ALL_QUOTES = {**_QUOTES['"'], **_QUOTES["'"]}
# "1、[A]" and "第1名：[A]" begin a line as "1. [A]" does; in "3、1、2" and "第1段" no number does.
_NUMBERS_LINE = re.compile(
    r"^([-+*#>|_ \t]{0,8})(?:(\d{1,3})、(?=[ \t*_]{0,4}[^\s\d*_])"
    r"|第?[ \t]?(\d{1,3}|[一二三四五六七八九十]{1,3})[ \t]?[位名](?=[ \t*_]{0,4}[:,、\[])[ \t*_]{0,4}[:,、]?)",
    re.MULTILINE,
)
_NUMERALS = {sign: value for value, sign in enumerate("一二三四五六七八九十", 1)}
_OTHER_DIGITS = re.compile(r"(?![0-9])\d")
_ENTITY = re.compile(r"&(?:amp;)?(?:gt|#62|#x3e);", re.IGNORECASE)
_THOUGHT = re.compile(
    r"[<◁](?P<end>/?)(?:seed:)?(?:think|thinking|thought|thoughts|reasoning)[>▷]|\[(?P<close>/?)THINK\]", re.IGNORECASE
)
_CHANNEL = re.compile(r"<\|channel\|> ?(\w{1,20})[^<>]{0,40}(?:<\|constrain\|>[^<>]{0,40})?<\|message\|>")
_ANSWER = re.compile(r"<(/?)answer>", re.IGNORECASE)
_BREAK = re.compile(r"</?(?:br|li|(?-i:p)|ol|ul|div|tr) ?/?>", re.IGNORECASE)
_MARKUP = re.compile(
    r"</?(?:(?-i:b|i|s)|em|strong|code|pre|span|bos|eos|end_of_turn|start_of_turn|result|output|ranking|final|response)>"
    r"|<\|[^<>|\n]{1,40}\|>|[*`]+|__+|\\(?=[\[\]_*])|\\(?:boxed|text)(?=\{)",
    re.IGNORECASE,
)
_TEX_ARROW = re.compile(r"\\(?:succeq|succ|gt|rightarrow|to)(?![A-Za-z])")

_SPACES = re.compile(r"[^\S\n]+")
_NEWLINES = re.compile(r" ?\n[ \n]*")
_WRAPPED = re.compile(r"\[\[(\w{1,24})\]\]|(?<![\[,])(?<![\[,] )[\"'<{](\w{1,24})[\"'>}](?! ?[,\]])")
_ARROW = re.compile(r"[ \n]?(?:[-=~–—]{0,3}>=?[ \n]?)+")

_REFUSAL = re.compile(
    r"\bI(?:'m| am) (?:very |truly |so )?(?:sorry|afraid|unable|not able|not comfortable)"
    r"|\bI (?:cannot|can not|can't|could not|couldn't|won't|will not|must decline|have to decline)"
    r"|\b(?:cannot|can't|unable to|not able to|not possible to) "
    r"(?:\w{1,12} )?(?:rank|order|sort|assist|help|comply|answer|provide|determine|fulfil|process)"
    r"|\bas an AI\b|\b(?:sorry|apologi[sz]e|apologies)\b|\bdeclin(?:e|ing) to\b"
    r"|\b(?:policy|policies|guidelines)\b[^.\n]{0,60}\b(?:prevent|prohibit|forbid|not allow)",
    re.IGNORECASE,
)

_KIND = r"(?:passage|document|doc|candidate|text|id)"
_BRACKET = rf"(?:(?<!\w){_KIND} ?)?\[(?P<content>[^\[\]\n]*)\]"
_NUMBER = re.compile(  # a bracket, or a number that is neither a decimal nor the numbering of what follows
    rf"{_BRACKET}|(?<![\w.])(?P<open>(?:[\[(#] ?)?)(?P<kind>(?:{_KIND}[ #:.]{{0,2}})?)(?P<id>-?\d{{1,9}})"
    rf"(?!\w|\.\d|%|[.):] ?\[)(?P<close> ?[\])]|)",
    re.IGNORECASE,
)
_LABEL = re.compile(
    rf"{_BRACKET}|(?<![\w.])(?P<open>(?:[\[(#] ?)?)(?P<kind>(?:{_KIND}[ #:.]{{1,2}})?)"
    rf"(?P<id>\w{{1,32}}(?:-\w{{1,32}})?)(?!\w|[.):] ?\[)(?P<close> ?[\])]|)",
    re.IGNORECASE,
)
_LEADING_KIND = re.compile(rf"{_KIND}[ #:.]{{0,2}}", re.IGNORECASE)
_AROUND = " \t\n\"'`()[]{}<>#"
_WHOLE_NUMBER = re.compile(r"-?\d{1,9}")


def answer_part(text: object) -> tuple[str, Literal["empty", "truncated-thinking"] | None]:
    """Return what of an answer is meant for the reader, with signs in ASCII.

    Thinking is dropped, also where only its end is marked, as by models whose prompt opens it. If the text has
    ``<answer>`` tags, the last that is not empty is all there is. Of more than 60,000 characters the last are read.

    Args:
        text: As it came; anything but a string is as empty as none.

    Returns:
        The text, and why there is none, if there is none.
    """
    if not isinstance(text, str):
        return "", "empty"
    if not text.isascii():
        text = _in_ascii(text)
    said = _after_thinking(text)
    if said is None:
        return "", "truncated-thinking"
    said = _TEX_ARROW.sub(">", _ENTITY.sub(">", _tagged(said)))
    if len(said) > _MOST:
        said = _CUT_WORD.sub("", said[-_MOST:], count=1)
    said = _MARKUP.sub("", _BREAK.sub("\n", said)).strip()
    if said.startswith('"{') and said.endswith('}"'):  # JSON in a JSON string
        with contextlib.suppress(ValueError):
            said = str(json.loads(said, strict=False))
    return (said, None) if said else ("", "empty")


def _in_ascii(text: str) -> str:
    for ascii_quote, others in _QUOTES.items():
        if ascii_quote not in text:  # else they quote within what the ASCII ones enclose, as in JSON
            text = text.translate(others)
    text = _OTHER_DIGITS.sub(lambda digit: str(unicodedata.decimal(digit[0])), text.translate(_SIGNS))
    return _NUMBERS_LINE.sub(_line_number, text).replace("、", ",")


def _line_number(found: re.Match[str]) -> str:
    number = found[2] or found[3]
    if not number.isdecimal():
        tens, ten, ones = number.rpartition("十")
        number = str((_NUMERALS.get(tens[:1], 1) * 10 if ten else 0) + _NUMERALS.get(ones[:1], 0))
    return f"{found[1]}{number}. "


def _after_thinking(text: str) -> str | None:
    """The text without thinking; ``None`` if it ends before the thinking does."""
    channels = list(_CHANNEL.finditer(text))
    if channels:
        if channels[-1][1].lower() != "final":
            return None
        text = text[channels[-1].end() :]
    kept: list[str] = []
    start, inside = 0, False
    for tag in _THOUGHT.finditer(text):
        if tag["end"] or tag["close"]:
            if not inside:
                kept.clear()  # its beginning stood in the prompt
            inside = False
        else:
            if not inside:
                kept.append(text[start : tag.start()])
            inside = True
        start = tag.end()
    return None if inside else "".join((*kept, text[start:]))


def _tagged(text: str) -> str:
    """The last ``<answer>`` that holds something, else all."""
    found, start = "", None
    for tag in _ANSWER.finditer(text):
        if not tag[1]:
            start = tag.end()
        elif start is not None:
            found, start = text[start : tag.start()].strip() or found, None
    if start is not None:
        found = text[start:].strip() or found
    return found or _ANSWER.sub(" ", text)


def flat(text: str) -> str:
    """Return the text with one space or newline where there were several, and every arrow as ``" > "``.

    A word in quotes, braces or angle brackets comes to stand in square ones, but in a list.
    """
    text = text if text.isascii() else text.translate(_ALL_QUOTES)
    text = _WRAPPED.sub(lambda word: f"[{word[1] or word[2]}]", _NEWLINES.sub("\n", _SPACES.sub(" ", text)))
    return _ARROW.sub(" > ", text).strip()


def ends_of(text: str, most: int) -> str:
    """A text of more than so many characters without its middle: its first quarter of them and its last three.

    A word that is cut is left out, as far as it has no more than 200 characters.
    """
    if len(text) <= most:
        return text
    first, last = text[: most // 4], text[most // 4 - most :]
    first = _CUT_WORD.sub("", first[::-1], count=1)[::-1]
    return f"{first}\n{_CUT_WORD.sub('', last, count=1)}"


def refuses(text: str) -> bool:
    """Whether a text in which no answer was found declines to give one."""
    return _REFUSAL.search(text.translate(_ALL_QUOTES)) is not None


@dataclass(frozen=True, slots=True)
class Token:
    """Something in a text that may be an id.

    Args:
        ids: What it names, counted from 1; ``None`` for what is no id. Several in a bracket that holds a list.
        start: Where it begins in the text.
        end: Where it ends.
        bracketed: Whether it shows by itself that an id is meant: by a bracket, at least one half of it.
        named: Whether a word such as "passage" stands before it.
        unclosed: Whether its bracket opens and does not close.
        arrows: Whether its bracket holds a chain rather than a list.
    """

    ids: tuple[int | None, ...]
    start: int
    end: int
    bracketed: bool = False
    named: bool = False
    unclosed: bool = False
    arrows: bool = False


class Vocabulary:
    """What counts as an id: the numbers from 1, or nothing but the given labels.

    Args:
        count: How many there are.
        labels: One each; ``None`` for numbers. Matched exactly, else without regard to case if that tells
            them apart.

    Raises:
        ValueError: If the labels are not ``count`` different strings.
    """

    def __init__(self, count: int, labels: Sequence[str] | None) -> None:
        if count < 0:
            raise ValueError(f"The number of passages is {count}; it cannot be negative.")
        if labels is not None and len(set(labels)) != count:
            raise ValueError(f"{count} passages need {count} different labels; got {len(set(labels))} of them.")
        self.count = count
        self.numeric = labels is None
        self._labels = {label: position for position, label in enumerate(labels or (), 1)}
        folded = {label.casefold(): position for label, position in self._labels.items()}
        self._folded = folded if len(folded) == len(self._labels) else {}
        self._distinct = {p for label, p in self._labels.items() if len(label) > 1 and not label.isdecimal()}

    def read(self, part: str) -> int | None:
        """What a text that should be an id names, counted from 1; ``None`` if it names none.

        A number is returned as it stands, whether or not there are so many passages.
        """
        if self.numeric and _WHOLE_NUMBER.fullmatch(part):
            return int(part)
        whole = part.strip(_AROUND).rstrip(".:")
        if len(whole) > 80:
            return None
        kind = _LEADING_KIND.match(whole)
        for word in (part, whole, whole[kind.end() :] if kind else whole):
            if self.numeric and _WHOLE_NUMBER.fullmatch(word):
                return int(word)
            if found := self._labels.get(word) or self._folded.get(word.casefold()):
                return found
        return None

    def distinct(self, token: Token) -> bool:
        """Whether a token can be no word or number of prose: a bracket, or a label of letters and digits."""
        return token.bracketed or any(one in self._distinct for one in token.ids)

    def exact(self, text: str, token: Token) -> bool:
        """Whether a token without brackets is written just as its label is."""
        return any(one in token.ids and text.endswith(label, 0, token.end) for label, one in self._labels.items())

    def valid(self, one: int | None) -> bool:
        """Whether there is such a passage, be it counted from 1 or from 0."""
        return one is not None and (0 if self.numeric else 1) <= one <= self.count

    def could_continue(self, one: int | None) -> bool:
        """Whether an id that the text breaks off in may be the beginning of another."""
        if one is None:
            return True
        if self.numeric:
            return 0 < one * 10 <= self.count
        label = next(label for label, position in self._labels.items() if position == one)
        return any(other != label and other.startswith(label) for other in self._labels)

    def tokens(self, text: str, start: int = 0) -> Iterator[Token]:
        """Everything in a flat text that may be an id, in order."""
        for found in (_NUMBER if self.numeric else _LABEL).finditer(text, start):
            yield self._token(found)

    def token_at(self, text: str, start: int) -> Token | None:
        """What may be an id right here."""
        found = (_NUMBER if self.numeric else _LABEL).match(text, start)
        return self._token(found) if found else None

    def _token(self, found: re.Match[str]) -> Token:
        content = found["content"]
        if content is not None:
            ids = tuple(self.read(part) for part in re.split(r"[,;>=]", content)) if content.strip() else ()
            arrows = len(ids) > 1 and "," not in content and ";" not in content
            return Token(ids, found.start(), found.end(), bracketed=True, arrows=arrows)
        opened, closed = found["open"].startswith("["), found["close"].endswith("]")
        bracketed = opened or closed or (found["open"].startswith("(") and found["close"].endswith(")"))
        return Token(
            (self.read(found["id"]),),
            found.start(),
            found.end(),
            bracketed=bracketed,
            named=bool(found["kind"]),
            unclosed=opened and not closed,
        )
