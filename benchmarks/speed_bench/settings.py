"""What a run measures, and how much of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

__all__ = ["FULL", "FULL_GPU", "QUICK", "Budget", "Settings", "Sizes"]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything.

    Args:
        pool: Queries of a workload.
        documents: A query.
        sweep_tokens: Tokens in the sample that configurations are tried with.
        sample_documents: The most documents in the sample of a round; the sample is as large as the budget allows.
        least_rounds: Rounds that are measured though the budget is spent.
        most_rounds: Rounds after which it is enough.
        latency: Documents in a call.
        block: Calls in a row of one contestant.
        callers: Callers at once, each with one query.
        caller_documents: Documents of each caller.
        growth: Documents in a call, ascending.
        stored_calls: Calls over stored vectors.
        cold_starts: Times each contestant is started.
        configurations: How many of sentence-transformers' configurations are tried, and batch sizes of each; ``None``
            tries all.
    """

    pool: int = 64
    documents: int = 100
    sweep_tokens: int = 8_000
    sample_documents: int = 800
    least_rounds: int = 3
    most_rounds: int = 9
    latency: tuple[int, ...] = (10, 100)
    block: int = 5
    callers: int = 64
    caller_documents: int = 10
    growth: tuple[int, ...] = (10, 100, 1_000, 10_000)
    stored_calls: int = 100
    cold_starts: int = 3
    configurations: tuple[int, int] | None = None


FULL = Sizes()
FULL_GPU = replace(FULL, pool=192, sweep_tokens=400_000, sample_documents=6_400, least_rounds=5)
QUICK = Sizes(
    pool=8,
    documents=20,
    sweep_tokens=800,
    sample_documents=40,
    least_rounds=2,
    most_rounds=2,
    latency=(5, 20),
    block=2,
    callers=8,
    caller_documents=5,
    growth=(10, 100),
    stored_calls=4,
    cold_starts=1,
    configurations=(1, 2),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """One run.

    Args:
        models: Names in ``models.SHAPES``.
        workloads: Names in ``workloads.WORKLOADS``.
        device: ``"cpu"`` or ``"cuda"``.
        budget: Seconds a model that measuring should take; building and exporting models comes on top.
        folder: Where models, texts and exports are kept between runs.
        pythons: The interpreter of each environment: ``"project"``, and ``"peers"`` where there is one.
        sizes: How much of everything.
        engines: Whether uprank's engines are measured one by one too.
        stored: Whether stored vectors of the embedded model are measured.
        seed: Of the texts and of the order of contestants.
    """

    models: tuple[str, ...]
    workloads: tuple[str, ...]
    device: str
    budget: float
    folder: Path
    pythons: Mapping[str, Path]
    sizes: Sizes = FULL
    engines: bool = False
    stored: bool = True
    seed: int = 0


@dataclass(slots=True)
class Budget:
    """Seconds shared among phases by weight; what one leaves, the later ones have.

    Args:
        seconds: For all phases together.
        weights: Of each phase.
    """

    seconds: float
    weights: dict[str, float]
    _started: float = field(default_factory=time.perf_counter)

    def share(self, phase: str) -> float:
        """The seconds that a phase may take, from now on; each is asked for once."""
        left = max(0.0, self.seconds - (time.perf_counter() - self._started))
        all_weights = sum(self.weights.values())
        return left * self.weights.pop(phase) / all_weights
