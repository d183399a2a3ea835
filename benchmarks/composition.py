"""What it brings to put scorers together: nDCG@10 of fusion, cascades and passages beside the model alone.

    python benchmarks/composition.py --data ../shared/data --store vectors

Three comparisons, each with the difference that is wanted of it:

* fusion: the embedded model and the first stage, with ``retrieval_weight``, beside the model alone;
* cascade: BM25 over the candidates passes 50 of 100 on to the model, beside the model on all of them. Time is that of
  single queries, nothing kept from one to the next;
* passages: SciFact's abstracts joined to documents of 3,000 tokens, scored by their best passage, beside the beginning
  of the document.

First stages are BM25 by bm25s over the whole of SciFact, and the order that TREC DL 2019 comes in. With ``--store``
the vectors of a run are kept in that folder for the next one; without, in a folder that goes at the end.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import bm25s
from quality import Candidates, Dataset, default_data, load, ndcg

from uprank import Document, Reranker
from uprank.scorers.base import Scorer
from uprank.scorers.combined.cascade import Cascade
from uprank.scorers.combined.fusion import Fusion
from uprank.scorers.combined.passages import Passages
from uprank.scorers.local.embedded import EmbeddedScorer
from uprank.tokens import estimate_tokens

RETRIEVAL_WEIGHT = 0.2
"""Chosen on training data alone, before any test set was looked at: of 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5 and 2, the best
nDCG@10 both on SciFact's 502 training claims that lead to documents of the collection (0.667; the model alone 0.662)
and on TREC DL 2021 (0.635; alone 0.626), the first stage being BM25."""

HEAD = "| data | compared | before | after | difference | wanted | time | wanted | met |\n" + "|---" * 9 + "|"
PARTS = ("fusion", "cascade", "passages")
CANDIDATES = 100
KEPT = 50
TIMED = 10  # queries of each data set
TURNS = 3
JOINED_TOKENS = 3_000


@dataclass(frozen=True, slots=True)
class Line:
    """One comparison.

    Args:
        data: The data set.
        what: What is compared with what.
        before: nDCG@10 of the plain way.
        after: Of the way put together.
        wanted: The least difference; ``None`` where the figure is for information.
        time: What it takes, as a part of what the plain way takes; ``None`` where not measured.
        wanted_time: The most that it may be.
    """

    data: str
    what: str
    before: float
    after: float
    wanted: float | None = None
    time: float | None = None
    wanted_time: float | None = None

    @property
    def met(self) -> bool:
        """Whether it is as wanted."""
        good = self.wanted is None or self.after - self.before >= self.wanted
        return good and (self.time is None or self.wanted_time is None or self.time <= self.wanted_time)


@dataclass(frozen=True, slots=True)
class Corpus:
    """A collection to search.

    Args:
        name: Of the data set.
        documents: All of them.
        queries: Number and text of each query that has judgements.
        qrels: The grade of each judged document, by query.
    """

    name: str
    documents: tuple[Document, ...]
    queries: tuple[tuple[str, str], ...]
    qrels: dict[str, dict[str, int]]

    def retrieved(self, count: int, queries: int | None) -> Dataset:
        """The first queries with their best documents by BM25."""
        index = bm25s.BM25(k1=1.5, b=0.75)  # as uprank's own scorer has them
        index.index(self._words([document.text for document in self.documents]), show_progress=False)
        asked = self.queries[:queries]
        words = self._words([text for _, text in asked])
        found, _ = index.retrieve(words, k=min(count, len(self.documents)), show_progress=False)
        entries = tuple(
            Candidates(qid, text, tuple(self.documents[number] for number in numbers))
            for (qid, text), numbers in zip(asked, found.tolist(), strict=True)
        )
        return Dataset(self.name, entries, _judged(self.qrels, entries))

    @staticmethod
    def _words(texts: list[str]) -> list[list[str]]:
        words: list[list[str]] = bm25s.tokenize(texts, stopwords="en", return_ids=False, show_progress=False)
        return words


def scifact(folder: Path) -> Corpus:
    """Read SciFact as BEIR lays it out: title and abstract are one text."""
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        entries = [json.loads(line) for line in lines]
    documents = tuple(Document(f"{entry['title']} {entry['text']}".strip(), id=entry["_id"]) for entry in entries)
    qrels: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        qid, document, grade = line.split("\t")
        qrels.setdefault(qid, {})[document] = int(grade)
    with (folder / "queries.jsonl").open(encoding="utf-8") as lines:
        every = [json.loads(line) for line in lines]
    queries = tuple((entry["_id"], entry["text"]) for entry in every if entry["_id"] in qrels)
    return Corpus("scifact", documents, queries, qrels)


def joined(corpus: Corpus, tokens: int) -> Corpus:
    """The documents joined by chance to ones of so many tokens; a joined one has the best grade of its parts."""
    parts = list(corpus.documents)
    random.Random(0).shuffle(parts)  # noqa: S311 - not for secrets
    home: dict[str, str] = {}
    documents: list[Document] = []
    texts: list[str] = []
    size = 0
    for number, part in enumerate(parts):
        name = f"joined-{len(documents)}"
        texts.append(part.text)
        home[str(part.id)] = name
        size += estimate_tokens(part.text)
        if size >= tokens or number == len(parts) - 1:
            documents.append(Document("\n\n".join(texts), id=name))
            texts, size = [], 0
    qrels: dict[str, dict[str, int]] = {}
    for qid, grades in corpus.qrels.items():
        found = qrels.setdefault(qid, {})
        for document, grade in grades.items():
            found[home[document]] = max(grade, found.get(home[document], 0))
    return Corpus(f"{corpus.name}, joined", tuple(documents), corpus.queries, qrels)


def shortened(dataset: Dataset, queries: int | None) -> Dataset:
    """The first queries of a data set."""
    entries = dataset.queries[:queries]
    return Dataset(dataset.name, entries, _judged(dataset.qrels, entries))


def quality(scorer: Scorer, dataset: Dataset) -> float:
    """nDCG@10 of a scorer's order."""
    rankings = Reranker(scorer).rank_many(
        [entry.query for entry in dataset.queries], [entry.documents for entry in dataset.queries]
    )
    run = {
        entry.qid: [str(hit.document.id) for hit in ranking]
        for entry, ranking in zip(dataset.queries, rankings, strict=True)
    }
    return ndcg(run, dataset.qrels)


