"""The benchmark of the overhead over a bare post: it runs, and its table is what it says. Nothing is timed here."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from uprank.errors import BadReplyError

pytest.importorskip("httpx")
CALLS, DOCUMENTS = 3, 4
KINDS = ["httpx post", "Reranker, httpx"]
if find_spec("cohere") is not None:
    KINDS += ["cohere SDK", "Reranker, cohere SDK"]


@pytest.fixture(scope="module")
def benchmark_module() -> Iterator[ModuleType]:
    """Under its own name, by which the process of its server finds it again."""
    path = Path(__file__).parents[1] / "benchmarks" / "http_overhead.py"
    spec = importlib.util.spec_from_file_location("http_overhead", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["http_overhead"] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(path.parent))
        del sys.modules["http_overhead"]


@pytest.fixture(scope="module")
def url(benchmark_module: ModuleType) -> Iterator[str]:
    with benchmark_module.server(DOCUMENTS) as found:
        yield found


def test_every_kind_of_call_is_timed_as_often(benchmark_module: ModuleType, url: str) -> None:
    texts = benchmark_module.documents(DOCUMENTS)
    for timings in (
        benchmark_module.sync_timings(url, texts, CALLS),
        asyncio.run(benchmark_module.async_timings(url, texts, CALLS)),
    ):
        assert list(timings) == KINDS
        assert all(len(taken) == CALLS and min(taken) > 0 for taken in timings.values())


def test_a_reply_that_scores_too_few_is_no_measurement(benchmark_module: ModuleType, url: str) -> None:
    with pytest.raises((AssertionError, BadReplyError)):  # whichever is called first
        benchmark_module.sync_timings(url, benchmark_module.documents(DOCUMENTS + 1), 1)


def test_the_bare_post_sends_what_the_reranker_sends(benchmark_module: ModuleType) -> None:
    from rerank_servers import serve
    from uprank import Reranker

    texts = benchmark_module.documents(DOCUMENTS)
    with serve("jina") as server:
        name = f"jina:{benchmark_module.MODEL}"
        with Reranker(name, api_key="k", base_url=server.base_url) as reranker:
            reranker.rank(benchmark_module.QUERY, texts)
        assert server.posts[0].json == benchmark_module.body(texts)
        assert server.posts[0].path == "/v1/rerank"


def test_rows_compare_calls_of_the_same_turn(benchmark_module: ModuleType) -> None:
    timings = {
        "httpx post": [1.0, 9.0, 2.0],
        "Reranker, httpx": [2.5, 10.5, 90.0],
        "cohere SDK": [4.0, 4.0, 4.0],
        "Reranker, cohere SDK": [3.0, 3.0, 5.0],
    }
    assert [(row.name, row.median, row.baseline, row.over, row.times) for row in benchmark_module.rows(timings)] == [
        ("httpx post", 2.0, "httpx post", 0.0, 1.0),
        ("Reranker, httpx", 10.5, "httpx post", 1.5, 5.25),
        ("cohere SDK", 4.0, "cohere SDK", 0.0, 1.0),
        ("Reranker, cohere SDK", 3.0, "cohere SDK", -1.0, 0.75),
    ]


@pytest.mark.parametrize(("limit", "status"), [("1e9", 0), ("-1e9", 1)])
def test_the_table_and_the_exit_status(
    benchmark_module: ModuleType, capsys: pytest.CaptureFixture[str], limit: str, status: int
) -> None:
    arguments = ["--calls", str(CALLS), "--documents", str(DOCUMENTS), f"--limit={limit}"]
    assert benchmark_module.main(arguments) == status
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [lines[0], lines[1 + len(KINDS)]] == [
        f"{kind}, {DOCUMENTS} documents, median of {CALLS} calls" for kind in ("sync", "async")
    ]
    for number, name in enumerate(KINDS * 2):
        line = lines[1 + number + number // len(KINDS)]
        assert re.match(rf"  {re.escape(name)} +\d+\.\d{{3}} ms", line)
        assert bool(re.search(r"[+-]\d+\.\d{3} ms, \d+\.\d\d times", line)) == name.startswith("Reranker")
    assert printed.err.startswith("Too slow") == bool(status)


@pytest.mark.parametrize("option", ["--calls", "--documents"])
def test_counts_are_positive(benchmark_module: ModuleType, capsys: pytest.CaptureFixture[str], option: str) -> None:
    with pytest.raises(SystemExit):
        benchmark_module.main([option, "0"])
    assert "must be at least 1" in capsys.readouterr().err
