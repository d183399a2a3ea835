"""The shipped calibrator on real candidates that it was not fitted on, where the data folder is there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from uprank.calibrations.reliability import CalibrationReport, reliability
from uprank.calibrator import shipped_calibrator

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    pytest.importorskip("ir_measures")
    sys.path.insert(0, str(BENCHMARKS))  # it imports its neighbour
    try:
        specification = importlib.util.spec_from_file_location("calibration_benchmark", BENCHMARKS / "calibration.py")
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules["calibration_benchmark"] = module
        specification.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    if not (module.default_data() / "train").is_dir():
        pytest.skip(f"needs the judged candidates under {module.default_data()}/train")
    return module


def measured(script: ModuleType, files: set[str], queries: int) -> tuple[CalibrationReport, CalibrationReport]:
    """Cosines as they come and calibrated, over so many held-out queries of each source in some files."""
    sources = [source for source in script.SOURCES if source.file in files]
    held_out = []
    for judged in script.load(script.default_data() / "train", sources):
        held_out += [one for one in judged if script.held_out(one.query)][:queries]
    kept: dict[str, list[float]] = {}
    script.scored(held_out, kept, progress=False)
    scores, relevant = script.pairs(held_out, kept)
    raw = reliability([min(1.0, max(0.0, score)) for score in scores], relevant)
    return raw, shipped_calibrator("embedded").evaluate(scores, relevant)


@pytest.mark.no_cover
def test_probabilities_are_better_than_cosines_on_queries_that_were_held_out(script: ModuleType):
    raw, calibrated = measured(script, files={"small-web", "multihop"}, queries=1)
    assert calibrated.count >= 40
    assert calibrated.brier < raw.brier
    assert calibrated.ece < raw.ece / 2


@pytest.mark.slow
def test_the_promised_calibration_on_all_queries_that_were_held_out(script: ModuleType):
    raw, calibrated = measured(script, files={source.file for source in script.SOURCES}, queries=1_000)
    assert calibrated.count > 2_000
    assert calibrated.ece <= 0.05
    assert calibrated.brier < raw.brier
    assert calibrated.brier < calibrated.positives / calibrated.count * (1 - calibrated.positives / calibrated.count)


def test_no_query_is_both_fitted_on_and_held_out(script: ModuleType):
    assert script.held_out("who sang  Carmen") == script.held_out("Who sang carmen ")
    share = sum(script.held_out(f"query {n}") for n in range(2_000)) / 2_000
    assert 0.25 < share < 0.35
