"""How fast uprank is beside other rerankers with the same weights, on this machine, in one run.

Usage: python benchmarks/speed.py [--models minilm] [--workloads short,mixed,long] [--budget-seconds 600] [--quick]

Models of well-known shapes are built with random weights, each library gets a process of its own, and in each round
all score the same sample in shuffled order; ratios are taken within rounds. docs/performance.md states the method.
Peers other than sentence-transformers need an environment of their own:

    python -m venv .venv-bench && .venv-bench/bin/pip install -r benchmarks/peers-requirements.txt

Writes benchmarks/results/<date>-<machine>.json and .svg, and with --update the tables of docs/performance.md. The exit
status says that the run went through, not that targets were met: those are in the table at its end.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from speed_bench.chart import svg
from speed_bench.checks import checks
from speed_bench.machine import Machine, describe
from speed_bench.models import SHAPES
from speed_bench.report import markdown, updated
from speed_bench.settings import FULL, FULL_GPU, QUICK, Settings
from speed_bench.suite import run
from speed_bench.workloads import WORKLOADS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"


def main(arguments: list[str] | None = None) -> int:
    """Measure, write, and print the tables.

    Args:
        arguments: The command line; by default the program's own.

    Returns:
        The exit status: 0 if the run went through.
    """
    options = _parser().parse_args(arguments)
    machine = describe()
    if options.device == "cuda" and machine.gpu == "no GPU":
        print("no GPU: nothing was measured")
        return 0
    result = run(_settings(options), say=lambda what: print(f"… {what}", file=sys.stderr, flush=True))
    result["checks"] = [
        {"what": one.what, "target": one.target, "figure": one.figure, "met": one.met} for one in checks(result)
    ]
    written = _write(result, machine, options)
    print(markdown(result))
    print(f"Written: {written}")
    if machine.gpu == "no GPU":
        print("no GPU: GPU figures were not measured")
    return 0


def _write(result: dict[str, Any], machine: Machine, options: argparse.Namespace) -> Path:
    """The JSON, its chart and, if asked for, the page."""
    options.results.mkdir(parents=True, exist_ok=True)
    name = f"{result['date']}-{machine.slug(options.device)}"
    target: Path = options.results / f"{name}.json"
    target.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")
    target.with_suffix(".svg").write_text(svg(result), "utf-8")
    if options.update:
        chart = f"../benchmarks/results/{name}.svg"
        PAGE.write_text(updated(PAGE.read_text("utf-8"), markdown(result, chart)), "utf-8")
    return target


def _settings(options: argparse.Namespace) -> Settings:
    workloads = options.workloads
    if workloads is None:
        workloads = ["short"] if options.quick else ["pairs150", "mixed"] if options.device == "cuda" else _CPU_TEXTS
    models = options.models or (["tiny"] if options.quick else _GPU_MODELS if options.device == "cuda" else ["minilm"])
    pythons = {"project": Path(sys.executable)}
    if options.peers_python.is_file():
        pythons["peers"] = options.peers_python.absolute()  # not resolved: a link to it would leave its environment
    options.work.mkdir(parents=True, exist_ok=True)
    return Settings(
        models=tuple(models),
        workloads=tuple(workloads),
        device=options.device,
        budget=5.0 if options.quick else options.budget_seconds,
        folder=options.work.resolve(),
        pythons=pythons,
        sizes=QUICK if options.quick else FULL_GPU if options.device == "cuda" else FULL,
        engines=options.engines,
        seed=options.seed,
    )


_CPU_TEXTS = ["short", "mixed", "long"]
_GPU_MODELS = ["minilm", "xlmr-large", "modernbert"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure uprank and its peers in one run.")
    parser.add_argument("--models", type=_names(SHAPES), help=f"of {', '.join(SHAPES)} (default minilm)")
    parser.add_argument("--workloads", type=_names(WORKLOADS), help=f"of {', '.join(WORKLOADS)}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default cpu")
    parser.add_argument("--budget-seconds", type=float, default=600.0, help="of measuring, a model (default 600)")
    parser.add_argument("--quick", action="store_true", help="a tiny model and tiny samples: tries the script alone")
    parser.add_argument("--engines", action="store_true", help="measure each of uprank's engines too")
    parser.add_argument("--seed", type=int, default=0, help="of texts and order (default 0)")
    parser.add_argument(
        "--peers-python",
        type=Path,
        default=ROOT / ".venv-bench" / "bin" / "python",
        help="of the environment of benchmarks/peers-requirements.txt (default .venv-bench)",
    )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument("--work", type=Path, default=cache / "uprank-bench", help="where models and exports are kept")
    parser.add_argument("--results", type=Path, default=RESULTS, help="default benchmarks/results")
    parser.add_argument("--update", action="store_true", help="write the tables into docs/performance.md")
    return parser


class _names:  # noqa: N801 - used as a function, which argparse names in its errors
    """A comma-separated list of known names."""

    def __init__(self, known: Iterable[str]) -> None:
        self._known = tuple(known)

    def __call__(self, text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in self._known:
                raise argparse.ArgumentTypeError(f"no {name!r} in {', '.join(self._known)}")
        return names


if __name__ == "__main__":
    raise SystemExit(main())
