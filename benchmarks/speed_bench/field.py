"""The contestants of a run: started one by one, asked in turn, dropped with a reason where they fail."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from speed_bench.adapters import Options
from speed_bench.contestants import Contestant
from speed_bench.process import ContestantError, Worker
from speed_bench.settings import Settings

__all__ = ["Field", "Player"]

_LOADING = 900.0  # seconds; an export may take minutes


@dataclass(slots=True)
class Player:
    """A contestant that runs.

    Args:
        contestant: Who.
        worker: Its process, the model loaded.
        has_tasks: Whether tasks may call it.
        batch_size: Of every request; ``None`` is its default.
        loading: Seconds from the start of its process until its model was loaded.
    """

    contestant: Contestant
    worker: Worker
    has_tasks: bool
    loading: float
    batch_size: int | None = None

    @property
    def name(self) -> str:
        """As in the report."""
        return self.contestant.name

    def named(self, name: str, batch_size: int | None) -> Player:
        """The same process under another name."""
        return Player(replace(self.contestant, name=name), self.worker, self.has_tasks, self.loading, batch_size)

    def score(
        self, file: Path, queries: Sequence[int], documents: int | None = None, *, scores: bool = False
    ) -> dict[str, Any]:
        """Score queries of a workload; see ``speed_bench.worker``."""
        more = {} if self.batch_size is None else {"batch_size": self.batch_size}
        return self.worker.ask(
            "score", file=str(file), queries=list(queries), documents=documents, scores=scores, **more
        )


class Field:
    """Starts contestants on one model.

    Args:
        settings: Of the run.
        model: The model's folder.
        log: Where what the libraries print goes.
        calibration: A workload that exports may be calibrated with.
        quantization: The instructions that models are quantised for.
    """

    def __init__(self, settings: Settings, model: Path, log: Path, calibration: Path, quantization: str) -> None:
        self._settings = settings
        self._model = model
        self._log = log
        self._calibration = calibration
        self._quantization = quantization
        self._random = random.Random(settings.seed)  # noqa: S311 - the order of contestants
        self._running: list[Worker] = []
        self.skipped: dict[str, str] = {}
        self.versions: dict[str, dict[str, str]] = {}

    def start(self, contestants: Iterable[Contestant]) -> list[Player]:
        """Start those that can be; why the others cannot is in ``skipped``."""
        players = []
        for contestant in contestants:
            try:
                players.append(self._start(contestant))
            except ContestantError as error:
                self.skip(contestant.name, error)
        return players

    def _start(self, contestant: Contestant) -> Player:
        device = self._settings.device
        if device not in contestant.devices:
            raise ContestantError(f"not measured on {device}")
        python = self._settings.pythons.get(contestant.environment)
        if python is None:
            raise ContestantError("its environment is not set up (see benchmarks/peers-requirements.txt)")
        folder = self._prepared(contestant, python)
        return self._load(contestant, python, {"model": f"{contestant.scheme}{folder}", **contestant.options})

    def start_embedded(self, contestant: Contestant) -> Player | None:
        """Start uprank on the model that comes in a package."""
        try:
            return self._load(contestant, self._settings.pythons["project"], {"model": "embedded"})
        except ContestantError as error:
            self.skip(contestant.name, error)
            return None

    def _load(self, contestant: Contestant, python: Path, options: Options) -> Player:
        worker = self._worker(python)
        given: Options = {"device": self._settings.device, **options}
        try:
            told = worker.ask("load", timeout=_LOADING, library=contestant.library, options=given)
            loading = time.perf_counter() - worker.started
        except ContestantError:
            self.stop(worker)
            raise
        self.versions[contestant.library + (" (peers)" if contestant.environment == "peers" else "")] = told["versions"]
        return Player(contestant, worker, told["has_tasks"], loading)

    def _worker(self, python: Path) -> Worker:
        worker = Worker(python, self._log)
        self._running.append(worker)
        return worker

    def _prepared(self, contestant: Contestant, python: Path) -> Path:
        """The folder to load: the model's, or that of its export."""
        if contestant.export is None:
            return self._model
        target = self._model.parent / contestant.export.folder / self._model.name
        made_of = (self._model / "built.json").read_text()
        settings = {"quantization": self._quantization, "texts": str(self._calibration), "made_of": made_of}
        worker = self._worker(python)
        try:
            worker.ask(
                "prepare",
                timeout=_LOADING,
                what=contestant.export.what,
                model=str(self._model),
                target=str(target),
                settings=settings,
            )
        finally:
            self.stop(worker)
        return target

    def rounds(
        self,
        players: Sequence[Player],
        ask: Callable[[Player, int], float],
        *,
        seconds: float,
        least: int,
        most: int,
    ) -> dict[str, list[float]]:
        """Let all play the same, in another order each round.

        Args:
            players: Who; one that fails is dropped, with all its timings.
            ask: Takes a player and the number of the round, and returns its seconds.
            seconds: No round begins after so many.
            least: Rounds that are played in any case.
            most: Rounds after which it is enough.

        Returns:
            Seconds of every round, by name.
        """
        timings: dict[str, list[float]] = {player.name: [] for player in players}
        started = time.perf_counter()
        for number in range(most):
            if number >= least and time.perf_counter() - started > seconds:
                break
            for player in self._random.sample(list(players), len(players)):
                if player.name not in timings:
                    continue
                try:
                    timings[player.name].append(ask(player, number))
                except ContestantError as error:
                    del timings[player.name]
                    self.skip(player.name, error)
        return timings

    def skip(self, name: str, error: ContestantError) -> None:
        """Keep the reason why something was not measured, without this machine's folders."""
        self.skipped[name] = _without_places(str(error), self._model)

    def stop(self, worker: Worker) -> None:
        """End one process."""
        worker.close()
        self._running.remove(worker)

    def close(self) -> None:
        """End all processes."""
        for worker in self._running:
            worker.close()
        self._running.clear()


def _without_places(text: str, model: Path) -> str:
    for place, name in ((model, model.name), (model.parent, "…"), (Path.home(), "~"), (Path(sys.prefix), "…")):
        text = text.replace(str(place), name)
    return text
