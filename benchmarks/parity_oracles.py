"""The stored oracles: seeded weights through the importers, each stage against the original program's output."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from parity_rows import Row, detection_rows, iou, nhwc, relative, sampled, xyxy
from parity_stages import (
    CLOSE,
    DETECTIONS,
    LEVELS,
    Stages,
    build,
    feature_rows,
    head_rows,
    of_class,
    proposal_rows,
    round_trip_row,
    rpn_rows,
    sigmoid,
    torch_rpn,
)
from seeded_weights import seeded

import heads
from mrcnn.data.molding import normalize
from mrcnn.model import MaskRCNN
from mrcnn.weights.importers.detectron2 import detectron2_source
from mrcnn.weights.importers.matterport import matterport_source
from mrcnn.weights.importers.torchvision import torchvision_source
from mrcnn.weights.source import Lazy

SMALL = {"IMAGE_MIN_DIM": 320, "IMAGE_MAX_DIM": 512, "PRE_NMS_LIMIT": 500, "POST_NMS_ROIS_INFERENCE": 200}
IMAGES = ("a", "b")


def load(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file."""
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def state_dict(folder: Path, shapes: str, family: str) -> dict[str, np.ndarray]:
    """A seeded state dict, from the file of its shapes."""
    make = seeded(folder).torch_like
    return {
        name: make(name, shape, family)
        for name, shape in json.loads((folder / shapes).read_text()).items()
        if not name.endswith("num_batches_tracked")
    }


def torchvision_model(folder: Path) -> MaskRCNN:
    """torchvision's v1 with the oracle's weights."""
    tensors = state_dict(folder, "torchvision/state_dict_shapes.json", "torchvision")
    return build(torchvision_source(tensors, "seeded weights"), **SMALL)


def torchvision(folder: Path, images: Sequence[str] = IMAGES) -> Iterator[Row]:
    """Every stage of `maskrcnn_resnet50_fpn`."""
    model, pictures = torchvision_model(folder), {"a": (320, 320, 7), "b": (200, 300, 8)}
    for name in images:
        image, source = seeded(folder).image(*pictures[name]), f"torchvision {name}"
        arrays, stages = load(folder / f"torchvision/tv_oracle_{name}_compact.npz"), Stages(model, image)
        yield from feature_rows(source, stages, _channels_last(arrays))
        yield from rpn_rows(source, stages, *torch_rpn(arrays))
        yield Row(source, "anchors", 0, _worst(stages.anchors, _torchvision_anchors(arrays)), "px")
        yield from proposal_rows(source, stages, xyxy(arrays["proposals"]))
        count = len(arrays["class_logits"])
        yield from head_rows(
            source,
            stages,
            xyxy(arrays["proposals"]),
            {
                "logits": arrays["class_logits"],
                "box_deltas": xyxy(arrays["box_regression"].reshape(count, -1, 4)),
                "box_features": (nhwc(arrays["box_roi_pool"]), lambda x: x[::10, ..., ::8]),
                "dense": arrays["box_head"],
                "step": 4,
                "mask_rois": xyxy(arrays["det_boxes_resized"]),
                "mask_classes": arrays["det_labels"],
                "masks": sigmoid(arrays["mask_logits_of_label"]),
                "mask_features": (nhwc(arrays["mask_roi_pool"]), lambda x: x[:4, ..., ::8]),
            },
        )
        yield from detection_rows(
            source,
            "detections",
            stages.detections(),
            {
                "boxes": xyxy(arrays["det_boxes_resized"]),
                "class_ids": arrays["det_labels"],
                "scores": arrays["det_scores"],
                "masks": sigmoid(arrays["mask_logits_of_label"]),
            },
            bars=DETECTIONS,
        )
        yield from detection_rows(
            source,
            "in the photograph",
            _result(model.detect([image])[0]),
            {"boxes": xyxy(arrays["out_boxes"]), "class_ids": arrays["out_labels"], "scores": arrays["out_scores"]},
            bars=DETECTIONS,
        )
    yield round_trip_row("torchvision", model, image)


