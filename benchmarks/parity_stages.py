"""The stages of a model, one call each, and their comparison with what another program computed."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from parity_rows import Row, detection_rows, nhwc, relative, sampled, xyxy

from mrcnn.config import Config
from mrcnn.layers.proposals import WholeInput
from mrcnn.model import MaskRCNN
from mrcnn.ops import boxes as box_ops
from mrcnn.weights.assign import assign
from mrcnn.weights.source import Source

CLOSE, THROUGH_ROI_ALIGN = 1e-4, 2e-3  # of the standard deviation
DETECTIONS = {"unmatched": 0, "boxes": 0.05, "scores": 1e-3, "masks": 1e-3}
LEVELS = ("P2", "P3", "P4", "P5", "P6")
FEATURES = ("C2", "C3", "C4", "C5", *LEVELS)


def build(source: Source, **settings: Any) -> MaskRCNN:
    """A model with the weights of a source; settings: those that differ from the source's."""
    model = MaskRCNN("inference", Config(**{"NAME": "parity", **source.settings, **settings}))
    assign(source.program, model.network.layers(), source.tensors)
    return model


class Stages:
    """A model's stages on arrays.

    Args:
        model: with its weights.
        image: a photograph, [H, W, 3] uint8.
        pixels: the same as another program resized, normalized and padded it, [h, w, 3]; None: as this one does.
    """

    def __init__(self, model: MaskRCNN, image: np.ndarray, pixels: np.ndarray | None = None) -> None:
        self.model, self.image = model, image
        self.network, self.layer = model.network, model.inference_model.get_layer
        self.molded = model.detector.network_input(image)
        if pixels is not None:
            if pixels.shape != self.molded.image.shape:
                raise ValueError(f"the input is {pixels.shape} there and {self.molded.image.shape} here")
            self.molded = self.molded._replace(image=pixels)
        trunk, taps = self.network.trunk, self.network.backbone.model.outputs
        values = keras.Model(trunk.inputs, [*taps, *trunk.outputs])([self.molded.image[None]])
        self.features = dict(zip(FEATURES, map(_numpy, values), strict=True))
        self.levels = [self.features[level] for level in LEVELS]
        outputs = [self.network.rpn(level) for level in self.levels]
        self.logits, self.deltas = [_numpy(x) for x, _ in outputs], [_numpy(x) for _, x in outputs]
        self.anchors = [_numpy(level) for level in self.layer("anchors")(self.levels)]

    def proposals(self) -> np.ndarray:
        """[N, (y1, x1, y2, x2)]."""
        config, whole = self.model.config, WholeInput()(self.molded.image[None])
        window = self.molded.window[None] if config.RPN_CLIP_TO_PHOTOGRAPH else whole
        extent = whole if config.BOXES_INCLUSIVE else None
        rois, valid, _ = self.layer("proposals")(self.logits, self.deltas, self.anchors, window, extent)
        return _numpy(rois)[0][_numpy(valid)[0]]

    def pooled(self, branch: str, rois: np.ndarray) -> np.ndarray:
        """RoI features of "box" or "mask", [N, size, size, C]."""
        return _numpy(self.layer(f"roi_align_{branch}")(self.levels[:4], np.asarray(rois, np.float32)[None]))

    def box_head(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """ "dense" [N, F] before the last layers, "logits" [N, classes], "box_deltas" [N, classes, 4]."""
        head = self.network.box_head
        dense = head.get_layer("mrcnn_class_logits").input
        values = keras.Model(head.inputs, [dense, *head.outputs])([features])
        return dict(zip(("dense", "logits", "box_deltas"), map(_numpy, values), strict=True))

    def last_layers(self, dense: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits and deltas of what the layers before gave."""
        logits, deltas = (
            _numpy(self.network.box_head.get_layer(name)(dense)) for name in ("mrcnn_class_logits", "mrcnn_bbox_fc")
        )
        return logits, deltas.reshape(len(dense), -1, 4)

    def masks(self, features: np.ndarray) -> np.ndarray:
        """Probabilities [N, size, size, classes]."""
        return _numpy(self.network.mask_head(features))

    def candidates(self, below: float = 0.0) -> dict[str, np.ndarray]:
        """What NMS makes detections of: boxes [n, 4] in network pixels, class_ids, scores [n]; with those of `below`
        less than the least score."""
        rois, layer, window = self.proposals(), self.layer("detections"), np.asarray(self.molded.window)[None]
        values = self.box_head(self.pooled("box", rois))
        boxes = _numpy(box_ops.clip(box_ops.decode(values["box_deltas"], rois[:, None], layer.std_dev)[None], window))
        scores = _numpy(keras.ops.softmax(values["logits"], axis=-1))
        sides = (boxes[0, ..., 2:] - boxes[0, ..., :2]).min(axis=-1)
        row, class_ids = np.nonzero((scores > layer.min_confidence - below) & (sides >= layer.min_size))
        row, class_ids = row[class_ids > 0], class_ids[class_ids > 0]
        return {"boxes": boxes[0, row, class_ids], "class_ids": class_ids, "scores": scores[row, class_ids]}

    def detections(self) -> dict[str, np.ndarray]:
        """In network pixels: boxes, class_ids, scores, masks [n, size, size]."""
        return self.model.detector.run(self.molded.image[None], self.molded.window[None])[0]


def _numpy(tensor: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


def feature_rows(source: str, stages: Stages, expected: Mapping[str, np.ndarray], *, whole: bool = False) -> list[Row]:
    """C2..C5 and P2..P6; expected: [B, H, W, C] by name, sampled as the oracles keep them unless `whole`, with
    "<name>_moments" then."""
    rows = []
    for name in (name for name in FEATURES if name in expected):
        ours = stages.features[name] if whole else sampled(stages.features[name])
        deviation = expected[name].std() if whole else expected[f"{name}_moments"][1]
        rows.append(Row(source, name, CLOSE, relative(ours, expected[name], deviation)))
    return rows


def head_rows(
    source: str,
    stages: Stages,
    rois: np.ndarray,
    expected: Mapping[str, np.ndarray],
    *,
    bar: float | None = THROUGH_ROI_ALIGN,
) -> list[Row]:
    """The heads on the other program's RoIs, through RoIAlign on the pyramid of this.

    Args:
        rois: [N, 4] of the box head.
        expected: "logits" [N, classes], "box_deltas" [N, classes, 4]; optionally "box_features" and "mask_features",
            each (array, function of ours); "dense" and its "step"; "mask_rois", "mask_classes", "masks" [M, s, s].
        bar: of what goes through RoIAlign.
    """
    features, fed = stages.pooled("box", rois), "fed its RoIs"
    ours, rows = stages.box_head(features), []
    if "box_features" in expected:
        theirs, part = expected["box_features"]
        rows.append(Row(source, f"box RoIAlign, {fed}", bar, relative(part(features), theirs)))
    for name in ("logits", "box_deltas"):
        skip = ours[name].shape[1] - expected[name].shape[1]  # a background without deltas
        rows.append(Row(source, f"box head {name}, {fed}", bar, relative(ours[name][:, skip:], expected[name])))
    if "dense" in expected:
        every = expected["step"]
        found = stages.last_layers(expected["dense"])
        for name, values in zip(("logits", "box_deltas"), found, strict=True):
            skip = values.shape[1] - expected[name].shape[1]
            rows.append(
                Row(
                    source,
                    f"last layers of the box head, {name}",
                    CLOSE,
                    relative(values[:, skip:], expected[name][::every], expected[name].std()),
                )
            )
    if "masks" in expected:
        features = stages.pooled("mask", expected["mask_rois"])
        if "mask_features" in expected:
            theirs, part = expected["mask_features"]
            rows.append(Row(source, f"mask RoIAlign, {fed}", bar, relative(part(features), theirs)))
        masks = of_class(stages.masks(features), expected["mask_classes"])
        rows.append(Row(source, f"mask probabilities, {fed}", bar, relative(masks, expected["masks"])))
    return rows


def of_class(masks: np.ndarray, class_ids: Sequence[int]) -> np.ndarray:
    """[N, s, s] of each one's class, from [N, s, s, classes]."""
    return masks[np.arange(len(masks)), :, :, np.asarray(class_ids)]


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """In float64."""
    return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))


