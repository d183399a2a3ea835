"""The best configuration of sentence-transformers on this machine, for each workload: tried, not assumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from speed_bench.contestants import BASE, ENGINES, SWEEP, Contestant, variants
from speed_bench.field import Field, Player
from speed_bench.process import ContestantError
from speed_bench.settings import Settings
from speed_bench.texts import Texts

__all__ = ["Best", "Swept", "sweep"]

_HOPELESS = 2.0  # times slower than the best so far: other batch sizes will not make up for that


@dataclass(frozen=True, slots=True)
class Best:
    """The fastest configuration for a workload."""

    contestant: Contestant
    batch_size: int
    rate: float


@dataclass(slots=True)
class Swept:
    """What a sweep found.

    Attributes:
        tried: One row a configuration and workload, as for JSON.
        best: By workload; a workload is missing where nothing ran.
        rates: Pairs a second by workload and contestant, for those that the rounds have too.
    """

    tried: list[dict[str, Any]]
    best: dict[str, Best]
    rates: dict[str, dict[str, float]]


def sweep(field: Field, settings: Settings, texts: Texts, workloads: Sequence[str]) -> Swept:
    """Try every engine, precision and batch size on a small sample of each workload, one process at a time.

    Args:
        field: Starts them.
        settings: Of the run.
        texts: The workloads.
        workloads: Which of them.
    """
    found = Swept([], {}, {name: {} for name in workloads})
    most, batches_of_each = settings.sizes.configurations or (None, None)
    for contestant in SWEEP[:most]:
        if settings.device not in contestant.devices:
            continue
        batches = variants(contestant, settings.device)[:batches_of_each]
        for player in field.start([contestant]):
            for workload in workloads:
                _try(field, settings, texts, player, workload, batches, found)
            field.stop(player.worker)
    if settings.engines:
        for contestant in ENGINES:
            if settings.device not in contestant.devices:
                continue
            for player in field.start([contestant]):
                for workload in workloads:
                    _try(field, settings, texts, player, workload, (None,), found)
                field.stop(player.worker)
    return found


def _try(
    field: Field,
    settings: Settings,
    texts: Texts,
    player: Player,
    workload: str,
    batches: Sequence[int | None],
    found: Swept,
) -> None:
    pairs = max(10, int(settings.sizes.sweep_tokens / texts.tokens[workload].mean))
    documents = min(pairs, settings.sizes.documents)
    queries = max(1, round(pairs / documents))
    try:
        player.score(texts.files[workload], [0], max(5, documents // 4))
    except ContestantError as error:
        field.skip(player.name, error)
        return
    for batch_size in batches:
        player.batch_size = batch_size
        try:
            answer = player.score(texts.files[workload], range(1, 1 + queries), documents)
        except ContestantError as error:
            field.skip(f"{player.name}, batches of {batch_size}", error)
            return
        rate = answer["pairs"] / answer["seconds"]
        found.tried.append(
            {"workload": workload, "contestant": player.name, "batch_size": batch_size, "pairs_per_second": rate}
        )
        if batch_size is None:
            found.rates[workload][player.name] = rate
            continue
        if player.contestant is SWEEP[0] and (batch_size == 32 or BASE not in found.rates[workload]):
            found.rates[workload][BASE] = rate
        best = found.best.get(workload)
        if best is None or rate > best.rate:
            found.best[workload] = Best(player.contestant, batch_size, rate)
        elif best.rate > _HOPELESS * rate:
            return
