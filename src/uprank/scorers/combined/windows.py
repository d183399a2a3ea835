"""A long text as windows that overlap: each fits a number of tokens, and ends with a sentence where it can."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

__all__ = ["sentence_ends", "windows"]

Count = Callable[[str], int]

_CLOSING = "[\"'”’»)\\]」』）】〉》]{0,8}"
# Each alternative looks at a bounded number of characters before it fails, so that dots without end take linear time.
_CANDIDATES = re.compile(
    rf"(?P<mark>[.!?…؟۔।]){_CLOSING}(?P<gap>\s+)"
    rf"|[。！？｡．]{_CLOSING}(?![。！？｡．…])\s*"  # no space follows these
    r"|\n\s*"
)
_BEFORE = re.compile(r"(?:^|[\s(\[{\"'“‘«])([^\s(\[{\"'“‘«]*)$")
_LOOK_BACK = 24  # characters; no abbreviation is longer
_NUMBER_OF_ITEM = re.compile(r"(?:^|\n)[ \t]*\d{1,3}$")
_ABBREVIATIONS = re.compile(
    "al|approx|art|ca|cf|ch|co|corp|dept|dr|eds?|eqs?|esp|est|figs?|gen|gov|inc|jan|feb|mar|apr|aug|sept?|oct|nov|dec|"
    "jr|ltd|mrs?|ms|mt|nr|nos?|op|pp?|prof|refs?|resp|rev|sect?|sr|st|tab|univ|viz|vols?|vs",
    re.IGNORECASE,
)
_WORD = re.compile(r"\s*\S+\s*|\s+")
_PIECE = 40  # characters; a longer word is split


def sentence_ends(text: str) -> list[int]:
    """Where the sentences of a text end, white space after them included; the last is the length of the text.

    A full stop, question mark or exclamation mark ends one before white space, unless what follows begins with a small
    letter; a full stop neither after an initial, a common abbreviation or one with dots inside ("e.g."), nor
    after the number of a list's item. Those of Chinese and Japanese need no space after them. A line break ends one
    too, unless the next line begins with a small letter, as in a text that is broken to lines; an empty line always
    does. What is wrongly taken for no end makes a sentence longer, never a window.
    """
    ends = [match.end() for match in _CANDIDATES.finditer(text) if _ends_sentence(text, match)]
    if not ends or ends[-1] != len(text):
        ends.append(len(text))
    return ends


def _ends_sentence(text: str, match: re.Match[str]) -> bool:
    mark, gap = match["mark"], match["gap"]
    if mark is None:
        gap = match[0]
        if not gap.startswith("\n"):
            return True
        return gap != "\n" or not _small(text, match.end())
    if gap.count("\n") > 1:
        return True
    if _small(text, match.end()):
        return False
    if mark != ".":
        return True
    before = text[max(0, match.start() - _LOOK_BACK) : match.start()]
    word = _BEFORE.search(before)
    name = word[1] if word else ""
    if "\n" in gap:  # an abbreviation seldom ends a line
        return True
    initial = len(name) == 1 and name.isalpha() and name.isupper()
    dotted = "." in name and all(len(part) == 1 for part in name.split("."))
    return not (initial or dotted or _ABBREVIATIONS.fullmatch(name) or _NUMBER_OF_ITEM.search(before))


def _small(text: str, position: int) -> bool:
    return text[position : position + 1].islower()


def windows(text: str, tokens: int, overlap: int, count: Count) -> list[tuple[int, int]]:
    """Split a text into windows, in time that grows with its length alone.

    A window ends with a sentence; only a sentence that does not fit into a window by itself is cut, at the end of a
    word. A word is cut, between two characters, if it does not fit or has more than 40. The next window begins
    again with what the last one ended with: as many whole sentences as there are in ``overlap`` tokens, and where not
    even one is, the last words. Less is shared where the next sentence would not fit otherwise.

    Args:
        text: Any text.
        tokens: The most in a window; at least 1. Only a single character that has more makes a larger one.
        overlap: The most that two neighbours share; less than ``tokens``.
        count: Counts the tokens of a text. The tokens of a text's parts together should be no fewer than its own;
            where they are, windows come out smaller.

    Returns:
        Where each window begins and ends, in order. Every character is in one at least, and the whole text in
        a single one where it fits.
    """
    if count(text) <= tokens:
        return [(0, len(text))]
    pieces = _Pieces(text, tokens, max(1, overlap // 2 or tokens // 8), count)
    found: list[tuple[int, int]] = []
    begin = done = 0
    while done < pieces.last:
        begin, stop = pieces.window(begin, done)
        found.append((pieces.ends[begin], pieces.ends[stop]))
        begin, done = pieces.carried(begin, stop, overlap), stop
    return found


class _Pieces:
    """A text in small pieces: a few words each, never of two sentences.

    Args:
        text: What is split.
        tokens: The most in a window, and so in a piece.
        grain: The most in a piece of more than one word, and in a part of a long word.
        count: Counts tokens.

    Attributes:
        ends: Where pieces end; the first is 0, before all of them.
        last: The index of the last end.
    """

    def __init__(self, text: str, tokens: int, grain: int, count: Count) -> None:
        self._text = text
        self._tokens = tokens
        self._grain = grain
        self._count = count
        self.ends = [0]
        self._totals = [0]  # the tokens of all pieces up to each end
        self._sentences: list[int] = []  # which ends are those of sentences
        for end in sentence_ends(text):
            self._add_sentence(end)
            self._sentences.append(len(self.ends) - 1)
        self.last = len(self.ends) - 1

    def window(self, begin: int, done: int) -> tuple[int, int]:
        """The next window, from one end to another.

        Args:
            begin: Where it may begin, at the earliest.
            done: Up to where the text is in a window already; this one goes further.
        """
        totals, tokens = self._totals, self._tokens
        sentence = self._sentences[bisect_right(self._sentences, done)]  # the end of the next one
        if totals[sentence] - totals[done] > tokens:
            sentence = done + 1  # it is cut
        begin = min(done, max(begin, bisect_left(totals, totals[sentence] - tokens)))
        stop = self._stop(begin, done)
        while self._counted(begin, stop) > tokens:  # the whole has more than its parts together
            if begin < done:
                begin = done
                stop = self._stop(begin, done)
            elif stop > done + 1:
                sentence = self._sentences[bisect_left(self._sentences, stop) - 1]
                stop = sentence if done < sentence < stop else stop - 1
            else:
                break
        return begin, stop

    def carried(self, begin: int, stop: int, overlap: int) -> int:
        """Where the window after the one from ``begin`` to ``stop`` begins, if all that comes then fits."""
        start = bisect_left(self._totals, self._totals[stop] - overlap)
        sentence = self._sentences[bisect_left(self._sentences, start)]
        start = sentence if sentence < stop else start
        while start < stop and self._counted(start, stop) > overlap:  # more than its parts together
            start += 1
        return start if begin < start else stop

    def _stop(self, begin: int, done: int) -> int:
        """Where a window ends: with the last sentence that fits, else with the last piece."""
        furthest = max(done + 1, bisect_right(self._totals, self._totals[begin] + self._tokens) - 1)
        sentence = self._sentences[bisect_right(self._sentences, furthest) - 1]
        return sentence if done < sentence <= furthest else furthest

    def _counted(self, begin: int, stop: int) -> int:
        return self._count(self._text[self.ends[begin] : self.ends[stop]])

    def _add_sentence(self, end: int) -> None:
        start = self.ends[-1]
        group: list[int] = []
        for word in _WORD.finditer(self._text, start, end):
            if group and word.end() - start > _PIECE:
                start = self._add_words(start, group)
                group = []
            group.append(word.end())
        if group:
            self._add_words(start, group)

    def _add_words(self, start: int, ends: Sequence[int]) -> int:
        """Add some words as one piece; but each by itself if they have too many tokens."""
        tokens = self._count(self._text[start : ends[-1]])
        if tokens <= self._grain or (len(ends) == 1 and tokens <= self._tokens and ends[0] - start <= _PIECE):
            self._add(ends[-1], tokens)
        elif len(ends) > 1:
            for end in ends:
                self._add_words(self.ends[-1], [end])
        else:
            self._add_parts(start, ends[0])
        return ends[-1]

    def _add_parts(self, start: int, end: int) -> None:
        """Add a long word in parts, cut where a reader sees one character end and the next begin."""
        # Imported late: the package brings all that is for language models.
        from uprank.tokens import between_characters

        places = [*between_characters(self._text, start, end), end]
        size, first = _PIECE, 0
        while first < len(places):
            last = min(first + size, len(places)) - 1
            tokens = self._count(self._text[self.ends[-1] : places[last]])
            if tokens > self._grain and last > first:
                size = max(1, (last + 1 - first) // 2)
                continue
            self._add(places[last], tokens)
            first, size = last + 1, size + 1

    def _add(self, end: int, tokens: int) -> None:
        self.ends.append(end)
        self._totals.append(self._totals[-1] + tokens)
