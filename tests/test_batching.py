"""Chunks, budgets, and what a lack of memory looks like."""

import re
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.capi import onnxruntime_pybind11_state as onnx_errors

from uprank import ConfigurationError
from uprank.scorers.local.batching import (
    beginnings,
    chunks,
    default_token_budget,
    is_out_of_memory,
    valid_token_budget,
)

# --- what is tokenised at a time


@given(st.lists(st.integers(0, 3_000), max_size=40))
@settings(deadline=None, max_examples=30)
def test_chunks_are_bounded_and_lose_nothing(lengths):
    texts = ["x" * (1_000 * length) for length in lengths]
    found = list(chunks(texts))
    assert [text for chunk in found for text in chunk] == texts
    for chunk in found:
        assert chunk
        assert len(chunk) == 1 or sum(map(len, chunk)) <= 1_000_000
    for chunk, following in pairwise(found):
        assert sum(map(len, chunk)) + len(following[0]) > 1_000_000


def test_a_chunk_has_so_few_texts_that_other_calls_soon_have_their_turn():
    *full, last = [len(chunk) for chunk in chunks(["a"] * 1_100)]
    assert set(full) <= {max(full)}
    assert 64 <= max(full) <= 512
    assert sum(full) + last == 1_100


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
        onnx_errors.Fail("[ONNXRuntimeError] : 1 : FAIL : Failed to allocate memory for requested buffer of size 8"),
        onnx_errors.RuntimeException("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : ... node. std::bad_alloc"),
        RuntimeError("Exception from src/inference/src/core.cpp:117:\nFailed to allocate 2013 bytes of memory"),
        RuntimeError("Exception from src/core/src/runtime/allocator.cpp:79:\nbad allocation"),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:60],
)
def test_a_lack_of_memory_is_told_on_every_device(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        onnx_errors.InvalidArgument("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input"),
        RuntimeError("Failed to allocate a port"),
        ValueError("Failed to allocate 2013 bytes of memory"),
    ],
    ids=repr,
)
def test_any_other_error_is_none(error):
    assert not is_out_of_memory(error)


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_a_real_lack_of_memory_of_the_engines_is_told_and_smaller_batches_run_after_it(tiny_models):
    program = f"""
import resource
from pathlib import Path
import numpy as np
from uprank.scorers.local.batching import is_out_of_memory
from uprank.scorers.local.engines.base import Tokens
from uprank.scorers.local.engines.exported import load_exported
from uprank.scorers.local.files import ModelFiles

files = ModelFiles.find({str(tiny_models["bert"])!r})
row = Tokens(np.full(128, 7, np.int32))
options = {{"precision": "float32", "output": "logits", "name": "tiny", "lanes": 1}}
engines = [load_exported(files, engine=name, **options) for name in ("onnx", "openvino")]
for engine in engines:
    engine.run([row], 0)
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 100_000_000,) * 2)
for engine in engines:
    try:
        engine.run([row] * 4_000, 0)
    except Exception as error:
        print(engine.name, is_out_of_memory(error), len(engine.run([row] * 2, 0)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["onnx True 2", "openvino True 2"]


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
