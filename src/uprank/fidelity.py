"""How faithful a ranking is to another of the same documents: a quantised model against its original."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from uprank.errors import InvalidInputError
from uprank.ranking import Ranking

__all__ = ["Fidelity", "compare"]

_DEPTH = 10  # of nDCG


@dataclass(frozen=True, slots=True)
class Fidelity:
    """What is left of an exact model's ranking.

    Args:
        queries: How many were compared.
        pairs: How many query-document pairs.
        kendall_tau: Kendall's tau-b between the two scores of a query's documents, the mean over the
            queries; 1 is the same order.
        ndcg: nDCG@10 of this ranking, the mean over the queries. Without judgements, the exact
            ranking's first ten documents are taken as relevant, the first one most.
        exact_ndcg: nDCG@10 of the exact ranking; 1 without judgements.
        largest_difference: Of two raw scores of a pair.
    """

    queries: int
    pairs: int
    kendall_tau: float
    ndcg: float
    exact_ndcg: float
    largest_difference: float

    @property
    def ndcg_difference(self) -> float:
        """How much nDCG@10 is gained (positive) or lost against the exact ranking."""
        return self.ndcg - self.exact_ndcg


def compare(
    rankings: Sequence[Ranking], exact: Sequence[Ranking], relevances: Sequence[Sequence[float]] | None
) -> Fidelity:
    """Compare rankings with exact ones of the same queries and documents.

    Args:
        rankings: One a query; all documents, with scores.
        exact: Likewise, in the same order.
        relevances: For each query how relevant each document is, in the order they were given; where
            that is known.

    Raises:
        InvalidInputError: If there is nothing to compare, or a query has another number of judgements
            than of documents.
    """
    if not any(rankings):
        raise InvalidInputError("There is no document to compare scores of.")
    if relevances is not None and len(relevances) != len(rankings):
        raise InvalidInputError(f"There are {len(rankings)} queries but {len(relevances)} lists of judgements.")
    taus, ndcgs, exact_ndcgs, differences = [], [], [], []
    for number, (ranking, best) in enumerate(zip(rankings, exact, strict=True)):
        if not ranking:
            continue
        if relevances is None:
            gains = [0.0] * len(best)
            for hit in best[:_DEPTH]:
                gains[hit.index] = float(_DEPTH - hit.rank)
        else:
            gains = [_gain(gain, number) for gain in relevances[number]]
            if len(gains) != len(ranking):
                raise InvalidInputError(f"Query {number} has {len(ranking)} documents but {len(gains)} judgements.")
        found, true = _scores(ranking), _scores(best)
        taus.append(kendall_tau(found, true))
        ndcgs.append(ndcg([gains[hit.index] for hit in ranking], gains))
        exact_ndcgs.append(ndcg([gains[hit.index] for hit in best], gains))
        differences.append(max(abs(a - b) for a, b in zip(found, true, strict=True)))
    count = len(taus)
    return Fidelity(
        count,
        sum(map(len, rankings)),
        sum(taus) / count,
        sum(ndcgs) / count,
        sum(exact_ndcgs) / count,
        max(differences),
    )


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's tau-b of two scores of the same things; 1 where there is nothing to order.

    Kendall, "The treatment of ties in ranking problems", Biometrika 33 (1945).
    """
    agreeing = first_tied = second_tied = pairs = 0
    for (a, b), (c, d) in combinations(zip(first, second, strict=True), 2):
        pairs += 1
        first_tied += a == c
        second_tied += b == d
        agreeing += (a > c) - (a < c) == (b > d) - (b < d) and a != c
        agreeing -= (a > c) - (a < c) == (b < d) - (b > d) and a != c
    scale = math.sqrt((pairs - first_tied) * (pairs - second_tied))
    if scale == 0:
        return 1.0 if first_tied == second_tied else 0.0
    return agreeing / scale


def ndcg(ranked_gains: Sequence[float], gains: Sequence[float]) -> float:
    """nDCG@10 with linear gains, as trec_eval has it; 0 where nothing is relevant.

    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 20 (2002).
    """
    ideal = _dcg(sorted(gains, reverse=True))
    return _dcg(ranked_gains) / ideal if ideal else 0.0


def _gain(value: float, number: int) -> float:
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InvalidInputError(f"Query {number} has a judgement {value!r}; each must be a number.")
    return float(value)


def _dcg(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(place + 2) for place, gain in enumerate(gains[:_DEPTH]))


def _scores(ranking: Ranking) -> list[float]:
    scores = [0.0] * len(ranking)
    for hit in ranking:
        if hit.score is None:
            raise InvalidInputError(f"{ranking.model} gave no score to document {hit.index}, so none can be compared.")
        scores[hit.index] = hit.score
    return scores
