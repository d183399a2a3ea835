"""Calls on a model of vectors: queries and unknown documents as rows for the scheduler, MaxSim as scores."""

from __future__ import annotations

import math
import sys
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from uprank.calibration import Calibration
from uprank.errors import QueryTooLongError
from uprank.scorers.base import Outcome, ScoreRequest, Scores, Usage
from uprank.scorers.evidence import Evidence
from uprank.scorers.local.batching import chunks, release_memory
from uprank.scorers.local.encoders import AnyEncoder, Text
from uprank.scorers.local.jobs import Job, Row, Runner
from uprank.scorers.local.loading import LongQuery
from uprank.scorers.local.progress import Bar
from uprank.scorers.local.vectors.blocks import Block, Known
from uprank.scorers.local.vectors.encoded import DeviceVectors, Encoded
from uprank.scorers.local.vectors.maxsim import maxsim
from uprank.scorers.local.vectors.store import VectorStore, digest

__all__ = ["PrecomputeJob", "VectorJob", "VectorRunner"]

_LOOKED_UP = 1_024  # texts that are looked for in the store at a time
_WAVE = 1_024  # requests whose queries' vectors are held at once
_QUERY = -1  # the place of a query's row is below 0


class VectorRunner(Runner[object, Encoded]):
    """Encodes rows.

    Args:
        encoder: The loaded model.
        store: What is known of documents; ``None`` where nothing is kept.
        token_budget: Instead of the encoder's own.
    """

    def __init__(self, encoder: AnyEncoder, store: VectorStore | None, token_budget: int | None) -> None:
        self.encoder = encoder
        self.store = store
        self.lanes, self.ahead = encoder.lanes, encoder.ahead
        self.token_budget = token_budget or encoder.token_budget

    def __repr__(self) -> str:
        return f"{self.encoder.precision} on {self.encoder.device_type}, {self.lanes} at once"

    def run(self, rows: Sequence[Row[object]], lane: int) -> Encoded:
        queries = rows[0].place <= _QUERY
        return self.encoder.encode([row.payload for row in rows], queries=queries, lane=lane)

    def part(self, output: Encoded, positions: Sequence[int]) -> Encoded:
        return output.part(positions)

    def release_memory(self) -> None:
        if "torch" in sys.modules:
            release_memory()


class _DocumentJob(Job[object, Encoded]):
    """What jobs that read documents share.

    Args:
        runner: Of the model.
    """

    def __init__(self, runner: VectorRunner) -> None:
        self._encoder = runner.encoder
        self._store = runner.store
        self._lock = threading.Lock()
        self._keys: list[bytes] = []  # of the documents' rows, by place
        self._lengths: list[int] = []  # likewise, as the encoder's evidence() takes them
        self._steps = self._given()

    def rows(self) -> Sequence[Row[object]] | None:
        return next(self._steps, None)

    @abstractmethod
    def _given(self) -> Iterator[Sequence[Row[object]]]:
        """Gives what :meth:`rows` does, step by step."""

    def _looked_up(self, texts: Sequence[str]) -> tuple[list[tuple[str, Known]], dict[str, bytes]]:
        """What is kept of some texts; and the other texts, with their digests."""
        keys = list(map(digest, texts))
        found = [None] * len(texts) if self._store is None else self._store.get(keys)
        kept = [(text, known) for text, known in zip(texts, found, strict=True) if known is not None]
        return kept, {text: key for text, key, known in zip(texts, keys, found, strict=True) if known is None}

    def _rows(self, texts: Sequence[str], keys: Mapping[str, bytes]) -> tuple[list[Row[object]], dict[str, Exception]]:
        """Tokenise texts.

        Returns:
            A row of each, in their order; but why there is none, of those that the tokenizer cannot read.
        """
        group = None if self._encoder.alike else "document"
        rows: list[Row[object]] = []
        failed: dict[str, Exception] = {}
        for text, tokenised in zip(texts, _each(self._encoder.documents, texts), strict=True):
            if isinstance(tokenised, Exception):
                failed[text] = tokenised
                continue
            rows.append(Row(tokenised.length, tokenised.payload, len(self._keys), group))
            self._keys.append(keys[text])
            self._lengths.append(tokenised.length + bool(tokenised.truncated))
        return rows, failed

    def _keep(self, rows: Sequence[Row[object]], output: Encoded) -> list[Known]:
        """Keep what the model made of documents, and return it as it is kept."""
        values = output.host()
        block = Block(values) if self._store is None else self._store.round(values)
        starts = np.cumsum([0, *output.counts]).tolist()
        known = [
            Known(block, start, count, self._lengths[row.place])
            for start, count, row in zip(starts, output.counts, rows, strict=False)
        ]
        if self._store is not None:
            self._store.put([self._keys[row.place] for row in rows], known)
        return known


