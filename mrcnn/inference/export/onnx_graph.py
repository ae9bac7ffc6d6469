"""The inference graph of one image in ONNX: converted parts, with ONNX's own operations between them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mrcnn.files import atomic_path
from mrcnn.inference.export import onnx_steps as steps
from mrcnn.inference.export.onnx_builder import OnnxBuilder
from mrcnn.inference.export.onnx_parts import to_onnx
from mrcnn.network.graph import Network
from mrcnn.network.head_branch import head_model

Outputs = dict[str, tuple[str, type, list[Any]]]  # name -> (tensor, type, shape)


def onnx_model(network: Network, graph: keras.Model, metadata: Mapping[str, str]) -> Any:
    """The ONNX model of a network.

    Args:
        network: the parts with weights.
        graph: `mrcnn.network.graph.inference_graph` of the network, whose layers have the settings of the steps.
        metadata: strings to store in the file.

    Returns:
        A model of image [1, height, width, channels] float32, the network input, and window [1, (y1, x1, y2, x2)],
        the image's position in it, to n detections sorted by descending score: boxes [n, (y1, x1, y2, x2)] float32 in
        pixels of the network input, class_ids [n] int64, scores [n] float32; with a mask head masks [n, m, m] float32
        probabilities, and mask_scores [n] if it scores them; with a keypoint head keypoints [n, m, m, K] float32, the
        logits of heatmaps.
    """
    layer = {known.name: known for known in graph.layers}
    b = OnnxBuilder()
    window = b.op("Squeeze", "window", b.constant([0], np.int64))
    image = b.op("Transpose", "image", perm=[0, 3, 1, 2])
    levels = b.include(to_onnx(network.trunk, "trunk"), [image])
    rpn = to_onnx(network.rpn, "rpn")
    logits, deltas = zip(*(b.include(rpn, [level]) for level in levels), strict=True)
    grid = steps.anchors(b, levels, layer["anchors"])
    bounds = steps.whole_input(b, image) if "whole_input" in layer else window
    rois = steps.proposals(b, logits, deltas, grid, bounds, layer["proposals"])
    stage = _stage(b, network)
    features, order = steps.roi_align(b, levels[:4], rois, layer["roi_align_box"])
    class_logits, box_deltas = b.include(to_onnx(network.box_head, "box_head"), [stage(features)])
    boxes, class_ids, scores = steps.detections(
        b, b.rows(rois, order), class_logits, box_deltas, window, layer["detections"]
    )
    found: Outputs = {
        "boxes": (boxes, np.float32, ["n", 4]),
        "class_ids": (class_ids, np.int64, ["n"]),
        "scores": (scores, np.float32, ["n"]),
    }
    count = b.size(boxes, 0)
    given = {"boxes": boxes, "class_ids": class_ids, "scores": scores}
    given = {name: _one_at_least(b, tensor, count) for name, tensor in given.items()}
    made: Outputs = {}
    if network.head is not None:
        outputs_of = _plain_masks if network.head.is_plain else _head_outputs
        made |= outputs_of(b, network.head, levels, given, layer, stage)
    if network.keypoints is not None:
        made |= _head_outputs(b, network.keypoints, levels, given, layer, stage)
    found |= {name: (_first(b, rows, count), kind, shape) for name, (rows, kind, shape) in made.items()}
    channels = network.trunk.input_shape[-1]
    model = b.model({"image": [1, "height", "width", channels], "window": [1, 4]}, found)
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    return model


def _stage(b: OnnxBuilder, network: Network) -> Callable[[str], str]:
    """As `mrcnn.network.graph.shared_stage`, of features [M, C, h, w]."""
    if network.roi_stage is None:
        return lambda features: features
    stage = to_onnx(network.roi_stage, "roi_stage")
    return lambda features: b.include(stage, [features])[0]


def _plain_masks(
    b: OnnxBuilder,
    head: Any,
    levels: list[str],
    given: Mapping[str, str],
    layer: Mapping[str, Any],
    stage: Callable[[str], str],
) -> Outputs:
    """Masks by a function from features to the masks of every class. Arguments: see `_head_outputs`."""
    features, order = steps.roi_align(b, levels[:4], given["boxes"], layer["roi_align_mask"])
    (masks,) = b.include(to_onnx(head.model, "mask_head"), [stage(features)])
    if head.model.output_shape[-1] == 1:
        masks = b.op("Squeeze", masks, b.constant([1], np.int64))
    else:
        own = b.op("Unsqueeze", b.rows(given["class_ids"], order), b.constant([1], np.int64))
        masks = b.op("GatherND", masks, own, batch_dims=1)
    return {"masks": (b.rows(masks, _inverse(b, order)), np.float32, ["n", head.mask_size, head.mask_size])}


def _head_outputs(
    b: OnnxBuilder,
    head: Any,
    levels: list[str],
    given: Mapping[str, str],
    layer: Mapping[str, Any],
    stage: Callable[[str], str],
) -> Outputs:
    """Outputs of any head.

    Args:
        given: boxes [n, 4], class_ids [n] int64 and scores [n] of the detections.
        layer: the layers of the inference graph, by name.
        stage: the stage that the heads share, see `_stage`.
    """

    def pooled(maps: list[str], name: str) -> str:
        """Features of the detections, in their order."""
        features, order = steps.roi_align(b, maps, given["boxes"], layer[name])
        return b.rows(features, _inverse(b, order))

    class_ids = b.op("Cast", given["class_ids"], to=6)
    makers: dict[str, Callable[[], str]] = {
        "features": lambda: stage(pooled(levels[:4], f"roi_align_{head.kind}")),
        "fine": lambda: pooled(levels[:1], f"roi_align_{head.kind}_fine"),
        "boxes": lambda: given["boxes"],
        "scores": lambda: given["scores"],
        "class_ids": lambda: class_ids,
        "image_index": lambda: b.op("Mul", class_ids, b.constant(0, np.int32)),
    } | {f"pyramid_{i}": lambda level=level: level for i, level in enumerate(levels[:4])}
    model = head_model(head)
    part = to_onnx(model, f"{head.kind}_head")
    values = b.include(part, {one.name: makers[one.name]() for one in keras.tree.flatten(model.input)})
    names = keras.tree.flatten({name: name for name in model.output})  # in the order of the model's outputs
    found: Outputs = {}
    for name, value in zip(names, values, strict=True):
        shape = model.output[name].shape
        if len(shape) == 4:  # channels last, as in the inference graph
            value = b.op("Transpose", value, perm=[0, 2, 3, 1])
        found[name] = (value, np.float32, ["n", *shape[1:]])
    return found


def _one_at_least(b: OnnxBuilder, rows: str, count: str) -> str:
    """`rows` [count, ...], with a row of zeros if there is none: engines reject empty batches in some operations."""
    more = b.op("Max", b.op("Sub", b.constant([1], np.int64), count), b.constant([0], np.int64))
    shape = b.op("Concat", more, b.op("Shape", rows, start=1), axis=0)
    zeros = b.op("CastLike", b.op("Expand", b.constant(0.0), shape), rows)
    return b.op("Concat", rows, zeros, axis=0)


def _first(b: OnnxBuilder, rows: str, count: str) -> str:
    """The first `count` rows."""
    return b.op("Slice", rows, b.constant([0], np.int64), count, b.constant([0], np.int64))


def _inverse(b: OnnxBuilder, order: str) -> str:
    """Where each row went: `order` [M] holds the numbers 0 to M - 1."""
    rows = b.op("Range", b.constant(0, np.int64), b.op("Squeeze", b.size(order, 0)), b.constant(1, np.int64))
    return b.op("ScatterElements", order, order, rows)


def save_onnx(model: Any, path: Path) -> None:
    """Writes an ONNX model to one file, completely or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
