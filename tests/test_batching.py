"""Packing by token budget, and going on with half of it when memory runs out."""

import logging
import re
import weakref
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uprank import ConfigurationError, ScorerError
from uprank.scorers.local.batching import (
    beginnings,
    default_token_budget,
    is_out_of_memory,
    pack,
    run_batches,
    valid_token_budget,
)

relaxed = settings(deadline=None)
lengths_lists = st.lists(st.integers(0, 40), max_size=30)


def padded(lengths, batch):
    return max(1, *(lengths[index] for index in batch)) * len(batch)  # an item counts as one token at least


class Memory:
    """A forward pass over items that runs out of memory above a number of padded tokens."""

    def __init__(self, lengths, capacity=10**9, failing_calls=()):
        self.lengths = lengths
        self.capacity = capacity
        self.failing_calls = set(failing_calls)
        self.batches = []

    def __call__(self, batch):
        self.batches.append(list(batch))
        if padded(self.lengths, batch) > self.capacity or len(self.batches) in self.failing_calls:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return [f"result of {index}" for index in batch]


def collected(lengths, budget, forward):
    results = {}
    for batch, result in run_batches(lengths, budget, forward, name="m"):
        for index, value in zip(batch, result, strict=True):
            assert index not in results
            results[index] = value
    return results


def complete(lengths):
    return {index: f"result of {index}" for index in range(len(lengths))}


# --- packing


@relaxed
@given(lengths_lists, st.integers(1, 200))
def test_every_item_is_in_one_batch_within_the_budget(lengths, budget):
    batches = pack(lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert batch
        assert padded(lengths, batch) <= budget or len(batch) == 1


@relaxed
@given(lengths_lists, st.integers(1, 200))
def test_batches_go_from_long_to_short_and_ties_keep_their_order(lengths, budget):
    flat = [index for batch in pack(lengths, budget) for index in batch]
    assert flat == sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))


@relaxed
@given(lengths_lists, st.integers(1, 200))
def test_no_batch_could_have_taken_the_next_item(lengths, budget):
    batches = pack(lengths, budget)
    for batch, following in pairwise(batches):
        assert padded(lengths, [*batch, following[0]]) > budget


def test_packing_by_hand():
    assert pack([], 10) == []
    assert pack([3, 5, 3, 20, 1], 10) == [[3], [1, 0], [2, 4]]
    assert pack([0, 0, 0], 2) == [[0, 1], [2]]


# --- running


@relaxed
@given(lengths_lists, st.integers(1, 200))
def test_all_results_come_back_with_their_indices(lengths, budget):
    forward = Memory(lengths)
    assert collected(lengths, budget, forward) == complete(lengths)
    assert forward.batches == pack(lengths, budget)


@relaxed
@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(1, 1200), st.integers(0, 400))
def test_a_device_too_small_for_the_budget_still_gives_all_results(lengths, budget, spare):
    capacity = max(1, *lengths) + spare  # a single item always fits
    forward = Memory(lengths, capacity)
    assert collected(lengths, budget, forward) == complete(lengths)
    failed = [batch for batch in forward.batches if padded(lengths, batch) > capacity]
    for before, after in pairwise(failed):
        assert padded(lengths, after) <= padded(lengths, before) / 2


@pytest.mark.parametrize("failing_call", [1, 2, 3, 4])
def test_running_out_at_any_position_keeps_what_was_done(failing_call, caplog):
    lengths = [8] * 4 + [4] * 8 + [2] * 16 + [1] * 32
    forward = Memory(lengths, failing_calls=[failing_call])
    with caplog.at_level(logging.WARNING, logger="uprank"):
        assert collected(lengths, 32, forward) == complete(lengths)
    done, after = forward.batches[: failing_call - 1], forward.batches[failing_call:]
    assert [len(batch) for batch in done] == [4, 8, 16, 32][: failing_call - 1]
    assert sorted(index for batch in done + after for index in batch) == list(range(60))  # nothing run twice
    assert all(padded(lengths, batch) <= 16 for batch in after)
    assert [record.message for record in caplog.records] == ["m ran out of memory; going on with batches of 16 tokens"]


def test_the_budget_halves_until_single_items_are_left():
    lengths = [10] * 8
    forward = Memory(lengths, capacity=10)
    assert collected(lengths, 80, forward) == complete(lengths)
    assert [len(batch) for batch in forward.batches] == [8, 4, 2, *[1] * 8]


@pytest.mark.parametrize("lengths", [[50], [50, 1, 1], [50, 50]])
def test_running_out_on_a_single_item_is_an_error_that_says_what_to_do(lengths):
    forward = Memory(lengths, capacity=49)
    with pytest.raises(ScorerError, match=r"m ran out of memory on a single input of 50 tokens.*max_length") as caught:
        collected(lengths, 100, forward)
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)
    assert forward.batches[-1] == [0]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        ValueError("out of memory"),  # only says so
        IndexError("index out of range in self"),
        KeyError("logits"),
    ],
    ids=repr,
)
def test_d16_any_other_error_is_raised_as_it_is_and_not_retried(error):
    """D16: every RuntimeError shrank the batch, down to nothing, and surfaced as something unrelated."""
    calls = []

    def forward(batch):
        calls.append(batch)
        raise error

    with pytest.raises(type(error)) as caught:
        collected([1, 2, 3], 100, forward)
    assert caught.value is error
    assert len(calls) == 1


def test_an_interrupt_is_not_retried():
    def forward(batch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collected([1, 2, 3], 100, forward)


def test_what_the_failed_batch_held_is_let_go_before_the_next():
    """A traceback keeps the tensors of the frames it passes; the retry must not have to fit beside them."""
    held = []

    class Activations:
        pass

    def forward(batch):
        assert [reference() for reference in held] == [None] * len(held)
        activations = Activations()
        held.append(weakref.ref(activations))
        if len(batch) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return [f"result of {index}" for index in batch]

    assert collected([5] * 4, 100, forward) == complete([5] * 4)
    assert len(held) == 2 + 4


# --- what is a lack of memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.5 GB)"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:73] data. DefaultCPUAllocator: not enough memory: you tried"
        ),  # Windows
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:60],
)
def test_a_lack_of_memory_is_told_on_every_device(error):
    assert is_out_of_memory(error)


def test_a_real_allocation_that_fails_is_told():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


# --- budgets


def test_a_gpu_takes_larger_batches_than_a_cpu():
    assert 512 < default_token_budget("cpu") < default_token_budget("cuda")
    assert default_token_budget("mps") == default_token_budget("cuda")


@pytest.mark.parametrize("budget", [None, 1, 4096])
def test_a_budget_is_a_positive_integer_or_none(budget):
    assert valid_token_budget(budget) == budget


@pytest.mark.parametrize("budget", [0, -1, 2.5, True, "4096", float("inf")], ids=repr)
def test_any_other_budget_is_refused(budget):
    with pytest.raises(
        ConfigurationError, match=re.escape(f"token_budget must be a positive integer or None, got {budget!r}")
    ):
        valid_token_budget(budget)


def test_of_a_very_long_text_only_a_beginning_is_read_unless_its_words_are_longer_still():
    def count(text):
        return len(text.split())

    ordinary, endless = "red fox " * 10_000, "x" * 10_000 + " red fox"
    texts = ["short", ordinary, endless]
    assert beginnings(texts, 16, count) == ["short", ordinary[: 64 * 16], endless]
    assert beginnings(texts, None, count) == texts
