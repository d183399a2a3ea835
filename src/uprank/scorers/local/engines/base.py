"""An engine computes a transformer: token ids in, numbers in float32 out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Engine", "EngineName", "Precision", "TokenIds", "Tokens"]

TokenIds: TypeAlias = "NDArray[np.int32]"

EngineName: TypeAlias = Literal["auto", "torch", "onnx", "openvino"]
"""What computes the model; ``"auto"`` is the fastest that is installed and knows the model."""

Precision: TypeAlias = Literal["float32", "bfloat16", "float16", "int8"]
"""What matrix products are computed in."""


class Tokens(NamedTuple):
    """The token ids of one text or pair, unpadded.

    Attributes:
        ids: Of shape (tokens,).
        types: Which of the two texts each token belongs to; ``None`` for models that are not told.
    """

    ids: TokenIds
    types: TokenIds | None = None


class Engine(ABC):
    """A loaded encoder with one output: a logit a pair, or a vector a token.

    Attributes:
        name: ``"torch"``, ``"onnx"`` or ``"openvino"``.
        precision: What matrix products are computed in.
        lanes: How many threads may call :meth:`run` at once, each with a lane of its own.
        token_budget: The tokens in a batch, padding counted, that this engine is fastest with.
    """

    name: str
    precision: Precision
    lanes: int
    token_budget: int

    @abstractmethod
    def run(self, rows: Sequence[Tokens], lane: int) -> NDArray[np.float32]:
        """Compute one batch.

        Args:
            rows: At least one; best of like length.
            lane: From 0 to ``lanes - 1``; no two threads at once in the same.

        Returns:
            Of a pair model, logits of shape (rows,). Of a model of token vectors, the last hidden
            states of shape (rows, longest row, dimensions), with anything in the padding.
        """
