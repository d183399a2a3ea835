"""The contract of a scorer: one query and a list of texts in, one number per text out.

A scorer does not sort, cut, deduplicate or normalise, and knows no framework; the pipeline in
``uprank.reranker`` does that once for all of them. To write one, subclass :class:`Scorer` and
implement :meth:`Scorer.score`; override :meth:`Scorer.ascore` where you can await, and
:meth:`Scorer.score_many` where several queries can share a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

from uprank.errors import ConfigurationError
from uprank.scorers.evidence import Attempt, Evidence

__all__ = ["Outcome", "ScoreKind", "ScoreRequest", "Scorer", "Scores", "Usage"]

Number = TypeVar("Number", int, float)

ScoreKind: TypeAlias = Literal["probability", "logit", "cosine", "rank"]
"""What a score means.

* ``"probability"``: in [0, 1], comparable between queries.
* ``"logit"``: any real number whose sigmoid is a probability.
* ``"cosine"``: in [-1, 1].
* ``"rank"``: only the order means something; numbers of two queries cannot be compared.
"""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call consumed.

    Args:
        pairs: Query-document pairs that were scored, after identical texts were merged.
        tokens: Tokens that the model read, padding not counted, and of a language model those that it wrote; ``None``
            where not known.
        search_units: What some services bill by; ``None`` where the service does not say.
        requests: Requests sent, retries and checks included; 0 for a model that runs here.
        retries: How many of them repeated one that had failed.
        cost: What the call cost at the prices given, in their currency; ``None`` without prices.
    """

    pairs: int = 0
    tokens: int | None = None
    search_units: float | None = None
    requests: int = 0
    retries: int = 0
    cost: float | None = None

    def __add__(self, other: Usage) -> Usage:
        """What two calls consumed together; of what only one of them tells, that."""
        return Usage(
            self.pairs + other.pairs,
            _sum(self.tokens, other.tokens),
            _sum(self.search_units, other.search_units),
            self.requests + other.requests,
            self.retries + other.retries,
            _sum(self.cost, other.cost),
        )


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """One query and its texts.

    Args:
        query: Not empty.
        texts: At least one; no two alike. They stand in the order of the first stage, best first.
        instruction: What to judge by, for models that take one.
        retrieval_scores: The first stage's score of each text, higher meaning better; ``None`` where not all have one.
    """

    query: str
    texts: Sequence[str]
    instruction: str | None = None
    retrieval_scores: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """A scorer's answer.

    Args:
        values: One number per text, in the order of the texts. They decide the order, so give them
            raw and in full precision: logits rather than probabilities that saturate at 1.0.
        kind: What ``values`` mean.
        native: How they are reported to a caller who asks for nothing else; ``None`` means as they
            are. A model that ends in a sigmoid gives ``kind="logit", native="probability"``, and
            the pipeline applies that sigmoid once, after sorting.
        usage: What scoring this request consumed; the pipeline fills in the pairs.
        warnings: What the caller should know, e.g. that a document was cut.
        reported: Where what is shown is not made of ``values``: a probability for each text, or
            ``None`` where there is no score to give. It must not rise where ``values`` fall.
        degraded: Whether the order is only the best that could be had, e.g. within a budget.
        model: Who scored, where it is not the scorer that was asked, as behind a fallback.
        attempts: The models that were to answer and did not.
        evidence: What each score rests on, one a text.
        calibrator: Turns ``values`` into probabilities, where the scorer knows how: a non-decreasing function.
    """

    values: Sequence[float]
    kind: ScoreKind
    native: Literal["probability"] | None = None
    usage: Usage = Usage()
    warnings: tuple[str, ...] = ()
    reported: Sequence[float | None] | None = None
    degraded: bool = False
    model: str | None = None
    attempts: tuple[Attempt, ...] = ()
    evidence: Sequence[Evidence] | None = None
    calibrator: Callable[[float], float] | None = None


Outcome: TypeAlias = "Scores | Exception"
"""What became of one request of several: its scores, or why there are none."""


