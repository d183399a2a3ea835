"""Parts that encoders have in common, as ONNX operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from uprank.scorers.local.graphs.weights import WeightsError
from uprank.scorers.local.graphs.writer import GraphWriter

__all__ = [
    "ACTIVATIONS",
    "MASKED",
    "Source",
    "attention",
    "first_token",
    "head_linear",
    "layer_norm",
    "linear",
    "mask_bias",
    "split_heads",
]

MASKED = -1e30
"""Added to attention's logits: weighs nothing after softmax, and is finite, lest what sees padding alone be NaN."""


def _gelu(graph: GraphWriter, x: str) -> str:
    return graph.node("Gelu", x)


def _gelu_tanh(graph: GraphWriter, x: str) -> str:
    return graph.node("Gelu", x, approximate="tanh")


def _silu(graph: GraphWriter, x: str) -> str:
    return graph.node("Mul", x, graph.node("Sigmoid", x))


ACTIVATIONS: dict[str, Callable[[GraphWriter, str], str]] = {
    "gelu": _gelu,
    "gelu_python": _gelu,
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": lambda graph, x: graph.node("Relu", x),
    "silu": _silu,
    "swish": _silu,
    "tanh": lambda graph, x: graph.node("Tanh", x),
}
"""What may follow a matrix product, by the names that transformers has for it."""


class Source:
    """Weights by name, whatever stands before the names, and however old they are.

    Args:
        weights: All of the checkpoint.
        marker: A name that every model of the family has.
        prefixes: What may stand before it: nothing in a bare encoder, its attribute in a classifier.

    Raises:
        WeightsError: If no tensor has that name.
    """

    def __init__(self, weights: Mapping[str, NDArray[np.float32]], marker: str, prefixes: tuple[str, ...]) -> None:
        self._weights = weights
        found = [prefix for prefix in prefixes if prefix + marker in weights]
        if not found:
            raise WeightsError(f"The weights have no tensor {marker!r}.")
        self._prefix = found[0]

    def of(self, name: str) -> NDArray[np.float32]:
        """The encoder's own tensor of this name."""
        return self.outside(self._prefix + name)

    def has(self, name: str) -> bool:
        """Whether the encoder has such a tensor."""
        return self._prefix + name in self._weights

    def outside(self, name: str) -> NDArray[np.float32]:
        """A tensor by its whole name: a head's."""
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        for each in (name, old):  # as the first checkpoints call them
            if each in self._weights:
                return self._weights[each]
        raise WeightsError(f"The weights have no tensor {name!r}.")

    def optional(self, name: str) -> NDArray[np.float32] | None:
        """A tensor by its whole name, or ``None``."""
        return self._weights.get(name)


def linear(
    graph: GraphWriter, x: str, name: str, weight: NDArray[np.float32], bias: NDArray[np.float32] | None = None
) -> str:
    """A matrix product, of weights as torch keeps them: (out, in)."""
    y = graph.product(x, f"{name}.weight", weight.T)
    return y if bias is None else graph.node("Add", y, graph.weight(f"{name}.bias", bias))


def head_linear(
    graph: GraphWriter, x: str, name: str, weight: NDArray[np.float32], bias: NDArray[np.float32] | None = None
) -> str:
    """As :func:`linear`, of shape (rows, width), and always in float32: it takes no time, and decides much."""
    parts = [graph.weight(f"{name}.weight", weight)]
    if bias is not None:
        parts.append(graph.weight(f"{name}.bias", bias))
    return graph.node("Gemm", x, *parts, transB=1)


def layer_norm(
    graph: GraphWriter,
    x: str,
    name: str,
    weight: NDArray[np.float32],
    bias: NDArray[np.float32] | None,
    epsilon: float,
) -> str:
    """Layer normalisation over the last axis."""
    parameters = [graph.weight(f"{name}.weight", weight)]
    if bias is not None:
        parameters.append(graph.weight(f"{name}.bias", bias))
    return graph.node("LayerNormalization", x, *parameters, axis=-1, epsilon=epsilon)


def mask_bias(graph: GraphWriter, attention_mask: str) -> str:
    """What to add to attention's logits, of shape (rows, 1, 1, tokens): nothing, or for padding far less."""
    mask = graph.node("Cast", attention_mask, to=1)
    mask = graph.node("Unsqueeze", mask, graph.constant([1, 2]))
    return graph.node("Mul", graph.node("Sub", graph.constant(1.0), mask), graph.constant(MASKED))


def split_heads(graph: GraphWriter, x: str, heads: int, size: int, order: tuple[int, ...] = (0, 2, 1, 3)) -> str:
    """(rows, tokens, heads x size) to (rows, heads, tokens, size), or to another ``order`` of these axes."""
    return graph.node("Transpose", graph.node("Reshape", x, graph.constant([0, 0, heads, size])), perm=order)


def attention(graph: GraphWriter, query: str, key: str, value: str, bias: str, width: int) -> str:
    """Softmax attention; the query is scaled already, the key transposed: (rows, heads, size, tokens)."""
    logits = graph.node("Add", graph.node("MatMul", query, key), bias)
    mixed = graph.node("MatMul", graph.node("Softmax", logits, axis=-1), value)
    return graph.node("Reshape", graph.node("Transpose", mixed, perm=(0, 2, 1, 3)), graph.constant([0, 0, width]))


def first_token(graph: GraphWriter, x: str) -> str:
    """(rows, tokens, width) to (rows, 1, width): the first token of each."""
    return graph.node("Slice", x, graph.constant([0]), graph.constant([1]), graph.constant([1]))
