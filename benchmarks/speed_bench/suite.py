"""One run: each model's contestants swept, started, measured and stopped; the result as it is written to JSON."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from speed_bench import measures
from speed_bench.contestants import BASE, BEST, ENGINES, OURS, PEERS, UPRANK, UPRANK_INT8, Contestant
from speed_bench.field import Field, Player
from speed_bench.machine import Machine, describe
from speed_bench.models import SHAPES, build
from speed_bench.process import ContestantError
from speed_bench.settings import Budget, Settings
from speed_bench.sweep import Swept, sweep
from speed_bench.texts import Texts, write
from speed_bench.workloads import corpus_words, token_counter

__all__ = ["FORMAT", "run"]

FORMAT = 1
"""Of the result; another number has other fields."""

_WEIGHTS = {"cold": 10.0, "throughput": 45.0, "latency": 12.0, "callers": 13.0, "growth": 15.0}


def run(
    settings: Settings,
    *,
    say: Callable[[str], None],
    contestants: Sequence[Contestant] | None = None,
) -> dict[str, Any]:
    """Measure.

    Args:
        settings: What.
        say: Told what is done next.
        contestants: Instead of all there are; sentence-transformers is then not swept.

    Returns:
        The result; ``docs/performance.md`` says what its fields are.
    """
    machine = describe()
    words = corpus_words()
    result: dict[str, Any] = {
        "format": FORMAT,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "device": settings.device,
        "machine": asdict(machine),
        "budget_seconds": settings.budget,
        "seed": settings.seed,
        "versions": {},
        "models": {},
        "stored": {},
    }
    for name in settings.models:
        say(f"{SHAPES[name].title}: building the model and the texts")
        result["models"][name] = _Model(settings, name, words, machine, say).measure(contestants, result)
    return result


class _Model:
    """One model's turn."""

    def __init__(
        self, settings: Settings, name: str, words: Sequence[str], machine: Machine, say: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._say = say
        self._title = SHAPES[name].title
        folder = build(SHAPES[name], settings.folder, words)
        self._texts: Texts = write(settings, words, token_counter(folder), settings.folder / "texts" / name)
        calibration = self._texts.files["short"]
        log = settings.folder / f"{name}.log"
        self._field = Field(settings, folder, log, calibration, machine.onnx_quantization)
        self._part: dict[str, Any] = {"title": self._title}

    def measure(self, contestants: Sequence[Contestant] | None, result: dict[str, Any]) -> dict[str, Any]:
        started = time.perf_counter()
        try:
            self._measure(contestants, result)
        finally:
            self._field.close()
        self._part["skipped"] = self._field.skipped
        self._part["seconds"] = round(time.perf_counter() - started, 1)
        result["versions"].update(self._field.versions)
        return self._part

    def _measure(self, given: Sequence[Contestant] | None, result: dict[str, Any]) -> None:
        settings, texts, part = self._settings, self._texts, self._part
        part["tokens"] = {name: asdict(tokens) for name, tokens in texts.tokens.items()}
        workloads = list(texts.files)
        swept = Swept([], {}, {name: {} for name in workloads})
        if given is None:
            self._tell("trying the configurations of sentence-transformers")
            swept = sweep(self._field, settings, texts, workloads)
        part["sweep"] = swept.tried
        part["best"] = {
            name: {
                "contestant": best.contestant.name,
                "batch_size": best.batch_size,
                "pairs_per_second": best.rate,
            }
            for name, best in swept.best.items()
        }
        self._tell("starting the contestants")
        every = (UPRANK, UPRANK_INT8, *PEERS, *(ENGINES if settings.engines else ())) if given is None else given
        players = self._field.start(every)
        bests = self._start_bests(swept)
        budget = Budget(settings.budget, dict(_WEIGHTS))
        to_start = [*(one for one in players if one.contestant not in ENGINES), *_listed(bests.get("short"))]
        self._cold(to_start, budget.share("cold"))
        base = BASE if given is None else OURS
        all_short = [*players, *_listed(bests.get("short"))]
        part["agreement"] = measures.agreement(all_short, base, texts.files["short"], settings.sizes.documents)
        part["throughput"] = self._throughput(players, bests, swept, budget)
        rounds = part["throughput"]["short"]["pairs_per_second"]
        some = [player for player in all_short if player.contestant not in ENGINES and player.name in rounds]
        part["latency"] = self._latency(some, budget)
        self._tell("many callers at once")
        share = budget.share("callers")
        part["callers"] = measures.callers(self._field, some, texts.files["short"], settings.sizes, share)
        ours = next((player for player in some if player.name == OURS), None)
        if ours is not None:
            self._tell("one query with ever more documents")
            share = budget.share("growth")
            part["growth"] = measures.growth(
                self._field, ours, texts.growth, settings.sizes, rounds[OURS], max(share / 2, settings.budget / 5)
            )
        if settings.stored and not result["stored"]:
            result["stored"] = self._stored()

    def _start_bests(self, swept: Swept) -> dict[str, Player]:
        """The best configuration of sentence-transformers by workload; one process may serve several."""
        running: dict[str, Player] = {}
        bests: dict[str, Player] = {}
        for workload, best in swept.best.items():
            name = best.contestant.name
            if name not in running:
                for player in self._field.start([best.contestant]):
                    running[name] = player
            if name in running:
                bests[workload] = running[name].named(BEST, best.batch_size)
                swept.rates[workload][BEST] = best.rate
        return bests

    def _cold(self, players: Sequence[Player], seconds: float) -> None:
        """From the start of a process to its first scores; later starts find files and caches of the first one."""
        self._tell("cold starts")
        begun = time.perf_counter()
        taken: dict[str, list[float]] = {}
        for again in range(self._settings.sizes.cold_starts):
            if again and time.perf_counter() - begun > seconds:
                break
            for player in players:
                for one in [player] if again == 0 else self._field.start([player.contestant]):
                    try:
                        first = one.score(self._texts.files["short"], [0], 10)["seconds"]
                    except ContestantError as error:
                        self._field.skip(player.name, error)
                        continue
                    taken.setdefault(player.name, []).append(one.loading + first)
                    if one is not player:
                        self._field.stop(one.worker)
        self._part["cold_start_seconds"] = taken

    def _throughput(
        self, players: Sequence[Player], bests: Mapping[str, Player], swept: Swept, budget: Budget
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}
        share = budget.share("throughput")
        for workload, file in self._texts.files.items():
            self._tell(f"throughput, {workload}")
            some = [*players, *_listed(bests.get(workload))]
            rates = swept.rates[workload] or {OURS: 1_000.0}
            found[workload] = measures.throughput(
                self._field, some, file, self._settings.sizes, rates=rates, seconds=share / len(self._texts.files)
            )
        return found

    def _latency(self, players: Sequence[Player], budget: Budget) -> dict[str, Any]:
        found: dict[str, Any] = {}
        sizes = self._settings.sizes
        share = budget.share("latency")
        for documents in sizes.latency:
            self._tell(f"latency of {documents} documents")
            found[str(documents)] = measures.latency(
                self._field, players, self._texts.files["short"], sizes, documents, share / len(sizes.latency)
            )
        return found

    def _stored(self) -> dict[str, Any]:
        self._tell("stored vectors of the embedded model")
        player = self._field.start_embedded(Contestant("uprank, embedded", "uprank"))
        return (
            {}
            if player is None
            else measures.stored(self._field, player, self._texts.files["short"], self._settings.sizes)
        )

    def _tell(self, what: str) -> None:
        self._say(f"{self._title}: {what}")


def _listed(player: Player | None) -> list[Player]:
    return [] if player is None else [player]
