"""The environment of the clients, seen from that of the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from server_clients.calls import Call, Pairs

__all__ = ["HOW_TO_GET_IT", "Outcome", "find_python", "make"]

VARIABLE = "UPRANK_CLIENTS_PYTHON"
HOW_TO_GET_IT = (
    f"other packages' clients are not installed: run `make clients`, or name a Python with them in {VARIABLE}"
)
TESTS = Path(__file__).parents[1]
ENVIRONMENT = TESTS.parent / ".venv-clients"

SECONDS = 180
"""How long all calls of a run may take; importing the frameworks takes a minute from a cold disk."""

PASSED_ON = {"PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP", "LANG", "HOME", "USERPROFILE"}


@dataclass(frozen=True)
class Outcome:
    """What came of a call: pairs, or an error.

    Args:
        pairs: Positions and scores, best first; ``None`` where there was an error.
        error: The full name of its class.
        message: Its text.
    """

    pairs: Pairs | None = None
    error: str = ""
    message: str = ""

    @property
    def order(self) -> list[int]:
        """The positions, best first."""
        assert self.pairs is not None, f"{self.error}: {self.message}"
        return [index for index, _ in self.pairs]

    @property
    def scores(self) -> list[float]:
        """The scores, in that order."""
        assert self.pairs is not None, f"{self.error}: {self.message}"
        return [score for _, score in self.pairs]


def find_python() -> Path | None:
    """The Python that has the clients; ``None`` where there is none.

    One named by the environment variable is taken at its word: if it cannot import them, that is an error.
    """
    if named := os.environ.get(VARIABLE):
        return Path(named)
    python = ENVIRONMENT / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    return python if python.exists() and (ENVIRONMENT / "ready").exists() else None


def make(python: Path, modules: Sequence[str], calls: Sequence[Call]) -> dict[Call, Outcome]:
    """Make calls, all in one process, since importing the clients takes far longer than calling them.

    Args:
        python: Has the clients.
        modules: Of this package: those with the clients that the calls name.
        calls: In any order; no two alike.

    Raises:
        RuntimeError: If the process fails, with the end of what it said.
    """
    environment = {name: value for name, value in os.environ.items() if name.upper() in PASSED_ON}
    # None of them may report home, or fetch prices from there before it starts.
    environment |= {"DO_NOT_TRACK": "1", "HAYSTACK_TELEMETRY_ENABLED": "False", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    environment |= {"NO_PROXY": "127.0.0.1", "PYTHONUTF8": "1", "LANGSMITH_TRACING": "false"}
    ended = subprocess.run(
        [python, "-W", "ignore", "-m", "server_clients", *modules],
        input=json.dumps([asdict(call) for call in calls]),
        capture_output=True,
        encoding="utf-8",
        cwd=TESTS,
        env=environment,
        timeout=SECONDS,
        check=False,
    )
    if ended.returncode:
        raise RuntimeError(f"the clients ended with status {ended.returncode}:\n{ended.stderr[-3000:]}")
    outcomes = json.loads(ended.stdout)
    return {call: _outcome(one) for call, one in zip(calls, outcomes, strict=True)}


def _outcome(found: dict[str, Any]) -> Outcome:  # Any: what JSON has
    if "pairs" in found:
        return Outcome([(index, score) for index, score in found["pairs"]])
    return Outcome(error=found["error"], message=found["message"])
