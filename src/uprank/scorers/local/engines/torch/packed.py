"""A cross-encoder on packed pairs: no token of padding is computed, nor what nobody reads of the last layer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from uprank.scorers.local.batching import is_out_of_memory
from uprank.scorers.local.engines.base import Tokens
from uprank.scorers.local.engines.torch.attention import Attention, RunAttention, choose_attention
from uprank.scorers.local.engines.torch.bodies import BertBody, Body, ModernBertBody
from uprank.scorers.local.engines.torch.heads import Anatomy, anatomy
from uprank.scorers.local.engines.torch.logits import Logits
from uprank.scorers.local.engines.torch.packing import pack_tokens
from uprank.scorers.local.engines.torch.padded import padded_logits

if TYPE_CHECKING:
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import BertModel, ModernBertModel

__all__ = ["PackedModel", "packed_model"]

logger = logging.getLogger("uprank")

_PROBE_LENGTHS = (11, 4)  # odd in sum: a length that is also a width would be compiled in
_PROBE_TOLERANCE = {"float32": 1e-3, "float16": 0.1, "bfloat16": 0.5}  # of a logit, and as much of its size


class PackedModel:
    """A cross-encoder whose batches are not padded.

    Args:
        parts: The model taken apart.
        attention: For its device and type.
        device: Where it is.
        compile: Compile what is done to each token alone.
    """

    def __init__(self, parts: Anatomy, attention: Attention, device: torch.device, *, compile: bool) -> None:
        self._head = parts.head
        self._pooling = parts.pooling
        self._device = device
        self._body: Body
        if parts.family == "modernbert":
            self._body = ModernBertBody(cast("ModernBertModel", parts.body), attention, compile=compile)
        else:
            padding_id = parts.body.config.pad_token_id if parts.family == "roberta" else None
            self._body = BertBody(cast("BertModel", parts.body), attention, padding_id=padding_id, compile=compile)

    def logits(self, rows: Sequence[Tokens]) -> Logits:
        """The logits of rows of any lengths; under ``torch.inference_mode``."""
        batch = pack_tokens(rows, self._device, self._body.padding_id)
        return Logits(self._head(self._body.forward(batch, self._pooling)).reshape(-1), batch.order)


def packed_model(model: CrossEncoder, *, compile: bool, fast: bool) -> PackedModel | str:
    """Prepare a loaded cross-encoder for packed pairs, or tell why that cannot be done.

    The result has been compared with the model's own forward on two short rows.

    Args:
        model: In evaluation mode.
        compile: Compile what is done to each token alone.
        fast: Do it only where it is faster than padding: on a CPU, or where there is a kernel for
            sequences of unequal length.
    """
    import torch

    parts = anatomy(model)
    if isinstance(parts, str):
        return parts
    weight = next(parts.body.parameters())
    config = parts.body.config
    windows = parts.family == "modernbert" and "sliding_attention" in config.layer_types
    head_size = config.hidden_size // config.num_attention_heads
    attention = choose_attention(weight.device, weight.dtype, head_size, windows=windows)
    if fast and weight.device.type != "cpu" and isinstance(attention, RunAttention):
        return f"there is no kernel for sequences of unequal length in {weight.dtype} on {weight.device}"
    with torch.inference_mode():
        return _compared(PackedModel(parts, attention, weight.device, compile=compile), model, parts, weight.dtype)


def _compared(packed: PackedModel, model: CrossEncoder, parts: Anatomy, dtype: torch.dtype) -> PackedModel | str:
    """The packed model, unless it fails or differs: another version of transformers may compute something else."""
    rows = _probes(parts)
    try:
        expected, found = padded_logits(model, rows).numpy(), packed.logits(rows).numpy()
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = f"it failed with {type(error).__name__}: {error}"
    else:
        allowed = _PROBE_TOLERANCE[str(dtype).removeprefix("torch.")]
        if np.allclose(found, expected, rtol=allowed, atol=allowed):
            return packed
        reason = f"its logits {found.tolist()} are not those of the model itself, {expected.tolist()}"
    logger.warning("Batches of %s are padded: without padding %s", type(parts.body).__name__, reason)
    return reason


def _probes(parts: Anatomy) -> list[Tokens]:
    """Rows of unequal length, one of them longer than a layer's window."""
    config = parts.body.config
    lengths = list(_PROBE_LENGTHS)
    if parts.family == "modernbert":
        lengths.append(min(config.sliding_window + 10, config.max_position_embeddings))
    kinds = getattr(config, "type_vocab_size", 1)
    rows = []
    for length in lengths:
        places = np.arange(length, dtype=np.int32)
        types = (places >= length // 2).astype(np.int32) if kinds > 1 else None
        rows.append(Tokens((places * 7 + 5) % np.int32(config.vocab_size), types))
    return rows