def first_stage(dataset: Dataset) -> float:
    """nDCG@10 of the order given."""
    return ndcg({entry.qid: [str(one.id) for one in entry.documents] for entry in dataset.queries}, dataset.qrels)


def relative_time(scorer: Scorer, plain: Scorer, dataset: Dataset) -> float:
    """What a scorer takes for single queries, as a part of what another takes.

    Both have their turns on each query, and the shortest counts: what else the machine does makes a call longer,
    never shorter.
    """
    rerankers = (Reranker(scorer), Reranker(plain))
    spent = [0.0, 0.0]
    for reranker in rerankers:
        reranker.rank(dataset.queries[0].query, dataset.queries[0].documents)  # loads the model
    for entry in dataset.queries:
        turns: tuple[list[float], list[float]] = ([], [])
        for _ in range(TURNS):
            for reranker, times in zip(rerankers, turns, strict=True):
                started = time.perf_counter()
                reranker.rank(entry.query, entry.documents)
                times.append(time.perf_counter() - started)
        spent = [total + min(times) for total, times in zip(spent, turns, strict=True)]
    return spent[0] / spent[1]


def fusion(model: Scorer, dataset: Dataset, wanted: float) -> list[Line]:
    """The model and the first stage beside the model."""
    alone = quality(model, dataset)
    together = quality(Fusion([model], retrieval_weight=RETRIEVAL_WEIGHT), dataset)
    return [
        Line(dataset.name, "embedded beside the first stage", first_stage(dataset), alone),
        Line(dataset.name, "fusion beside embedded", alone, together, wanted),
    ]