def torch_rpn(arrays: Mapping[str, np.ndarray], ratios: int = 3) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Logits [1, A] and deltas [1, A, 4] of each level, in the order of this network's anchors."""
    logits, deltas = [], []
    for level in LEVELS:
        logits.append(nhwc(arrays[f"rpn_objectness_{level}"]).reshape(1, -1))
        moves = nhwc(arrays[f"rpn_deltas_{level}"])
        deltas.append(xyxy(moves.reshape(1, *moves.shape[1:3], ratios, 4)).reshape(1, -1, 4))
    return logits, deltas


def rpn_rows(source: str, stages: Stages, logits: list[np.ndarray], deltas: list[np.ndarray]) -> list[Row]:
    """Worst of all levels, each by its own standard deviation."""
    worst = [max(map(relative, ours, theirs)) for ours, theirs in ((stages.logits, logits), (stages.deltas, deltas))]
    return [Row(source, "RPN logits", CLOSE, worst[0]), Row(source, "RPN deltas", CLOSE, worst[1])]


def proposal_rows(source: str, stages: Stages, expected: np.ndarray) -> list[Row]:
    """Proposals as sets."""
    return detection_rows(
        source, "proposals", {"boxes": stages.proposals()}, {"boxes": expected}, bars={"unmatched": 0, "boxes": 0.05}
    )


def round_trip_row(source: str, model: MaskRCNN, image: np.ndarray) -> Row:
    """Import, save, load into another model, detect.

    Both graphs are new: TensorFlow traces one anew, for any size, when it sees a second size of image, and its last
    digits are then others.
    """
    for graph in ("inference_model", "detector"):
        vars(model).pop(graph, None)
    other = MaskRCNN("inference", model.config)
    with tempfile.TemporaryDirectory() as folder:
        model.save_weights(Path(folder) / "a.h5")
        other.load_weights(Path(folder) / "a.h5")
    ours, theirs = model.detect([image])[0], other.detect([image])[0]
    wrong = [name for name in ours if not np.array_equal(ours[name], theirs[name])]
    return Row(
        source,
        "import, save, load, detect: arrays that are not bit-equal",
        0,
        len(wrong),
        f"({len(ours['rois'])} detections)",
    )
