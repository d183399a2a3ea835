"""How long `import uprank` takes in a fresh interpreter, beside a bare one.

Usage: python benchmarks/import_time.py [--runs 20] [--limit 150]

Each run starts one interpreter that does nothing and one that imports uprank, in turn, and times both from start to
exit; one run before that fills the file cache. The difference of the medians is the time of the import. Exit status 1
if it is above the limit.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

LIMIT_MS = 150.0


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and judge.

    Args:
        arguments: The command line; by default the program's own.

    Returns:
        The exit status: 0, or 1 if the import takes longer than the limit.
    """
    parser = argparse.ArgumentParser(description="Time `import uprank` in fresh interpreters.")
    parser.add_argument("--runs", type=_positive, default=20, help="interpreters started of each kind (default 20)")
    parser.add_argument("--limit", type=float, default=LIMIT_MS, help="most milliseconds allowed (default 150)")
    options = parser.parse_args(arguments)

    milliseconds("import uprank")
    bare, importing = [], []
    for _ in range(options.runs):
        bare.append(milliseconds("pass"))
        importing.append(milliseconds("import uprank"))
    bare_median, importing_median = statistics.median(bare), statistics.median(importing)
    taken = importing_median - bare_median

    print(f"bare interpreter:  {bare_median:7.1f} ms (median of {options.runs}, least {min(bare):.1f})")
    print(f"with uprank:       {importing_median:7.1f} ms (median of {options.runs}, least {min(importing):.1f})")
    print(f"import uprank:     {taken:7.1f} ms, limit {options.limit:g} ms")
    if taken > options.limit:
        print("Too slow: see `python -X importtime -c 'import uprank'`.", file=sys.stderr)
        return 1
    return 0


def milliseconds(statement: str) -> float:
    """Return the wall-clock milliseconds that a fresh interpreter takes to run ``statement``.

    Args:
        statement: One Python statement of this file's own.

    Raises:
        subprocess.CalledProcessError: If it fails, as where uprank is not installed.
    """
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)  # noqa: S603 - a statement of our own
    return (time.perf_counter() - started) * 1_000


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    raise SystemExit(main())
