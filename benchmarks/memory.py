"""How much memory a cross-encoder takes for many long documents, beside few of them.

    python benchmarks/memory.py
    python benchmarks/memory.py --model path/to/a/cross-encoder --engine torch --documents 10 300 1000

Each line is a process of its own: it loads the model, ranks so many documents of which every pair with the query
fills the window of 512 tokens, and tells the most memory it ever held. What grows from line to line is what documents
cost; the rest is Python, the engine and the model. Without ``--model``, one of MiniLM-L6's shape is built.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from speed_bench.memory import peak_bytes

ENGINES = ("openvino", "onnx", "torch")
WINDOW = 512
QUERY = "where do whales sleep at night"
WORDS = "fox whale river capital python function reads writes deep blue quick time city query answer".split()  # noqa: SIM905
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Peak:
    """What one process took.

    Args:
        engine: What ran the model.
        documents: How many were ranked in one call.
        idle: The most bytes held once the model was loaded, one short pair ranked.
        peak: The most bytes held at the end.
        seconds: Wall clock of the call.
    """

    engine: str
    documents: int
    idle: int
    peak: int
    seconds: float


def measure(model: str, engine: str, count: int) -> Peak:
    """Rank so many long documents in this process."""
    from uprank import Reranker

    words = random.Random(0)  # noqa: S311 - texts
    texts = [" ".join([str(number), *words.choices(WORDS, k=WINDOW)]) for number in range(count)]
    options = {"device": "cpu", "engine": engine, "dtype": "float32", "max_length": WINDOW}
    with Reranker(f"cross-encoder:{model}", **options) as reranker:  # type: ignore[arg-type]  # options of the scorer
        reranker.rank(QUERY, WORDS[:1])
        idle = peak_bytes()
        started = time.perf_counter()
        ranking = reranker.rank(QUERY, texts)
        seconds = time.perf_counter() - started
        assert len(ranking) == count
        # Every pair filled the window, or the figures would be of something else.
        assert any(f"{count} of {count} documents reach the window" in warning for warning in ranking.warnings)
    return Peak(engine, count, idle, peak_bytes(), seconds)


def in_a_process(model: str, engine: str, count: int) -> Peak:
    """As :func:`measure`, in a process that does nothing else.

    Raises:
        subprocess.CalledProcessError: If it fails; its own words are on standard error.
    """
    command = [sys.executable, __file__, "--model", model, "--engine", engine, "--only", str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603 - this file
    return Peak(**json.loads(done.stdout.splitlines()[-1]))


def table(peaks: Sequence[Peak]) -> str:
    """The peaks as a Markdown table, each beside the first of its engine."""
    rows = [
        f"| engine | documents of {WINDOW} tokens | model loaded, MiB | peak, MiB | beside the fewest | seconds |",
        "|---|---|---|---|---|---|",
    ]
    fewest: dict[str, Peak] = {}
    for peak in peaks:
        more = peak.peak - fewest.setdefault(peak.engine, peak).peak
        rows.append(
            f"| {peak.engine} | {peak.documents:,} | {peak.idle / MIB:,.0f} | {peak.peak / MIB:,.0f} "
            f"| {more / MIB:+,.0f} MiB | {peak.seconds:.1f} |"
        )
    return "\n".join(rows)


def built(folder: Path) -> str:
    """A model of MiniLM-L6's shape with random weights."""
    from speed_bench import models

    words = random.Random(1)  # noqa: S311 - texts
    return str(models.build(models.SHAPES["minilm"], folder, words.choices(WORDS, k=4_000)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", help="the folder of a cross-encoder (default: one of MiniLM-L6's shape is built)")
    parser.add_argument("--engine", action="append", choices=ENGINES, help="may be repeated (default: all)")
    parser.add_argument("--documents", type=int, nargs="+", default=[10, 300], help="default: 10 300")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)  # measure here, and print it as JSON
    given = parser.parse_args(arguments)
    engines = given.engine or list(ENGINES)
    if given.only is not None:
        print(json.dumps(asdict(measure(given.model, engines[0], given.only))))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        model = given.model or built(Path(folder))
        peaks = [in_a_process(model, engine, count) for engine in engines for count in given.documents]
    print(table(peaks))
    return 0


if __name__ == "__main__":
    sys.exit(main())
