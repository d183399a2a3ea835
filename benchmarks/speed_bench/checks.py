"""What the project has set out to reach, beside what was measured. A missed target is told, and fails nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from speed_bench.contestants import BASE, BEST, OURS

__all__ = ["Check", "checks"]


@dataclass(frozen=True, slots=True)
class Check:
    """One target.

    Args:
        what: In words.
        target: What it should be, in words.
        figure: What was measured, in words.
        met: Whether it is reached; ``None`` where it was not measured.
    """

    what: str
    target: str
    figure: str
    met: bool | None


def checks(result: Mapping[str, Any]) -> list[Check]:
    """Compare a result with all targets that its device has."""
    found = [check for part in result["models"].values() for check in _of_model(part, result["device"])]
    return [*found, *_stored(result["stored"])]


def _of_model(part: Mapping[str, Any], device: str) -> Iterator[Check]:
    title = part["title"]
    for check in (*(_gpu if device == "cuda" else _cpu)(part), *_memory(part), *_callers(part), *_growth(part)):
        yield Check(f"{title}: {check.what}", check.target, check.figure, check.met)


def _cpu(part: Mapping[str, Any]) -> Iterator[Check]:
    for workload, to_base, to_best in (("short", 5.0, 1.2), ("mixed", 5.5, 1.12)):
        yield _faster(part, "throughput", workload, BASE, to_base)
        yield _faster(part, "throughput", workload, BEST, to_best)
    # FlashRank's models are in int8: the like is compared with the like.
    yield _faster(part, "latency", "100", "FlashRank", 2.0, int8=True)
    yield _faster(part, "latency", "10", "FlashRank", 1.0, int8=True)
    for workload in part["throughput"]:
        yield _faster(part, "throughput", workload, "FlashRank", 2.0, int8=True)
    yield _faster(part, "callers", None, "FlashRank", 1.0, int8=True)
    yield _never_slower(part)
    p50 = _at(part, "latency", "10", "p50", OURS)
    yield _check("1 × 10 short documents", "under 50 ms", p50, lambda value: value < 0.05, _milliseconds)


def _gpu(part: Mapping[str, Any]) -> Iterator[Check]:
    for workload in part["throughput"]:
        yield _faster(part, "throughput", workload, BASE, 2.5)
        yield _faster(part, "throughput", workload, BEST, 1.5)
    least = {"MiniLM-L6 (22 M)": 10_000.0, "XLM-R-large (560 M)": 3_500.0}.get(part["title"])
    if least is not None:
        rate = _at(part, "throughput", "pairs150", "pairs_per_second", OURS)
        words = f"at least {least:,.0f} pairs/s on an H200"
        yield _check("pairs of 150 tokens", words, rate, lambda value: value >= least, lambda value: f"{value:,.0f}")
    yield _never_slower(part)


def _faster(
    part: Mapping[str, Any], game: str, name: str | None, peer: str, least: float, *, int8: bool = False
) -> Check:
    keys = (game, name) if name is not None else (game,)
    found = _at(part, *keys, "uprank_int8_is_faster_by" if int8 else "uprank_is_faster_by", peer)
    size = {"throughput": f"{name} texts", "latency": f"1 × {name}"}.get(game, "64 callers")
    what = f"{size}, beside {peer}{' (both in int8)' if int8 else ''}"
    target = f"at least {least:g} times as fast" if least != 1 else "no slower"
    if found is None:
        return Check(what, target, "not measured", None)
    figure = f"{found['median']:.2f} times ({found['least']:.2f} to {found['most']:.2f})"
    return Check(what, target, figure, found["median"] >= least)


def _never_slower(part: Mapping[str, Any]) -> Check:
    """At no size slower than anyone."""
    games = [*part["throughput"].items(), *((f"1 × {size}", one) for size, one in part["latency"].items())]
    games += [("callers", part["callers"])] if part.get("callers") else []
    ratios = [
        (found["median"], f"{peer}, {size}")
        for size, game in games
        for peer, found in game["uprank_is_faster_by"].items()
    ]
    what, target = "beside every peer at every size", "never slower"
    if not ratios:
        return Check(what, target, "not measured", None)
    least, where = min(ratios)
    return Check(what, target, f"{least:.2f} times at the least ({where})", least >= 1)


def _memory(part: Mapping[str, Any]) -> Iterator[Check]:
    for workload, game in part["throughput"].items():
        on_gpu = bool(game.get("device_peak_bytes"))
        peaks = game["device_peak_bytes" if on_gpu else "peak_bytes"]
        ours, theirs = peaks.get(OURS), peaks.get(BASE)
        what = f"peak {'GPU ' if on_gpu else ''}memory, {workload} texts"
        target = f"no higher than of {BASE}"
        if ours is None or theirs is None:
            yield Check(what, target, "not measured", None)
        else:
            yield Check(what, target, f"{ours / 2**20:,.0f} MiB beside {theirs / 2**20:,.0f}", ours <= theirs)


def _callers(part: Mapping[str, Any]) -> Iterator[Check]:
    for name, words in ((OURS, "threads"), (f"{OURS}, tasks", "tasks")):
        share = _at(part, "callers", "of_one_flattened_call", name, "median")
        callers = _at(part, "callers", "callers")
        what = f"{callers or 64} callers at once in {words}, beside all their queries in one call"
        yield _check(what, "at least 85 % of its throughput", share, lambda value: value >= 0.85, _percent)


def _growth(part: Mapping[str, Any]) -> Iterator[Check]:
    times = _at(part, "growth", "seconds_per_document") or {}
    peaks = _at(part, "growth", "peak_bytes") or {}
    numbers = [number for number in times if int(number) >= 100]
    complete = "10000" in numbers
    up_to = f"from 100 to {int(numbers[-1]):,} documents" if len(numbers) > 1 else "from 100 to 10,000 documents"
    for what, values, most in (("time a document", times, 0.15), ("peak memory", peaks, 0.20)):
        kept = [float(values[number]) for number in numbers]
        spread = max(kept) / min(kept) - 1 if len(kept) > 1 else None
        met = None if spread is None else spread <= most
        figure = "not measured" if spread is None else _percent(spread)
        yield Check(f"{what}, {up_to}", f"within {most:.0%}", figure, met if complete or met is False else None)


def _stored(stored: Mapping[str, Any]) -> Iterator[Check]:
    what = "the embedded model, 1 × 100 documents with stored vectors"
    if stored and stored["documents"] != 100:
        what = what.replace("100", str(stored["documents"]))
    p50 = stored.get("p50")
    yield _check(what, "at most 4 ms", p50, lambda value: value <= 0.004, _milliseconds)
    tau = stored.get("kendall_tau")
    yield _check(f"{what}: order", "as without", tau, lambda value: value == 1.0, "τ {:.4f}".format)


def _check(
    what: str,
    target: str,
    value: float | None,
    reached: Callable[[float], bool],
    worded: Callable[[float], str],
) -> Check:
    if value is None:
        return Check(what, target, "not measured", None)
    return Check(what, target, worded(value), reached(value))


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1_000:.1f} ms"


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _at(part: Mapping[str, Any], *keys: str) -> Any:  # whatever stands there, or None
    found: Any = part
    for key in keys:
        if not isinstance(found, Mapping) or key not in found:
            return None
        found = found[key]
    return found
