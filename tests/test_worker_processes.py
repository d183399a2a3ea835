"""Scorers that hold a model, at the end of the process and in its children."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PRELUDE = """
    import os, sys, threading, time
    from length_scorer import Lengths, LengthJob, LengthScorer
    from uprank import Reranker
    from uprank.scorers import ScoreRequest
"""


def run(source: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(PRELUDE) + textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=HERE,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.split()


def test_at_exit_queued_calls_are_finished_and_nothing_hangs():
    assert run("""
        class Slow(Lengths):
            def run(self, rows, lane):
                time.sleep(0.02)
                return super().run(rows, lane)

        class Telling(LengthJob):
            def outcomes(self):
                sys.stdout.write(f"{self.requests[0].query}\\n")
                return super().outcomes()

        scorer = LengthScorer()
        scorer.runner = Slow()
        for number in range(5):
            scorer._scheduler.submit(lambda number=number: Telling([ScoreRequest(f"q{number}", ["a"])]))
        idle = LengthScorer()
        idle.score("q", ["a"])
    """) == ["q0", "q1", "q2", "q3", "q4"]


def test_a_thread_that_outlives_the_main_one_goes_on_with_the_same_model():
    assert run("""
        scorer = LengthScorer()
        scorer.score("q", ["a"])

        def outlive():
            while threading.main_thread().is_alive():
                time.sleep(0.001)
            time.sleep(0.05)
            values = [scorer.score("q", ["a" * n]).values[0] for n in range(1, 6)]
            sys.stdout.write(f"{sum(values)} {scorer.events}\\n")

        threading.Thread(target=outlive).start()
    """) == ["15.0", "['load']"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_loads_a_model_of_its_own():
    assert run("""
        scorer = LengthScorer()
        reranker = Reranker(scorer)
        assert reranker.rank("q", ["a", "bb"])[0].index == 1
        child = os.fork()
        if child == 0:
            assert scorer.tokenizer == "loaded"
            code = 40 + len(reranker.rank("q", ["a", "bb"]))
            assert scorer.events == ["load", "load"]
            reranker.close()
            assert scorer.tokenizer is None
            os._exit(code)
        first = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        child = os.fork()
        if child == 0:  # closing what the parent opened must not wait for the parent's threads
            reranker.close()
            reranker.close()
            os._exit(43 if scorer.tokenizer is None else 1)
        second = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{first} {second} {reranker.rank('q', ['a'])[0].score} {scorer.events}\\n")
    """) == ["42", "43", "1.0", "['load']"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_the_parent_loaded_is_neither_used_nor_freed_in_a_child():
    """An engine that is freed may wait for its threads, and those were not forked."""
    assert run("""
        class Engine:
            def __init__(self):
                self.process = os.getpid()
            def __del__(self):
                if os.getpid() != self.process:
                    os._exit(99)

        class Owned(Lengths):
            def __init__(self):
                super().__init__()
                self.engine = Engine()

        class EngineScorer(LengthScorer):
            _loaded_parts = ("tokenizer", "engine")
            engine = None
            def _load_runner(self):
                super()._load_runner()
                self.engine = self.engine or Engine()
                return Owned()
            def _unload(self):
                self.engine = None
                super()._unload()

        scorer = EngineScorer()
        scorer.score("q", ["a"])
        for act in (scorer.close, lambda: scorer.score("q", ["a"])):
            child = os.fork()
            if child == 0:
                act()
                used = scorer.engine
                os._exit(0 if used is None else 1 if used.process == os.getpid() else 98)
            sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\\n")
    """) == ["0", "1"]


def test_a_child_forked_while_the_locks_are_held_goes_on():
    assert run("""
        scorer = LengthScorer()
        scorer.score("q", ["a"])
        held = threading.Event()

        def hold():
            with scorer._scheduler._lock, scorer._scheduler._session._lock:
                held.set()
                threading.Event().wait(20)

        threading.Thread(target=hold, daemon=True).start()
        held.wait()
        child = os.fork()
        if child == 0:
            os._exit(int(scorer.score("q", ["abc"]).values[0]))
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\\n")
        sys.stdout.flush()
        os._exit(0)
    """) == ["3"]
