"""How faithful each engine, precision and store is to torch in float32, on judged candidates.

    python benchmarks/fidelity.py --data ../shared/data --dataset trec-dl19

One line a form of the model: nDCG@10, its difference to torch in float32, Kendall's tau between the
two orders (the mean over the queries), the largest difference of a score, pairs a second.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from quality import Dataset, default_data, load

from uprank import Ranking, Reranker, UprankError
from uprank.fidelity import Fidelity, compare

Options = dict[str, str | bool]

REFERENCE: Options = {"engine": "torch", "dtype": "float32", "store": False}
FORMS: tuple[Options, ...] = (
    {"engine": "openvino", "dtype": "float32", "store": False},
    {"engine": "onnx", "dtype": "float32", "store": False},
    {"engine": "openvino", "dtype": "bfloat16", "store": False},
    {"engine": "onnx", "dtype": "int8", "store": False},
    {"engine": "openvino", "dtype": "int8", "store": False},
    {"engine": "auto", "dtype": "auto", "store_dtype": "float16"},
    {"engine": "auto", "dtype": "auto", "store_dtype": "int8"},
)


@dataclass(frozen=True, slots=True)
class Line:
    """One form of the model.

    Args:
        options: What was passed for it.
        fidelity: Against torch in float32; ``None`` where it could not be run.
        pairs_per_second: On this machine, nothing stored before.
        problem: Why it could not be run.
    """

    options: Options
    fidelity: Fidelity | None = None
    pairs_per_second: float | None = None
    problem: str | None = None


def measure(model: str, dataset: Dataset, forms: Sequence[Options]) -> list[Line]:
    """Rank the data set with each form and compare it with the reference, which is the first line."""
    judgements = [
        [float(dataset.qrels.get(entry.qid, {}).get(str(document.id), 0)) for document in entry.documents]
        for entry in dataset.queries
    ]
    exact, seconds = _rank(model, dataset, REFERENCE)
    lines = [Line(REFERENCE, compare(exact, exact, judgements), dataset.pairs / seconds)]
    for options in forms:
        try:
            rankings, seconds = _rank(model, dataset, options)
        except UprankError as error:
            lines.append(Line(options, problem=str(error)))
        else:
            lines.append(Line(options, compare(rankings, exact, judgements), dataset.pairs / seconds))
    return lines


def _rank(model: str, dataset: Dataset, options: Options) -> tuple[list[Ranking], float]:
    with Reranker(model, **options) as reranker:  # type: ignore[arg-type]  # options of the scorer
        reranker.rank("warm", ["up"])
        started = time.perf_counter()
        queries = [entry.query for entry in dataset.queries]
        rankings = reranker.rank_many(queries, [entry.documents for entry in dataset.queries])
        return rankings, time.perf_counter() - started


def table(lines: Sequence[Line]) -> str:
    """The lines as a Markdown table."""
    rows = [
        "| form | nDCG@10 | difference | Kendall's τ | largest difference of a score | pairs/s |",
        "|---|---|---|---|---|---|",
    ]
    for line in lines:
        form = ", ".join(f"{name}={value}" for name, value in line.options.items())
        found = line.fidelity
        if found is None:
            rows.append(f"| {form} | not run: {line.problem} | | | | |")
        else:
            rows.append(
                f"| {form} | {found.ndcg:.4f} | {found.ndcg_difference:+.4f} | {found.kendall_tau:.4f} "
                f"| {found.largest_difference:.2g} | {line.pairs_per_second:,.0f} |"
            )
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--data", type=Path, default=default_data())
    parser.add_argument("--dataset", default="trec-dl19")
    parser.add_argument("--queries", type=int, help="only the first so many")
    parser.add_argument("--output", type=Path, help="write the figures as JSON too")
    given = parser.parse_args(arguments)
    folder = given.data / given.dataset
    if not (folder / "candidates.jsonl").is_file():
        print(f"There is no data set in {given.dataset} of the data folder; pass --data.", file=sys.stderr)
        return 2
    dataset = load(folder)
    dataset = Dataset(dataset.name, dataset.queries[: given.queries], dataset.qrels)
    lines = measure(given.model, dataset, FORMS)
    print(table(lines))
    if given.output:
        given.output.write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
