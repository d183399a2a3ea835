"""The forms in which a text, rather than JSON, gives an order: chains, lists, lines of ids, a single id."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from uprank.scorers.llm.answer_json import LABEL_KEYS, RANK_KEYS, SCORE_KEYS, name_of, number_of
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
    in_tables, elsewhere = _tables(text, vocabulary)
    strong = [each for each in strong if not any(table.start <= each.start < table.end for table in in_tables)]
    chain, listed = longest(strong, vocabulary), longest((*in_tables, *lists(elsewhere, vocabulary)), vocabulary)
    inside = listed is not None and all(listed.start <= each.start < listed.end for each in strong)
    if chain and listed and inside and valid_ids(chain, vocabulary) < valid_ids(listed, vocabulary):
        chain = None  # it stands in a line of the list: "1. [3] names the year ([3] > [1])"
    return (
        chain
        or listed
        or longest(weak, vocabulary)
        or longest(_id_lines(text, vocabulary), vocabulary)
        or _spaced(text, vocabulary)
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


_RULE = re.compile(r" ?\|?(?: ?:?-{1,200}:? ?\|){1,12}(?: ?:?-{1,200}:? ?)?")


def _tables(text: str, vocabulary: Vocabulary) -> tuple[list[Found], str]:
    """The tables whose heads name a column of ids and one of ranks or scores, and the text with blanks for these."""
    tables: list[Found] = []
    lines = [(line.start(), line[0]) for line in re.finditer(r"[^\n]+", text)]
    number = 0
    while number + 1 < len(lines):
        (start, head), (_, rule) = lines[number : number + 2]
        number += 1
        if "|" not in head or not _RULE.fullmatch(rule) or (columns := _columns(head)) is None:
            continue
        number += 1
        rows: list[list[str]] = []
        while number < len(lines) and "|" in lines[number][1]:
            rows.append(_cells(lines[number][1]))
            number += 1
        last = lines[number - 1][1]
        end = lines[number - 1][0] + len(last)
        short = bool(rows) and len(rows[-1]) <= max(columns.ids, columns.numbers)
        truncated = end == len(text) and (short or (head.endswith("|") and not last.endswith("|")))
        found = _ordered(rows[:-1] if truncated else rows, columns, vocabulary)
        if found is not None:
            repairs = (*found.repairs, "truncated") if truncated else found.repairs
            tables.append(replace(found, repairs=repairs, start=start, end=end))
        text = text[:start] + " " * (end - start) + text[end:]
    return tables, text


def _cells(line: str) -> list[str]:
    return line.strip().removeprefix("|").removesuffix("|").split("|")


@dataclass(frozen=True, slots=True)
class _Columns:
    """Which columns hold the ids and their ranks, or scores."""

    ids: int
    numbers: int
    ranked: bool


def _columns(head: str) -> _Columns | None:
    keys = [name_of(cell.split("(")[0]) for cell in _cells(head)]
    ids, ranks, scores = (
        [keys.index(key) for key in wanted if key in keys] for wanted in (LABEL_KEYS, RANK_KEYS, SCORE_KEYS)
    )
    return _Columns(ids[0], (ranks or scores)[0], bool(ranks)) if ids and (ranks or scores) else None


def _ordered(rows: Sequence[Sequence[str]], columns: _Columns, vocabulary: Vocabulary) -> Found | None:
    """The ids of a table by their numbers, if each row has both, and no two have one rank."""
    if len(rows) < 2 or any(len(row) <= max(columns.ids, columns.numbers) for row in rows):
        return None
    stated = [number_of(row[columns.numbers]) for row in rows]
    known = [number if columns.ranked else -number for number in stated if number is not None]
    if len(known) < len(rows) or (columns.ranked and len(set(known)) < len(known)):
        return None
    places = sorted(range(len(rows)), key=known.__getitem__)
    repair = "sorted by stated rank" if columns.ranked else "sorted by stated score"
    read = tuple(vocabulary.read(rows[place][columns.ids].strip()) for place in places)
    return Found(read, () if known == sorted(known) else (repair,))


_ANNOUNCED = re.compile(
    r"[^\n:]{0,60}(?:\b(?:rank\w*|order\w*|sort\w*|answer|result|output|permutation)\b"
    r"|排序|排名|排列|顺序|順序|順位|答案|回答|结果|結果|ランキング)[^\n:]{0,60}(?:: ?| is | are )",
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


def _spaced(text: str, vocabulary: Vocabulary) -> Found | None:
    """All labels, with nothing but spaces between, in the only line: none of them can be a word or a number."""
    announced = _ANNOUNCED.match(text)
    start = announced.end() if announced else 0
    tokens = list(vocabulary.tokens(text, start))
    gaps = {text[one.end : other.start] for one, other in pairwise(tokens)}
    if (
        1 < len(tokens) == vocabulary.count == len({token.ids for token in tokens})
        and all(vocabulary.distinct(token) and len(token.ids) == 1 and token.ids[0] for token in tokens)
        and gaps == {" "}
        and tokens[0].start == start
        and text[tokens[-1].end :].strip(" .;") == ""
    ):
        return Found(tuple(one for token in tokens for one in token.ids))
    return None


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
