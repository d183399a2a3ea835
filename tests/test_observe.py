"""Hooks and the log: one start and one end or error for each query, whichever way it is asked for."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest

from uprank import ConfigurationError, Document, InvalidInputError, Reranker, ScorerError
from uprank.observe import Hooks, RankEnd, RankError, RankStart, checked_hooks, reported_by, watched

SECRET_QUERY, SECRET_TEXT = "plover", "curlew"


def length(query: str, texts: list[str]) -> list[float]:
    return [float(len(text)) for text in texts]


def broken(query: str, texts: list[str]) -> list[float]:
    raise ConnectionError("the server is down")


@dataclass
class Recorder(Hooks):
    """Keeps all it is told; its token is the start itself."""

    name: str = ""
    log: list[str] = field(default_factory=list)
    starts: list[RankStart] = field(default_factory=list)
    ends: list[RankEnd] = field(default_factory=list)
    errors: list[RankError] = field(default_factory=list)

    def on_start(self, start: RankStart) -> object:
        self.log.append(f"{self.name} start {start.query}")
        self.starts.append(start)
        return start

    def on_end(self, end: RankEnd) -> None:
        self.log.append(f"{self.name} end {end.start.query}")
        assert end.token is end.start
        self.ends.append(end)

    def on_error(self, error: RankError) -> None:
        self.log.append(f"{self.name} error {error.start.query}")
        assert error.token is error.start
        self.errors.append(error)

    def settled(self) -> bool:
        """Whether each start has exactly one end or error."""
        ended = [event.start for event in (*self.ends, *self.errors)]
        return sorted(map(id, ended)) == sorted(map(id, self.starts))


Way = Callable[[Reranker, "list[str]", "list[list[str]]"], Awaitable[object]]


async def rank(reranker: Reranker, queries: list[str], lists: list[list[str]]) -> object:
    return [reranker.rank(query, documents) for query, documents in zip(queries, lists, strict=True)]


async def arank(reranker: Reranker, queries: list[str], lists: list[list[str]]) -> object:
    return [await reranker.arank(query, documents) for query, documents in zip(queries, lists, strict=True)]


async def rank_many(reranker: Reranker, queries: list[str], lists: list[list[str]]) -> object:
    return reranker.rank_many(queries, lists)


async def arank_many(reranker: Reranker, queries: list[str], lists: list[list[str]]) -> object:
    return await reranker.arank_many(queries, lists)


async def rank_stream(reranker: Reranker, queries: list[str], lists: list[list[str]]) -> object:
    return list(reranker.rank_stream(zip(queries, lists, strict=True), group=2))


every_way = pytest.mark.parametrize("way", [rank, arank, rank_many, arank_many, rank_stream])
SINGLE = (rank, arank)


@every_way
async def test_one_start_and_one_end_for_each_query(way: Way) -> None:
    recorder = Recorder()
    reranker = Reranker(length, name="length", top_n=1, threshold=0.5, hooks=[recorder])

    rankings = await way(reranker, ["p", "q"], [["a", "bbb"], ["cc"]])

    assert [start.query for start in recorder.starts] == ["p", "q"]
    first = recorder.starts[0]
    assert (first.model, first.top_n, first.threshold, first.instruction) == ("length", 1, 0.5, None)
    assert first.documents == (Document("a"), Document("bbb"))
    assert first.queries == (1 if way in SINGLE else 2)
    ended = sorted(recorder.ends, key=lambda end: end.start.query)
    assert [end.ranking for end in ended] == rankings
    assert all(end.elapsed == end.ranking.elapsed > 0 for end in ended)
    assert recorder.settled()
    assert recorder.errors == []


@every_way
async def test_one_error_for_each_query(way: Way) -> None:
    recorder = Recorder()
    with pytest.raises(ScorerError) as caught:
        await way(Reranker(broken, hooks=[recorder]), ["p", "q"], [["a"], ["b"]])
    assert len(recorder.errors) == (1 if way in SINGLE else 2)
    assert all(error.error is caught.value for error in recorder.errors)
    assert all(error.elapsed > 0 for error in recorder.errors)
    assert recorder.settled()


@every_way
async def test_a_degraded_ranking_is_an_end(way: Way) -> None:
    recorder = Recorder()
    await way(Reranker(broken, hooks=[recorder], on_error="passthrough"), ["p", "q"], [["a"], ["b"]])
    assert [end.ranking.degraded for end in recorder.ends] == [True, True]
    assert recorder.settled()


@every_way
async def test_no_documents_start_and_end_too(way: Way) -> None:
    recorder = Recorder()
    await way(Reranker(broken, hooks=[recorder]), ["p"], [[]])
    assert [len(end.ranking) for end in recorder.ends] == [0]


def test_refused_input_starts_nothing() -> None:
    recorder = Recorder()
    reranker = Reranker(length, hooks=[recorder])
    for query, documents in ((" ", ["a"]), ("q", "one text"), ("q", [7])):
        with pytest.raises(InvalidInputError):
            reranker.rank(query, documents)
    assert recorder.log == []


async def stuck(query: str, texts: list[str]) -> list[float]:
    await asyncio.sleep(60)
    return length(query, texts)


@pytest.mark.parametrize("way", [arank, arank_many])
async def test_cancellation_is_told_as_what_it_is(way: Way) -> None:
    recorder = Recorder()
    task = asyncio.create_task(way(Reranker(stuck, hooks=[recorder]), ["q"], [["a"]]))
    while not recorder.starts:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [type(error.error) for error in recorder.errors] == [asyncio.CancelledError]


@pytest.mark.parametrize("way", [rank, arank, rank_many, arank_many])
@pytest.mark.parametrize("leaving", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_is_told_as_what_it_is(way: Way, leaving: type[BaseException]) -> None:
    def interrupted(query: str, texts: list[str]) -> list[float]:
        raise leaving

    recorder = Recorder()
    with pytest.raises(leaving):
        asyncio.run(way(Reranker(interrupted, hooks=[recorder]), ["q"], [["a"]]))
    [told] = recorder.errors
    # asyncio raises it out of the loop, and cancels the tasks that are left.
    assert type(told.error) is leaving or (
        way in (arank, arank_many) and isinstance(told.error, asyncio.CancelledError)
    )


def test_a_stream_left_early_ends_what_it_started() -> None:
    recorder = Recorder()
    queries = ((f"q{number}", ["a"]) for number in range(100))
    stream = Reranker(length, hooks=[recorder]).rank_stream(queries, group=2)
    next(stream)
    stream.close()
    Reranker(length).rank_stream([("q", ["a"])])  # never begun: nothing to tell
    waited = threading.Event()
    for _ in range(500):
        if recorder.settled():
            break
        waited.wait(0.01)
    assert recorder.settled()
    assert len(recorder.starts) < 100


def test_hooks_are_told_in_order_and_at_the_end_the_other_way_round() -> None:
    log: list[str] = []
    hooks = [Recorder("first", log), Recorder("second", log)]
    Reranker(length, hooks=hooks).rank_many(["p", "q"], [["a"], ["a"]])
    assert log == [
        *("first start p", "second start p", "first start q", "second start q"),
        *("second end q", "first end q", "second end p", "first end p"),
    ]


class Failing(Hooks):
    """Raises in one of its methods."""

    def __init__(self, method: str, error: type[BaseException] = RuntimeError) -> None:
        self.method, self.error, self.called = method, error, []

    def _maybe(self, method: str) -> str:
        self.called.append(method)
        if method == self.method:
            raise self.error("the hook is broken")
        return method

    def on_start(self, start: RankStart) -> object:
        return self._maybe("on_start")

    def on_end(self, end: RankEnd) -> None:
        self._maybe("on_end")

    def on_error(self, error: RankError) -> None:
        self._maybe("on_error")


@pytest.mark.parametrize("method", ["on_start", "on_end", "on_error"])
@pytest.mark.parametrize("way", [rank, arank])
async def test_a_hook_that_raises_changes_nothing_and_is_logged(
    way: Way, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    failing, others = Failing(method), [Recorder(), Recorder()]
    reranker = Reranker(broken if method == "on_error" else length, hooks=[others[0], failing, others[1]])
    with caplog.at_level(logging.WARNING, "uprank"):
        if method == "on_error":
            with pytest.raises(ScorerError, match="the server is down"):
                await way(reranker, ["q"], [["a"]])
        else:
            [ranking] = await way(reranker, ["q"], [["a"]])
            assert ranking == Reranker(length).rank("q", ["a"])
    assert all(len(other.starts) == 1 and other.settled() for other in others)
    assert f"Failing.{method} failed" in caplog.text
    assert "the hook is broken" in caplog.text
    assert failing.called == (["on_start"] if method == "on_start" else ["on_start", method])


@pytest.mark.parametrize("method", ["on_start", "on_end"])
def test_a_hook_that_is_interrupted_ends_the_call_and_the_others_are_told(method: str) -> None:
    before, after = Recorder(), Recorder()
    reranker = Reranker(length, hooks=[before, Failing(method, KeyboardInterrupt), after])
    with pytest.raises(KeyboardInterrupt):
        reranker.rank("q", ["a"])
    assert before.settled()
    assert after.settled()
    assert len(before.starts) == 1
    assert len(after.starts) == (method == "on_end")


def test_tokens_of_concurrent_calls_are_not_mixed_up() -> None:
    recorder = Recorder()  # it asserts that its token comes back with its start
    reranker = Reranker(length, hooks=[recorder])
    with ThreadPoolExecutor(8) as pool:
        rankings = list(pool.map(lambda number: reranker.rank(f"q{number}", ["a", "bb"]), range(200)))
    assert recorder.settled()
    assert {end.start.query: end.ranking for end in recorder.ends} == {ranking.query: ranking for ranking in rankings}


def test_hooks_without_a_method_of_their_own_do_nothing() -> None:
    assert len(Reranker(length, hooks=[Hooks()]).rank("q", ["a"])) == 1
    with pytest.raises(ScorerError):
        Reranker(broken, hooks=[Hooks()]).rank("q", ["a"])


class Coroutine(Hooks):
    async def on_end(self, end: RankEnd) -> None: ...  # type: ignore[override]  # the mistake this is about


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        (Hooks(), "must be a list"),
        (7, "must be a list"),
        ([print], "derived from uprank.Hooks"),
        ([Hooks], "derived from uprank.Hooks"),
        ([Coroutine()], "Coroutine.on_end must be a plain function"),
    ],
)
def test_what_is_no_hook_is_refused_at_once(hooks: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        checked_hooks(hooks)
    with pytest.raises(ConfigurationError, match=message):
        Reranker(length, hooks=hooks)


def test_a_framework_that_reports_by_itself_is_known() -> None:
    recorder = Recorder()
    reranker = Reranker(length, hooks=[recorder])
    with reported_by("a framework"):
        reranker.rank("q", ["a"])
    reranker.rank("q", ["a"])
    assert [start.reported_by for start in recorder.starts] == ["a framework", None]


def test_without_hooks_nothing_is_made(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "uprank"):
        one, other = (watched((), [], model="m", top_n=None, threshold=None) for _ in range(2))
    assert one is other


@pytest.mark.parametrize("way", [rank, arank_many, rank_stream])
async def test_one_line_of_the_log_for_each_ranking(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "uprank"):
        await way(Reranker(length, name="length", top_n=1), ["p", "q"], [["a", "bb"], ["c"]])
    lines = sorted(record.getMessage() for record in caplog.records if record.name == "uprank")
    assert [line.split(" in ")[0] for line in lines] == ["length ranked 1 documents", "length ranked 2 documents"]
    assert all(line.endswith("ms, returned 1") for line in lines)


def test_the_log_tells_degraded_and_failed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "uprank"):
        Reranker(broken, name="down", on_error="passthrough").rank("q", ["a"])
        with pytest.raises(ScorerError):
            Reranker(broken, name="down").rank("q", ["a", "b"])
    debug = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert debug[0].endswith("returned 1, degraded")
    assert debug[1].startswith("down failed on 2 documents after ")
    assert debug[1].endswith("ms: ScorerError")


def test_neither_log_nor_repr_shows_a_word_of_query_or_documents(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    with caplog.at_level(logging.DEBUG):
        Reranker(length, hooks=[recorder]).rank(SECRET_QUERY, [SECRET_TEXT, SECRET_TEXT * 2])
        with pytest.raises(ScorerError):
            Reranker(broken, hooks=[recorder]).rank(SECRET_QUERY, [SECRET_TEXT])
    shown = caplog.text + repr(recorder.starts) + repr(recorder.ends) + repr(recorder.errors)
    assert "ranked 2 documents" in shown
    assert SECRET_QUERY not in shown
    assert SECRET_TEXT not in shown


@pytest.fixture(scope="module")
def benchmark_module() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "observability.py"
    spec = importlib.util.spec_from_file_location("observability_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_benchmark_compares_calls_that_do_the_same(benchmark_module: ModuleType) -> None:
    """Its bare reranker repeats a few lines of the real one, which must not drift apart."""
    rankings = [kind.rank("q", ["a", "bb"]) for kind in benchmark_module.kinds(length).values()]
    assert len(rankings) >= 3
    assert all(ranking.hits == rankings[0].hits and ranking.elapsed > 0 for ranking in rankings)


@pytest.mark.parametrize(("limit", "status"), [("1e9", 0), ("-1e9", 1)])
def test_the_benchmark_prints_and_judges(
    benchmark_module: ModuleType, capsys: pytest.CaptureFixture[str], limit: str, status: int
) -> None:
    assert benchmark_module.main(["--calls", "3", "--documents", "2", f"--limit={limit}"]) == status
    printed = capsys.readouterr()
    assert "hooks off" in printed.out
    assert printed.err.startswith("Too slow") == bool(status)