def detectron2_model(folder: Path, **settings: Any) -> MaskRCNN:
    """Detectron2's R50-FPN with the oracle's weights."""
    tensors = state_dict(folder, "detectron2/state_dict_shapes_R_50.json", "detectron2")
    return build(detectron2_source(tensors, "seeded weights"), **{**SMALL, **settings})


def detectron2(folder: Path, images: Sequence[str] = IMAGES) -> Iterator[Row]:
    """Every stage of `mask_rcnn_R_50_FPN_3x`, on photographs as its own transform resized them, then whole."""
    model = detectron2_model(folder)
    for name in images:
        source, arrays = f"Detectron2 {name}", load(folder / f"detectron2/d2_oracle_R_50_{name}.npz")
        image = np.ascontiguousarray(arrays["resized_bgr"][..., ::-1])
        stages = Stages(model, image)
        yield from feature_rows(source, stages, _channels_last(arrays))
        yield from rpn_rows(source, stages, *torch_rpn(arrays))
        parts = [
            (level[: len(arrays[f"anchors_{n}"])], xyxy(arrays[f"anchors_{n}"]))
            for n, level in zip(LEVELS, stages.anchors, strict=True)
        ]
        yield Row(source, "anchors", 0, _worst(*zip(*parts, strict=True)), "px")
        yield from proposal_rows(source, stages, xyxy(arrays["proposals"]))
        masks, classes = arrays["det_masks28"][:, 0], arrays["det_classes"] + 1
        yield from head_rows(
            source,
            stages,
            xyxy(arrays["proposals"]),
            {
                "logits": np.roll(arrays["class_logits"], 1, axis=1),
                "box_deltas": xyxy(arrays["box_regression"].reshape(len(arrays["class_logits"]), -1, 4)),
                "box_features": (nhwc(arrays["box_roi_pool"]), lambda x: x[::10, ..., ::8]),
                "dense": arrays["box_head"],
                "step": 4,
                "mask_rois": xyxy(arrays["det_boxes_resized"]),
                "mask_classes": classes,
                "masks": masks,
                "mask_features": (nhwc(arrays["mask_roi_pool"]), lambda x: x[:4, ..., ::8]),
            },
        )
        yield from detection_rows(
            source,
            "detections",
            stages.detections(),
            {
                "boxes": xyxy(arrays["det_boxes_resized"]),
                "class_ids": classes,
                "scores": arrays["det_scores"],
                "masks": masks,
            },
            bars=DETECTIONS,
        )
        yield from thin_rows(source, stages, arrays)
        yield from whole_image_rows(source, model, arrays, bar=None)
    yield round_trip_row("Detectron2", model, image)


def detectron2_single_model(folder: Path, kind: str) -> MaskRCNN:
    """Detectron2's R50 of "C4" or "DC5" with the oracle's weights, scaled so that something is found."""
    tensors = state_dict(folder, f"detectron2/state_dict_shapes_{kind}_R_50.json", "detectron2")
    times = load(folder / f"detectron2/d2_oracle_{kind}_R_50_a.npz")["cls_score_times"]
    tensors["roi_heads.box_predictor.cls_score.weight"] *= np.float32(times)
    return build(detectron2_source(tensors, "seeded weights"), **SMALL)


