"""Fusion: several models, and the first stage, vote on one order."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, TypeAlias, get_args

from uprank.calibration import report
from uprank.errors import ConfigurationError, InvalidInputError, ScorerError
from uprank.scorers.base import Outcome, Scorer, ScoreRequest, Scores, Usage
from uprank.scorers.checking import check_scores
from uprank.scorers.combined.base import Ask, CombinedPlan, CombinedScorer, attempts_of, request_to
from uprank.scorers.combined.several import (
    evidence,
    failed,
    members_of,
    notes,
    probabilities,
    require_probabilities,
)
from uprank.scorers.evidence import Attempt, Evidence
from uprank.scorers.registry import Model

__all__ = ["Fusion", "FusionMethod", "MemberPolicy"]

FusionMethod: TypeAlias = Literal["rrf", "weighted"]
MemberPolicy: TypeAlias = Literal["raise", "skip"]

_FIRST_STAGE = "first stage"
_OPTION = 'Fusion(method="weighted")'
_INSTEAD = 'method="rrf"'


class Fusion(CombinedScorer):
    """Scores by what several models say together: ``Fusion(["embedded", "cohere:rerank-v3.5"], retrieval_weight=0.5)``.

    The models are asked at once. The first stage, which found the documents, may vote too: it has seen them among all
    others, and often knows what a reranker does not. It votes by the documents' retrieval scores, or, where not all
    have one, by the order in which they were given; within a cascade, by the order in which the stage before passed
    them on.

    * ``method="rrf"``: reciprocal rank fusion. A document's score is the sum of ``weight / (k + rank)`` over the
      voters, ranks counted from 1; those that a voter scores alike share the mean of their ranks. It needs nothing of
      the voters but an order, so any models go together. Only the order of its scores means something (kind
      ``"rank"``). Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
      Learning Methods", SIGIR 2009, which is also where ``k=60`` is from.
    * ``method="weighted"``: the weighted mean of the voters' probabilities, itself a probability; so every model must
      have some to give. A document to which a model gives none, as a language model that scores only the best, counts
      as the least likely of those that the model did score, and shows no score. Retrieval scores are no probabilities:
      they vote as one with ``retrieval_calibrator``; without it they are stretched to lie from 0 to 1 in each query, so
      that the same number means something else in each, and the result is of kind ``"rank"``.

    Args:
        models: Names, scorers or functions; at least one, and at least two where the first stage has no vote.
        method: As above.
        weights: How much each model's vote counts, above 0; by default 1 each.
        k: Of reciprocal rank fusion, at least 0: the larger, the less the first places count for.
        retrieval_weight: How much the first stage's vote counts, beside those of the models; 0 for none. 0.2 was the
            best for BM25 beside ``"embedded"`` on training data (``benchmarks/composition.py``); the better the first
            stage, the more it should have.
        on_error: ``"raise"``, or ``"skip"`` a model that fails: the others decide, and the ranking is flagged as
            degraded, with a warning. Where all models fail an error is raised all the same.
        retrieval_calibrator: Turns a retrieval score into a probability, for ``method="weighted"``; must not decrease.

    Raises:
        ConfigurationError: If an option is out of range, or two do not go together.
        ScoreKindError: If probabilities are asked of a model that has none; of a model that must be loaded to tell,
            by the first call.
    """

    def __init__(
        self,
        models: Sequence[Model],
        *,
        method: FusionMethod = "rrf",
        weights: Sequence[float] | None = None,
        k: float = 60,
        retrieval_weight: float = 0.0,
        on_error: MemberPolicy = "raise",
        retrieval_calibrator: Callable[[float], float] | None = None,
    ) -> None:
        for name, value, known in (
            ("method", method, get_args(FusionMethod)),
            ("on_error", on_error, get_args(MemberPolicy)),
        ):
            if value not in known:
                raise ConfigurationError(f"{name} must be one of {', '.join(map(repr, known))}; got {value!r}.")
        members = members_of(models, "Fusion")
        self.k = _at_least_zero("k", k)
        self.retrieval_weight = _at_least_zero("retrieval_weight", retrieval_weight)
        if not members or (len(members) == 1 and not self.retrieval_weight):
            raise ConfigurationError(
                f"A fusion needs two voters, got {len(members)} models. Give more models, or retrieval_weight= for the "
                "first stage to vote."
            )
        if retrieval_calibrator is not None and not (method == "weighted" and self.retrieval_weight):
            raise ConfigurationError('retrieval_calibrator= takes method="weighted" and a retrieval_weight above 0.')
        self.method: FusionMethod = method
        self.weights = _valid_weights(weights, len(members))
        self._skip = on_error == "skip"
        self._calibrator = retrieval_calibrator
        if method == "weighted":
            require_probabilities(members, _OPTION, _INSTEAD)
        voting = self.retrieval_weight > 0 and retrieval_calibrator is None
        self.score_kind = "rank" if method == "rrf" or voting else "probability"
        super().__init__(members)

    def _join(self, members: Sequence[Scorer]) -> None:
        super()._join(members)
        voters = [member.name for member in self.members] + [_FIRST_STAGE] * (self.retrieval_weight > 0)
        self.name = f"fusion({', '.join(voters)})"
        # Ranks, and retrieval scores stretched over a query's documents, depend on which others there are.
        self.listwise = self.listwise or self.score_kind == "rank"

    def identity(self) -> Mapping[str, object] | None:
        if self.method == "weighted" or self.retrieval_weight:  # calibrators and retrieval scores have no identity
            return None
        members = [member.identity() for member in self.members]
        return None if None in members else {"fusion": members, "weights": list(self.weights), "k": self.k}

    def _plan(self, requests: Sequence[ScoreRequest]) -> CombinedPlan:
        started = time.monotonic()
        answers = yield [Ask(member, [request_to(member, one) for one in requests]) for member in self.members]
        seconds = time.monotonic() - started
        return [
            self._outcome(request, [outcomes[number] for outcomes in answers], seconds)
            for number, request in enumerate(requests)
        ]

    def _outcome(self, request: ScoreRequest, outcomes: Sequence[Outcome], seconds: float) -> Outcome:
        poll = _Poll(len(request.texts))
        for member, weight, outcome in zip(self.members, self.weights, outcomes, strict=True):
            try:
                if isinstance(outcome, Exception):
                    raise outcome
                chances: Sequence[float | None] = ()
                if self.method == "weighted":
                    chances = probabilities(outcome, member, _OPTION, _INSTEAD)
                poll.votes.append(_Vote(member, weight, outcome, chances))
            except ScorerError as error:
                if not self._skip:
                    return error
                poll.errors.append(error)
                poll.attempts.extend(attempts_of(member, error, seconds))
                poll.warnings.append(f"{member.name} failed, so the order is that of the other voters: {error}")
        if not poll.votes:
            return failed(self.name, poll.errors, poll.attempts)
        try:
            return self._counted(request, poll)
        except ScorerError as error:  # of the retrieval scores, or what calibrates them
            return error

    def _counted(self, request: ScoreRequest, poll: _Poll) -> Scores:
        voting = [vote for vote in poll.votes if any(one is not None for one in vote.chances)]
        if self.method == "rrf":
            values, shown = self._by_rank(request, poll), None
        elif voting:
            values, shown = self._by_probability(request, voting, poll)
        else:  # those that answered in the place of others have no probabilities
            values = self._by_rank(request, poll)
            shown = None if self.score_kind == "rank" else [None] * poll.count
        silent = [vote for vote in poll.votes if self.method == "weighted" and vote not in voting]
        poll.warnings.extend(f"{vote.model} has no probabilities, and did not vote." for vote in silent if voting)
        kind = self.score_kind if voting or self.method == "rrf" else "rank"
        return Scores(
            values,
            kind or "rank",
            usage=sum((vote.scores.usage for vote in poll.votes), Usage()),
            warnings=tuple(dict.fromkeys([*poll.warnings, *(note for vote in poll.votes for note in vote.notes)])),
            reported=shown,
            degraded=bool(poll.errors or silent) or any(vote.scores.degraded for vote in poll.votes),
            attempts=(*poll.attempts, *(one for vote in poll.votes for one in vote.scores.attempts)),
            evidence=_evidence(poll),
        )

    def _by_rank(self, request: ScoreRequest, poll: _Poll) -> list[float]:
        ballots = [(vote.weight, _ranks(vote.scores.values)) for vote in poll.votes]
        if self.retrieval_weight:
            ballots.append((self.retrieval_weight, _ranks(_retrieved(request))))
        # fsum: the same ranks in another order of voters must give the same score, to the last bit.
        return [math.fsum(weight / (self.k + ranks[text]) for weight, ranks in ballots) for text in range(poll.count)]

    def _by_probability(
        self, request: ScoreRequest, voting: Sequence[_Vote], poll: _Poll
    ) -> tuple[list[float], list[float | None] | None]:
        ballots = [(vote.weight, vote.known()) for vote in voting]
        if self.retrieval_weight:
            ballots.append((self.retrieval_weight, self._first_stage(request)))
        total = math.fsum(weight for weight, _ in ballots)
        # Never above 1: no product is above its weight, and fsum rounds but once.
        values = [
            math.fsum(weight * chances[text] for weight, chances in ballots) / total for text in range(poll.count)
        ]
        unknown = {text for vote in voting for text, chance in enumerate(vote.chances) if chance is None}
        if self.score_kind == "rank" or not unknown:
            return values, None
        return values, [None if text in unknown else value for text, value in enumerate(values)]

    def _first_stage(self, request: ScoreRequest) -> list[float]:
        if self._calibrator is None:
            return _stretched(_retrieved(request))
        if request.retrieval_scores is None:
            raise InvalidInputError(
                f"{self.name} turns retrieval scores into probabilities, but not all documents have one. Give each "
                "document its score, or leave retrieval_calibrator= out."
            )
        found = Scores(_retrieved(request), "logit", calibrator=self._calibrator)
        return [one for one in report(found, "probability", None, model=_FIRST_STAGE)[0] if one is not None]


@dataclass(frozen=True, slots=True)
class _Vote:
    """What one model says.

    Args:
        member: Who was asked.
        weight: How much its vote counts.
        scores: Its answer.
        chances: Its probabilities, where they are asked for.
    """

    member: Scorer
    weight: float
    scores: Scores
    chances: Sequence[float | None]

    @property
    def model(self) -> str:
        """Who answered."""
        return self.scores.model or self.member.name

    @property
    def notes(self) -> list[str]:
        """Its warnings."""
        return notes(self.member, self.scores)

    def known(self) -> list[float]:
        """The probabilities, and for what has none the least of them: it was placed below."""
        least = min(chance for chance in self.chances if chance is not None)
        return [least if chance is None else chance for chance in self.chances]


class _Poll:
    """What is known of one request's votes.

    Args:
        count: Of its texts.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.votes: list[_Vote] = []
        self.errors: list[Exception] = []
        self.attempts: list[Attempt] = []
        self.warnings: list[str] = []


