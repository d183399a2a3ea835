"""Attention over packed sequences: by a kernel for sequences of unequal length, or by one call a length.

Queries, keys and values are of shape (tokens, heads, dimensions); so is what comes back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, TypeAlias, cast

from uprank.scorers.local.engines.torch.packing import PackedBatch, Run

if TYPE_CHECKING:
    import torch

__all__ = ["Attention", "Kernel", "KernelAttention", "RunAttention", "choose_attention", "kernels"]

Kernel: TypeAlias = Callable[
    ["torch.Tensor", "torch.Tensor", "torch.Tensor", "torch.Tensor", "torch.Tensor", int, int, "int | None"],
    "torch.Tensor",
]
"""Takes queries, keys, values, the bounds of queries and of keys, the most of each in a sequence, and the window."""

_PROBE_LENGTHS = (70, 9, 1)
_PROBE_WINDOW = 8
_PROBE_TOLERANCE = 0.05  # bfloat16 has 8 bits; a wrong mask or bound is off by tenths


class Attention(ABC):
    """Attention within each sequence of a packed batch."""

    @abstractmethod
    def full(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, batch: PackedBatch, window: int | None
    ) -> torch.Tensor:
        """Every token looks at all tokens of its sequence that are at most ``window`` away, if it is given."""

    @abstractmethod
    def first(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        """One query a sequence, of shape (sequences, heads, dimensions), looks at all tokens of its sequence."""


class KernelAttention(Attention):
    """One launch for the whole batch.

    Args:
        kernel: Computes it.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def full(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, batch: PackedBatch, window: int | None
    ) -> torch.Tensor:
        return self._kernel(query, key, value, batch.bounds, batch.bounds, batch.longest, batch.longest, window)

    def first(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        return self._kernel(query, key, value, batch.singles, batch.bounds, 1, batch.longest, None)


class RunAttention(Attention):
    """One call of torch's own attention for each length there is, without padding or mask. Works anywhere."""

    def full(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, batch: PackedBatch, window: int | None
    ) -> torch.Tensor:
        import torch
        from torch.nn.functional import scaled_dot_product_attention

        parts = []
        for run in batch.runs:
            one, two, three = (_heads_first(tensor, run) for tensor in (query, key, value))
            if window is None or run.length <= window + 1:
                seen = scaled_dot_product_attention(one, two, three)
            else:
                seen = torch.cat(list(_in_stripes(one, two, three, window)), dim=2)
            parts.append(seen.transpose(1, 2).reshape(run.rows * run.length, *query.shape[1:]))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def first(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        import torch
        from torch.nn.functional import scaled_dot_product_attention

        parts = []
        start = 0
        for run in batch.runs:
            one = query[start : start + run.rows].unsqueeze(2)
            seen = scaled_dot_product_attention(one, _heads_first(key, run), _heads_first(value, run))
            parts.append(seen.squeeze(2))
            start += run.rows
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _heads_first(tensor: torch.Tensor, run: Run) -> torch.Tensor:
    """The sequences of a run as (sequences, heads, tokens, dimensions), not copied."""
    end = run.start + run.rows * run.length
    return tensor[run.start : end].view(run.rows, run.length, *tensor.shape[1:]).transpose(1, 2)


def _in_stripes(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int) -> Iterator[torch.Tensor]:
    """Some queries at a time, with the keys they may look at: the time grows with the length, not its square."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    length = query.shape[2]
    step = max(2 * window, 64)
    places = torch.arange(length, device=query.device)
    for start in range(0, length, step):
        end = min(start + step, length)
        low, high = max(0, start - window), min(length, end + window)
        near = (places[start:end, None] - places[None, low:high]).abs() <= window
        yield scaled_dot_product_attention(
            query[:, :, start:end], key[:, :, low:high], value[:, :, low:high], attn_mask=near
        )


def choose_attention(device: torch.device, dtype: torch.dtype, head_size: int, *, windows: bool) -> Attention:
    """The fastest attention that works for a model.

    On CUDA in half precision the first of :func:`kernels` that gives right results on this device;
    else :class:`RunAttention`.

    Args:
        device: Where the model is.
        dtype: What it computes in.
        head_size: Dimensions of a head.
        windows: Whether some of its layers look at a window only.
    """
    import torch

    if device.type == "cuda" and dtype in (torch.float16, torch.bfloat16):
        for kernel in kernels():
            if _works(kernel, device, dtype, head_size, windows=windows):
                return KernelAttention(kernel)
    return RunAttention()


def kernels() -> Iterator[Kernel]:
    """Kernels for sequences of unequal length that are installed: torch's own (from 2.10 on), then flash-attn."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        pass
    else:

        def of_torch(
            query: torch.Tensor,
            key: torch.Tensor,
            value: torch.Tensor,
            query_bounds: torch.Tensor,
            key_bounds: torch.Tensor,
            most_queries: int,
            most_keys: int,
            window: int | None,
        ) -> torch.Tensor:
            options = {} if window is None else {"window_size": (window, window)}  # the earliest version has no windows
            attend = cast("Callable[..., torch.Tensor]", varlen_attn)
            return attend(query, key, value, query_bounds, key_bounds, most_queries, most_keys, **options)

        yield of_torch
    try:
        flash_attn = import_module("flash_attn")
    except ImportError:
        return

    def of_flash_attn(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        query_bounds: torch.Tensor,
        key_bounds: torch.Tensor,
        most_queries: int,
        most_keys: int,
        window: int | None,
    ) -> torch.Tensor:
        around = (-1, -1) if window is None else (window, window)
        seen: torch.Tensor = flash_attn.flash_attn_varlen_func(
            query, key, value, query_bounds, key_bounds, most_queries, most_keys, window_size=around
        )
        return seen

    yield of_flash_attn


def _works(kernel: Kernel, device: torch.device, dtype: torch.dtype, head_size: int, *, windows: bool) -> bool:
    """Whether a kernel runs on this device and agrees with torch's own attention."""
    import numpy as np
    import torch

    from uprank.scorers.local.engines.base import Tokens
    from uprank.scorers.local.engines.torch.packing import pack_tokens

    batch = pack_tokens([Tokens(np.zeros(length, dtype=np.int32)) for length in _PROBE_LENGTHS], device)
    values = torch.linspace(0, 10_000, sum(_PROBE_LENGTHS) * 3 * 2 * head_size, device=device).sin().to(dtype)
    query, key, value = values.view(-1, 3, 2, head_size).unbind(1)
    expected, found = RunAttention(), KernelAttention(kernel)
    try:
        for window in (None, _PROBE_WINDOW) if windows else (None,):
            pair = [one.full(query, key, value, batch, window).float() for one in (expected, found)]
            torch.testing.assert_close(*pair, atol=_PROBE_TOLERANCE, rtol=0)
        firsts = query.index_select(0, batch.firsts)
        pair = [one.first(firsts, key, value, batch).float() for one in (expected, found)]
        torch.testing.assert_close(*pair, atol=_PROBE_TOLERANCE, rtol=0)
    except Exception:  # whatever it says: it is not for this device, type, size or version
        return False
    return True
