"""How much is tokenised at a time, how much is run at a time, and what a lack of memory looks like."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable, Iterator, Sequence

from uprank.errors import ConfigurationError

__all__ = [
    "beginnings",
    "chunks",
    "default_token_budget",
    "is_out_of_memory",
    "release_memory",
    "valid_token_budget",
]

_CHARACTERS_PER_TOKEN = 64  # far more than any language needs
_CHUNK_TEXTS = min(512, max(64, 32 * (os.cpu_count() or 1)))  # some milliseconds of tokenising, on all cores
_CHUNK_CHARACTERS = 1_000_000  # a tokenizer needs about a hundred bytes a token, also for what it cuts off

_MEMORY_PHRASES = (
    "out of memory",  # CUDA and MPS
    "cublas_status_alloc_failed",
    "can't allocate memory",  # torch on a CPU, on Linux
    "not enough memory",  # and on Windows
    "failed to allocate memory",  # ONNX Runtime
    "bad allocation",  # C++ as OpenVINO passes it on, on Windows
    "bad_alloc",  # and elsewhere
)
_MEMORY_BYTES = re.compile(r"failed to allocate \d+ bytes")  # OpenVINO
_ENGINE_ERRORS = "onnxruntime"  # the errors of this package are no RuntimeError, whatever they are called


def chunks(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield texts in their order, a bounded number of them and of their characters at a time."""
    chunk: list[str] = []
    characters = 0
    for text in texts:
        if chunk and (len(chunk) == _CHUNK_TEXTS or characters + len(text) > _CHUNK_CHARACTERS):
            yield chunk
            chunk, characters = [], 0
        chunk.append(text)
        characters += len(text)
    if chunk:
        yield chunk


def beginnings(texts: Sequence[str], window: int | None, count: Callable[[str], int]) -> list[str]:
    """Spare a tokenizer what the model will not read: of a very long text, return a beginning.

    Args:
        texts: Of any length.
        window: Tokens that the model reads of one; ``None`` where there is no limit.
        count: Tells how many tokens a text has.

    Returns:
        The texts; those of more than 64 characters a token of the window cut to that, unless their
        beginning turns out to hold less than twice the window (words of many thousand characters).
    """
    if window is None:
        return list(texts)
    limit = _CHARACTERS_PER_TOKEN * window
    return [
        text[:limit] if len(text) > limit and count(text[:limit]) >= 2 * window else text  # twice: the cut is far away
        for text in texts
    ]


def is_out_of_memory(error: BaseException) -> bool:
    """Tell a lack of memory from every other failure: of torch on CUDA, MPS and the CPU, ONNX Runtime, OpenVINO."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if not isinstance(error, RuntimeError) and type(error).__module__.partition(".")[0] != _ENGINE_ERRORS:
        return False
    message = str(error).lower()
    return any(phrase in message for phrase in _MEMORY_PHRASES) or _MEMORY_BYTES.search(message) is not None


def default_token_budget(device_type: str) -> int:
    """Tokens a batch: a CPU is fastest on batches that stay in its caches, a GPU on large ones."""
    return 1_024 if device_type == "cpu" else 65_536


def valid_token_budget(token_budget: int | None) -> int | None:
    """Return the budget if it is a positive integer or ``None``; raise ``ConfigurationError`` if not."""
    if token_budget is None or (
        isinstance(token_budget, int) and not isinstance(token_budget, bool) and token_budget > 0
    ):
        return token_budget
    raise ConfigurationError(f"token_budget must be a positive integer or None, got {token_budget!r}.")


def release_memory() -> None:
    """Give memory that nothing refers to any more back to the device."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
