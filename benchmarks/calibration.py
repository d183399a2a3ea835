"""Fit the calibrator that is shipped for the embedded model, and measure it on queries that it was not fitted on.

    python benchmarks/calibration.py --data ../shared/data --scores scores.json
    python benchmarks/calibration.py --data ../shared/data --scores scores.json --write

The data folder holds ``train/*.jsonl.gz`` (a query a line: ``{"qid", "query", "source", "documents": [{"text",
"label"}]}``), and for a look at other mixtures ``trec-dl19/`` and ``scifact/``. Seven in ten queries are fitted on,
the others are held out; which, a digest of the query decides. ``--scores`` keeps the scores, so that a second run
takes seconds; it holds numbers alone.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from quality import default_data  # beside this file
from quality import load as load_candidates

from uprank import Reranker
from uprank.calibrations.fitting import Method
from uprank.calibrations.reliability import reliability
from uprank.calibrator import Calibrator, shipped_file
from uprank.scorers.local.embedded import EmbeddedScorer
from uprank.scorers.registry import create_scorer

__all__ = ["SOURCES", "Judged", "Source", "held_out", "load", "main", "scored"]

MODEL = "embedded"
SHIPPED: Method = "platt"


@dataclass(frozen=True, slots=True)
class Source:
    """One collection of judged candidates.

    Args:
        file: In ``train/``.
        name: As the file has it under ``source``.
        queries: The most to take of it; which, a digest of the query decides.
        documents: The most to take of a query's documents, likewise.
        relevant_from: The least label that counts as relevant. In TREC Deep Learning 1 is "related, but no answer".
    """

    file: str
    name: str
    queries: int
    documents: int = 20
    relevant_from: int = 1


SOURCES = (
    Source("natural-questions", "nq-open-oracle", 100),
    Source("natural-questions", "boolq-dev", 80),
    Source("natural-questions", "clapnq-train-answer", 80),
    Source("natural-questions", "clapnq-dev", 50),
    Source("natural-questions", "qed-nq-dev", 50),
    Source("natural-questions", "natq", 60),
    Source("small-web", "natq", 60),
    Source("small-web", "flagembedding-nq.jsonl", 10),
    Source("small-web", "flagembedding-msmarco.jsonl", 10),
    Source("multihop", "hotpotqa-train", 50),
    Source("multihop", "musique-train", 50),
    Source("trec-dl21-22", "trec-dl21", 53, relevant_from=2),
)


@dataclass(frozen=True, slots=True)
class Judged:
    """One query with its judged candidates.

    Args:
        source: Where it is from.
        query: Its text.
        texts: The candidates.
        relevant: Which of them are.
    """

    source: str
    query: str
    texts: tuple[str, ...]
    relevant: tuple[bool, ...]

    @property
    def key(self) -> str:
        """Tells it from all others, and changes with its candidates."""
        return _digest(json.dumps([self.source, self.query, *self.texts]))[:16]


def held_out(query: str) -> bool:
    """Whether a query is one of the three in ten that nothing is fitted on, in whichever source it stands."""
    return int(_digest(" ".join(query.lower().split()))[:8], 16) % 10 >= 7


def load(folder: Path, sources: Sequence[Source] = SOURCES) -> list[list[Judged]]:
    """Read sources, each file once."""
    found: dict[Source, list[Judged]] = {source: [] for source in sources}
    for file in dict.fromkeys(source.file for source in sources):
        named = {source.name: source for source in sources if source.file == file}
        with gzip.open(folder / f"{file}.jsonl.gz", "rt", encoding="utf-8") as lines:
            for entry in map(json.loads, lines):
                source = named.get(entry["source"])
                if source is not None and (one := _judged(source, entry)) is not None:
                    found[source].append(one)
    return [sorted(found[source], key=lambda one: _digest(one.query))[: source.queries] for source in sources]


def _judged(source: Source, entry: dict[str, Any]) -> Judged | None:
    """A line of a file; ``None`` where nothing in it is judged."""
    grades: dict[str, int] = {}  # a text that is given twice is as relevant as its better label
    for document in entry["documents"]:
        if document.get("label") is not None:
            grades[document["text"]] = max(document["label"], grades.get(document["text"], 0))
    texts = tuple(sorted(grades, key=_digest)[: source.documents])
    relevant = tuple(grades[text] >= source.relevant_from for text in texts)
    return Judged(f"{source.file}/{source.name}", entry["query"], texts, relevant) if texts else None


def load_dl19(data: Path) -> list[Judged]:
    """TREC Deep Learning 2019: what is judged of BM25's first 100; relevant is what answers, from grade 2."""
    dataset = load_candidates(data / "trec-dl19")
    judged = []
    for entry in dataset.queries:
        grades = dataset.qrels[entry.qid]
        known = [document for document in entry.documents if document.id in grades]
        relevant = tuple(grades[str(document.id)] >= 2 for document in known)
        judged.append(Judged("trec-dl19, judged", entry.query, tuple(one.text for one in known), relevant))
    return judged


