"""OnnxBuilder: builds an ONNX graph operation by operation, and includes converted graphs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mrcnn.inference.extras import require

OPSET = 18


class OnnxBuilder:
    """An ONNX graph under construction. Tensors are referred to by name."""

    def __init__(self) -> None:
        self.onnx = require("onnx", "onnx")
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._count = 0

    def name(self, stem: str) -> str:
        """A name that no tensor has yet."""
        self._count += 1
        return f"{stem}_{self._count}"

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """The name of a tensor with this value."""
        name = self.name("constant")
        self.initializers.append(self.onnx.numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Adds an operation; returns the name of its output, or a list of names for several outputs."""
        names = [self.name(kind.lower()) for _ in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def include(self, model: Any, inputs: Sequence[str] | Mapping[str, str]) -> list[str]:
        """Adds the operations of a converted model, applied to `inputs`; returns the names of its outputs.

        Its weights are stored once, however often it is included. Inputs are in the order of the model, or by name.
        """
        graph = model.graph
        weights = {weight.name for weight in graph.initializer}
        known = {weight.name for weight in self.initializers}
        self.initializers += [weight for weight in graph.initializer if weight.name not in known]
        names = [value.name for value in graph.input if value.name not in weights]
        given = [inputs[name] for name in names] if isinstance(inputs, Mapping) else inputs
        renamed = dict(zip(names, given, strict=True))
        prefix = self.name("part")
        for node in graph.node:
            copied = self.onnx.NodeProto()
            copied.CopyFrom(node)
            copied.name = f"{prefix}/{node.name}"
            for output in node.output:
                renamed[output] = f"{prefix}/{output}"
            for field in ("input", "output"):
                names = [renamed.get(name, name) for name in getattr(node, field)]
                copied.ClearField(field)
                getattr(copied, field).extend(names)
            self.nodes.append(copied)
        return [renamed[value.name] for value in graph.output]

    def model(self, inputs: Mapping[str, Sequence[Any]], outputs: Mapping[str, tuple[str, type, Sequence[Any]]]) -> Any:
        """The finished model.

        Args:
            inputs: name -> shape, with a string for each variable size; float32.
            outputs: name -> (tensor, numpy type, shape).
        """
        helper, float32 = self.onnx.helper, self.onnx.TensorProto.FLOAT
        given = [helper.make_tensor_value_info(name, float32, list(shape)) for name, shape in inputs.items()]
        made = []
        for name, (tensor, dtype, shape) in outputs.items():
            self.nodes.append(helper.make_node("Identity", [tensor], [name]))
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            made.append(helper.make_tensor_value_info(name, kind, list(shape)))
        graph = helper.make_graph(self.nodes, "mask_rcnn", given, made, self.initializers)
        # 8 is the oldest file version for this opset, which more programs can read than the newest
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)

    # Building blocks for the steps of the network

    def stack(self, *tensors: str) -> str:
        """Stacks tensors [...] on a new last axis."""
        last = self.constant([-1], np.int64)
        return self.op("Concat", *(self.op("Unsqueeze", tensor, last) for tensor in tensors), axis=-1)

    def unstack(self, tensor: str, count: int) -> list[str]:
        """The `count` entries of the last axis, each [...]."""
        last = self.constant([-1], np.int64)
        parts = self.op("Split", tensor, outputs=count, axis=-1, num_outputs=count)
        return [self.op("Squeeze", part, last) for part in parts]

    def rows(self, tensor: str, index: str) -> str:
        """Rows of a tensor."""
        return self.op("Gather", tensor, index, axis=0)

    def where_true(self, flags: str) -> str:
        """Indices [n] int64 at which `flags` [N] are True."""
        return self.op("Squeeze", self.op("NonZero", flags), self.constant([0], np.int64))

    def size(self, tensor: str, axis: int) -> str:
        """The length of an axis, [1] int64."""
        return self.op("Shape", tensor, start=axis, end=axis + 1)

    def best(self, scores: str, most: int) -> tuple[str, str]:
        """The `most` largest of `scores` [N], or all if there are fewer: values and indices, descending."""
        count = self.op("Min", self.size(scores, 0), self.constant([most], np.int64))
        values, index = self.op("TopK", scores, count, outputs=2, axis=0, largest=1, sorted=1)
        return values, index

    def reshape(self, tensor: str, *shape: int) -> str:
        """Reshapes the tensor: -1 for the remaining size, 0 for the current size of the axis."""
        return self.op("Reshape", tensor, self.constant(shape, np.int64))
