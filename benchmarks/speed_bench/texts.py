"""The workloads of a run as files, which is how contestants read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from speed_bench.settings import Settings
from speed_bench.workloads import WORKLOADS, Kind, TokenCounts, make

__all__ = ["Texts", "write"]


@dataclass(frozen=True, slots=True)
class Texts:
    """Files of one model's workloads.

    Args:
        files: By name.
        tokens: How long their pairs are.
        growth: One query with as many short documents as are ever asked for.
    """

    files: dict[str, Path]
    tokens: dict[str, TokenCounts]
    growth: Path


def write(settings: Settings, words: Sequence[str], count: Callable[[str], int], folder: Path) -> Texts:
    """Make the workloads of a run for one model's tokenizer.

    Short texts are always among them: latencies and concurrent callers are measured with them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sizes, files, tokens = settings.sizes, {}, {}
    for name in dict.fromkeys(("short", *settings.workloads)):
        workload = make(
            WORKLOADS[name], words, count, queries=sizes.pool, documents=sizes.documents, seed=settings.seed
        )
        files[name] = workload.save(folder / f"{name}.json")
        tokens[name] = workload.tokens
    growth = make(_growth(), words, count, queries=1, documents=sizes.growth[-1], seed=settings.seed)
    return Texts(files, tokens, growth.save(folder / "growth.json"))


def _growth() -> Kind:
    return replace(WORKLOADS["short"], name="growth")
