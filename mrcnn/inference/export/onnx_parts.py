"""A Keras model converted to ONNX by tf2onnx, with channels first at both ends."""

import contextlib
import logging
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from mrcnn.inference.export.onnx_builder import OPSET
from mrcnn.inference.extras import require


def to_onnx(model: keras.Model, prefix: str) -> Any:
    """The ONNX model of a functional Keras model, whose inputs have the names of the Keras model's.

    Maps [B, H, W, C] become [B, C, H, W] at both ends; other inputs and outputs are unchanged. Weight names get the
    prefix, so that several models can be in one graph.

    Raises ImportError without tf2onnx, NotImplementedError for an operation that ONNX lacks.
    """
    if keras.backend.backend() != "tensorflow":
        raise NotImplementedError(f"export converts TensorFlow's graph; KERAS_BACKEND is {keras.backend.backend()!r}")
    import tensorflow as tf

    tf2onnx = _tf2onnx()
    given, outputs = keras.tree.flatten(model.input), keras.tree.flatten(model.output)
    spec = [tf.TensorSpec([None, *one.shape[1:]], _dtype(one), name=one.name) for one in given]
    maps = [f"Identity{f'_{i}' if i else ''}:0" for i, output in enumerate(outputs) if len(output.shape) == 4]

    @tf.function(input_signature=spec, autograph=False)
    def call(*values: Any) -> Any:
        return keras.tree.flatten(model(keras.tree.pack_sequence_as(model.input, values), training=False))

    with _quiet():
        converted, _ = tf2onnx.convert.from_function(
            call,
            input_signature=spec,
            opset=OPSET,
            inputs_as_nchw=[one.name for one in given if len(one.shape) == 4] or None,
            outputs_as_nchw=maps or None,
        )
    _slice_instead_of_pooling(converted.graph)
    _rename_weights(converted.graph, prefix)
    return converted


def _dtype(tensor: Any) -> str:
    """Of an input: float32, or that of integers."""
    return "float32" if "float" in tensor.dtype else tensor.dtype


def _tf2onnx() -> Any:
    tf2onnx = require("tf2onnx", "onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # tf2onnx 1.17 uses names that NumPy 2 removed; Keras has a fix for its own export
        with contextlib.suppress(ImportError):
            from keras.src.export.tf2onnx_lib import patch_tf2onnx

            patch_tf2onnx()
    require("tf2onnx.convert", "onnx")
    return tf2onnx


@contextlib.contextmanager
def _quiet() -> Any:
    """Silences tf2onnx and absl, which report every step as a warning."""
    loggers = [logging.getLogger(name) for name in ("tf2onnx", "absl", "tensorflow")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _rename_weights(graph: Any, prefix: str) -> None:
    renamed = {weight.name: f"{prefix}/{weight.name}" for weight in graph.initializer}
    for weight in graph.initializer:
        weight.name = renamed[weight.name]
    for node in graph.node:
        names: Sequence[str] = [renamed.get(name, name) for name in node.input]
        node.ClearField("input")
        node.input.extend(names)


def _slice_instead_of_pooling(graph: Any) -> None:
    """Replaces pooling of single cells, which takes every second cell: its "same" padding of an even side is negative,
    which ONNX Runtime rejects."""
    onnx = require("onnx", "onnx")
    for node in graph.node:
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type != "MaxPool" or set(attributes["kernel_shape"]) != {1}:
            continue
        values = {"starts": [0, 0], "ends": [2**31 - 1] * 2, "axes": [2, 3], "steps": list(attributes["strides"])}
        names = [f"{node.name}/{name}" for name in values]
        for name, value in zip(names, values.values(), strict=True):
            graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, np.int64), name))
        node.CopyFrom(onnx.helper.make_node("Slice", [node.input[0], *names], list(node.output), node.name))