class Scorer(ABC):
    """Base of everything that scores.

    Attributes:
        name: Shown in rankings and errors, e.g. ``"cross-encoder:BAAI/bge-reranker-v2-m3"``.
        score_kind: What the reported scores mean; ``None`` until the model is loaded, where only
            the model can tell.
        accepts_instruction: Whether ``instruction`` may be given.
        listwise: Whether a document's score depends on the other documents of the request, so that
            requests must not be split nor scores kept for a document by itself.
        key_variable: The environment variable that its key is customarily in, where it takes one.
        calibrated: Whether its scores come with a calibrator.
        calibrator: That one, where it is the same for all scores.
        document_window: How many tokens of a document it reads, at most; ``None`` where that is not known. The first
            use of a model may tell more.
        revision: Which version of the model it is, where that was asked for.
    """

    name: str = "scorer"
    score_kind: ScoreKind | None = None
    accepts_instruction: bool = False
    listwise: bool = False
    key_variable: str | None = None
    calibrated: bool = False
    calibrator: Callable[[float], float] | None = None
    document_window: int | None = None
    revision: str | None = None

    @abstractmethod
    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        """Score each text against the query.

        Args:
            query: Not empty.
            texts: At least one; no two alike.
            instruction: Given only where :attr:`accepts_instruction` is true.

        Raises:
            ScorerError: If there are no scores to give. Any other exception is wrapped in one.
        """

    async def ascore(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        """As :meth:`score`; by default in a thread of asyncio's pool, so that the loop stays free."""
        import asyncio  # imported late: a third of the time of `import uprank`

        return await asyncio.to_thread(_finished, self.score, query, texts, instruction)

    def score_many(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
        """Score several requests, each on its own: one that fails does not spoil the others."""
        return [_outcome(self, request) for request in requests]

    async def ascore_many(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
        """As :meth:`score_many`, all requests in flight at once."""
        import asyncio

        if len(requests) == 1:  # needs no task of its own
            return [await _aoutcome(self, requests[0])]
        return await asyncio.gather(*(_aoutcome(self, request) for request in requests))

    def precompute(self, texts: Iterable[str], *, progress: bool = False) -> int:
        """Compute and keep the vectors of documents; return how many were not kept already.

        Raises:
            ConfigurationError: If this scorer keeps none.
        """
        raise ConfigurationError(
            f"{self.name} keeps no document vectors: it reads query and document together. Models that do are named "
            "embedded, late-interaction: or embedding:."
        )

    def load(self) -> None:  # noqa: B027 - most scorers have nothing to load
        """Load what is loaded on first use otherwise, so that the first call is as quick as the next; asks no service.

        Raises:
            ScorerError: If it cannot be loaded.
        """

    def identity(self) -> Mapping[str, object] | None:
        """All that its scores depend on beside query, texts and instruction, as JSON has it: for what is kept of them.

        Two scorers with the same identity give the same scores, in any process, on any day. It may read the
        model's files, so call it off the event loop.

        Returns:
            ``None`` where nobody can tell, as of a function: then nothing of its scores may be kept.
        """
        return None

    def exact(self) -> Scorer:
        """The same model in float32, to compare a faster form with.

        Raises:
            ConfigurationError: If there is none.
        """
        raise ConfigurationError(f"{self.name} does not run here, so there is no float32 form of it to compare with.")

    def close(self) -> None:  # noqa: B027 - most scorers hold nothing
        """Free the model, the threads or the connections held. The next call acquires them again."""

    async def aclose(self) -> None:
        """As :meth:`close`, for what must be awaited."""
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


def _sum(one: Number | None, other: Number | None) -> Number | None:
    return other if one is None else one if other is None else one + other


def _outcome(scorer: Scorer, request: ScoreRequest) -> Outcome:
    try:
        return scorer.score(request.query, request.texts, instruction=request.instruction)
    except Exception as error:  # handed on as a value: the pipeline raises it or passes through
        return error


async def _aoutcome(scorer: Scorer, request: ScoreRequest) -> Outcome:
    try:
        return await scorer.ascore(request.query, request.texts, instruction=request.instruction)
    except Exception as error:  # as above
        return error


def _finished(score: Callable[..., Scores], query: str, texts: Sequence[str], instruction: str | None) -> Scores:
    try:
        return score(query, texts, instruction=instruction)
    except StopIteration as error:  # asyncio cannot carry one out of a thread
        raise RuntimeError("the scorer raised StopIteration") from error
