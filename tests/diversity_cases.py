"""Choices by diversity, and similarities by hand."""

from __future__ import annotations

import math

from uprank.choosing import Candidate, Kept, keep
from uprank.scorers.base import Scores
from uprank.selection import Selection


def by_table(table):
    """Similarities by the sorted pair of texts."""
    return lambda request: Scores([table["".join(sorted(request.query + text))] for text in request.texts], "cosine")


def letters(request):
    """The cosine of the letters' counts: exact and symmetric."""

    def cosine(one, other):
        alphabet = sorted(set(one) | set(other))
        dot = sum(one.count(letter) * other.count(letter) for letter in alphabet)
        return dot / math.sqrt(sum(one.count(x) ** 2 for x in alphabet) * sum(other.count(x) ** 2 for x in alphabet))

    return Scores([cosine(request.query, text) for text in request.texts], "cosine")


def candidates(documents):
    return [Candidate(index, score, text) for index, (text, score) in enumerate(documents)]


def choice(documents, *, kind="logit", degraded=False, strict=True, **options):
    selection = Selection(**options)
    return keep(
        candidates(documents), selection, kind=kind, model="m", degraded=degraded, count_tokens=len, strict=strict
    )


def texts(documents, result: Kept):
    return [documents[position][0] for position in result.positions]


TABLE = {"ab": 0.9, "ac": 0.1, "ad": 0.2, "bc": 0.3, "bd": 0.4, "cd": 0.8}
FOUR = [("a", 10.0), ("b", 9.0), ("c", 4.0), ("d", 0.0)]  # scaled: 1, 0.9, 0.4, 0


def steps(scorer, seen):
    def answer(ask):
        assert ask.scorer is scorer
        seen.append(len(ask.requests))
        return ask.scorer.score_many(ask.requests)

    return answer
