"""Writes an ONNX model: nodes in memory, large weights straight to a file beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

__all__ = ["Attribute", "GraphWriter", "Numbers", "write"]

Attribute: TypeAlias = int | float | str | Sequence[int]

Numbers: TypeAlias = Literal["float32", "int8 weights", "int8", "int7"]
"""What matrix products are written in.

``"int8 weights"`` are widened again as they are read. In ``"int8"`` both sides are 8-bit integers, the
left one scaled by what the whole batch holds, as it comes; so a row's result depends a little on the
rows beside it. ``"int7"`` leaves the weights a bit free.
"""

_OPSET = 20  # the first with Gelu
_IR_VERSION = 9  # of that opset's time, so that older runtimes read it too
_INLINE_BYTES = 4_096
_FLOAT = 1  # TensorProto.FLOAT
# x86 without VNNI adds two products in 16 bits, which 8-bit weights would overflow, and 7-bit ones do not.
_MOST = {"int8 weights": 127, "int8": 127, "int7": 63}
_ALIGNMENT = 4_096  # of a page: the runtimes map what lies so, and copy what does not


class GraphWriter:
    """Collects the nodes of a graph whose every value is known by a name.

    Large weights go to ``data`` as they come, so that no more than one of them is in memory, and
    models of over 2 GB, the most that protobuf holds, need no other way.

    Args:
        data: The file for large weights, open for writing in binary.
        location: Its name, as written in the model.
        numbers: What matrix products are written in.
    """

    def __init__(self, data: BinaryIO, location: str, *, numbers: Numbers = "float32") -> None:
        self._numbers = numbers
        self._quantised: dict[str, list[str]] = {}
        self._data = data
        self._location = location
        self._nodes: list[NodeProto] = []
        self._initializers: list[TensorProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._count = 0

    def node(self, op: str, *inputs: str, **attributes: Attribute) -> str:
        """Add a node with one output and return that output's name."""
        (output,) = self.nodes(op, *inputs, outputs=1, **attributes)
        return output

    def nodes(self, op: str, *inputs: str, outputs: int, **attributes: Attribute) -> list[str]:
        """Add a node with several outputs and return their names."""
        from onnx import helper

        names = [self._name(op) for _ in range(outputs)]
        node = helper.make_node(op, list(inputs), names, name=names[0])
        node.attribute.extend(helper.make_attribute(key, value) for key, value in sorted(attributes.items()))
        self._nodes.append(node)
        return names

    def constant(self, value: NDArray[np.generic] | Sequence[int] | int | float) -> str:
        """Add a small constant, once for equal ones. Python numbers become int64 and float32."""
        from onnx import numpy_helper

        array = np.asarray(value)
        if not isinstance(value, np.ndarray):
            array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self._name("constant")
            self._initializers.append(numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def weight(self, name: str, array: NDArray[np.float32]) -> str:
        """Add a weight in float32 under its own name."""
        return self._store(name, np.asarray(array, dtype=np.float32))

    def product(self, x: str, name: str, array: NDArray[np.float32]) -> str:
        """Multiply ``x`` by a weight of shape (in, out), in the numbers that were asked for.

        In 8 bits, each column of the weight has a scale of its own, and no zero point.
        """
        if self._numbers == "float32":
            return self.node("MatMul", x, self.weight(name, array))
        most = _MOST[self._numbers]
        scales = np.abs(array).max(axis=0) / np.float32(most)
        scales[scales == 0] = 1.0
        stored = self._store(name, np.clip(np.rint(array / scales), -most, most).astype(np.int8))
        scale = self.weight(f"{name}.scale", scales)
        if self._numbers == "int8 weights":
            return self.node("MatMul", x, self.node("DequantizeLinear", stored, scale, axis=1))
        if x not in self._quantised:
            self._quantised[x] = self.nodes("DynamicQuantizeLinear", x, outputs=3)
        narrow, narrow_scale, zero = self._quantised[x]
        whole = self.node("Cast", self.node("MatMulInteger", narrow, stored, zero), to=_FLOAT)
        return self.node("Mul", whole, self.node("Mul", narrow_scale, scale))

    def model(self, inputs: Sequence[str], output: str, name: str, shape: Sequence[str | int]) -> ModelProto:
        """Return the model.

        Args:
            inputs: Names of int64 inputs of shape (rows, tokens).
            output: The value that it gives.
            name: What to call that value.
            shape: The output's.
        """
        from onnx import TensorProto, helper

        self._nodes.append(helper.make_node("Identity", [output], [name], name=name))
        graph = helper.make_graph(
            self._nodes,
            "encoder",
            [helper.make_tensor_value_info(each, TensorProto.INT64, ["rows", "tokens"]) for each in inputs],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
            self._initializers,
        )
        opsets = [helper.make_opsetid("", _OPSET)]
        return helper.make_model(graph, producer_name="uprank", ir_version=_IR_VERSION, opset_imports=opsets)

    def _store(self, name: str, array: NDArray[np.generic]) -> str:
        from onnx import TensorProto, helper, numpy_helper

        if array.nbytes <= _INLINE_BYTES:
            self._initializers.append(numpy_helper.from_array(array, name))
            return name
        self._data.write(b"\0" * (-self._data.tell() % _ALIGNMENT))
        tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape)
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": self._location, "offset": self._data.tell(), "length": array.nbytes}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tofile(
            self._data
        )  # as bytes it would be a copy
        self._initializers.append(tensor)
        return name

    def _name(self, op: str) -> str:
        self._count += 1
        return f"{op}_{self._count}"


def write(model: ModelProto, path: Path) -> None:
    """Write the model itself; its large weights lie beside it already."""
    path.write_bytes(model.SerializeToString())
