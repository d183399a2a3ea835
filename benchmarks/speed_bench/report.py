"""A result as Markdown, and put into the page that shows it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from speed_bench.checks import checks
from speed_bench.contestants import OURS
from speed_bench.machine import Machine

__all__ = ["BEGIN", "END", "markdown", "updated"]

BEGIN = "<!-- begin: written by `make bench` -->\n"
END = "<!-- end -->\n"


def updated(page: str, written: str) -> str:
    """Return a page with the part between its two markers written anew.

    Raises:
        ValueError: If it does not have both markers, each once and in order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"the page must have the lines {BEGIN.strip()} and {END.strip()}, each once")
    return f"{before}{begin}\n{written}\n{END}{after}"


def markdown(result: Mapping[str, Any], chart: str | None = None) -> str:
    """Return all tables of a result.

    Args:
        result: As ``suite.run`` returns it.
        chart: The address of its chart, if there is one.
    """
    machine = Machine(**result["machine"])
    device = result["device"]
    lines = [f"Measured on {result['date']}: {machine.sentence(device)}, {machine.system}, Python {machine.python}."]
    if machine.settings:
        lines += ["Environment: " + ", ".join(f"`{name}={value}`" for name, value in machine.settings.items()) + "."]
    if device == "cpu":
        lines += ["GPU figures: not measured in this run."]
    if chart is not None:
        lines += ["", f"![Throughput of each library on each kind of text]({chart})"]
    for part in result["models"].values():
        lines += ["", f"### {part['title']}", *_model(part)]
    lines += ["", "### Targets", ""]
    lines += _table(
        ("what", "target", "measured", "met"),
        ((check.what, check.target, check.figure, _MET[check.met]) for check in checks(result)),
    )
    lines += ["", f"Hardware: {machine.sentence(device)}.", "", "### Versions", "", *_versions(result["versions"])]
    return "\n".join(lines) + "\n"


_MET = {True: "yes", False: "**no**", None: "not measured"}


def _model(part: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", "Pairs a second; in brackets how many times as fast uprank is, median of rounds (range).", "")
    games = part["throughput"]
    yield from _table(("", *(_text_name(name, part) for name in games)), _throughput_rows(games))
    if part["best"]:
        bests = part["best"].items()
        chosen = (f"{name}: {best['contestant']}, batches of {best['batch_size']}" for name, best in bests)
        yield from ("", f"The best configuration of sentence-transformers was found by trying: {'; '.join(chosen)}.")
    yield from ("", "Milliseconds of one call, p50 / p95, and pairs a second with many callers at once.", "")
    callers = part["callers"]
    sizes = [f"1 × {size}" for size in part["latency"]]
    header = ("", *sizes, f"{callers['callers']} callers × {callers['documents']}")
    yield from _table(header, _call_rows(part))
    yield from ("", "Peak memory in MiB during each kind of text, seconds to the first scores of a new process, and")
    yield from ("agreement with the scores of sentence-transformers in float32 (short texts).", "")
    yield from _table(
        ("", *(f"MiB, {name}" for name in games), "cold start, s", "Kendall τ", "largest difference"),
        _process_rows(part),
    )
    if part.get("growth"):
        yield from ("", "Time and memory of one uprank call as its documents grow.", "")
        yield from _table(("documents", "ms a document", "peak MiB"), _growth_rows(part["growth"]))
    if part["skipped"]:
        yield from ("", "Not measured:", "", *(f"* {name}: {_plain(why)}" for name, why in part["skipped"].items()))


def _throughput_rows(games: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for name in _names(game["pairs_per_second"] for game in games.values()):
        cells = []
        for game in games.values():
            rate, faster = game["pairs_per_second"].get(name), game["uprank_is_faster_by"].get(name)
            cell = "–" if rate is None else f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
            if faster is not None:
                cell += f" ({faster['median']:.2f}×, {faster['least']:.2f}–{faster['most']:.2f})"
            cells.append(cell)
        yield (name, *cells)


def _call_rows(part: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    latency, callers = part["latency"], part["callers"]
    for name in _names([*(game["p50"] for game in latency.values()), callers["pairs_per_second"]]):
        cells = [
            f"{game['p50'][name] * 1_000:,.1f} / {game['p95'][name] * 1_000:,.1f}" if name in game["p50"] else "–"
            for game in latency.values()
        ]
        rate = callers["pairs_per_second"].get(name)
        yield (name, *cells, "–" if rate is None else f"{rate:,.0f}")


def _process_rows(part: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    games, cold, agreement = part["throughput"], part["cold_start_seconds"], part["agreement"]
    for name in _names(game["pairs_per_second"] for game in games.values()):
        peaks = [game["peak_bytes"].get(name) for game in games.values()]
        agrees = agreement.get(name)
        starts = sorted(cold.get(name, []))
        yield (
            name,
            *("–" if peak is None else f"{peak / 2**20:,.0f}" for peak in peaks),
            f"{starts[len(starts) // 2]:.1f}" if starts else "–",
            f"{agrees['kendall_tau']:.4f}" if agrees else "–",
            f"{agrees['largest_difference']:.2g}" if agrees else "–",
        )


def _growth_rows(growth: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for number, seconds in growth["seconds_per_document"].items():
        yield (f"{int(number):,}", f"{seconds * 1_000:.2f}", f"{growth['peak_bytes'][number] / 2**20:,.0f}")


def _names(columns: Iterable[Mapping[str, object]]) -> list[str]:
    """Of all contestants in some columns, uprank first."""
    names = dict.fromkeys(name for column in columns for name in column)
    return sorted(names, key=lambda name: not name.startswith(OURS))


def _text_name(name: str, part: Mapping[str, Any]) -> str:
    return f"{name} ({part['tokens'][name]['mean']:.0f} tokens)"


def _versions(versions: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    rows = sorted({", ".join(f"{name} {number}" for name, number in found.items()) for found in versions.values()})
    return (f"* {row}" for row in rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for cells in (header, ("---",) * len(header), *rows):
        yield f"| {' | '.join(_plain(cell) for cell in cells)} |"


def _plain(text: str) -> str:
    """In one line, and with no sign that would end a cell."""
    return " ".join(text.split()).replace("|", "\\|")