def detectron2_single(
    folder: Path, images: Sequence[str] = IMAGES, kinds: Sequence[str] = ("C4", "DC5")
) -> Iterator[Row]:
    """Every stage of `mask_rcnn_R_50_C4_3x` and `_DC5_3x`: one feature map, and for C4 stage 5 in the heads."""
    for kind in kinds:
        model = detectron2_single_model(folder, kind)
        network, layer = model.network, model.inference_model.get_layer
        for name in images:
            source, arrays = f"Detectron2 {kind} {name}", load(folder / f"detectron2/d2_oracle_{kind}_R_50_{name}.npz")
            given = model.detector.network_input(np.ascontiguousarray(arrays["resized_bgr"][..., ::-1]))
            trunk = np.asarray(network.trunk(given.image[None]))
            feature = "feature_res4" if kind == "C4" else "feature_res5"
            deviation = arrays[f"{feature}_moments"][1]
            found = {"feature": relative(sampled(trunk), nhwc(arrays[feature]), deviation)}
            logits, deltas = network.rpn(trunk)
            theirs = nhwc(arrays["rpn_logits_0"])
            found["RPN logits"] = relative(np.asarray(logits).reshape(theirs.shape), theirs)
            anchors = layer("anchors")([trunk])
            rois, valid, _ = layer("proposals")([logits], [deltas], list(anchors), given.window[None])
            ours, rois = np.asarray(rois)[0][np.asarray(valid)[0]], xyxy(arrays["proposals"])
            bars = {"unmatched": 0, "boxes": DETECTIONS["boxes"]}
            yield from detection_rows(source, "proposals", {"boxes": ours}, {"boxes": rois}, bars=bars)
            features = np.asarray(layer("roi_align_box")([trunk], np.float32(rois)[None]))
            step = 32 if kind == "C4" else 8
            found["box RoIAlign"] = relative(features[::10, ..., ::step], nhwc(arrays["box_pooled"]))
            if network.roi_stage is not None:
                features = np.asarray(network.roi_stage(features))
                found["stage 5"] = relative(features[::10, ..., ::64], nhwc(arrays["res5"]))
            logits, deltas = network.box_head(features)
            found["class logits"] = relative(logits, np.roll(arrays["class_logits"], 1, axis=1))
            theirs = xyxy(arrays["box_regression"].reshape(len(rois), -1, 4))
            found["box deltas"] = relative(np.asarray(deltas)[:, 1:], theirs)
            for stage, figure in found.items():
                yield Row(source, stage, CLOSE, figure)
            raw = model.detector.run(given.image[None], given.window[None])[0]
            result = model.detect([arrays["image_rgb"]])[0]
            expected = {"class_ids": arrays["det_classes"] + 1, "scores": arrays["det_scores"]}
            expected |= {"boxes": xyxy(arrays["out_boxes"]), "masks": arrays["det_masks"][:, 0]}
            ours = {"boxes": result["rois"], "class_ids": result["class_ids"], "scores": result["scores"]}
            yield from detection_rows(source, "detections", ours | {"masks": raw["masks"]}, expected, bars=DETECTIONS)
        yield round_trip_row(f"Detectron2 {kind}", model, arrays["image_rgb"])


def detectron2_pointrend(folder: Path, images: Sequence[str] = ("a",)) -> Iterator[Row]:
    """The stages of PointRend's mask head in `pointrend_rcnn_R_50_FPN_3x_coco`, then whole; there is no image b."""
    if "a" not in images:
        return
    source, arrays = "Detectron2 PointRend a", load(folder / "detectron2/d2_oracle_pointrend_R_50_a.npz")
    tensors = state_dict(folder, "detectron2/state_dict_shapes_pointrend_R_50.json", "detectron2")
    model = build(detectron2_source(tensors, "seeded weights"), **SMALL)
    image = np.ascontiguousarray(arrays["resized_bgr"][..., ::-1])
    head, levels = model.network.head, Stages(model, image).levels[:4]
    boxes, class_ids = xyxy(arrays["mask_boxes"]), np.int32(arrays["mask_classes"] + 1)
    points, index = np.float32(arrays["point_coords"][..., ::-1]), np.zeros(len(boxes), np.int32)
    coarse = head.coarse_logits(levels, boxes, index)
    fine = head.sample(boxes, index, points=points)(levels)
    at_points = heads.SampleGrid()(coarse, points)
    found = {
        "coarse logits": (coarse, nhwc(arrays["coarse_logits"])),
        "features at points": (np.asarray(fine)[..., ::8], arrays["point_fine"].transpose(0, 2, 1)),
        "coarse logits at points": (at_points, arrays["point_coarse"].transpose(0, 2, 1)),
        "point logits": (head.points([fine, at_points]), arrays["point_logits"].transpose(0, 2, 1)),
    }
    for stage, (ours, theirs) in found.items():
        yield Row(source, stage, CLOSE, relative(ours, theirs))
    given = {"pyramid": levels, "boxes": boxes, "class_ids": class_ids, "image_index": index}
    given = {name: [*map(np.asarray, value)] if name == "pyramid" else value for name, value in given.items()}
    masks, theirs = np.asarray(head.inference(given)["masks"])[..., 0], arrays["fine_masks"][:, 0]
    apart = [1 - iou(ours >= 0.5, other >= 0.5) for ours, other in zip(masks, theirs, strict=True)]
    yield Row(source, "masks after subdivision, 1 - IoU", 0.01, max(apart), f"(median {np.median(apart):.1g})")
    yield from whole_image_rows(source, model, arrays, bar=0.01)
    yield round_trip_row("Detectron2 PointRend", model, arrays["image_rgb"])