def cascade(model: Scorer, dataset: Dataset, wanted: float | None) -> list[Line]:
    """BM25 and the model beside the model; and the same where the first stage has a say in what goes on."""
    alone = quality(model, dataset)
    fresh = EmbeddedScorer(store=False)
    spent = relative_time(Cascade(["bm25", fresh], [KEPT]), fresh, shortened(dataset, TIMED))
    fresh.close()
    cut = quality(Cascade(["bm25", model], [KEPT]), dataset)
    voted = quality(Cascade([Fusion(["bm25"], retrieval_weight=1), model], [KEPT]), dataset)
    return [
        Line(dataset.name, "cascade beside embedded", alone, cut, wanted, spent, 0.55),
        Line(dataset.name, "the same, the first stage voting on the cut", alone, voted),
    ]


def passages(model: Scorer, dataset: Dataset, wanted: float) -> list[Line]:
    """The best passage beside the beginning of a document."""
    truncated = quality(model, dataset)
    best = quality(Passages(model, "max_passage"), dataset)
    return [
        Line(dataset.name, "embedded beside the first stage", first_stage(dataset), truncated),
        Line(dataset.name, "max_passage beside truncation", truncated, best, wanted),
    ]


def compare(data: Path, store: Path, queries: int | None, parts: Sequence[str]) -> Iterator[Line]:
    """Measure the parts named."""
    model = EmbeddedScorer(store=store)
    corpus = scifact(data / "scifact")
    found = corpus.retrieved(CANDIDATES, queries)
    web = shortened(load(data / "trec-dl19"), queries)
    if "fusion" in parts:
        yield from fusion(model, web, -0.01)
        yield from fusion(model, found, 0.0)
    if "cascade" in parts:
        # Half of these 100 passages hold too few of the good ones: there the cut has its price, whatever makes it.
        yield from cascade(model, web, None)
        yield from cascade(model, found, -0.005)
    if "passages" in parts:
        yield from passages(model, joined(corpus, JOINED_TOKENS).retrieved(CANDIDATES, queries), 0.05)
    model.close()


def row(line: Line) -> str:
    """A line of the table."""
    wanted = "" if line.wanted is None else f"≥ {line.wanted:+.3f}"
    spent = "" if line.time is None else f"{line.time:.0%}"
    limit = "" if line.wanted_time is None else f"≤ {line.wanted_time:.0%}"
    met = "" if line.wanted is None and line.wanted_time is None else "yes" if line.met else "no"
    return (
        f"| {line.data} | {line.what} | {line.before:.4f} | {line.after:.4f} | {line.after - line.before:+.4f} "
        f"| {wanted} | {spent} | {limit} | {met} |"
    )


def _judged(qrels: dict[str, dict[str, int]], entries: Sequence[Candidates]) -> dict[str, dict[str, int]]:
    """The judgements of these queries; the mean is over all queries that have some."""
    asked = {entry.qid for entry in entries}
    return {qid: grades for qid, grades in qrels.items() if qid in asked}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit status is 1 where something is not as wanted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=default_data())
    parser.add_argument("--store", type=Path, help="a folder where the documents' vectors are kept for the next run")
    parser.add_argument("--queries", type=int, help="only the first so many of each data set")
    parser.add_argument("--only", choices=PARTS, action="append", help="a part to measure; may be repeated")
    given = parser.parse_args(arguments)
    missing = [name for name in ("scifact", "trec-dl19") if not (given.data / name).is_dir()]
    if missing:
        print(f"The data folder has no {' and no '.join(missing)}; pass --data.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        store = given.store or Path(folder) / "store"
        good = True
        print(HEAD)
        for line in compare(given.data, store, given.queries, given.only or PARTS):
            print(row(line), flush=True)
            good = good and line.met
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
