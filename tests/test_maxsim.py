"""MaxSim against nested loops, wherever the vectors lie and however they are kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from uprank.scorers.local.vectors import maxsim as module
from uprank.scorers.local.vectors.blocks import Block, Known, from_record, record_size, rounded, to_record, widened
from uprank.scorers.local.vectors.encoded import DeviceVectors, HostVectors, normalised
from uprank.scorers.local.vectors.maxsim import maxsim

Floats = NDArray[np.float32]


def unit_vectors(generator: np.random.Generator, count: int, dimensions: int) -> Floats:
    return normalised(generator.standard_normal((count, dimensions)).astype(np.float32))


def rows_of(known: Known) -> Floats:
    block = known.block.slice(known.start, known.start + known.size)
    return block.values * (1.0 if block.scales is None else block.scales[:, None])


def loops(query: Floats, known: Known) -> float:
    rows = rows_of(known)
    best = [max((float(wanted @ given) for given in rows), default=-1.0) for wanted in query]
    return sum(best) / len(best) if best else -1.0


@st.composite
def documents(draw: st.DrawFn) -> tuple[Floats, list[Known]]:
    """A query, and documents in one to three blocks: side by side, apart, empty, twice, in any order."""
    generator = np.random.default_rng(draw(st.integers(0, 1000)))
    dimensions = draw(st.integers(1, 70))
    known: list[Known] = []
    for _ in range(draw(st.integers(1, 3))):
        sizes = draw(st.lists(st.integers(0, 5), max_size=5))
        values = unit_vectors(generator, sum(sizes) + 1, dimensions)
        block = rounded(values, draw(st.sampled_from(["float32", "float16", "int8"])))
        starts = np.cumsum([0, *sizes]).tolist()
        known += [Known(block, start, size, size + 2) for start, size in zip(starts, sizes, strict=False)]
    chosen = draw(st.lists(st.sampled_from(known), max_size=12)) if known else []
    return unit_vectors(generator, draw(st.integers(0, 4)), dimensions), chosen


@settings(deadline=None, max_examples=150)
@given(documents())
def test_maxsim_equals_nested_loops(case: tuple[Floats, list[Known]]):
    query, known = case
    scores = maxsim(query, known)
    assert scores.tolist() == pytest.approx([loops(query, one) for one in known], abs=2e-6)
    assert all(-1.0 <= score <= 1.0 for score in scores)


def test_many_documents_are_compared_in_groups(monkeypatch: pytest.MonkeyPatch):
    generator = np.random.default_rng(0)
    block = Block(unit_vectors(generator, 300, 16))
    known = [Known(block, start, 3, 5) for start in range(0, 300, 3)]
    query = unit_vectors(generator, 4, 16)
    together = maxsim(query, known)
    monkeypatch.setattr(module, "_PRODUCTS", 50)  # four documents
    assert maxsim(query, known).tolist() == pytest.approx(together.tolist(), abs=1e-6)
    assert maxsim(query, known[::-1]).tolist() == pytest.approx(together[::-1].tolist(), abs=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_score_does_not_depend_on_the_other_documents(dtype: str):
    generator = np.random.default_rng(1)
    block = rounded(unit_vectors(generator, 1_000, 384), dtype)
    known = [Known(block, 10 * number, 1 + number % 10, 0) for number in range(100)]
    query = unit_vectors(generator, 9, 384)
    together = maxsim(query, known)
    alone = [float(maxsim(query, [one])[0]) for one in known]
    assert together.tolist() == pytest.approx(alone, abs=1e-6)
    elsewhere = Known(rounded(rows_of(known[7]).astype(np.float32), "float32"), 0, known[7].size, 0)
    tied = maxsim(query, [elsewhere, *known[5:9]])  # the same vectors at two places
    assert tied[0] == pytest.approx(float(tied[3]), abs=1e-6)


def test_cosines_of_a_text_with_itself_stay_in_range():
    values = unit_vectors(np.random.default_rng(2), 50, 384) * np.float32(1.0000002)
    scores = maxsim(values, [Known(Block(values), 0, 50, 52), Known(Block(-values), 0, 50, 52)])
    assert scores[0] == 1.0
    assert scores[1] >= -1.0


def test_float16_is_widened_exactly():
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    padded = np.concatenate([finite, np.zeros(-len(finite) % 64, dtype=np.float16)]).reshape(-1, 64)
    expected = padded.astype(np.float32)
    assert np.array_equal(widened(padded).view(np.int32), expected.view(np.int32))  # signs of zeros, too
    assert widened(np.empty((0, 5), dtype=np.float16)).shape == (0, 5)


@pytest.mark.parametrize(("dtype", "error"), [("float32", 0.0), ("float16", 2**-11), ("int8", 1 / 254)])
def test_rounding_is_small_and_kept_by_records(dtype: str, error: float):
    values = unit_vectors(np.random.default_rng(3), 40, 33)
    values[5] = 0.0
    block = rounded(values, dtype)
    restored = rows_of(Known(block, 0, 40, 42))
    largest = np.abs(values).max(axis=1, keepdims=True)
    assert np.all(np.abs(restored - values) <= error * largest + 1e-9)
    assert not restored[5].any()
    record = to_record(block, dtype)
    assert len(record) == record_size(40, 33, dtype)
    again = from_record(np.frombuffer(record, dtype=np.uint8), 40, 33, dtype)
    assert np.array_equal(rows_of(Known(again, 0, 40, 42)), restored)
    assert np.array_equal(rows_of(Known(rounded(restored.astype(np.float32), dtype), 0, 40, 42)), restored)


def test_vectors_on_a_device_are_compared_there_with_the_same_result():
    generator = np.random.default_rng(4)
    counts = [3, 0, 5, 1, 7]
    values = unit_vectors(generator, sum(counts), 24)
    query = unit_vectors(generator, 6, 24)
    block, starts = Block(values), np.cumsum([0, *counts]).tolist()
    known = [Known(block, start, size, 0) for start, size in zip(starts, counts, strict=False)]
    there, here = DeviceVectors(torch.from_numpy(values), counts), HostVectors(values, counts)
    assert there.part(range(5)) is there
    for positions in ([0, 1, 2, 3, 4], [4, 1], [2], [3, 3]):
        expected = maxsim(query, [known[position] for position in positions]).tolist()
        assert there.maxsim(query, positions) == pytest.approx(expected, abs=1e-6)
        assert there.maxsim(query[:0], positions) == [-1.0] * len(positions)
        assert np.array_equal(there.part(positions).host(), here.part(positions).host())
        assert there.part(positions).counts == here.part(positions).counts == [counts[place] for place in positions]