def whole_image_rows(source: str, model: MaskRCNN, arrays: dict[str, np.ndarray], bar: float | None) -> Iterator[Row]:
    """`detect` on the oracle's image; bar: of 1 - IoU of the whole masks."""
    theirs = {
        "boxes": xyxy(arrays["out_boxes"]),
        "class_ids": arrays["out_classes"] + 1,
        "scores": arrays["out_scores"],
        "pasted": _unpacked(arrays["out_masks_packed"], arrays["out_masks_shape"]).transpose(1, 2, 0),
    }
    ours = _result(model.detect([arrays["image_rgb"]])[0])
    yield from detection_rows(source, "from the photograph", ours, theirs, bars={**DETECTIONS, "pasted": bar})


def thin_rows(source: str, stages: Stages, arrays: dict[str, np.ndarray]) -> list[Row]:
    """Detections of the oracle's logits and deltas, those of odd RoIs made about 0.005 px high; Detectron2 drops only
    boxes without area."""
    rois, height = xyxy(arrays["proposals"]), np.diff(arrays["proposals"][:, 1::2])
    logits = np.roll(arrays["class_logits"], 1, axis=1)
    deltas = xyxy(arrays["box_regression"].reshape(len(logits), -1, 4)).copy()
    deltas[1::2, :, 2] = 5 * np.log(0.005 / np.maximum(height[1::2], 1))  # log heights are multiplied by 5
    window = np.array([[0, 0, *stages.molded.image.shape[:2]]], np.float32)
    wide = np.concatenate([np.zeros_like(deltas[:, :1]), deltas], axis=1)  # the background
    layer = stages.layer("detections")
    boxes, class_ids, scores, valid, _ = layer(
        rois[None], np.ones((1, len(rois)), bool), logits[None], wide[None], window
    )
    found = {"boxes": boxes, "class_ids": class_ids, "scores": scores}
    found = {name: np.asarray(value)[0][np.asarray(valid)[0]] for name, value in found.items()}
    expected = fast_rcnn_inference(rois, logits, deltas, window[0])
    return detection_rows(source, "detections of any size", found, expected, bars=DETECTIONS)


def fast_rcnn_inference(
    rois: np.ndarray, logits: np.ndarray, deltas: np.ndarray, window: np.ndarray
) -> dict[str, np.ndarray]:
    """Detectron2's function of this name, in numpy: scores over 0.05, NMS of 0.5 per class, the best 100."""
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores = (scores / scores.sum(axis=1, keepdims=True))[:, 1:]
    sides = np.concatenate([rois[:, 2:] - rois[:, :2]] * 2, axis=1)[:, None]
    centers, (moves, growth) = (rois[:, None, :2] + rois[:, None, 2:]) / 2, (deltas[..., :2] / 10, deltas[..., 2:] / 5)
    centers = centers + moves * sides[..., :2]
    halves = sides[..., :2] * np.exp(np.minimum(growth, np.log(1000 / 16))) / 2
    boxes = np.concatenate([centers - halves, centers + halves], axis=-1)
    boxes = np.clip(boxes, 0, np.tile(window[2:], 2)).astype(np.float32)
    kept = []
    for row, number in zip(*np.nonzero(scores > 0.05), strict=True):
        kept.append((scores[row, number], number, *boxes[row, number]))
    kept, best = sorted(kept, key=lambda entry: -entry[0]), []
    for entry in kept:
        rivals = np.array([other[2:] for other in best if other[1] == entry[1]]).reshape(-1, 4)
        shared = np.clip(np.minimum(rivals[:, 2:], entry[4:]) - np.maximum(rivals[:, :2], entry[2:4]), 0, None).prod(1)
        areas = (rivals[:, 2:] - rivals[:, :2]).prod(axis=1) + (entry[4] - entry[2]) * (entry[5] - entry[3])
        if not (shared > 0.5 * (areas - shared)).any():
            best.append(entry)
    best = np.array(best[:100], np.float64)
    return {"boxes": best[:, 2:], "class_ids": best[:, 1].astype(int) + 1, "scores": best[:, 0]}


