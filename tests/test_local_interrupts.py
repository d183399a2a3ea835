"""What an interrupt leaves running, and two threads that are first to use a runtime."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from uprank.scorers import LateInteractionScorer


def test_an_interrupted_precompute_is_cancelled(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    scorer = LateInteractionScorer(str(tiny_models["bert"]), device="cpu", dtype="float32", token_budget=64)
    scorer.score("fox", ["warm up"])
    runner = scorer._loaded()
    run, read = runner.run, []

    def noted(rows, lane):
        read.append(len(rows))
        return run(rows, lane)

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", noted)
    monkeypatch.setattr(scorer, "_finished", interrupt)
    with pytest.raises(KeyboardInterrupt):
        scorer.precompute([f"the red fox {number}" for number in range(4_096)])
    scorer.close()  # waits for what still runs
    assert sum(read) < 1_024  # not even the group that was waited for


@pytest.mark.parametrize("starts", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_two_threads_that_are_first_to_use_openvino_do_not_wait_for_each_other(
    tiny_models: dict[str, Path], starts: int
):
    program = f"""
import os, sys
sys.setswitchinterval(1e-6)
from uprank import Reranker
reranker = Reranker("cross-encoder:{tiny_models["bert"]}", device="cpu", engine="openvino", dtype="float32")
assert len(reranker.rank("fox", ["red " * number for number in range(1, 60)])) == 59
os._exit(0)
"""
    for _ in range(starts):
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
