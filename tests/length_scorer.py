"""A local scorer in small: it scores texts by their length."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from uprank.scorers import ScoreRequest, Scores
from uprank.scorers.base import Outcome
from uprank.scorers.local.jobs import Job, Row, Runner
from uprank.scorers.local.worker import LocalScorer


class Lengths(Runner[str, list[float]]):
    """Scores texts by their length; notes each batch, and waits for the gate before it."""

    token_budget = 1_000

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.gate = gate
        self.started = threading.Event()
        self.batches: list[list[str]] = []

    def run(self, rows: Sequence[Row[str]], lane: int) -> list[float]:
        self.batches.append([row.payload for row in rows])
        self.started.set()
        if self.gate is not None:
            assert self.gate.wait(20)
        return [float(len(row.payload)) for row in rows]

    def part(self, output: list[float], positions: Sequence[int]) -> list[float]:
        return [output[position] for position in positions]


class LengthJob(Job[str, list[float]]):
    def __init__(self, requests: Sequence[ScoreRequest]) -> None:
        self.requests = requests
        self.places = [(number, text) for number, request in enumerate(requests) for text in request.texts]
        self.values = [0.0] * len(self.places)
        self.given = False

    def rows(self) -> list[Row[str]] | None:
        if self.given:
            return None
        self.given = True
        return [Row(len(text), text, place) for place, (_, text) in enumerate(self.places)]

    def take(self, rows: Sequence[Row[str]], output: list[float]) -> None:
        for row, value in zip(rows, output, strict=True):
            self.values[row.place] = value

    def outcomes(self) -> list[Outcome]:
        found: list[list[float]] = [[] for _ in self.requests]
        for value, (owner, _) in zip(self.values, self.places, strict=True):
            found[owner].append(value)
        return [
            ValueError("bad query") if request.query == "bad" else Scores(values, "logit")
            for request, values in zip(self.requests, found, strict=True)
        ]


class LengthScorer(LocalScorer):
    """A model's scorer in small: what it loads is a runner and a part that it keeps itself."""

    _loaded_parts = ("tokenizer",)

    def __init__(self, gate: threading.Event | None = None, **options: int) -> None:
        super().__init__("lengths", **options)
        self.gate = gate
        self.tokenizer: str | None = None
        self.runner = Lengths(gate)
        self.events: list[str] = []
        self.threads: set[threading.Thread] = set()

    def _load_runner(self) -> Lengths:
        self.events.append("load")
        self.threads.add(threading.current_thread())
        self.tokenizer = "loaded"
        return self.runner

    def _job(self, requests: Sequence[ScoreRequest]) -> LengthJob:
        assert self.tokenizer == "loaded"
        self.threads.add(threading.current_thread())
        return LengthJob(requests)

    def _unload(self) -> None:
        self.events.append("unload")
        self.threads.add(threading.current_thread())
        self.tokenizer = None


class Pickled(LengthScorer):
    """Made of values that can be sent to another process."""

    _loaded_parts = ("tokenizer", "runner", "events", "threads")

    def _load_runner(self) -> Lengths:
        self.runner, self.events, self.threads = Lengths(), [], set()
        return super()._load_runner()
