"""The forms in which a text, rather than JSON, gives an order: chains, lists, lines of ids, a single id."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from uprank.scorers.llm.answer_text import Token, Vocabulary

__all__ = ["Found", "chains", "lists", "longest", "order_in_text", "valid_ids"]


@dataclass(frozen=True, slots=True)
class Found:
    """Ids in an order, counted from 1 as written; ``None`` for what is no id.

    Args:
        ids: Repeated and unknown ones too.
        repairs: What had to be put right so far.
        start: Where it begins in its text.
        end: Where its last line or id ends.
    """

    ids: tuple[int | None, ...]
    repairs: tuple[str, ...] = ()
    start: int = 0
    end: int = 0


def order_in_text(text: str, vocabulary: Vocabulary) -> Found | None:
    """Return the order that a flat text gives: of the first form that is there, the longest, else the last."""
    tokens = list(vocabulary.tokens(text))
    strong, weak = chains(text, tokens, vocabulary)
    chain, listed = longest(strong, vocabulary), longest(lists(text, vocabulary), vocabulary)
    inside = listed is not None and all(listed.start <= each.start < listed.end for each in strong)
    if chain and listed and inside and valid_ids(chain, vocabulary) < valid_ids(listed, vocabulary):
        chain = None  # it stands in a line of the list: "1. [3] names the year ([3] > [1])"
    return (
        chain
        or listed
        or longest(weak, vocabulary)
        or longest(_id_lines(text, vocabulary), vocabulary)
        or _single(text, tokens, vocabulary)
    )


def valid_ids(found: Found, vocabulary: Vocabulary) -> int:
    """How many different ids it names."""
    return len({one for one in found.ids if vocabulary.valid(one)})


def longest(candidates: Iterable[Found], vocabulary: Vocabulary) -> Found | None:
    """Return what names most ids; of several the last."""
    best, most, several = None, 0, False
    for candidate in candidates:
        if length := valid_ids(candidate, vocabulary):
            several = several or (best is not None and candidate.ids != best.ids)
            if length >= most:
                best, most = candidate, length
    if best is None or not several:
        return best
    return replace(best, repairs=(*best.repairs, "one of several orders"))


_TIE = r" ?[=~≈] ?"
_NUMBERING = r"\d{1,4}[.):]"
_LINK = re.compile(rf"(?: > |{_TIE})(?:{_NUMBERING} ?)?(?:, ?)?| {_NUMBERING} ?")
_NUMBERED = re.compile(_NUMBERING)
_ARROW_WIDTH = 16


def chains(text: str, tokens: Sequence[Token], vocabulary: Vocabulary) -> tuple[list[Found], list[Found]]:
    """Return the chains of a flat text: those that cannot be prose, and those of bare numbers or letters that may be.

    Of the latter, only those that make up a line, or are three long, are returned.
    """
    strong: list[Found] = []
    weak: list[Found] = []
    chain: list[Token] = []
    numbered = False

    def end() -> None:
        nonlocal numbered
        if len(chain) > 1 or (chain and chain[0].arrows):
            found = _chain(chain, text, vocabulary, numbered=numbered)
            if any(vocabulary.distinct(token) for token in chain):
                strong.append(found)
            elif valid_ids(found, vocabulary) > 2 or _is_line(text, chain):
                weak.append(found)
        chain.clear()
        numbered = False

    for token in tokens:
        if chain:
            gap = text[chain[-1].end : token.start] if token.start - chain[-1].end <= _ARROW_WIDTH else ""
            if not _LINK.fullmatch(gap):
                end()
            else:
                numbered = numbered or _NUMBERED.search(gap) is not None
        chain.append(token)
    end()
    return strong, weak


def _chain(chain: Sequence[Token], text: str, vocabulary: Vocabulary, *, numbered: bool) -> Found:
    last, used = chain[-1], list(chain)
    rest = text[last.end : last.end + 4].strip()
    ended = last.end + 4 >= len(text)
    broken_off = ended and (
        (last.unclosed and not rest and vocabulary.could_continue(last.ids[0]) and not chain[0].unclosed)
        # "1. [4] > 2. [7] > 3": the next number of the list, not the next id
        or (numbered and not last.bracketed and not last.named and rest in ("", ".", ")"))
    )
    if broken_off:
        used.pop()
    truncated = broken_off or (ended and rest == ">")
    ids = tuple(one for token in used for one in token.ids)
    return Found(ids, ("truncated",) if truncated else (), chain[0].start, last.end)


def _is_line(text: str, chain: Sequence[Token]) -> bool:
    """Whether a chain is all of its line, but for what a colon or a number announces."""
    start = text.rfind("\n", 0, chain[0].start) + 1
    before = text[start : chain[0].start] if chain[0].start - start <= 80 else "x"
    after = text[chain[-1].end : chain[-1].end + 8].split("\n", 1)[0]
    announced = not before or before.rstrip().endswith(":") or re.fullmatch(r"\d{1,3}[.)] ?|[-+#> ]+", before)
    return bool(announced) and after.strip(" .;\"'") in ("", ">")


_ITEM = re.compile(
    r"[-+#>| ]{0,8}(?:(?:rank )?#?(?P<number>\d{1,4})(?:st|nd|rd|th)?(?:[.):]| [-–—|])[ :]?)?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class _Item:
    """A line of a list: its number, -1 if it has none, the id, what follows that, and where the line lies."""

    number: int
    id: int | None
    rest: str
    shown: bool
    start: int
    end: int


def lists(text: str, vocabulary: Vocabulary) -> Iterator[Found]:
    """Yield the lists of a flat text with an id a line.

    Numbered lines may say more after the id, unless they repeat their own numbers, as a text does that goes through
    the passages one by one. Lines without a number follow each other and are nothing but the id; or they hold
    all ids, at least four, in another order than the passages were shown in.
    """
    numbered: list[_Item] = []
    plain: list[_Item] = []
    start = 0
    for line in text.split("\n"):
        match = _ITEM.match(line)
        token = vocabulary.token_at(line, match.end()) if match else None
        rest = line[token.end :].strip(" .,;:|") if token else ""
        shown = token is not None and (vocabulary.distinct(token) or token.named)
        if match and token and len(token.ids) == 1 and (shown or not rest):
            item = _Item(int(match["number"] or -1), token.ids[0], rest, shown, start, start + len(line))
            if match["number"]:
                if numbered and item.number <= numbered[-1].number:
                    yield from _numbered_list(numbered, vocabulary)
                    numbered = []
                numbered.append(item)
        else:
            item = None
        if item and item.number < 0:
            plain.append(item)
        else:
            yield from _plain_list(plain, text, vocabulary)
            plain = []
        start += len(line) + 1
    yield from _plain_list(plain, text, vocabulary)
    yield from _numbered_list(numbered, vocabulary)


def _numbered_list(items: Sequence[_Item], vocabulary: Vocabulary) -> Iterator[Found]:
    goes_through = vocabulary.numeric and all(item.number == item.id for item in items)
    if len(items) > 1 and not (goes_through and any(item.rest for item in items)):
        yield _listed(items)


def _plain_list(items: Sequence[_Item], text: str, vocabulary: Vocabulary) -> Iterator[Found]:
    ids = [item.id for item in items if item.id is not None]
    if any(item.rest for item in items):
        fine = len(set(ids)) == len(items) == vocabulary.count > 3 and ids != sorted(ids)
    else:
        all_there_is = bool(items) and items[0].start == 0 and items[-1].end == len(text)
        fine = all_there_is or all(item.shown for item in items)
    if len(items) > 1 and fine:
        yield _listed(items)


def _listed(items: Sequence[_Item]) -> Found:
    return Found(tuple(item.id for item in items), (), items[0].start, items[-1].end)


_ANNOUNCED = re.compile(
    r"[^\n:]{0,60}\b(?:rank\w*|order\w*|sort\w*|answer|result|output|permutation)\b[^\n:]{0,60}(?:: ?| is | are )",
    re.IGNORECASE,
)
_LIST_LINK = re.compile(r" ?, ?|(?<=\]) ?(?=\[)")


def _id_lines(text: str, vocabulary: Vocabulary) -> Iterator[Found]:
    """Lines that are nothing but ids, after a word that announces an order or none."""
    for line in text.split("\n"):
        announced = _ANNOUNCED.match(line)
        start = announced.end() if announced else 0
        ids: list[int | None] = []
        end = start
        for token in vocabulary.tokens(line, start):
            # The brackets on both sides belong to what is looked at, so that "[3][1]" is two ids.
            link = _LIST_LINK.match(line, end)
            joined = token.start == start if end == start else link is not None and link.end() == token.start
            if not joined or (not token.bracketed and None in token.ids):
                break
            ids += token.ids
            end = token.end
        if len(ids) > 1 and not line[end:].strip(" .;"):
            yield Found(tuple(ids))


def _single(text: str, tokens: Sequence[Token], vocabulary: Vocabulary) -> Found | None:
    if vocabulary.count == 1:
        for token in tokens:
            if token.bracketed and any(vocabulary.valid(one) for one in token.ids):
                return Found(token.ids)
    whole = text.strip(" .:\"'")
    only = vocabulary.token_at(whole, 0)
    if only is None or only.end != len(whole) or len(only.ids) != 1 or not vocabulary.valid(only.ids[0]):
        return None
    shown = vocabulary.count == 1 or not vocabulary.numeric or only.bracketed or only.named
    return Found(only.ids) if shown else None
