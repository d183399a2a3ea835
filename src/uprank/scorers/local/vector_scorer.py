"""Scoring by vectors: every text is encoded on its own, then compared with the query's vectors.

The comparison is MaxSim (Khattab and Zaharia, "ColBERT: Efficient and Effective Passage Search via
Contextualized Late Interaction over BERT", 2020, arXiv 2004.12832), as the mean over the query's
tokens instead of their sum: the same order for one query, and a cosine. With one vector a text, it
is the cosine of two embeddings.
"""

from __future__ import annotations

import math
import threading
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from uprank.errors import ModelLoadError, QueryTooLongError, UprankError
from uprank.scorers.base import Outcome, ScoreRequest, Scores, Usage
from uprank.scorers.local.batching import default_token_budget, release_memory, run_batches, valid_token_budget
from uprank.scorers.local.loading import LongQuery, valid_long_query
from uprank.scorers.local.worker import LocalScorer

if TYPE_CHECKING:
    from torch import Tensor

    from uprank.scorers.local.encoders import TextEncoder, TokenisedTexts, Vectors

__all__ = ["VectorScorer", "maxsim"]


def maxsim(query: Tensor, documents: Vectors) -> Tensor:
    """The mean over a query's tokens of their greatest cosine with any scored token of a document.

    A token that is not scored counts as -1, the least a cosine can be: it wins against no real
    token, also where all real cosines are negative. So a document without any token gets -1.

    Args:
        query: Unit vectors of shape (tokens, dimensions).
        documents: The vectors of some documents.

    Returns:
        One number in [-1, 1] a document; all -1 where the query has no token.
    """
    values, scored = documents
    if 0 in (len(query), values.shape[1]):
        return values.new_full((len(values),), -1.0)
    similarity = (values @ query.T).masked_fill(~scored[..., None], -1.0)
    return similarity.amax(dim=1).mean(dim=1).clamp(-1.0, 1.0)  # only rounding leaves that range


@dataclass(slots=True)
class _Task:
    """One request while it is scored.

    Args:
        request: What was asked.
        query_tokens: Tokens read of its query.
        warnings: What the caller should know.
        values: Its scores; NaN where still missing.
    """

    request: ScoreRequest
    query_tokens: int
    warnings: list[str]
    values: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self.values = [math.nan] * len(self.request.texts)


class VectorScorer(LocalScorer):
    """Base of the scorers that encode query and documents apart.

    Texts of all requests of a call are sorted by length and batched together, a text that several
    requests share once. Only the queries' vectors are kept, never the documents', so memory does
    not grow with their number.

    Args:
        name: Shown in rankings and errors.
        token_budget: The most tokens in one batch, padding counted.
        long_query: What to do with a query longer than the window.
        progress: Show a tqdm bar over the texts of a call.
    """

    score_kind = "cosine"
    _loaded_parts = ("_encoder",)

    def __init__(self, name: str, *, token_budget: int | None, long_query: LongQuery, progress: bool) -> None:
        super().__init__(name)
        self._token_budget = valid_token_budget(token_budget)
        self._long_query: LongQuery = valid_long_query(long_query)
        self._progress = progress
        self._encoder: TextEncoder | None = None

    @abstractmethod
    def _load(self) -> TextEncoder:
        """Load the model."""

    def _loaded(self) -> TextEncoder:
        if self._encoder is None:
            try:
                self._encoder = self._load()
            except UprankError:
                raise
            except Exception as error:
                raise ModelLoadError(f"{self.name} could not be loaded: {error}") from error
        return self._encoder

    def _unload(self) -> None:
        self._encoder = None
        release_memory()

    def _score_batch(self, requests: Sequence[ScoreRequest], abandoned: threading.Event) -> list[Outcome]:
        encoder = self._loaded()
        admitted = [self._admit(encoder, request) for request in requests]
        tasks = [task for task in admitted if isinstance(task, _Task)]
        texts = list(dict.fromkeys(text for task in tasks for text in task.request.texts))
        documents = encoder.documents(texts)
        self._score_all(encoder, tasks, texts, documents, abandoned)
        length_of = dict(zip(texts, documents.lengths, strict=True))
        return [
            self._scores(encoder, task, [length_of[text] for text in task.request.texts])
            if isinstance(task, _Task)
            else task
            for task in admitted
        ]

    def _admit(self, encoder: TextEncoder, request: ScoreRequest) -> _Task | QueryTooLongError:
        """Take a request on, unless its query is too long; the others are then scored all the same."""
        length, window = encoder.query_length(request.query), encoder.query_window
        if window is None or length <= window:
            return _Task(request, length, [])
        problem = f"The query has {length} tokens, more than the {window} that {self.name} reads of one"
        if self._long_query == "truncate":
            return _Task(request, window, [f"{problem}; it was cut to {window}."])
        return QueryTooLongError(f'{problem}. Shorten it, or pass long_query="truncate".')

    def _score_all(
        self,
        encoder: TextEncoder,
        tasks: list[_Task],
        texts: list[str],
        documents: TokenisedTexts,
        abandoned: threading.Event,
    ) -> None:
        """Fill in the values of all tasks, batch by batch."""
        import torch
        from tqdm.auto import tqdm

        budget = self._token_budget or default_token_budget(encoder.device_type)
        query_vectors = self._query_vectors(encoder, [task.request.query for task in tasks], budget)
        wanted: dict[str, list[tuple[int, int]]] = {text: [] for text in texts}
        for number, task in enumerate(tasks):
            if not len(query_vectors[task.request.query]):
                task.warnings.append(f"{self.name} finds no token to score in the query; all documents score -1.")
            for position, text in enumerate(task.request.texts):
                wanted[text].append((number, position))

        def forward(batch: list[int]) -> None:
            vectors = documents.encode(batch)
            rows: dict[int, list[int]] = {}
            positions: dict[int, list[int]] = {}
            for row, index in enumerate(batch):
                for number, position in wanted[texts[index]]:
                    rows.setdefault(number, []).append(row)
                    positions.setdefault(number, []).append(position)
            everything = list(range(len(batch)))
            with torch.inference_mode():
                for number, chosen in rows.items():
                    own = vectors if chosen == everything else vectors.choose(chosen)
                    scores = maxsim(query_vectors[tasks[number].request.query], own)
                    for position, score in zip(positions[number], scores.tolist(), strict=True):
                        tasks[number].values[position] = score

        with tqdm(total=len(texts), desc=self.name, unit="text", disable=not self._progress) as bar:
            for batch, _ in run_batches(documents.lengths, budget, forward, name=self.name, abandoned=abandoned):
                bar.update(len(batch))

    def _query_vectors(self, encoder: TextEncoder, queries: list[str], budget: int) -> dict[str, Tensor]:
        queries = list(dict.fromkeys(queries))
        tokenised = encoder.queries(queries)
        vectors: dict[str, Tensor] = {}
        for batch, (values, scored) in run_batches(tokenised.lengths, budget, tokenised.encode, name=self.name):
            for row, index in enumerate(batch):
                vectors[queries[index]] = values[row][scored[row]]
        return vectors

    def _scores(self, encoder: TextEncoder, task: _Task, lengths: list[int]) -> Scores:
        window = encoder.document_window
        full = 0 if window is None else sum(length >= window for length in lengths)
        if full:
            task.warnings.append(
                f"{full} of {len(lengths)} documents reach the window of {window} tokens; text beyond it was not read."
            )
        return Scores(
            values=task.values,
            kind="cosine",
            usage=Usage(tokens=task.query_tokens + sum(lengths)),
            warnings=tuple(task.warnings),
        )