def detectron2_fixed_sampling(folder: Path, images: Sequence[str] = IMAGES) -> Iterator[Row]:
    """What a fixed 2 x 2 samples a bin changes, which is faster than Detectron2's adaptive sampling. No bars."""
    model = detectron2_model(folder, ROI_SAMPLING_RATIO=2)
    for name in images:
        source, arrays = f"Detectron2 {name}, 2 x 2 samples", load(folder / f"detectron2/d2_oracle_R_50_{name}.npz")
        stages = Stages(model, np.ascontiguousarray(arrays["resized_bgr"][..., ::-1]))
        classes = arrays["det_classes"] + 1
        yield from head_rows(
            source,
            stages,
            xyxy(arrays["proposals"]),
            {
                "logits": np.roll(arrays["class_logits"], 1, axis=1),
                "box_deltas": xyxy(arrays["box_regression"].reshape(len(arrays["class_logits"]), -1, 4)),
                "mask_rois": xyxy(arrays["det_boxes_resized"]),
                "mask_classes": classes,
                "masks": arrays["det_masks28"][:, 0],
            },
            bar=None,
        )
        yield from detection_rows(
            source,
            "detections",
            stages.detections(),
            {
                "boxes": xyxy(arrays["det_boxes_resized"]),
                "class_ids": classes,
                "scores": arrays["det_scores"],
                "masks": arrays["det_masks28"][:, 0],
            },
            bars={},
            reach=8,
        )


def matterport_model(folder: Path) -> MaskRCNN:
    """The old package's ResNet-50 with the oracle's weights."""
    make, shapes = seeded(folder).matterport, json.loads((folder / "matterport/layers_r50.json").read_text())
    layers = {
        layer: {
            weight: Lazy(tuple(shape), lambda a=(layer, weight, shape): make(*a)) for weight, shape in weights.items()
        }
        for layer, weights in shapes.items()
    }
    theirs = json.loads((folder / "matterport/config_r50.json").read_text())
    same = (
        "IMAGE_MIN_DIM",
        "IMAGE_MAX_DIM",
        "POST_NMS_ROIS_INFERENCE",
        "DETECTION_MAX_INSTANCES",
        "DETECTION_MIN_CONFIDENCE",
        "RPN_ANCHOR_SCALES",
    )
    return build(matterport_source(layers, "seeded weights"), **{name: theirs[name] for name in same})


def matterport(folder: Path, images: Sequence[str] = IMAGES) -> Iterator[Row]:
    """Every stage of the old package. The stages of image b begin with what its scikit-image made of it: today's cuts a
    few of its values, whole up to rounding, to the number below."""
    model, pictures = matterport_model(folder), {"a": (256, 256, 7), "b": (150, 200, 8)}
    every = load(folder / "matterport/model_r50_a_full.npz")
    resized = {"b": load(folder / "matterport/utils.npz")["resize_square_256"]}
    for name in images:
        image, source = seeded(folder).image(*pictures[name]), f"matterport {name}"
        arrays = load(folder / f"matterport/model_r50_{name}_compact.npz")
        stages = Stages(model, image, normalize(resized[name], *model.scaling) if name in resized else None)
        yield from feature_rows(source, stages, arrays)
        logits = arrays["rpn_class_logits"][..., 1] - arrays["rpn_class_logits"][..., 0]
        cuts = np.cumsum([len(level) for level in stages.anchors])[:-1]
        yield from rpn_rows(source, stages, np.split(logits, cuts, axis=1), np.split(arrays["rpn_bbox"], cuts, axis=1))
        # It adds in float64; at 512 neighboring float32 are 3e-5 apart
        yield Row(source, "anchors", 3.1e-5, _worst(stages.anchors, np.split(every["anchors_pixels"], cuts)), "px")
        rois, found = _pixels(arrays["rpn_rois"][0]), arrays["detections"][0]
        yield from proposal_rows(source, stages, rois)
        yield edge_row(source, stages, arrays["rpn_rois"][0])
        found = found[found[:, 4] > 0]
        expected = {
            "logits": arrays["mrcnn_class_logits"][0],
            "box_deltas": arrays["mrcnn_bbox"][0],
            "mask_rois": _pixels(found[:, :4]),
            "mask_classes": found[:, 4].astype(int),
            "masks": of_class(arrays["mrcnn_mask"][0][: len(found)], found[:, 4].astype(int)),
            "box_features": (arrays["roi_align_classifier"][0], lambda x: x[::10, ..., ::16]),
            "mask_features": (arrays["roi_align_mask"][0], lambda x: x[:8, ..., ::16]),
        }
        if name == "a":
            expected |= {"dense": every["head_shared"][0], "step": 1}
        yield from head_rows(source, stages, rois, expected)
        yield from detection_rows(
            source,
            "detections",
            _result(model.detect([image])[0]),
            {
                "boxes": arrays["detect_rois"],
                "class_ids": arrays["detect_class_ids"],
                "scores": arrays["detect_scores"],
                "pasted": _unpacked(arrays["detect_masks"], arrays["detect_masks_shape"]),
            },
            bars={"unmatched": 0, "boxes": 1.5, "scores": 5e-3, "pasted": 0.03},
            reach=1.5,
        )
    yield round_trip_row("matterport", model, image)


