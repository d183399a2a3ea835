"""The speed benchmark: its arithmetic by hand, its processes for real, and a quick run from end to end."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from speed_bench import chart, measures, report, suite  # noqa: E402 - lies in benchmarks/
from speed_bench.checks import checks  # noqa: E402
from speed_bench.contestants import BASE, OURS, Contestant  # noqa: E402
from speed_bench.field import Field  # noqa: E402
from speed_bench.figures import kendall_tau, percentile, ratio  # noqa: E402
from speed_bench.machine import Machine  # noqa: E402
from speed_bench.process import ContestantError, Worker  # noqa: E402
from speed_bench.settings import QUICK, Budget, Settings, Sizes  # noqa: E402
from speed_bench.workloads import WORKLOADS, Workload, make  # noqa: E402

WORDS = [f"word{number % 977} text{number % 31} more" for number in range(12_000)]


def count(text: str) -> int:
    return len(text.split())


def workload(*, queries: int = 8, documents: int = 20, kind: str = "short") -> Workload:
    return make(WORKLOADS[kind], WORDS, count, queries=queries, documents=documents)


def test_a_ratio_is_taken_within_rounds() -> None:
    """Of a machine that was ten times slower in the second round, medians alone would tell 1.1 times."""
    found = ratio({"a": [1.0, 10.0, 1.1], "b": [2.0, 20.0, 2.2]}, "a", "b")
    assert found is not None
    assert (found.median, found.least, found.most) == pytest.approx((2.0, 2.0, 2.0))
    assert ratio({"a": [1.0]}, "a", "b") is None


def test_percentiles_are_values_that_were_measured() -> None:
    values = list(range(1, 21))
    random.Random(0).shuffle(values)
    assert percentile(values, 0.5) == 10
    assert percentile(values, 0.95) == 19
    assert percentile(values, 1.0) == 20
    assert percentile([3.0], 0.95) == 3.0


def test_kendall_tau_tells_orders_and_ties() -> None:
    assert kendall_tau([3, 2, 1], [30, 20, 10]) == 1.0
    assert kendall_tau([3, 2, 1], [1, 2, 3]) == -1.0
    assert kendall_tau([4, 3, 2, 1], [4, 2, 3, 1]) == pytest.approx(4 / 6)
    assert kendall_tau([3, 2, 1], [1, 1, 1]) == 0.0  # an order lost is not an order kept
    assert kendall_tau([1, 1], [2, 2]) == 1.0


@pytest.mark.parametrize("kind", ["short", "mixed", "long", "pairs150"])
def test_workloads_have_the_lengths_they_are_named_for(kind: str) -> None:
    texts = workload(kind=kind, queries=20, documents=50)
    mean = {"short": 75, "mixed": 200, "long": 512, "pairs150": 150}[kind]
    lengths = [
        count(query) + 3 + count(text)
        for query, row in zip(texts.queries, texts.documents, strict=True)
        for text in row
    ]
    assert texts.tokens.mean == pytest.approx(mean, rel=0.08)
    assert texts.tokens.mean == pytest.approx(statistics.fmean(lengths), abs=0.1)
    assert texts.tokens.most == max(lengths) <= 512
    assert len({text for row in texts.documents for text in row}) == 1_000  # nothing to win by remembering


def test_workloads_are_the_same_for_a_seed() -> None:
    assert workload() == workload()
    assert make(WORKLOADS["short"], WORDS, count, queries=8, documents=20, seed=1) != workload()


def test_a_budget_hands_on_what_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("speed_bench.settings.time.perf_counter", lambda: now)
    budget = Budget(100, {"a": 3, "b": 1, "c": 1}, 0.0)
    assert budget.share("a") == 60
    now = 20  # it took but 20
    assert budget.share("b") == 40
    now = 500
    assert budget.share("c") == 0


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    started = Worker(Path(sys.executable), tmp_path / "log")
    yield started
    started.close()


def test_a_contestant_answers_from_its_own_process(worker: Worker, tmp_path: Path) -> None:
    texts = workload()
    file = str(texts.save(tmp_path / "short.json"))
    told = worker.ask("load", library="overlap", options={})
    assert told["versions"]["numpy"]
    answer = worker.ask("score", file=file, queries=[1, 9], documents=5, scores=True)
    assert answer["pairs"] == 10
    assert answer["scores"][0] == answer["scores"][1]  # queries are taken modulo their number
    words = set(texts.queries[1].split())
    expected = [sum(word in words for word in text.split()) - len(text) / 1e6 for text in texts.documents[1][:5]]
    assert answer["scores"][0] == pytest.approx(expected)
    assert 0 < answer["seconds"] < 5
    assert answer["peak"] > 1_000_000
    for mode in ("threads", "tasks"):
        together = worker.ask("callers", file=file, queries=list(range(8)), documents=3, mode=mode)
        assert len(together["latencies"]) == 8
        assert together["pairs"] == 24
        assert max(together["latencies"]) <= together["seconds"] + 0.5


def test_a_contestant_that_fails_gives_its_reason_and_goes_on(worker: Worker) -> None:
    with pytest.raises(ContestantError, match="RuntimeError: nothing is loaded"):
        worker.ask("latency", file="none", queries=[0])
    with pytest.raises(ContestantError, match=r"^KeyError: .no-such-library"):
        worker.ask("load", library="no-such-library", options={})
    assert worker.ask("load", library="overlap", options={})["has_tasks"]


def test_a_contestant_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    slow = Worker(Path(sys.executable), tmp_path / "log")
    with pytest.raises(ContestantError, match=r"took longer than 0 s"):
        slow.ask("load", timeout=0.001, library="overlap", options={})
    assert slow._process.poll() is not None
    with pytest.raises(ContestantError, match="ended"):
        slow.ask("load", library="overlap", options={})


def test_an_environment_that_is_not_there_is_a_reason(tmp_path: Path) -> None:
    with pytest.raises(ContestantError, match="could not be started"):
        Worker(tmp_path / "python", tmp_path / "log")


LIGHT = [Contestant(name, "overlap") for name in (OURS, BASE, "FlashRank")]


def settings(folder: Path, **changes: object) -> Settings:
    given = {
        "models": ("tiny",),
        "workloads": ("short",),
        "device": "cpu",
        "budget": 1.0,
        "folder": folder,
        "pythons": {"project": Path(sys.executable)},
        "sizes": QUICK,
        "stored": False,
    }
    return Settings(**{**given, **changes})


def test_rounds_keep_timings_of_the_same_round_together(tmp_path: Path) -> None:
    """Whoever fails leaves the table as a whole: timings of fewer rounds could not be compared."""
    field = Field(settings(tmp_path), tmp_path / "tiny", tmp_path / "log", tmp_path, "avx2")
    try:
        players = field.start([*LIGHT, Contestant("peer", "overlap", environment="peers")])
        assert [player.name for player in players] == [OURS, BASE, "FlashRank"]
        assert "not set up" in field.skipped["peer"]
        orders: list[list[str]] = [[] for _ in range(6)]

        def ask(player, number: int) -> float:
            orders[number].append(player.name)
            if player.name == BASE and number == 2:
                raise ContestantError("no memory")
            return float(number)

        timings = field.rounds(players, ask, seconds=0, least=6, most=9)
    finally:
        field.close()
    field.skip("a peer", ContestantError(f"no file {tmp_path / 'tiny' / 'x.onnx'}"))
    assert field.skipped["a peer"] == "no file tiny/x.onnx"
    assert timings == {OURS: [0, 1, 2, 3, 4, 5], "FlashRank": [0, 1, 2, 3, 4, 5]}
    assert field.skipped[BASE] == "no memory"
    assert BASE not in orders[3]
    assert len({tuple(order) for order in orders[:2] + orders[3:]}) > 1  # shuffled
    assert all(player.worker._process.poll() is not None for player in players)


@pytest.fixture
def light_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """A whole run of three contestants without a model, each in a process of its own."""

    def no_model(_: object, folder: Path, __: object) -> Path:
        (folder / "tiny").mkdir()
        return folder / "tiny"

    monkeypatch.setattr(suite, "build", no_model)
    monkeypatch.setattr(suite, "token_counter", lambda _: count)
    monkeypatch.setattr(suite, "corpus_words", lambda: WORDS)
    said: list[str] = []
    result = suite.run(settings(tmp_path), say=said.append, contestants=LIGHT)
    assert len(said) > 5
    return result


def test_a_run_gives_every_figure(light_result: dict) -> None:
    part = json.loads(json.dumps(light_result))["models"]["tiny"]
    assert part["skipped"] == {}
    game = part["throughput"]["short"]
    names = {OURS, BASE, "FlashRank"}
    assert set(game["seconds"]) == set(game["pairs_per_second"]) == set(game["peak_bytes"]) == names
    assert {len(rounds) for rounds in game["seconds"].values()} == {2}
    pairs = game["queries"] * game["documents"]
    assert game["pairs_per_second"][OURS] == pytest.approx(pairs / statistics.median(game["seconds"][OURS]))
    assert set(game["uprank_is_faster_by"]) == names - {OURS}
    assert set(part["latency"]) == {"5", "20"}
    for one in part["latency"].values():
        assert all(one["p50"][name] <= one["p95"][name] for name in names)
    assert set(part["callers"]["of_one_flattened_call"]) == {OURS, f"{OURS}, tasks"}
    assert set(part["growth"]["seconds_per_document"]) == {"10", "100"}
    assert {name: found["kendall_tau"] for name, found in part["agreement"].items()} == dict.fromkeys(names, 1.0)
    assert all(seconds > 0 for starts in part["cold_start_seconds"].values() for seconds in starts)
    machine = light_result["machine"]
    assert machine["cores"] >= 1
    text = json.dumps({**light_result, "models": {}})
    assert str(Path.home()) not in text
    assert str(BENCHMARKS.parent) not in text

    table = report.markdown(light_result, "chart.svg")
    assert f"| {OURS} | " in table
    assert "GPU figures: not measured" in table
    assert table.index("| uprank |") < table.index("| FlashRank |")
    page = report.updated(f"before\n{report.BEGIN}an older table\n{report.END}after\n", table)
    assert page.startswith(f"before\n{report.BEGIN}")
    assert page.endswith(f"{report.END}after\n")
    assert "an older table" not in page
    assert report.updated(page, table) == page
    with pytest.raises(ValueError, match="must have the lines"):
        report.updated("no markers", table)

    drawn = ET.fromstring(chart.svg(light_result))  # noqa: S314 - written a line ago
    bars = [bar for bar in drawn.iter("{http://www.w3.org/2000/svg}rect") if bar.get("height") == "16"]
    assert len(bars) == 3


def result_with(**changes: object) -> dict:
    """A result of one model, as if every target were just reached."""
    just = {BASE: 5.5, "sentence-transformers, best": 1.2, "FlashRank": 2.0}
    faster = {name: {"median": value, "least": value, "most": value} for name, value in just.items()}
    ratios = {"uprank_is_faster_by": faster, "uprank_int8_is_faster_by": faster}
    game = {**ratios, "peak_bytes": {OURS: 100, BASE: 100}, "pairs_per_second": {OURS: 1.0}}
    part = {
        "title": "MiniLM-L6 (22 M)",
        "throughput": {"short": game, "mixed": game},
        "latency": {size: {**ratios, "p50": {OURS: 0.049}} for size in ("10", "100")},
        "callers": {
            "callers": 64,
            **ratios,
            "of_one_flattened_call": {name: {"median": 0.85} for name in (OURS, f"{OURS}, tasks")},
        },
        "growth": {
            "seconds_per_document": {"10": 9.0, "100": 1.0, "1000": 1.1, "10000": 1.15},
            "peak_bytes": {"10": 900, "100": 100, "1000": 110, "10000": 120},
        },
    }
    stored = {"documents": 100, "p50": 0.004, "kendall_tau": 1.0}
    return {"device": "cpu", "models": {"minilm": {**part, **changes}}, "stored": stored}


def test_targets_just_reached_are_met() -> None:
    found = checks(result_with())
    assert [(check.what, check.figure) for check in found if check.met is not True] == []
    assert len(found) == 19


@pytest.mark.parametrize(
    ("field", "value", "missed"),
    [
        ("latency", {"10": {"uprank_is_faster_by": {}, "p50": {OURS: 0.051}}}, "1 × 10 short documents"),
        ("callers", {"uprank_is_faster_by": {}, "of_one_flattened_call": {OURS: {"median": 0.84}}}, "in threads"),
        (
            "growth",
            {
                "seconds_per_document": {"100": 1.0, "1000": 1.16, "10000": 1.0},
                "peak_bytes": {"100": 1, "1000": 1, "10000": 1},
            },
            "time a document",
        ),
    ],
)
def test_a_missed_target_is_told(field: str, value: dict, missed: str) -> None:
    assert [check.what for check in checks(result_with(**{field: value})) if check.met is False] == [
        next(check.what for check in checks(result_with()) if missed in check.what)
    ]


def test_a_slower_figure_anywhere_misses_never_slower() -> None:
    result = result_with()
    slow = {"rerankers": {"median": 0.99, "least": 0.5, "most": 1.2}}
    result["models"]["minilm"]["latency"]["10"]["uprank_is_faster_by"] = slow
    missed = [check for check in checks(result) if check.met is False]
    assert [check.target for check in missed] == ["never slower"]
    assert "rerankers, 1 × 10" in missed[0].figure


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    """Growth measured up to 1,000 documents says nothing of 10,000, unless it already misses."""
    part = {"latency": {}, "callers": {}, "throughput": {}}
    growth = {"seconds_per_document": {"100": 1.0, "1000": 1.0}, "peak_bytes": {"100": 1.0, "1000": 1.3}}
    result = {**result_with(**part, growth=growth), "stored": {}}
    verdicts = {check.what: check.met for check in checks(result)}
    assert [what for what, met in verdicts.items() if met is not None] == [
        "MiniLM-L6 (22 M): peak memory, from 100 to 1,000 documents"
    ]
    assert False in verdicts.values()


def test_gpu_targets_are_of_gpu_runs_alone() -> None:
    result = {**result_with(), "device": "cuda"}
    result["models"]["minilm"]["throughput"]["pairs150"] = {
        "uprank_is_faster_by": {},
        "peak_bytes": {},
        "pairs_per_second": {OURS: 9_999.0},
    }
    on_gpu = {check.what: check.met for check in checks(result)}
    assert on_gpu["MiniLM-L6 (22 M): pairs of 150 tokens"] is False
    assert not any("pairs of 150 tokens" in check.what for check in checks(result_with()))


def test_a_machine_is_described_by_what_it_has() -> None:
    machine = Machine("A CPU", 2, ("avx2", "avx512", "avx512_vnni"), 16.0, "no GPU", "Linux x86_64", "3.11.0", {})
    assert (machine.bf16, machine.vnni, machine.onnx_quantization) == (False, True, "avx512_vnni")
    assert machine.sentence("cpu") == "A CPU, 2 cores (avx2, avx512, avx512_vnni; no bf16), 16 GiB"
    assert machine.slug("cpu") == "a-cpu-2-cores"


def test_samples_shrink_to_what_the_budget_affords() -> None:
    """A slow machine measures fewer documents a round, rather than for hours."""

    class Recorder:
        """Answers a sample at a given rate, and remembers it; rounds and shuffling are the real ones."""

        name = OURS

        def __init__(self) -> None:
            self.samples: list[tuple[int, int]] = []

        def score(self, _: Path, queries: range, documents: int) -> dict:
            self.samples.append((len(queries), documents))
            return {"seconds": len(queries) * documents / 10, "peak": 1, "device_peak": None}

    field = Field(settings(Path()), Path(), Path(), Path(), "avx2")
    player = Recorder()
    sizes = Sizes(sample_documents=800)
    part = measures.throughput(field, [player], Path(), sizes, rates={OURS: 10.0}, seconds=112.0)
    assert (part["queries"], part["documents"]) == (3, 100)  # 320 pairs in 32 s a round, three and a half of them
    part = measures.throughput(field, [player], Path(), sizes, rates={OURS: 1.0}, seconds=112.0)
    assert (part["queries"], part["documents"]) == (1, 32)
    assert part["pairs_per_second"][OURS] == pytest.approx(10)


@pytest.mark.slow
def test_a_quick_run_ranks_alike_with_every_engine(tmp_path: Path) -> None:
    """The whole script on a tiny model, with what this environment has: each order is that of torch in float32."""
    command = [sys.executable, str(BENCHMARKS / "speed.py"), "--quick", "--engines"]
    folders = ["--work", str(tmp_path / "work"), "--results", str(tmp_path / "results"), "--peers-python", "none"]
    done = subprocess.run([*command, *folders], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    (file,) = (tmp_path / "results").glob("*.json")
    part = json.loads(file.read_text("utf-8"))["models"]["tiny"]
    assert part["sweep"]
    assert part["best"]["short"]["contestant"] == "torch float32"
    assert {OURS, BASE, "sentence-transformers, best"} <= set(part["throughput"]["short"]["pairs_per_second"])
    least = {"float32": 0.999, "bfloat16": 0.9, "float16": 0.9, "int8": 0.8}
    for name, agrees in part["agreement"].items():
        assert agrees["kendall_tau"] >= least.get(name.split()[-1], 0.999), name
    assert "### Targets" in done.stdout
    ET.parse(file.with_suffix(".svg"))  # noqa: S314 - written by this test
