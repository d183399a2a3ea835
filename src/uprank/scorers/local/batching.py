"""Batches of like length: sort by token count, pack by token budget, halve when memory runs out."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import TypeVar

from uprank.errors import ConfigurationError, ScorerError

__all__ = [
    "beginnings",
    "chunks",
    "default_token_budget",
    "pack",
    "release_memory",
    "run_batches",
    "valid_token_budget",
]

logger = logging.getLogger("uprank")

Result = TypeVar("Result")

_CHARACTERS_PER_TOKEN = 64  # far more than any language needs
_CHUNK_TEXTS = 512
_CHUNK_CHARACTERS = 1_000_000  # a tokenizer needs about a hundred bytes a token, also for what it cuts off

# As CUDA and MPS say it, then cuBLAS, then the CPU's allocator (on Linux and on Windows).
_MEMORY_PHRASES = ("out of memory", "cublas_status_alloc_failed", "can't allocate memory", "not enough memory")


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


def pack(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group indices into batches of like length, longest first.

    Args:
        lengths: Tokens of each item.
        budget: The most tokens a batch may hold once all its items are padded to the longest. An
            item longer than the budget makes a batch of its own.

    Returns:
        Lists of indices into ``lengths``; each index once.
    """
    batches: list[list[int]] = []
    size = 0
    for index in sorted(range(len(lengths)), key=lambda item: (-lengths[item], item)):
        if not batches or len(batches[-1]) >= size:
            batches.append([])
            size = max(1, budget // max(1, lengths[index]))  # this item is the longest of its batch
        batches[-1].append(index)
    return batches


def run_batches(
    lengths: Sequence[int],
    budget: int,
    forward: Callable[[list[int]], Result],
    *,
    name: str,
    abandoned: threading.Event | None = None,
) -> Iterator[tuple[list[int], Result]]:
    """Run ``forward`` over packed batches; where memory runs out, go on with half the budget.

    Only a real out-of-memory error shrinks the batches; any other error is raised as it is.

    Args:
        lengths: Tokens of each item.
        budget: As for :func:`pack`.
        forward: Takes the indices of a batch.
        name: Names the model in the error.
        abandoned: Looked at before each batch: once set, nobody wants the rest.

    Yields:
        The indices of each batch with its result; each index once.

    Raises:
        ScorerError: If memory runs out over a single item.
        CancelledError: If the call was abandoned.
    """
    waiting = pack(lengths, budget)
    waiting.reverse()
    while waiting:
        if abandoned is not None and abandoned.is_set():
            raise CancelledError
        batch = waiting.pop()
        try:
            result = forward(batch)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise ScorerError(
                    f"{name} ran out of memory on a single input of {lengths[batch[0]]} tokens; "
                    "use a smaller max_length, another dtype or another device."
                ) from error
            budget = max(lengths[batch[0]], lengths[batch[0]] * len(batch) // 2)
            remaining = batch + [index for later in reversed(waiting) for index in later]
            again = pack([lengths[index] for index in remaining], budget)
            waiting = [[remaining[position] for position in group] for group in reversed(again)]
            logger.warning("%s ran out of memory; going on with batches of %d tokens", name, budget)
        else:
            yield batch, result
            continue
        release_memory()  # outside the except block: the error's traceback holds the failed batch's tensors


def is_out_of_memory(error: BaseException) -> bool:
    """Tell a lack of memory from every other failure, on CUDA, MPS and the CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(phrase in message for phrase in _MEMORY_PHRASES)


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