def edge_row(source: str, stages: Stages, corners: np.ndarray) -> Row:
    """RoIs with a side on the image's edge: this network's own, beside the same with the original's normalized corners
    [N, 4], on this network's feature maps. A last sample beyond the last cell is zero."""
    import tensorflow as tf

    ours, theirs = stages.proposals(), _pixels(corners, stages.molded.image.shape[0])
    apart = np.abs(ours[:, None] - theirs[None]).max(axis=-1)
    at_edge = ((corners == 0) | (corners == 1)).any(axis=1) & (apart.min(axis=0) <= DETECTIONS["boxes"])
    found, corners = stages.pooled("box", ours[apart.argmin(axis=0)[at_edge]]), corners[at_edge]
    first = np.zeros(len(corners), np.int32)
    samples = [tf.image.crop_and_resize(level, corners, first, found.shape[1:3]) for level in stages.levels[:4]]
    differ = np.abs(np.stack(samples) - found).reshape(4, len(corners), -1).max(axis=-1).min(axis=0)
    wrong = (differ > 0.05 * found.std()).sum()
    return Row(source, "RoIs at the edge with other features", 0, wrong, f"(of {len(corners)})")


SOURCES = {
    "torchvision": (torchvision,),
    "detectron2": (detectron2, detectron2_single, detectron2_pointrend, detectron2_fixed_sampling),
    "matterport": (matterport,),
}


def _channels_last(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: nhwc(values) if values.ndim == 4 else values for name, values in arrays.items()}


def _worst(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    return max(
        float(np.abs(ours - np.asarray(theirs, np.float32)).max()) for ours, theirs in zip(found, expected, strict=True)
    )


def _torchvision_anchors(arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Its cell anchors on its grid, whose step is the input's size // the level's."""
    height, width = (4 * n for n in arrays["rpn_objectness_P2"].shape[2:])
    levels = []
    for level, cells in zip(LEVELS, arrays["cell_anchors"], strict=True):
        rows, columns = arrays[f"rpn_objectness_{level}"].shape[2:]
        y, x = np.meshgrid(np.arange(rows) * (height // rows), np.arange(columns) * (width // columns), indexing="ij")
        levels.append(xyxy(np.stack([x, y, x, y], axis=-1)[:, :, None] + cells).reshape(-1, 4))
    return levels


def _pixels(boxes: np.ndarray, side: int = 256) -> np.ndarray:
    """matterport's normalized boxes as pixels of the input, end-exclusive."""
    return boxes * (side - 1) + np.array([0, 0, 1, 1], np.float32)


def _unpacked(bits: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return np.unpackbits(bits)[: np.prod(shape)].reshape(shape).astype(bool)


def _result(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        "boxes": found["rois"],
        "class_ids": found["class_ids"],
        "scores": found["scores"],
        "pasted": found["masks"],
    }
