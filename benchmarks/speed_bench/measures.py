"""What is measured of running contestants: each function plays one game and returns its part of the result."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from speed_bench.contestants import OURS, OURS_INT8
from speed_bench.field import Field, Player
from speed_bench.figures import kendall_tau, percentile, ratio
from speed_bench.process import ContestantError
from speed_bench.settings import Sizes

__all__ = ["Part", "agreement", "callers", "growth", "latency", "stored", "throughput"]

Part = dict[str, Any]  # of the result, as it is written to JSON


def throughput(
    field: Field, players: Sequence[Player], file: Path, sizes: Sizes, *, rates: Mapping[str, float], seconds: float
) -> Part:
    """Pairs a second over several queries in one call, and the memory it takes.

    Args:
        field: Plays the rounds.
        players: Who.
        file: The workload.
        sizes: Of the run.
        rates: Pairs a second of each, as far as it is known from the sweep.
        seconds: That it may take.
    """
    known = [rates.get(player.name, min(rates.values())) for player in players]
    a_pair = sum(1 / rate for rate in known)
    affordable = int(seconds / ((sizes.least_rounds + 0.5) * a_pair))
    documents = max(10, min(sizes.documents, affordable))
    queries = max(1, min(sizes.sample_documents // documents, affordable // documents))
    peaks: dict[str, int] = {}
    device_peaks: dict[str, int] = {}

    def ask(player: Player, number: int) -> float:
        sample = range((number + 1) * queries, (number + 2) * queries)  # new texts each round
        answer = player.score(file, sample, documents)
        peaks[player.name] = max(peaks.get(player.name, 0), answer["peak"])
        if answer["device_peak"] is not None:
            device_peaks[player.name] = max(device_peaks.get(player.name, 0), answer["device_peak"])
        return float(answer["seconds"])

    def warm(player: Player, _: int) -> float:
        return float(player.score(file, range(queries), max(10, documents // 2))["seconds"])

    warmed = field.rounds(players, warm, seconds=0, least=1, most=1)
    ready = [player for player in players if player.name in warmed]
    timings = field.rounds(ready, ask, seconds=seconds, least=sizes.least_rounds, most=sizes.most_rounds)
    pairs = queries * documents
    return {
        "queries": queries,
        "documents": documents,
        "seconds": timings,
        "pairs_per_second": {name: pairs / statistics.median(taken) for name, taken in timings.items()},
        **_ratios(timings),
        "peak_bytes": {name: peak for name, peak in peaks.items() if name in timings},
        "device_peak_bytes": {name: peak for name, peak in device_peaks.items() if name in timings},
    }


def agreement(players: Sequence[Player], base: str, file: Path, documents: int) -> dict[str, Part]:
    """How far the scores of all agree with those of ``base``, for three queries."""
    answers: dict[str, list[list[float]]] = {}
    for player in players:
        try:
            answers[player.name] = player.score(file, range(3), documents, scores=True)["scores"]
        except ContestantError:  # the rounds will say why
            continue
    if base not in answers:
        return {}
    return {
        name: {
            "kendall_tau": min(map(kendall_tau, scores, answers[base])),
            "largest_difference": max(
                abs(mine - theirs)
                for one, other in zip(scores, answers[base], strict=True)
                for mine, theirs in zip(one, other, strict=True)
            ),
        }
        for name, scores in answers.items()
    }


def latency(field: Field, players: Sequence[Player], file: Path, sizes: Sizes, documents: int, seconds: float) -> Part:
    """Seconds of a call with one query, one call after the other."""
    calls: dict[str, list[float]] = {player.name: [] for player in players}

    def ask(player: Player, number: int) -> float:
        numbers = list(range(number * sizes.block, (number + 1) * sizes.block))
        answer = player.worker.ask("latency", file=str(file), queries=numbers, documents=documents)
        taken: list[float] = answer["seconds"]
        calls[player.name] += taken
        return statistics.median(taken)

    least = max(1, -(-20 // sizes.block)) if sizes.block > 2 else 1  # twenty calls, but in a quick run
    timings = field.rounds(players, ask, seconds=seconds, least=least, most=4 * least)
    return {
        "documents": documents,
        "calls": {name: len(calls[name]) for name in timings},
        "p50": {name: percentile(calls[name], 0.5) for name in timings},
        "p95": {name: percentile(calls[name], 0.95) for name in timings},
        **_ratios(timings),
    }


def callers(field: Field, players: Sequence[Player], file: Path, sizes: Sizes, seconds: float) -> Part:
    """Many callers at once, each with one query, beside all their queries in one call."""
    number_of_callers, documents = sizes.callers, sizes.caller_documents
    queries = list(range(number_of_callers))
    waits: dict[str, list[float]] = {}

    def ask(player: Player, _: int) -> float:
        name, mode = player.name, "tasks" if player.name.endswith(_TASKS) else "threads"
        if name.endswith(_FLATTENED):
            return float(player.score(file, queries, documents)["seconds"])
        answer = player.worker.ask("callers", file=str(file), queries=queries, documents=documents, mode=mode)
        waits.setdefault(name, []).extend(answer["latencies"])
        return float(answer["seconds"])

    entries = list(players)
    for player in players:
        if player.has_tasks:
            entries.append(player.named(player.name + _TASKS, player.batch_size))
            entries.append(player.named(player.name + _FLATTENED, player.batch_size))
    most = max(sizes.least_rounds, 5)
    timings = field.rounds(entries, ask, seconds=seconds, least=sizes.least_rounds, most=most)
    pairs = number_of_callers * documents
    of_flattened = {
        name: asdict(found)
        for name in timings
        if (found := ratio(timings, name, OURS + _FLATTENED)) and name in (OURS, OURS + _TASKS)
    }
    return {
        "callers": number_of_callers,
        "documents": documents,
        "pairs_per_second": {name: pairs / statistics.median(taken) for name, taken in timings.items()},
        "p95": {name: percentile(waits[name], 0.95) for name in timings if name in waits},
        **_ratios(timings),
        "of_one_flattened_call": of_flattened,
    }


_TASKS, _FLATTENED = ", tasks", ", one call"


def growth(field: Field, player: Player, file: Path, sizes: Sizes, rate: float, seconds: float) -> Part:
    """Time a document and memory of calls with ever more documents, as many as the time allows.

    Args:
        field: Keeps the reason where it fails.
        player: Who.
        file: One query with many documents.
        sizes: Of the run.
        rate: Documents a second, about.
        seconds: That it may take.
    """
    numbers = [number for number in sizes.growth if number <= max(sizes.growth[0], rate * seconds)]
    taken: dict[int, list[float]] = {number: [] for number in numbers}
    peaks: dict[int, int] = {}
    largest = numbers[-1]
    try:
        player.score(file, [0], numbers[0])
        # The largest once, the others before and after it: a machine's speed changes within minutes.
        for number in (*numbers[:-1], *numbers[:-1], largest, *numbers[:-1], *numbers[:-1]):
            for _ in range(max(1, min(5, 500 // number))):
                answer = player.score(file, [0], number)
                taken[number].append(answer["seconds"] / number)
                peaks[number] = max(peaks.get(number, 0), answer["peak"])
    except ContestantError as error:
        field.skip(f"{player.name}, growth", error)
        return {}
    return {
        "documents": numbers,
        "left_out": [number for number in sizes.growth if number not in numbers],
        "seconds_per_document": {str(number): statistics.median(values) for number, values in taken.items()},
        "peak_bytes": {str(number): peak for number, peak in peaks.items()},
    }


def stored(field: Field, player: Player, file: Path, sizes: Sizes) -> Part:
    """Calls over documents whose vectors are stored, beside calls over others, and whether the order is the same."""
    known, fresh = list(range(4)), list(range(4, 8))
    documents = sizes.documents
    try:
        before = player.score(file, known[:1], documents, scores=True)["scores"][0]
        unseen = player.worker.ask("latency", file=str(file), queries=fresh, documents=documents)["seconds"]
        player.worker.ask("precompute", file=str(file), queries=known, documents=documents)
        after = player.score(file, known[:1], documents, scores=True)["scores"][0]
        asked = [known[number % len(known)] for number in range(sizes.stored_calls)]
        player.worker.ask("latency", file=str(file), queries=asked[:10], documents=documents)
        seconds = player.worker.ask("latency", file=str(file), queries=asked, documents=documents)["seconds"]
    except ContestantError as error:
        field.skip("uprank, stored vectors", error)
        return {}
    return {
        "documents": documents,
        "calls": len(seconds),
        "p50": percentile(seconds, 0.5),
        "p95": percentile(seconds, 0.95),
        "p50_not_stored": percentile(unseen, 0.5),
        "kendall_tau": kendall_tau(before, after),
    }


def _ratios(timings: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Part]]:
    """How many times as fast uprank is as each of the others, by rounds; in int8 too, where that was measured."""
    others = [name for name in timings if not name.startswith(OURS)]
    found = {}
    for key, ours in (("uprank_is_faster_by", OURS), ("uprank_int8_is_faster_by", OURS_INT8)):
        ratios = {name: ratio(timings, ours, name) for name in others} if ours in timings else {}
        found[key] = {name: asdict(one) for name, one in ratios.items() if one is not None}
    return found
