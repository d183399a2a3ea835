"""One call on a cross-encoder: its pairs as rows for the scheduler, their logits as scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from uprank.scorers.base import Outcome, ScoreKind, ScoreRequest, Scores, Usage
from uprank.scorers.evidence import Evidence
from uprank.scorers.local.batching import chunks
from uprank.scorers.local.engines.base import Engine, Tokens
from uprank.scorers.local.jobs import Job, Row, Runner
from uprank.scorers.local.pairs import PairEncoder
from uprank.scorers.local.progress import Bar

__all__ = ["EnginePairRunner", "PairJob"]

Logits = NDArray[np.float32]

_CUT, _WHOLE = Evidence(truncated=True), Evidence(truncated=False)


@dataclass(slots=True)
class _Request:
    """What is known of one request while it is scored.

    Args:
        first: The place of its first pair among those of all requests.
        tokens: Tokens read of its pairs so far.
        full: How many of its pairs fill the window.
        evidence: Of each of its texts, whether it was cut.
        warnings: What the caller should know.
        error: Why it cannot be scored.
    """

    first: int
    tokens: int = 0
    full: int = 0
    evidence: list[Evidence] = field(default_factory=list)
    warnings: tuple[str, ...] = ()
    error: Exception | None = None


class PairJob(Job[Tokens, Logits]):
    """The pairs of all requests of a call.

    Args:
        requests: At least one.
        pairs: Tokenises for the model.
        score_kind: ``"probability"`` where a sigmoid is to be shown.
        name: Names the model on the bar.
        progress: Whether to show one.
    """

    def __init__(
        self, requests: Sequence[ScoreRequest], pairs: PairEncoder, score_kind: ScoreKind, *, name: str, progress: bool
    ) -> None:
        self._requests = requests
        self._pairs = pairs
        self._score_kind = score_kind
        starts = np.cumsum([0, *(len(request.texts) for request in requests)]).tolist()
        self._states = [_Request(start) for start in starts[:-1]]
        self._logits = np.full(starts[-1], np.nan, dtype=np.float32)
        self._bar = Bar(starts[-1], name, "pair", shown=progress)
        self._chunks = self._tokenised()

    def rows(self) -> Sequence[Row[Tokens]] | None:
        return next(self._chunks, None)

    def take(self, rows: Sequence[Row[Tokens]], output: Logits) -> None:
        self._logits[[row.place for row in rows]] = output
        self._bar.move(len(rows), sum(row.length for row in rows))

    def close(self) -> None:
        self._bar.close()

    def outcomes(self) -> list[Outcome]:
        return [
            state.error or self._scores(request, state)
            for request, state in zip(self._requests, self._states, strict=True)
        ]

    def _tokenised(self) -> Iterator[list[Row[Tokens]]]:
        """The rows of one request after the other, a bounded number at a time."""
        for request, state in zip(self._requests, self._states, strict=True):
            try:
                query = self._pairs.query(request.query, request.instruction)
            except Exception as error:  # this request's own fault: the others are scored
                state.error = error
                continue
            state.warnings = query.warnings
            place = state.first
            for chunk in chunks(request.texts):
                try:
                    pairs = self._pairs.rows(query, chunk)
                except Exception as error:  # likewise
                    state.error = error
                    break
                state.tokens += sum(len(pair.ids) for pair in pairs)
                state.full += sum(len(pair.ids) >= self._pairs.window for pair in pairs)
                state.evidence += [_CUT if pair.truncated else _WHOLE for pair in pairs]
                yield [
                    Row(len(pair.ids), Tokens(pair.ids, pair.types), place + offset, query.model_inputs)
                    for offset, pair in enumerate(pairs)
                ]
                place += len(chunk)

    def _scores(self, request: ScoreRequest, state: _Request) -> Scores:
        warnings = state.warnings
        if state.full:
            warnings += (
                f"{state.full} of {len(request.texts)} documents reach the window of {self._pairs.window} tokens; "
                "text beyond it was not read.",
            )
        return Scores(
            values=self._logits[state.first : state.first + len(request.texts)].tolist(),
            kind="logit",
            native="probability" if self._score_kind == "probability" else None,
            usage=Usage(tokens=state.tokens),
            warnings=warnings,
            evidence=state.evidence,
        )


class EnginePairRunner(Runner[Tokens, Logits]):
    """Runs pairs on an engine.

    Args:
        engine: A model of pairs.
        token_budget: Instead of the engine's own.
    """

    def __init__(self, engine: Engine, token_budget: int | None) -> None:
        self._engine = engine
        self.lanes = engine.lanes
        self.token_budget = token_budget or engine.token_budget

    def __repr__(self) -> str:
        return f"{self._engine.name} in {self._engine.precision}, {self.lanes} at once"

    def run(self, rows: Sequence[Row[Tokens]], lane: int) -> Logits:
        return self._engine.run([row.payload for row in rows], lane)

    def part(self, output: Logits, positions: Sequence[int]) -> Logits:
        return output[list(positions)]
