"""The front door: one model, its options, and every way of asking it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import get_args

from uprank.calibration import Calibrator, ScoreMode
from uprank.documents import DocumentLike
from uprank.errors import (
    ConfigurationError,
    InvalidInputError,
)
from uprank.fidelity import Fidelity, compare
from uprank.pipeline import ErrorPolicy, Pipeline
from uprank.ranking import RankedDocument, Ranking
from uprank.rounds import adrive, drive
from uprank.scorers.base import Outcome, Scorer
from uprank.scorers.combined.base import Ask
from uprank.scorers.registry import Model, as_scorer
from uprank.secrets import masked, without_secrets
from uprank.selection import UNSET, Selection, Unset
from uprank.streaming import Query, stream
from uprank.validation import make_jobs, texts_of, valid_threshold, valid_top_n

__all__ = ["UNSET", "ErrorPolicy", "Reranker", "Unset"]


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
    _defaults = Selection(None, None)

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
        self._defaults = Selection(valid_top_n(top_n), valid_threshold(threshold))
        self._instruction = instruction
        self._scorer = as_scorer(model, options)
        named = {"top_n": top_n, "threshold": threshold, "instruction": instruction}
        how = {"score": score, "calibrator": calibrator, "on_error": on_error}
        # Without the key: what is pickled, or shown by a debugger, holds no secret.
        self._recipe: tuple[Model, dict[str, object]] = (model, {**named, **how, **without_secrets(options)})
        self._model = model if isinstance(model, str) else self._scorer.name
        self._pipeline = Pipeline(self._model, self._scorer, score, calibrator, on_error)
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
        plan = self._plan([query], [documents], top_n, threshold, instruction, first=None)
        return drive(plan, _answer)[0]

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
        plan = self._plan([query], [documents], top_n, threshold, instruction, first=None)
        return (await adrive(plan, _aanswer))[0]

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
        plan = self._plan(queries, documents_per_query, top_n, threshold, instruction, first=0)
        return drive(plan, _answer)

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
        plan = self._plan(queries, documents_per_query, top_n, threshold, instruction, first=0)
        return await adrive(plan, _aanswer)

    def rank_stream(
        self,
        queries: Iterable[Query],
        *,
        group: int = 64,
        top_n: int | Unset | None = UNSET,
        threshold: float | Unset | None = UNSET,
        instruction: str | Unset | None = UNSET,
    ) -> Iterator[Ranking]:
        """Rank any number of queries, with a few groups of them in memory at a time.

        Args:
            queries: Pairs of a query and its documents, e.g. from a generator; read as they are needed.
            group: How many are scored together; two groups are under way at once.
            top_n: As for :meth:`rank`, for each query.
            threshold: Likewise.
            instruction: Likewise.

        Yields:
            One ranking a query, in their order, once its group is done.

        Raises:
            InvalidInputError: As :meth:`rank_many` does, and if ``group`` is no positive integer.
            ScorerError: Likewise.
        """
        if not isinstance(group, int) or isinstance(group, bool) or group < 1:
            raise InvalidInputError(f"group must be a positive integer, got {group!r}.")
        self.check(top_n=top_n, threshold=threshold, instruction=instruction)

        async def rank(first: int, some: Sequence[Query]) -> list[Ranking]:
            for number, one in enumerate(some, first):
                if isinstance(one, str) or not isinstance(one, Sequence) or len(one) != 2:
                    raise InvalidInputError(f"Query {number} must be a pair of a query and its documents.")
            asked, documents = [query for query, _ in some], [documents for _, documents in some]
            plan = self._plan(asked, documents, top_n, threshold, instruction, first=first)
            return await adrive(plan, _aanswer)

        if not isinstance(queries, Iterable):
            raise InvalidInputError("queries must be pairs of a query and its documents, e.g. from a generator.")
        return stream(rank, queries, group=group)

    def precompute(self, documents: Iterable[DocumentLike | RankedDocument], *, progress: bool = False) -> int:
        """Have the vectors of documents computed and kept, so that ranking them later costs next to nothing.

        Args:
            documents: As for :meth:`rank`; any number, read as they are needed.
            progress: Show a tqdm bar.

        Returns:
            How many were not kept already.

        Raises:
            ConfigurationError: If the model keeps no document vectors, as a cross-encoder cannot.
        """
        return self._scorer.precompute(texts_of(documents), progress=progress)

    def fidelity(
        self,
        queries: Sequence[str],
        documents_per_query: Sequence[Sequence[DocumentLike]],
        relevances: Sequence[Sequence[float]] | None = None,
    ) -> Fidelity:
        """Compare this model, e.g. in int8, with itself in float32.

        Args:
            queries: As for :meth:`rank_many`; a few hundred documents in all tell enough.
            documents_per_query: Likewise.
            relevances: How relevant each document is, where that is known.

        Raises:
            ConfigurationError: If the model does not run here, so that there is no float32 of it.
        """
        with Reranker(self._scorer.exact(), instruction=self._instruction) as exact:
            best = exact.rank_many(queries, documents_per_query)
        own = Reranker(self._scorer, instruction=self._instruction)
        return compare(own.rank_many(queries, documents_per_query), best, relevances)

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
        first: int | None,
    ) -> Generator[Ask, list[Outcome], list[Ranking]]:
        """The one body of the four methods above: check what was given, then run the pipeline."""
        started = time.perf_counter()
        selection, instruction = self._resolved(top_n, threshold, instruction)
        jobs = make_jobs(queries, documents_per_query, instruction, first=first)
        rankings = yield from self._pipeline.rankings(jobs, selection)
        elapsed = time.perf_counter() - started
        return [replace(ranking, elapsed=elapsed) for ranking in rankings]

    def _resolved(
        self, top_n: int | Unset | None, threshold: float | Unset | None, instruction: str | Unset | None
    ) -> tuple[Selection, str | None]:
        """The options of one call, the reranker's own where the call gives none, checked."""
        selection = Selection(
            self._defaults.top_n if isinstance(top_n, Unset) else valid_top_n(top_n),
            self._defaults.threshold if isinstance(threshold, Unset) else valid_threshold(threshold),
        )
        self._pipeline.check_kind(selection.threshold)
        if isinstance(instruction, Unset):
            instruction = self._instruction
        if instruction is not None and not self._scorer.accepts_instruction:
            raise InvalidInputError(f"{self._model} takes no instruction; leave instruction=None.")
        return selection, instruction


def _remake(model: Model, arguments: dict[str, object]) -> Reranker:
    return Reranker(model, **arguments)  # type: ignore[arg-type]  # the arguments of an earlier one


def _answer(ask: Ask) -> list[Outcome]:
    return ask.scorer.score_many(ask.requests)


async def _aanswer(ask: Ask) -> list[Outcome]:
    return await ask.scorer.ascore_many(ask.requests)
