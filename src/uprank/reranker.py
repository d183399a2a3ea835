"""The front door: one model, its options, and every way of asking it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

from uprank.assembly import Around, LongDocuments, assembled, cache_for
from uprank.calibration import Calibration, ScoreMode
from uprank.documents import Document, DocumentLike
from uprank.errors import ConfigurationError, InvalidInputError
from uprank.fidelity import Fidelity, compare
from uprank.fields import Rendering
from uprank.observe import Hooks, checked_hooks, watched
from uprank.pipeline import ErrorPolicy, Pipeline
from uprank.ranking import RankedDocument, Ranking
from uprank.rounds import adrive, drive
from uprank.scorers.base import Outcome, ScoreKind, Scorer
from uprank.scorers.combined.base import Ask, aunchecked, unchecked
from uprank.scorers.registry import Model
from uprank.secrets import masked, without_secrets
from uprank.selection import UNSET, CallOptions, Selection, Unset
from uprank.streaming import Query, stream
from uprank.validation import make_jobs, texts_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from uprank.cache import Cache, CacheLike

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
        min_gap: Cut at the largest drop between neighbouring scores, where it is at least this.
        max_tokens: Return as many documents as have together at most so many tokens.
        count_tokens: How many tokens a text has; by default an estimate that is seldom too low.
        diversity: From 0 (off) to 1: how much documents should differ from each other, where ``top_n`` or
            ``max_tokens`` leaves some out. They are compared by the embedded model.
        keep_at_least: How many ``threshold`` and ``min_gap`` leave.
        instruction: What to judge by, for models that take an instruction.
        score: ``"native"`` reports scores as the model declares them; ``"probability"`` applies a
            sigmoid to logits, once, or ``calibrator``. The order never depends on it.
        calibrator: A :class:`~uprank.Calibrator`, or a non-decreasing function from raw scores to
            probabilities; by default the one that comes with the model, if any.
        on_error: ``"raise"``, or ``"passthrough"``: where the scorer fails, return the documents in
            their original order with ``degraded=True``, no scores, and a warning.
        fallback: Models that are asked in this order where ``model`` fails; see :class:`~uprank.Fallback`.
            A ``deadline`` among the options is then that of the whole chain.
        cache: ``True`` keeps scores in memory, a path in a file that processes may share, so that a pair that was
            scored before is not scored again; or a :class:`~uprank.MemoryCache` or :class:`~uprank.DiskCache` of yours.
        long_documents: ``"truncate"`` reads of a document what fits the model's window; ``"max_passage"`` scores it by
            its best passage, ``"mean_top"`` by the mean of its best ones.
        passage_tokens: The length of a passage; by default what the model reads.
        passage_overlap: How many tokens neighbouring passages share; by default about a sixth.
        fields: What of a document is scored: keys of its metadata, and ``"text"`` for its text.
        template: How they are put together, e.g. ``"{title}: {text}"``.
        hooks: Told of each ranking, e.g. :class:`~uprank.telemetry.OpenTelemetry`.
        options: Passed to the scorer, e.g. ``device="cuda"``. See its class in ``uprank.scorers``.

    Raises:
        ConfigurationError: If the model, an option or the combination cannot work.
        MissingDependencyError: If the model needs a package that is not installed.
        InvalidInputError: If what is to be returned, e.g. ``top_n``, is out of range.
    """

    # Shown by __repr__ while an object is being made, as by the traceback of an option that is refused.
    _model = "not made yet"
    _defaults = Selection()

    def __init__(
        self,
        model: Model = "embedded",
        *,
        top_n: int | None = None,
        threshold: float | None = None,
        min_gap: float | None = None,
        max_tokens: int | None = None,
        count_tokens: Callable[[str], int] | None = None,
        diversity: float | None = None,
        keep_at_least: int = 0,
        instruction: str | None = None,
        score: ScoreMode = "native",
        calibrator: Calibration | None = None,
        on_error: ErrorPolicy = "raise",
        fallback: Sequence[Model] | None = (),
        cache: CacheLike | None = False,
        long_documents: LongDocuments = "truncate",
        passage_tokens: int | None = None,
        passage_overlap: int | None = None,
        fields: Sequence[str] | None = None,
        template: str | None = None,
        hooks: Sequence[Hooks] | None = (),
        **options: object,
    ) -> None:
        options = masked(options)  # so that a traceback that prints variables shows no secret
        # What it is made of, without the key: what is pickled, or shown by a debugger, holds no secret.
        given = {name: value for name, value in locals().items() if name not in ("self", "model", "options")}
        self._recipe: tuple[Model, dict[str, object]] = (model, {**given, **without_secrets(options)})
        if score not in get_args(ScoreMode):
            raise ConfigurationError(f'score must be "native" or "probability", got {score!r}.')
        if on_error not in get_args(ErrorPolicy):
            raise ConfigurationError(f'on_error must be "raise" or "passthrough", got {on_error!r}.')
        if calibrator is not None and score != "probability":
            raise ConfigurationError('calibrator= gives probabilities: pass score="probability" with it.')
        for name, function in (("calibrator", calibrator), ("count_tokens", count_tokens)):
            if function is not None and not callable(function):
                raise ConfigurationError(f"{name} must be a function, got {type(function).__name__}.")
        self._defaults = Selection(top_n, threshold, min_gap, max_tokens, diversity, keep_at_least)
        self._instruction = instruction
        self._hooks = checked_hooks(hooks or ())
        self._rendering = None if fields is None and template is None else Rendering(fields, template)
        self._cache = cache_for(cache)
        around = Around(fallback or (), self._cache, long_documents, passage_tokens, passage_overlap)
        self._scorer = assembled(model, options, around)
        self._model = model if isinstance(model, str) else self._scorer.name
        self._pipeline = Pipeline(self._model, self._scorer, score, calibrator, on_error, count_tokens)
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
    def score_kind(self) -> ScoreKind | None:
        """What reported scores mean; ``None`` until the model is loaded, where only it can tell."""
        return self._pipeline.kind()

    @property
    def selection(self) -> Selection:
        """Which documents are returned, where a call does not say."""
        return self._defaults

    @property
    def top_n(self) -> int | None:
        """How many documents are returned at most, where a call does not say."""
        return self._defaults.top_n

    @property
    def threshold(self) -> float | None:
        """The least score that is returned, where a call does not say."""
        return self._defaults.threshold

    @property
    def rendering(self) -> Rendering | None:
        """What is scored of a document; ``None`` where it is its text."""
        return self._rendering

    @property
    def cache(self) -> Cache | None:
        """Where scores are kept; ``cache.stats()`` tells hits and misses. ``None`` without ``cache=``."""
        return self._cache

    def rank(
        self,
        query: str,
        documents: Iterable[DocumentLike | RankedDocument],
        **options: Unpack[CallOptions],
    ) -> Ranking:
        """Rank documents for a query.

        Args:
            query: Not empty.
            documents: Strings, :class:`~uprank.Document` objects, mappings with ``"text"``, or the
                hits of another ranking. Never changed. None at all gives an empty ranking without calling the scorer.
            options: ``top_n``, ``threshold``, ``min_gap``, ``max_tokens``, ``diversity``, ``keep_at_least`` and
                ``instruction``, each instead of the reranker's own; ``None`` sets none.

        Returns:
            The documents that pass, best first.

        Raises:
            InvalidInputError: If the query, a document or an option cannot be used.
            ScorerError: If scoring failed, unless ``on_error="passthrough"``.
            ScoreKindError: If ``threshold`` is compared with scores of kind ``"rank"``.
        """
        plan = self._plan([query], [documents], options, "rank()", first=None)
        return drive(plan, unchecked)[0]

    async def arank(
        self,
        query: str,
        documents: Iterable[DocumentLike | RankedDocument],
        **options: Unpack[CallOptions],
    ) -> Ranking:
        """As :meth:`rank`, without blocking the event loop. Cancelling the task cancels the call."""
        plan = self._plan([query], [documents], options, "arank()", first=None)
        return (await adrive(plan, aunchecked))[0]

    def rank_many(
        self,
        queries: Sequence[str],
        documents_per_query: Sequence[Iterable[DocumentLike | RankedDocument]],
        **options: Unpack[CallOptions],
    ) -> list[Ranking]:
        """Rank several queries, each over its own documents; local models batch across queries.

        Args:
            queries: One query a ranking.
            documents_per_query: As many lists of documents as there are queries.
            options: As for :meth:`rank`, for each query.

        Returns:
            One ranking a query, in the order of the queries.

        Raises:
            InvalidInputError: Also if there are not as many lists as queries.
            ScorerError: If any query failed; with ``on_error="passthrough"`` only the queries that
                failed are degraded.
        """
        plan = self._plan(queries, documents_per_query, options, "rank_many()", first=0)
        return drive(plan, unchecked)

    async def arank_many(
        self,
        queries: Sequence[str],
        documents_per_query: Sequence[Iterable[DocumentLike | RankedDocument]],
        **options: Unpack[CallOptions],
    ) -> list[Ranking]:
        """As :meth:`rank_many`, without blocking the event loop."""
        plan = self._plan(queries, documents_per_query, options, "arank_many()", first=0)
        return await adrive(plan, aunchecked)

    def rank_stream(
        self,
        queries: Iterable[Query],
        *,
        group: int = 64,
        **options: Unpack[CallOptions],
    ) -> Iterator[Ranking]:
        """Rank any number of queries, with a few groups of them in memory at a time.

        Args:
            queries: Pairs of a query and its documents, e.g. from a generator; read as they are needed.
            group: How many are scored together; two groups are under way at once.
            options: As for :meth:`rank`, for each query.

        Yields:
            One ranking a query, in their order, once its group is done.

        Raises:
            InvalidInputError, ScorerError: As :meth:`rank_many`; the first also if ``group`` is no positive integer.
        """
        if not isinstance(group, int) or isinstance(group, bool) or group < 1:
            raise InvalidInputError(f"group must be a positive integer, got {group!r}.")
        self._resolved(options, "rank_stream()")

        async def rank(first: int, some: Sequence[Query]) -> list[Ranking]:
            for number, one in enumerate(some, first):
                if isinstance(one, str) or not isinstance(one, Sequence) or len(one) != 2:
                    raise InvalidInputError(f"Query {number} must be a pair of a query and its documents.")
            asked, documents = [query for query, _ in some], [documents for _, documents in some]
            plan = self._plan(asked, documents, options, "rank_stream()", first=first)
            return await adrive(plan, aunchecked)

        if not isinstance(queries, Iterable):
            raise InvalidInputError("queries must be pairs of a query and its documents, e.g. from a generator.")
        return stream(rank, queries, group=group)

    def load(self) -> None:
        """Load the models that run here, those of a fallback too: now, and not within the first call's deadline."""
        self._scorer.load()

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
        return self._scorer.precompute(texts_of(documents, self._text_of), progress=progress)

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
        seen = self._rendering or Rendering()

        def as_it_is(scorer: Scorer) -> Reranker:
            return Reranker(scorer, instruction=self._instruction, fields=seen.fields, template=seen.template)

        with as_it_is(self._scorer.exact()) as exact:
            best = exact.rank_many(queries, documents_per_query)
        return compare(as_it_is(self._scorer).rank_many(queries, documents_per_query), best, relevances)

    def check(self, **options: Unpack[CallOptions]) -> None:
        """Raise what :meth:`rank` would raise of these options, as far as it is known before the model is loaded."""
        self._resolved(options, "check()")

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
        options: CallOptions,
        function: str,
        *,
        first: int | None,
    ) -> Generator[Ask, list[Outcome], list[Ranking]]:
        """The one body of the methods above: check what was given, then run the pipeline, watched."""
        started = time.perf_counter()
        chosen, instruction = self._resolved(options, function)
        jobs = make_jobs(queries, documents_per_query, instruction, first=first, text_of=self._text_of)
        with watched(self._hooks, jobs, model=self._model, top_n=chosen.top_n, threshold=chosen.threshold) as watch:
            rankings = yield from self._pipeline.rankings(jobs, chosen)
            elapsed = time.perf_counter() - started
            rankings = [replace(ranking, elapsed=elapsed) for ranking in rankings]
            watch.made(rankings)
        return rankings

    @property
    def _text_of(self) -> Callable[[Document], str] | None:
        return None if self._rendering is None else self._rendering.text

    def _resolved(self, options: CallOptions, function: str) -> tuple[Selection, str | None]:
        """The options of one call, the reranker's own where the call gives none, checked."""
        selection = self._defaults.with_options(options, function=function)
        self._pipeline.check(selection)
        instruction = options.get("instruction", UNSET)
        if isinstance(instruction, Unset):
            instruction = self._instruction
        if instruction is not None and not self._scorer.accepts_instruction:
            raise InvalidInputError(f"{self._model} takes no instruction; leave instruction=None.")
        return selection, instruction


def _remake(model: Model, arguments: dict[str, object]) -> Reranker:
    return Reranker(model, **arguments)  # type: ignore[arg-type]  # the arguments of an earlier one