@dataclass(slots=True)
class _Request:
    """One request while it is scored.

    Args:
        request: What was asked.
        values: Its scores; NaN where still missing.
        evidence: Of each text, whether it was cut.
        query: The vectors of its query; ``None`` before they are there, and when they are used no more.
        left: Documents that have no score yet.
        tokens: Tokens that the model read for it.
        full: Documents that fill the window.
        warnings: What the caller should know.
        error: Why it cannot be scored.
    """

    request: ScoreRequest
    values: list[float] = field(init=False)
    evidence: list[Evidence] = field(init=False)
    query: NDArray[np.float32] | None = None
    left: int = field(init=False)
    tokens: int = 0
    full: int = 0
    warnings: list[str] = field(default_factory=list)
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.left = len(self.request.texts)
        self.values, self.evidence = [math.nan] * self.left, [Evidence()] * self.left


_Owners = list[tuple[_Request, int]]
"""Which requests want a document, and at which place they have it."""


def _shared_out(owners: Sequence[_Owners]) -> Iterator[tuple[_Request, NDArray[np.float32], list[int], list[int]]]:
    """Each request with its query, with which of some documents it wants, and at which places it has them."""
    shares: dict[int, tuple[_Request, list[int], list[int]]] = {}
    for number, wanted in enumerate(owners):
        for request, place in wanted:
            _, chosen, places = shares.setdefault(id(request), (request, [], []))
            chosen.append(number)
            places.append(place)
    for request, chosen, places in shares.values():
        if request.query is not None:  # else it has all its scores, and these documents were run a second time
            yield request, request.query, chosen, places


class VectorJob(_DocumentJob):
    """The queries of all requests of a call, then their documents, as far as these are not kept.

    A text that several requests share is encoded once.

    Args:
        runner: Of the model.
        requests: At least one.
        long_query: What to do with a query longer than the window.
        name: Names the model in errors and on the bar.
        progress: Whether to show a bar.
        calibrator: Goes with the scores.
    """

    def __init__(
        self,
        runner: VectorRunner,
        requests: Sequence[ScoreRequest],
        *,
        long_query: LongQuery,
        name: str,
        progress: bool,
        calibrator: Calibration | None = None,
    ) -> None:
        super().__init__(runner)
        self._requests = [_Request(request) for request in requests]
        self._long_query = long_query
        self._name = name
        self._calibrator = calibrator
        self._owners: list[_Owners] = []  # of the documents' rows, by place
        self._asking: list[list[_Request]] = []  # of the queries' rows
        total = len({text for request in requests for text in request.texts}) if progress else 0
        self._bar = Bar(total, name, "text", shown=progress)

    def take(self, rows: Sequence[Row[object]], output: Encoded) -> None:
        queries = [position for position, row in enumerate(rows) if row.place <= _QUERY]
        if queries:
            self._take_queries([rows[position] for position in queries], output.part(queries))
        documents = [position for position, row in enumerate(rows) if row.place > _QUERY]
        if documents:
            self._take_documents([rows[position] for position in documents], output.part(documents))

    def close(self) -> None:
        self._bar.close()

    def outcomes(self) -> list[Outcome]:
        self._bar.close()
        return [request.error or self._scores(request) for request in self._requests]

    def _given(self) -> Iterator[Sequence[Row[object]]]:
        for first in range(0, len(self._requests), _WAVE):
            wave = self._requests[first : first + _WAVE]
            yield self._query_rows(wave)
            admitted = [request for request in wave if request.error is None]
            while any(request.query is None for request in admitted):
                yield []
            owners: dict[str, _Owners] = {}
            for request in admitted:
                for position, text in enumerate(request.request.texts):
                    owners.setdefault(text, []).append((request, position))
            texts = iter(owners)
            while group := list(islice(texts, _LOOKED_UP)):
                kept, missing = self._looked_up(group)
                if kept:
                    self._bar.move(len(kept), 0)
                    self._score([owners[text] for text, _ in kept], [known for _, known in kept], read=False)
                for chunk in chunks(list(missing)):
                    rows, failed = self._rows(chunk, missing)
                    self._owners += [owners[text] for text in chunk if text not in failed]
                    for text, error in failed.items():
                        for request, _ in owners[text]:
                            request.error = error
                    yield rows
                if not missing and len(group) == _LOOKED_UP:
                    yield []  # other calls get their turn

    def _query_rows(self, wave: Sequence[_Request]) -> list[Row[object]]:
        """Tokenise queries; one that is too long, or cannot be read, fails its own requests alone."""
        encoder, window = self._encoder, self._encoder.query_window
        group = None if encoder.alike else "query"
        rows: list[Row[object]] = []
        asking: dict[str, list[_Request]] = {}
        for request in wave:
            asking.setdefault(request.request.query, []).append(request)
        for query, text in zip(asking, _each(encoder.queries, list(asking)), strict=True):
            if isinstance(text, Exception):
                for request in asking[query]:
                    request.error = text
                continue
            length = text.length if window is None or text.length < window else encoder.query_length(query)
            warnings: list[str] = []
            error: QueryTooLongError | None = None
            if window is not None and length > window:
                problem = f"The query has {length} tokens, more than the {window} that {self._name} reads of one"
                if self._long_query == "truncate":
                    warnings = [f"{problem}; it was cut to {window}."]
                else:
                    error = QueryTooLongError(f'{problem}. Shorten it, or pass long_query="truncate".')
            for request in asking[query]:
                request.error = error
                request.warnings += warnings
                request.tokens += length if window is None else min(length, window)
            if error is None:
                rows.append(Row(text.length, text.payload, _QUERY - len(self._asking), group))
                self._asking.append(asking[query])
        return rows

    def _take_queries(self, rows: Sequence[Row[object]], output: Encoded) -> None:
        values = output.host()
        stops = np.cumsum(output.counts).tolist()
        for row, stop, count in zip(rows, stops, output.counts, strict=True):
            query = values[stop - count : stop].copy()
            for request in self._asking[_QUERY - row.place]:
                if not count:
                    request.warnings.append(
                        f"{self._name} finds no token to score in the query; all documents score -1."
                    )
                request.query = query

    def _take_documents(self, rows: Sequence[Row[object]], output: Encoded) -> None:
        owners = [self._owners[row.place] for row in rows]
        if self._store is None and isinstance(output, DeviceVectors):
            lengths = [self._lengths[row.place] for row in rows]
            for request, query, chosen, positions in _shared_out(owners):
                scores = output.maxsim(query, chosen)
                self._fill_in(request, positions, scores, [lengths[place] for place in chosen], read=True)
        else:
            self._score(owners, self._keep(rows, output), read=True)
        self._bar.move(len(rows), sum(row.length for row in rows))

    def _score(self, owners: Sequence[_Owners], known: Sequence[Known], *, read: bool) -> None:
        """Score documents for all requests that want them.

        Args:
            owners: Of each document.
            known: Their vectors.
            read: Whether the model has read them for this call.
        """
        for request, query, chosen, positions in _shared_out(owners):
            documents = [known[place] for place in chosen]
            scores = maxsim(query, documents).tolist()
            self._fill_in(request, positions, scores, [one.tokens for one in documents], read=read)

    def _fill_in(
        self, request: _Request, positions: list[int], scores: list[float], lengths: list[int], *, read: bool
    ) -> None:
        window = self._encoder.document_window
        with self._lock:
            for position, score, length in zip(positions, scores, lengths, strict=True):
                if not math.isnan(request.values[position]):
                    continue  # run a second time, since something failed after it had its score
                request.values[position], request.evidence[position] = score, self._encoder.evidence(length)
                request.tokens += (length if window is None else min(length, window)) if read else 0
                request.full += window is not None and length >= window
                request.left -= 1
            if not request.left:
                request.query = None  # thousands of queries in one call would fill the memory

    def _scores(self, request: _Request) -> Scores:
        warnings = request.warnings
        if request.full:
            warnings = [
                *warnings,
                f"{request.full} of {len(request.values)} documents reach the window of "
                f"{self._encoder.document_window} tokens; text beyond it was not read.",
            ]
        return Scores(
            values=request.values,
            kind="cosine",
            usage=Usage(tokens=request.tokens),
            warnings=tuple(warnings),
            evidence=request.evidence,
            calibrator=self._calibrator,
        )