def _ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value, the greatest having 1; equal ones share the mean of their ranks."""
    ranks = [0.0] * len(values)
    best_first = sorted(range(len(values)), key=lambda place: -values[place])
    above = 0
    for _, group in groupby(best_first, key=values.__getitem__):
        tied = list(group)
        for place in tied:
            ranks[place] = above + (len(tied) + 1) / 2
        above += len(tied)
    return ranks


def _stretched(values: Sequence[float]) -> list[float]:
    """The values so moved and stretched that the least is 0 and the greatest 1; all 0.5 where they are equal."""
    least, greatest = min(values) / 2, max(values) / 2  # halves, so that no difference overflows
    if least == greatest:
        return [0.5] * len(values)
    return [(value / 2 - least) / (greatest - least) for value in values]


def _retrieved(request: ScoreRequest) -> Sequence[float]:
    """The first stage's scores; without them, numbers that fall as the documents were given."""
    if request.retrieval_scores is None:
        return [float(-place) for place in range(len(request.texts))]
    given = Scores(request.retrieval_scores, "logit")
    return check_scores(given, len(request.texts), "the first stage").values


def _evidence(poll: _Poll) -> list[Evidence]:
    """For each text, the passage of the voter that counts most among those that name one, and whether all was read."""
    each = [evidence(vote.member, vote.scores) for vote in sorted(poll.votes, key=lambda vote: -vote.weight)]
    return [_merged([known[text] for known in each]) for text in range(poll.count)]


def _merged(known: Sequence[Evidence]) -> Evidence:
    passages = [one.passage for one in known if one.passage is not None]
    cut = [one.truncated for one in known]
    truncated = True if True in cut else None if None in cut else False
    return Evidence(passage=passages[0] if passages else None, truncated=truncated)


def _at_least_zero(name: str, value: float) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and 0 <= value < math.inf):
        raise ConfigurationError(f"{name} must be a finite number of at least 0; got {value!r}.")
    return value


def _valid_weights(weights: Sequence[float] | None, models: int) -> tuple[float, ...]:
    if weights is None:
        return (1.0,) * models
    if isinstance(weights, (str, bytes)) or not isinstance(weights, Sequence):
        raise ConfigurationError(f"weights must be a list of numbers, one a model; got {weights!r}.")
    if len(weights) != models:
        raise ConfigurationError(f"weights must be as many as the models: {models}, got {len(weights)}.")
    checked = tuple(_at_least_zero("A weight", weight) for weight in weights)
    if not all(checked):
        raise ConfigurationError("A weight must be above 0: a model without a vote need not be asked. Leave it out.")
    return checked
