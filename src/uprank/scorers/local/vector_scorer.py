"""Scoring by vectors: every text is encoded on its own, then compared with the query's vectors by MaxSim.

Documents' vectors do not depend on the query, so they are kept: a document that was seen before
costs no forward pass.
"""

from __future__ import annotations

import gc
import logging
import sys
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence, Sized
from concurrent.futures import Future
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from uprank.errors import ConfigurationError, ModelLoadError, ScorerError, UprankError
from uprank.scorers.base import Outcome, ScoreRequest
from uprank.scorers.local.batching import release_memory, valid_token_budget
from uprank.scorers.local.loading import LongQuery, valid_long_query
from uprank.scorers.local.progress import Bar
from uprank.scorers.local.worker import LocalScorer

if TYPE_CHECKING:
    from uprank.scorers.local.encoders import AnyEncoder
    from uprank.scorers.local.vectors.jobs import PrecomputeJob, VectorJob, VectorRunner
    from uprank.scorers.local.vectors.options import StoreOptions
    from uprank.scorers.local.vectors.store import VectorStore

__all__ = ["VectorScorer"]

Self = TypeVar("Self", bound="VectorScorer")

logger = logging.getLogger("uprank")

_GROUP = 1_024  # texts that are precomputed as one call
_GROUPS_AHEAD = 1
_ENCODING = 3  # to be raised whenever what is kept of the same model and text changes


class _Precomputing(NamedTuple):
    """Documents that are precomputed.

    Attributes:
        texts: Their texts, each once.
        made: The job, once it is made.
        future: Of the job.
    """

    texts: dict[str, None]
    made: list[PrecomputeJob]
    future: Future[list[Outcome]]


class VectorScorer(LocalScorer):
    """Base of the scorers that encode query and documents apart.

    Texts of all requests of a call are batched together by length, a text that several requests share
    once. Documents' vectors are kept as the store's options say; what is kept is not read again, and
    not counted in ``usage.tokens``. Scores do not depend on what was kept before: vectors are rounded
    to the store's precision before they are first compared.

    Args:
        name: Shown in rankings and errors.
        store: What is kept, and where.
        token_budget: The most tokens in one batch, padding counted.
        max_wait_ms: As for :class:`~uprank.scorers.local.worker.LocalScorer`.
        max_queue: As there.
        long_query: What to do with a query longer than the window.
        progress: Show a tqdm bar over the texts of a call.
    """

    score_kind = "cosine"
    _loaded_parts = ("_runner",)

    def __init__(
        self,
        name: str,
        *,
        store: StoreOptions,
        token_budget: int | None,
        max_wait_ms: float | None,
        max_queue: int,
        long_query: LongQuery,
        progress: bool,
    ) -> None:
        super().__init__(name, max_wait_ms=max_wait_ms, max_queue=max_queue)
        self._store = store
        self._token_budget = valid_token_budget(token_budget)
        self._long_query: LongQuery = valid_long_query(long_query)
        self._progress = progress
        self._runner: VectorRunner | None = None
        self._vectors: VectorStore | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_vectors": None}

    def _unstored(self: Self, **changed: object) -> Self:
        """The same scorer with other settings, which keeps nothing."""
        from uprank.scorers.local.vectors.options import StoreOptions

        return self._twin(
            _store=StoreOptions(store=False, store_dtype="auto", store_memory=0), _progress=False, **changed
        )

    def precompute(self, texts: Iterable[str], *, progress: bool = False) -> int:
        """Encode documents ahead and keep their vectors.

        Args:
            texts: As they will be given to be scored; read as they are needed.
            progress: Show a tqdm bar.

        Returns:
            How many were not kept already.

        Raises:
            ConfigurationError: If nothing is kept (``store=False``), or the store is another model's.
            ScorerError: If the model cannot be loaded or fails.
        """
        if not self._store.keeps:
            raise ConfigurationError(
                f"{self.name} is set up to keep no vectors: leave store=True and store_memory above 0, or give a "
                "folder."
            )
        bar = Bar(len(texts) if isinstance(texts, Sized) else None, self.name, "text", shown=progress)
        running: deque[_Precomputing] = deque()
        added = 0
        source = iter(texts)
        try:
            while (group := list(islice(source, _GROUP))) or running:
                # What is being encoded is not in the store yet.
                new = {text: None for text in group if not any(text in one.texts for one in running)}
                bar.move(len(group) - len(new), 0)
                if new:
                    running.append(self._submit_precompute(new, bar))
                if running and (not group or len(running) > _GROUPS_AHEAD):
                    self._finished(running[0].future)  # in the queue until it is done: what is in it is cancelled
                    added += running.popleft().made[0].added
        finally:
            for one in running:
                one.future.cancel()
            bar.close()
        kept = added if self._vectors is None else len(self._vectors)
        if kept < added:
            logger.warning(
                "%s keeps no more than %d of the %d documents precomputed: raise store_memory, or give a folder",
                self.name,
                kept,
                added,
            )
        return added

    def _finished(self, future: Future[list[Outcome]]) -> None:
        try:
            future.result()
        except UprankError:
            raise
        except Exception as error:
            raise ScorerError(f"{self.name} failed with {type(error).__name__}: {error}") from error

    def _submit_precompute(self, texts: dict[str, None], bar: Bar) -> _Precomputing:
        from uprank.scorers.local.vectors.jobs import PrecomputeJob

        made: list[PrecomputeJob] = []

        def make() -> PrecomputeJob:
            made.append(PrecomputeJob(self._loaded(), list(texts), bar))
            return made[0]

        return _Precomputing(texts, made, self._scheduler.submit(make, rows=len(texts)))

    def _kept_as(self) -> dict[str, object]:
        """What of a scorer's identity is about vectors: how they are made of a text, and rounded."""
        return {
            "long_query": self._long_query,
            "store_dtype": self._store.dtype if self._store.keeps else "float32",
            "encoding": _ENCODING,
        }

    @abstractmethod
    def _load(self) -> AnyEncoder:
        """Load the model."""

    @abstractmethod
    def _digest(self) -> str:
        """What tells the model from all others: for the store on disk."""

    def _load_runner(self) -> VectorRunner:
        from uprank.scorers.local.vectors.jobs import VectorRunner
        from uprank.scorers.local.vectors.store import open_store

        try:
            encoder = self._load()
            if self._vectors is None:  # a forked process loads the model anew, and keeps what was stored
                self._vectors = open_store(
                    self._store,
                    lambda: {
                        "model": self._digest(),
                        "window": encoder.document_window,
                        "precision": encoder.precision,
                        "vectors": encoder.vectors,
                        "encoding": _ENCODING,
                    },
                    name=self.name,
                )
        except UprankError:
            raise
        except Exception as error:
            raise ModelLoadError(f"{self.name} could not be loaded: {error}") from error
        self._runner = VectorRunner(encoder, self._vectors, self._token_budget)
        self.document_window = encoder.document_window
        return self._runner

    def _loaded(self) -> VectorRunner:
        assert self._runner is not None  # noqa: S101 - jobs are made once it is loaded
        return self._runner

    def _job(self, requests: Sequence[ScoreRequest]) -> VectorJob:
        from uprank.scorers.local.vectors.jobs import VectorJob

        return VectorJob(
            self._loaded(),
            requests,
            long_query=self._long_query,
            name=self.name,
            progress=self._progress,
            calibrator=self.calibrator,
        )

    def _unload(self) -> None:
        self._runner = self._vectors = None
        gc.collect()
        if "torch" in sys.modules:
            release_memory()