class PrecomputeJob(_DocumentJob):
    """Documents alone, whose vectors are kept.

    Args:
        runner: Of a model with a store.
        texts: The documents.
        bar: Shows how far it is.

    Attributes:
        added: Documents that were not kept already.
    """

    def __init__(self, runner: VectorRunner, texts: Sequence[str], bar: Bar) -> None:
        super().__init__(runner)
        self._documents = texts
        self._bar = bar
        self.added = 0

    def take(self, rows: Sequence[Row[object]], output: Encoded) -> None:
        self._keep(rows, output)
        with self._lock:
            self.added += len(rows)
        self._bar.move(len(rows), sum(row.length for row in rows))

    def outcomes(self) -> list[Outcome]:
        return []

    def _given(self) -> Iterator[Sequence[Row[object]]]:
        different = list(dict.fromkeys(self._documents))
        self._bar.move(len(self._documents) - len(different), 0)
        kept, missing = self._looked_up(different)
        self._bar.move(len(kept), 0)
        for chunk in chunks(list(missing)):
            rows, failed = self._rows(chunk, missing)
            for error in failed.values():
                raise error
            yield rows


def _each(
    tokenise: Callable[[Sequence[str]], list[Text[object]]], texts: Sequence[str]
) -> list[Text[object] | Exception]:
    """Tokenise texts together; if that fails, each alone, to tell which one it is."""
    try:
        return [*tokenise(texts)]
    except Exception as error:  # of the requests that want this text
        return [error] if len(texts) == 1 else [one for text in texts for one in _each(tokenise, [text])]