def load_scifact(data: Path, depth: int = 20, claims: int = 100) -> list[Judged]:
    """SciFact's test claims with BM25's first abstracts; what is not judged is not relevant."""
    import bm25s

    folder = data / "scifact"
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        corpus = {entry["_id"]: f"{entry['title']} {entry['text']}" for entry in map(json.loads, lines)}
    qrels: dict[str, set[str]] = {}
    for line in (folder / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        qid, document, grade = line.split("\t")
        if int(grade) > 0:
            qrels.setdefault(qid, set()).add(document)
    lines_of_queries = (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    queries = {entry["_id"]: entry["text"] for entry in map(json.loads, lines_of_queries) if entry["_id"] in qrels}
    ids = list(corpus)
    index = bm25s.BM25()
    index.index(bm25s.tokenize(list(corpus.values()), stopwords="en", show_progress=False), show_progress=False)
    judged = []
    for qid in sorted(queries, key=_digest)[:claims]:
        query = queries[qid]
        tokens = bm25s.tokenize(query, stopwords="en", show_progress=False)
        places, _ = index.retrieve(tokens, k=depth, show_progress=False)
        found = [ids[place] for place in places[0]]
        relevant = tuple(one in qrels[qid] for one in found)
        judged.append(Judged(f"scifact, BM25 {depth}", query, tuple(corpus[one] for one in found), relevant))
    return judged


def scored(judged: Sequence[Judged], kept: dict[str, list[float]], *, progress: bool = True) -> None:
    """Have the model score what is not in ``kept`` yet, and put it there."""
    missing = [one for one in judged if one.key not in kept]
    if not missing:
        return
    # One call, so that a text which several queries share is read once.
    rankings = Reranker(MODEL, store=False, progress=progress).rank_many(
        [one.query for one in missing], [one.texts for one in missing]
    )
    for one, ranking in zip(missing, rankings, strict=True):
        scores = [math.nan] * len(one.texts)
        for hit in ranking:
            assert hit.score is not None
            scores[hit.index] = hit.score
        kept[one.key] = scores


def revision() -> str:
    """Which weights the scores are of."""
    scorer = create_scorer(MODEL)
    assert isinstance(scorer, EmbeddedScorer)
    return scorer._digest()


def pairs(judged: Sequence[Judged], kept: dict[str, list[float]]) -> tuple[list[float], list[bool]]:
    """All scores, and which are of relevant documents."""
    return (
        [score for one in judged for score in kept[one.key]],
        [relevant for one in judged for relevant in one.relevant],
    )


def rows(judged: Sequence[Judged], kept: dict[str, list[float]], calibrator: Calibrator) -> Iterator[tuple[str, ...]]:
    """A line a source and one for all: how far probabilities are off, as they come and calibrated."""
    names = list(dict.fromkeys(one.source for one in judged))
    for name in [*names, "all"] if len(names) > 1 else names:
        scores, relevant = pairs([one for one in judged if name in (one.source, "all")], kept)
        raw = reliability([min(1.0, max(0.0, score)) for score in scores], relevant)
        report = calibrator.evaluate(scores, relevant)
        yield (
            name,
            str(report.count),
            f"{report.positives / report.count:.3f}",
            *(f"{value:.3f}" for value in (raw.ece, report.ece, raw.brier, report.brier, report.log_loss)),
        )


HEAD = ("source", "pairs", "relevant", "ECE raw", "ECE", "Brier raw", "Brier", "log loss")


def table(lines: Sequence[Sequence[str]]) -> str:
    """Lay lines out in columns."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Fit and measure the embedded model's calibrator.")
    parser.add_argument(
        "--data", type=Path, default=None, help="the data folder (default: $UPRANK_DATA, ../shared/data)"
    )
    parser.add_argument("--scores", type=Path, default=None, help="where to keep scores, to use them again")
    parser.add_argument("--write", action="store_true", help="write the file that is shipped")
    options = parser.parse_args(arguments)
    data: Path = options.data or default_data()
    if not (data / "train").is_dir():
        print(f"No data under {data}: expected train/. Name the folder with --data or UPRANK_DATA.", file=sys.stderr)
        return 2
    kept: dict[str, list[float]] = {}
    if options.scores is not None and options.scores.is_file():
        kept = json.loads(options.scores.read_text(encoding="utf-8"))
    parts = load(data / "train")
    others = [load_dl19(data), load_scifact(data)] if (data / "scifact").is_dir() else []
    for part in (*parts, *others):
        scored(part, kept)
        if options.scores is not None:
            options.scores.write_text(json.dumps(kept), encoding="utf-8")
    training = [one for part in parts for one in part if not held_out(one.query)]
    testing = [one for part in parts for one in part if held_out(one.query)]
    best: Calibrator | None = None
    for method in get_args(Method):
        if method == "temperature":
            continue  # of logits: a cosine of 0 says nothing of even odds
        calibrator = Calibrator.fit(
            *pairs(training, kept), method=method, model=MODEL, revision=revision(), kind="cosine"
        )
        best = calibrator if method == SHIPPED else best
        print(f"{method}: {calibrator.curve}" if method == SHIPPED else method)
        print(
            table(
                [
                    HEAD,
                    *rows(testing, kept, calibrator),
                    *(row for part in others for row in rows(part, kept, calibrator)),
                ]
            )
        )
        print()
    assert best is not None
    for wanted in (0.5, 0.8, 0.9):
        print(f"precision {wanted} on held-out queries:", best.threshold_for(*pairs(testing, kept), precision=wanted))
    print("recall 0.95 on held-out queries:", best.threshold_for(*pairs(testing, kept), recall=0.95))
    if options.write:
        best.save(shipped_file(MODEL))
        print(f"Written to {shipped_file(MODEL)}")
    return 0


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
