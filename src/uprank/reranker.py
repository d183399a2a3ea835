"""The pipeline: validate, deduplicate, score, check, report, threshold, sort, cut, map back by index."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, Literal, TypeAlias, get_args

from uprank.calibration import Calibrator, ScoreMode, no_probabilities, report
from uprank.documents import DocumentLike
from uprank.errors import (
    ConfigurationError,
    InvalidInputError,
    InvalidScoresError,
    ScoreKindError,
    ScorerError,
    UprankError,
)
from uprank.ranking import RankedDocument, Ranking
from uprank.rounds import adrive, drive
from uprank.scorers.base import Outcome, ScoreKind, Scorer, ScoreRequest
from uprank.scorers.callable import CallableScorer
from uprank.scorers.registry import Model, as_scorer
from uprank.secrets import masked, without_secrets
from uprank.validation import Job, check_scores, make_jobs, valid_threshold, valid_top_n

__all__ = ["UNSET", "ErrorPolicy", "Reranker", "Unset"]

logger = logging.getLogger("uprank")

ErrorPolicy: TypeAlias = Literal["raise", "passthrough"]


class Unset(Enum):
    """Tells "not given" (use the reranker's own) from ``None`` (no limit)."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


@dataclass(frozen=True, slots=True)
class _Selection:
    """What of the ranked documents is returned."""

    top_n: int | None
    threshold: float | None


class Reranker:
    """Orders documents by how well they answer a query.

    Keep one and reuse it: its model is loaded once, on first use. All methods may be called from
    several threads and tasks at once.

    Args:
        model: ``"scheme:model"`` (``"cross-encoder:BAAI/bge-reranker-v2-m3"``), a preset
            (``"embedded"``), a :class:`~uprank.scorers.Scorer`, or a function
            ``(query, texts) -> scores``, sync or async.
        top_n: How many documents to return at most; ``None`` returns all.
        threshold: Return only documents whose reported score is at least this.
        instruction: What to judge by, for models that take an instruction.
        score: ``"native"`` reports scores as the model declares them; ``"probability"`` applies a
            sigmoid to logits, once, or ``calibrator``. The order never depends on it.
        calibrator: A non-decreasing function from raw scores to probabilities.
        on_error: ``"raise"``, or ``"passthrough"``: where the scorer fails, return the documents in
            their original order with ``degraded=True``, no scores, and a warning.
        options: Passed to the scorer, e.g. ``device="cuda"``. See its class in ``uprank.scorers``.

    Raises:
        ConfigurationError: If the model, an option or the combination cannot work.
        MissingDependencyError: If the model needs a package that is not installed.
        InvalidInputError: If ``top_n`` or ``threshold`` is out of range.
    """

    # Shown by __repr__ while an object is being made, as by the traceback of an option that is refused.
    _model = "not made yet"
    _defaults = _Selection(None, None)

    def __init__(
        self,
        model: Model = "embedded",
        *,
        top_n: int | None = None,
        threshold: float | None = None,
        instruction: str | None = None,
        score: ScoreMode = "native",
        calibrator: Calibrator | None = None,
        on_error: ErrorPolicy = "raise",
        **options: object,
    ) -> None:
        options = masked(options)  # so that a traceback that prints variables shows no secret
        if score not in get_args(ScoreMode):
            raise ConfigurationError(f'score must be "native" or "probability", got {score!r}.')
        if on_error not in get_args(ErrorPolicy):
            raise ConfigurationError(f'on_error must be "raise" or "passthrough", got {on_error!r}.')
        if calibrator is not None and score != "probability":
            raise ConfigurationError('calibrator= gives probabilities: pass score="probability" with it.')
        if calibrator is not None and not callable(calibrator):
            raise ConfigurationError(f"calibrator must be a function, got {type(calibrator).__name__}.")
        self._defaults = _Selection(valid_top_n(top_n), valid_threshold(threshold))
        self._instruction = instruction
        self._score_mode: ScoreMode = score
        self._calibrator = calibrator
        self._on_error = on_error
        self._scorer = as_scorer(model, options)
        named = {"top_n": top_n, "threshold": threshold, "instruction": instruction}
        how = {"score": score, "calibrator": calibrator, "on_error": on_error}
        # Without the key: what is pickled, or shown by a debugger, holds no secret.
        self._recipe: tuple[Model, dict[str, object]] = (model, {**named, **how, **without_secrets(options)})
        self._model = model if isinstance(model, str) else self._scorer.name
        if instruction is not None and not isinstance(instruction, str):
            raise ConfigurationError(f"instruction must be a string or None, got {type(instruction).__name__}.")
        if instruction is not None and not self._scorer.accepts_instruction:
            raise ConfigurationError(f"{self._model} takes no instruction; leave instruction=None.")
        self.check()

    @property
    def model(self) -> str:
        """The model's name."""
        return self._model

    @property
    def scorer(self) -> Scorer:
        """What scores; shared by all calls."""
        return self._scorer

    @property
    def top_n(self) -> int | None:
        """How many documents are returned at most, where a call does not say."""
        return self._defaults.top_n

    @property
    def threshold(self) -> float | None:
        """The least score that is returned, where a call does not say."""
        return self._defaults.threshold

    def rank(
        self,
        query: str,
        documents: Iterable[DocumentLike | RankedDocument],
        *,
        top_n: int | Unset | None = UNSET,
        threshold: float | Unset | None = UNSET,
        instruction: str | Unset | None = UNSET,
    ) -> Ranking:
        """Rank documents for a query.

        Args:
            query: Not empty.
            documents: Strings, :class:`~uprank.Document` objects, mappings with ``"text"``, or the
                hits of another ranking. Never changed. None at all gives an empty ranking without calling the scorer.
            top_n: Instead of the reranker's own; ``None`` returns all.
            threshold: Instead of the reranker's own; ``None`` sets none.
            instruction: Instead of the reranker's own.

        Returns:
            The documents that pass, best first.

        Raises:
            InvalidInputError: If the query, a document or an option cannot be used.
            ScorerError: If scoring failed, unless ``on_error="passthrough"``.
            ScoreKindError: If ``threshold`` is compared with scores of kind ``"rank"``.
        """
        plan = self._plan([query], [documents], top_n, threshold, instruction, many=False)
        return drive(plan, self._scorer.score_many)[0]

    async def arank(
        self,
        query: str,
        documents: Iterable[DocumentLike | RankedDocument],
        *,
        top_n: int | Unset | None = UNSET,
        threshold: float | Unset | None = UNSET,
        instruction: str | Unset | None = UNSET,
    ) -> Ranking:
        """As :meth:`rank`, without blocking the event loop. Cancelling the task cancels the call."""
        plan = self._plan([query], [documents], top_n, threshold, instruction, many=False)
        return (await adrive(plan, self._scorer.ascore_many))[0]

    def rank_many(
        self,
        queries: Sequence[str],
        documents_per_query: Sequence[Iterable[DocumentLike | RankedDocument]],
        *,
        top_n: int | Unset | None = UNSET,
        threshold: float | Unset | None = UNSET,
        instruction: str | Unset | None = UNSET,
    ) -> list[Ranking]:
        """Rank several queries, each over its own documents; local models batch across queries.

        Args:
            queries: One query a ranking.
            documents_per_query: As many lists of documents as there are queries.
            top_n: As for :meth:`rank`, for each query.
            threshold: Likewise.
            instruction: Likewise.

        Returns:
            One ranking a query, in the order of the queries.

        Raises:
            InvalidInputError: Also if there are not as many lists as queries.
            ScorerError: If any query failed; with ``on_error="passthrough"`` only the queries that
                failed are degraded.
        """
        plan = self._plan(queries, documents_per_query, top_n, threshold, instruction, many=True)
        return drive(plan, self._scorer.score_many)

    async def arank_many(
        self,
        queries: Sequence[str],
        documents_per_query: Sequence[Iterable[DocumentLike | RankedDocument]],
        *,
        top_n: int | Unset | None = UNSET,
        threshold: float | Unset | None = UNSET,
        instruction: str | Unset | None = UNSET,
    ) -> list[Ranking]:
        """As :meth:`rank_many`, without blocking the event loop."""
        plan = self._plan(queries, documents_per_query, top_n, threshold, instruction, many=True)
        return await adrive(plan, self._scorer.ascore_many)

    def check(
        self,
        *,
        top_n: int | Unset | None = UNSET,
        threshold: float | Unset | None = UNSET,
        instruction: str | Unset | None = UNSET,
    ) -> None:
        """Raise what :meth:`rank` would raise of these options, as far as it is known before the model is loaded."""
        self._resolved(top_n, threshold, instruction)

    def close(self) -> None:
        """Free the scorer's model, threads or connections. A later call acquires them again."""
        self._scorer.close()

    async def aclose(self) -> None:
        """As :meth:`close`, for scorers that hold something to be awaited."""
        await self._scorer.aclose()

    def __enter__(self) -> Reranker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Reranker:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __copy__(self) -> Reranker:
        return self  # never changes, and may be shared between threads: one loaded model is enough

    def __deepcopy__(self, memo: dict[int, object]) -> Reranker:
        return self

    def __reduce__(self) -> tuple[Callable[..., Reranker], tuple[Model, dict[str, object]]]:
        return _remake, self._recipe  # made anew where it is unpickled; the model is loaded there

    def __repr__(self) -> str:
        return f"Reranker({self._model!r}, top_n={self._defaults.top_n})"

    def _plan(
        self,
        queries: Sequence[str],
        documents_per_query: Sequence[Iterable[DocumentLike | RankedDocument]],
        top_n: int | Unset | None,
        threshold: float | Unset | None,
        instruction: str | Unset | None,
        *,
        many: bool,
    ) -> Generator[list[ScoreRequest], list[Outcome], list[Ranking]]:
        """The one body of the four methods above: ask for outcomes once, then make the rankings."""
        started = time.perf_counter()
        selection, instruction = self._resolved(top_n, threshold, instruction)
        jobs = make_jobs(queries, documents_per_query, instruction, many=many)
        asked = [job for job in jobs if job.documents]
        outcomes: list[Outcome] = []
        if asked:
            try:
                outcomes = yield [job.request for job in asked]
            except Exception as error:  # judged per job below
                outcomes = [error] * len(asked)
            if not isinstance(outcomes, Sequence) or len(outcomes) != len(asked):
                answer = len(outcomes) if isinstance(outcomes, Sequence) else type(outcomes).__name__
                problem = f"{self._model} answered {answer} for {len(asked)} requests; its score_many() is wrong."
                outcomes = [InvalidScoresError(problem)] * len(asked)
        answered = iter(outcomes)
        rankings = [
            self._ranking(job, next(answered), selection)
            if job.documents
            else Ranking(job.query, (), self._model, self._kind())
            for job in jobs
        ]
        elapsed = time.perf_counter() - started
        return [replace(ranking, elapsed=elapsed) for ranking in rankings]

    def _resolved(
        self, top_n: int | Unset | None, threshold: float | Unset | None, instruction: str | Unset | None
    ) -> tuple[_Selection, str | None]:
        """The options of one call, the reranker's own where the call gives none, checked."""
        selection = _Selection(
            self._defaults.top_n if isinstance(top_n, Unset) else valid_top_n(top_n),
            self._defaults.threshold if isinstance(threshold, Unset) else valid_threshold(threshold),
        )
        self._check_kind(selection.threshold)
        if isinstance(instruction, Unset):
            instruction = self._instruction
        if instruction is not None and not self._scorer.accepts_instruction:
            raise InvalidInputError(f"{self._model} takes no instruction; leave instruction=None.")
        return selection, instruction

    def _kind(self) -> ScoreKind | None:
        """What is reported, as far as it is known without an answer."""
        return "probability" if self._score_mode == "probability" else self._scorer.score_kind

    def _ranking(self, job: Job, outcome: Outcome, selection: _Selection) -> Ranking:
        try:
            if isinstance(outcome, Exception):
                raise outcome
            scores = check_scores(outcome, len(job.request.texts), self._model)
            reported, kind = report(scores, self._score_mode, self._calibrator, model=self._model)
        except UprankError as error:
            if not isinstance(error, ScorerError) or self._on_error == "raise":
                raise
            return self._passthrough(job, error, selection)
        except Exception as cause:
            failure = ScorerError(f"{self._model} failed with {type(cause).__name__}: {cause}")
            if self._on_error == "raise":
                raise failure from cause
            return self._passthrough(job, failure, selection)
        if selection.threshold is not None and kind == "rank":
            raise _threshold_on_ranks(self._model)
        for note in scores.warnings:
            logger.info("%s: %s", self._model, note)
        raw = [scores.values[position] for position in job.positions]
        order = sorted(range(len(raw)), key=lambda index: (-raw[index], index))
        shown = ((index, reported[job.positions[index]]) for index in order)
        kept = [pair for pair in shown if _passes(pair[1], selection.threshold, degraded=scores.degraded)]
        hits = [RankedDocument(job.documents[index], index, rank, score) for rank, (index, score) in enumerate(kept)]
        return Ranking(
            job.query,
            tuple(hits[: selection.top_n]),
            self._model,
            kind,
            usage=replace(scores.usage, pairs=len(job.request.texts)),
            degraded=scores.degraded,
            warnings=scores.warnings,
        )

    def _passthrough(self, job: Job, error: ScorerError, selection: _Selection) -> Ranking:
        """The original order without scores; the threshold does not apply to what has none."""
        warning = f"Not reranked, original order kept: {error}"
        logger.warning("%s", warning)
        hits = (RankedDocument(document, index, index, None) for index, document in enumerate(job.documents))
        return Ranking(
            job.query,
            tuple(hits)[: selection.top_n],
            self._model,
            self._kind(),
            degraded=True,
            warnings=(warning,),
        )

    def _check_kind(self, threshold: float | None) -> None:
        """Refuse before the call what the scorer's declaration already rules out."""
        kind = self._scorer.score_kind
        undeclared = isinstance(self._scorer, CallableScorer) and not self._scorer.declared
        if self._score_mode == "probability" and self._calibrator is None and undeclared:
            raise ScoreKindError(
                f'score="probability" needs to know what the numbers of {self._model} mean: pass '
                'score_kind="logit" (a sigmoid is applied) or score_kind="probability" (it is not), or calibrator=.'
            )
        if self._score_mode == "probability" and self._calibrator is None and kind in ("cosine", "rank"):
            raise no_probabilities(self._model, kind)
        if threshold is not None and kind == "rank" and self._score_mode == "native":
            raise _threshold_on_ranks(self._model)


def _remake(model: Model, arguments: dict[str, object]) -> Reranker:
    return Reranker(model, **arguments)  # type: ignore[arg-type]  # the arguments of an earlier one


def _passes(score: float | None, threshold: float | None, *, degraded: bool) -> bool:
    """What has no score passes no threshold, but that of a degraded order, which would lose it for a failure."""
    return threshold is None or (degraded if score is None else score >= threshold)


def _threshold_on_ranks(model: str) -> ScoreKindError:
    return ScoreKindError(
        f"{model} gives scores of kind 'rank': only their order means something, so a threshold would cut at a "
        'different relevance for each query. Use top_n, or score="probability" with calibrator=; of a language '
        'model, scores=True or method="pointwise".'
    )
