"""The inference graph of one image in ONNX: converted parts, with ONNX's own operations between them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mrcnn.files import atomic_path
from mrcnn.inference.export import onnx_steps as steps
from mrcnn.inference.export.onnx_builder import OnnxBuilder
from mrcnn.inference.export.onnx_parts import to_onnx
from mrcnn.network.graph import Network

INPUTS = ("image", "window")
OUTPUTS = ("boxes", "class_ids", "scores", "masks")


def onnx_model(network: Network, graph: keras.Model, metadata: Mapping[str, str]) -> Any:
    """The ONNX model of a network.

    Args:
        network: the parts with weights.
        graph: `mrcnn.network.graph.inference_graph` of the network, whose layers have the settings of the steps.
        metadata: strings to store in the file.

    Returns:
        A model of image [1, height, width, channels] float32, the network input, and window [1, (y1, x1, y2, x2)],
        the image's position in it, to n detections sorted by descending score: boxes [n, (y1, x1, y2, x2)] float32 in
        pixels of the network input, class_ids [n] int64, scores [n] float32, masks [n, m, m] float32 probabilities.
    """
    if network.head is not None and not network.head.is_plain:
        raise NotImplementedError(
            f"the mask head {type(network.head).__name__} takes {network.head.needs(training=False)}: only heads from "
            "features to masks can be written as ONNX. Export to a SavedModel instead."
        )
    layer = {known.name: known for known in graph.layers}
    b = OnnxBuilder()
    parts = {name: to_onnx(part, name) for name, part in network.parts().items()}
    window = b.op("Squeeze", "window", b.constant([0], np.int64))
    image = b.op("Transpose", "image", perm=[0, 3, 1, 2])
    levels = b.include(parts["trunk"], [image])
    logits, deltas = zip(*(b.include(parts["rpn"], [level]) for level in levels), strict=True)
    grid = steps.anchors(b, levels, layer["anchors"])
    bounds = steps.whole_input(b, image) if "whole_input" in layer else window
    rois = steps.proposals(b, logits, deltas, grid, bounds, layer["proposals"])
    features, order = steps.roi_align(b, levels[:4], rois, layer["roi_align_box"])
    class_logits, box_deltas = b.include(parts["box_head"], [features])
    boxes, class_ids, scores = steps.detections(
        b, b.rows(rois, order), class_logits, box_deltas, window, layer["detections"]
    )
    features, order = steps.roi_align(b, levels[:4], boxes, layer["roi_align_mask"])
    (masks,) = b.include(parts["mask_head"], [features])
    if network.head is not None and network.head.model.output_shape[-1] == 1:
        masks = b.op("Squeeze", masks, b.constant([1], np.int64))
    else:
        own = b.op("Unsqueeze", b.rows(class_ids, order), b.constant([1], np.int64))
        masks = b.op("GatherND", masks, own, batch_dims=1)
    back = b.op("ScatterElements", order, order, b.op("Range", *_range(b, order)))
    channels = network.trunk.input_shape[-1]
    side = network.mask_size
    found: dict[str, tuple[str, type, list[Any]]] = {
        "boxes": (boxes, np.float32, ["n", 4]),
        "class_ids": (class_ids, np.int64, ["n"]),
        "scores": (scores, np.float32, ["n"]),
        "masks": (b.rows(masks, back), np.float32, ["n", side, side]),
    }
    model = b.model({"image": [1, "height", "width", channels], "window": [1, 4]}, found)
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    return model


def _range(b: OnnxBuilder, rows: str) -> tuple[str, str, str]:
    """Arguments of Range over the rows of a tensor."""
    return b.constant(0, np.int64), b.op("Squeeze", b.size(rows, 0)), b.constant(1, np.int64)


def save_onnx(model: Any, path: Path) -> None:
    """Writes an ONNX model to one file, completely or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
