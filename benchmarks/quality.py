"""Measure how well models rerank: nDCG@10 on judged candidates, and pairs a second.

    python benchmarks/quality.py --model embedded --model bm25 --data ../shared/data

The data folder holds one folder a data set, each with ``candidates.jsonl`` (a query a line:
``{"qid", "query", "documents": [{"id", "text"}]}``, documents in first-stage order) and ``qrels.txt``
(TREC format: ``qid 0 docid grade``). The measure is trec_eval's, through ir-measures: grades are
gains, and the mean is over all judged queries.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import ir_measures
from ir_measures import Qrel, ScoredDoc, nDCG

from uprank import Document, Reranker
from uprank.errors import UprankError

__all__ = ["DATASETS", "Dataset", "Result", "default_data", "first_stage", "load", "measure", "ndcg", "table"]

DATASETS = ("noveleval", "trec-dl19")
FIRST_STAGE = "first stage"

Run: TypeAlias = "Mapping[str, Sequence[str]]"
"""Document ids, best first, of each query."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """One query and its first-stage documents, in order."""

    qid: str
    query: str
    documents: tuple[Document, ...]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Judged candidates.

    Args:
        name: The folder's name.
        queries: One entry a query.
        qrels: Grade of each judged document, by query.
    """

    name: str
    queries: tuple[Candidates, ...]
    qrels: dict[str, dict[str, int]]

    @property
    def pairs(self) -> int:
        """Query-document pairs."""
        return sum(len(entry.documents) for entry in self.queries)


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table.

    Args:
        dataset: Its name.
        model: As given to :class:`~uprank.Reranker`, or ``"first stage"``.
        ndcg_at_10: From 0 to 1.
        queries: How many.
        pairs: How many.
        seconds: Wall clock of reranking, the model being loaded; ``None`` for the first stage.
    """

    dataset: str
    model: str
    ndcg_at_10: float
    queries: int
    pairs: int
    seconds: float | None = None

    @property
    def pairs_per_second(self) -> float | None:
        """``None`` for the first stage."""
        return self.pairs / self.seconds if self.seconds else None


def default_data() -> Path:
    """The folder named by ``UPRANK_DATA``, else ``../shared/data`` beside this repository."""
    named = os.environ.get("UPRANK_DATA")
    return Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"


def load(folder: Path) -> Dataset:
    """Read one data set.

    Raises:
        FileNotFoundError: If one of its two files is missing.
        ValueError: If a document comes twice in one query's candidates.
    """
    queries = []
    with (folder / "candidates.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            documents = tuple(Document(document["text"], id=str(document["id"])) for document in entry["documents"])
            if len({document.id for document in documents}) < len(documents):
                raise ValueError(f"{folder.name}: query {entry['qid']} has a document twice; a run cannot hold that.")
            queries.append(Candidates(str(entry["qid"]), entry["query"], documents))
    qrels: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels.txt").read_text(encoding="utf-8").splitlines():
        if line.strip():
            qid, _, document, grade = line.split()
            qrels.setdefault(qid, {})[document] = int(grade)
    return Dataset(folder.name, tuple(queries), qrels)


def ndcg(run: Run, qrels: Mapping[str, Mapping[str, int]], cutoff: int = 10) -> float:
    """Return nDCG as trec_eval has it: grades as gains, discounted by log2(rank + 1), over the ideal order."""
    scored = [
        # Ranks as scores: trec_eval would order equal scores by the documents' ids.
        ScoredDoc(qid, document, -float(rank))
        for qid, documents in run.items()
        for rank, document in enumerate(documents)
    ]
    judged = [Qrel(qid, document, grade) for qid, grades in qrels.items() for document, grade in grades.items()]
    wanted = nDCG @ cutoff
    return float(ir_measures.pytrec_eval.calc_aggregate([wanted], judged, scored)[wanted])


def first_stage(dataset: Dataset) -> Result:
    """Measure the order that the candidates come in."""
    run = {entry.qid: [str(document.id) for document in entry.documents] for entry in dataset.queries}
    return Result(dataset.name, FIRST_STAGE, ndcg(run, dataset.qrels), len(dataset.queries), dataset.pairs)


def measure(reranker: Reranker, dataset: Dataset) -> Result:
    """Rerank all candidates in one call, and measure the new order."""
    first = dataset.queries[0]
    reranker.rank(first.query, first.documents[:1])  # loads the model
    started = time.perf_counter()
    rankings = reranker.rank_many(
        [entry.query for entry in dataset.queries],
        [entry.documents for entry in dataset.queries],
        top_n=None,
        threshold=None,
    )
    seconds = time.perf_counter() - started
    run = {
        entry.qid: [str(hit.document.id) for hit in ranking]
        for entry, ranking in zip(dataset.queries, rankings, strict=True)
    }
    quality = ndcg(run, dataset.qrels)
    return Result(dataset.name, reranker.model, quality, len(dataset.queries), dataset.pairs, seconds)


def table(results: Sequence[Result]) -> str:
    """Lay the results out in columns."""
    head = ("data", "model", "nDCG@10", "queries", "pairs", "seconds", "pairs/s")
    rows = [head, *(_row(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _row(result: Result) -> tuple[str, ...]:
    speed = result.pairs_per_second
    return (
        result.dataset,
        result.model,
        f"{result.ndcg_at_10:.4f}",
        str(result.queries),
        str(result.pairs),
        "" if result.seconds is None else f"{result.seconds:.1f}",
        "" if speed is None else f"{speed:.1f}",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="nDCG@10 of rerankers on judged candidates.")
    parser.add_argument("--model", action="append", default=[], help="a model name or preset; may be repeated")
    parser.add_argument(
        "--data", type=Path, default=None, help="the data folder (default: $UPRANK_DATA, ../shared/data)"
    )
    parser.add_argument("--json", type=Path, default=None, help="also write the results to this file")
    options = parser.parse_args(arguments)
    data: Path = options.data or default_data()
    folders = [data / name for name in DATASETS if (data / name / "candidates.jsonl").is_file()]
    if not folders:
        print(
            f"No data under {data}: expected {' or '.join(DATASETS)}, each with candidates.jsonl and qrels.txt. "
            "Name the folder with --data or UPRANK_DATA.",
            file=sys.stderr,
        )
        return 2
    try:
        rerankers = [Reranker(model) for model in options.model]
    except UprankError as error:
        print(error, file=sys.stderr)
        return 2
    results = []
    for dataset in map(load, folders):
        results.append(first_stage(dataset))
        results.extend(measure(reranker, dataset) for reranker in rerankers)
    print(table(results))
    if options.json is not None:
        lines = [{**asdict(result), "pairs_per_second": result.pairs_per_second} for result in results]
        options.json.write_text(json.dumps(lines, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
