"""Keypoints beside the original programs: Detectron2's stored oracles, and torchvision live."""

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from parity_oracles import IMAGES, SMALL, load, state_dict
from parity_rows import Row, detection_rows, match, nhwc, relative, xyxy
from parity_stages import (
    DETECTIONS,
    LEVELS,
    THROUGH_ROI_ALIGN,
    Stages,
    build,
    feature_rows,
    head_rows,
    proposal_rows,
    round_trip_row,
)
from seeded_weights import seeded

from mrcnn.data.keypoints import decode_heatmaps
from mrcnn.model import MaskRCNN
from mrcnn.weights.importers.detectron2 import detectron2_source

PROGRAM = Path(__file__).with_name("keypoints_torchvision.py")
APART = 0.5  # pixels between the keypoints of two programs
SCORES = 1e-3


def detectron2_model(folder: Path) -> MaskRCNN:
    """Detectron2's keypoint R50-FPN with the oracle's weights."""
    tensors = state_dict(folder, "detectron2/state_dict_shapes_keypoint_R_50.json", "detectron2")
    return build(detectron2_source(tensors, "seeded weights"), **SMALL)


def detectron2(folder: Path, images: Sequence[str] = IMAGES) -> Iterator[Row]:
    """Every stage of `keypoint_rcnn_R_50_FPN_3x`, on images as its own transform resized them, then whole.

    The oracle keeps the boxes of detections in pixels of the image alone.
    """
    model = detectron2_model(folder)
    for name in images:
        source, arrays = f"Detectron2 keypoints {name}", load(folder / f"detectron2/d2_oracle_keypoint_R_50_{name}.npz")
        stages = Stages(model, np.ascontiguousarray(arrays["resized_bgr"][..., ::-1]))
        features = {level: nhwc(arrays[f"feature_{level.lower()}"]) for level in LEVELS}
        features |= {f"{level}_moments": arrays[f"feature_{level.lower()}_moments"] for level in LEVELS}
        yield from feature_rows(source, stages, features)
        rois = xyxy(arrays["proposals"])
        yield from proposal_rows(source, stages, rois)
        expected = {
            "logits": np.roll(arrays["class_logits"], 1, axis=1),
            "box_deltas": xyxy(arrays["box_regression"].reshape(len(rois), -1, 4)),
            "box_features": (nhwc(arrays["box_pooled"]), lambda x: x[::10, ..., ::8]),
            "dense": arrays["box_head"],
            "step": 4,
        }
        yield from head_rows(source, stages, rois, expected)
        scale = np.tile(np.divide(arrays["resized_bgr"].shape[:2], arrays["image_rgb"].shape[:2]), 2)
        boxes, heatmaps = xyxy(arrays["out_boxes"]) * scale, nhwc(arrays["keypoint_heatmaps"])
        yield Row(
            source,
            "heatmaps, fed its boxes",
            THROUGH_ROI_ALIGN,
            relative(heatmaps_of(stages, boxes[: len(heatmaps)]), heatmaps),
        )
        decoded = decode_heatmaps(heatmaps, boxes[: len(heatmaps)])
        theirs = arrays["det_keypoints_resized"][: len(heatmaps), :, [1, 0, 2]]
        yield Row(source, "keypoints, fed its heatmaps", 1e-3, float(np.abs(decoded - theirs).max()), "px")
        found = {"class_ids": arrays["det_classes"] + 1, "scores": arrays["det_scores"]}
        theirs = {**found, "boxes": boxes, "keypoints": arrays["det_keypoints_resized"][..., [1, 0, 2]]}
        raw = stages.detections()
        raw["keypoints"] = decode_heatmaps(raw["keypoints"], raw["boxes"])
        yield from keypoint_rows(source, "detections", raw, theirs)
        theirs = {**found, "boxes": xyxy(arrays["out_boxes"]), "keypoints": arrays["out_keypoints"][..., [1, 0, 2]]}
        whole = model.detect([arrays["image_rgb"]])[0]
        yield from keypoint_rows(source, "in the image", {**whole, "boxes": whole["rois"]}, theirs)
    yield round_trip_row("Detectron2 keypoints", model, arrays["image_rgb"])


def heatmaps_of(stages: Stages, boxes: np.ndarray) -> np.ndarray:
    """Heatmaps [N, m, m, K] of boxes [N, 4] on the pyramid of this program."""
    boxes = np.asarray(boxes, np.float32)
    features = stages.layer("roi_align_keypoints")(stages.levels[:4], boxes, np.zeros(len(boxes), np.int32))
    return np.asarray(stages.network.keypoints.inference({"features": features})["keypoints"])


def keypoint_rows(source: str, stage: str, found: dict, expected: dict) -> Iterator[Row]:
    """Rows of detections, then of the keypoints of their pairs.

    Where the heatmap has two maxima, either program may be right: those keypoints have no bar. They are known by their
    scores, which are equal, though the places are apart.
    """
    yield from detection_rows(source, stage, found, expected, bars=DETECTIONS)
    pairs = np.array(match(found, expected, 1.0), int).reshape(-1, 2)
    if not len(pairs):
        return
    ours, theirs = np.asarray(found["keypoints"])[pairs[:, 0]], np.asarray(expected["keypoints"])[pairs[:, 1]]
    apart = np.abs(ours[..., :2] - theirs[..., :2]).max(axis=-1)
    scores = np.abs(ours[..., 2] - theirs[..., 2]) / np.maximum(theirs[..., 2], 1)
    ties = (apart > APART) & (scores < SCORES)
    note = f"px (median {np.median(apart):.1g}, {ties.sum()} ties of {ties.size})"
    yield Row(source, f"{stage}: keypoints", APART, float(np.where(ties, 0, apart).max()), note)
    yield Row(source, f"{stage}: scores of keypoints", SCORES, float(scores.max()))
    yield Row(source, f"{stage}: share of ties", 0.01, float(ties.mean()))


def torchvision(python: str, folder: Path, *, seeds: Sequence[int]) -> Iterator[Row]:
    """`keypointrcnn_resnet50_fpn`, run live by another Python on images of other sizes; the file that torch saved."""
    images = {f"{h}x{w}": seeded(folder).image(h, w, 100 + h) for h, w in ((240, 330), (410, 300))}
    for seed in seeds:
        with tempfile.TemporaryDirectory() as place:
            np.savez(f"{place}/images.npz", **images)
            command = [python, str(PROGRAM), "--oracles", str(folder), "--seed", str(seed)]
            subprocess.run([*command, "--images", f"{place}/images.npz", "--out", place], check=True)
            model = MaskRCNN.from_pretrained(f"{place}/weights.pth", **SMALL)
            for name, image in images.items():
                yield from _torchvision_rows(
                    f"torchvision keypoints {seed}, {name}", model, image, load(Path(place) / f"{name}.npz")
                )


def _torchvision_rows(source: str, model: MaskRCNN, image: np.ndarray, arrays: dict[str, np.ndarray]) -> Iterator[Row]:
    stages = Stages(model, image, arrays["pixels"].transpose(1, 2, 0))
    yield from feature_rows(source, stages, {level: nhwc(arrays[level]) for level in LEVELS}, whole=True)
    yield from proposal_rows(source, stages, xyxy(arrays["proposals"]))
    boxes, heatmaps = xyxy(arrays["det_boxes"]), nhwc(arrays["heatmaps"])
    yield Row(source, "heatmaps, fed its boxes", THROUGH_ROI_ALIGN, relative(heatmaps_of(stages, boxes), heatmaps))
    # Its scores of keypoints are the logits of the peaks; in their place the probabilities
    scores = decode_heatmaps(heatmaps, boxes)[..., 2:]
    whole = model.detect([image])[0]
    raw = stages.detections()
    raw["keypoints"] = decode_heatmaps(raw["keypoints"], raw["boxes"])
    for stage, found, kind in (("detections", raw, "det"), ("in the image", {**whole, "boxes": whole["rois"]}, "out")):
        theirs = {"class_ids": arrays[f"{kind}_labels"], "scores": arrays[f"{kind}_scores"]}
        theirs["boxes"] = xyxy(arrays[f"{kind}_boxes"])
        theirs["keypoints"] = np.concatenate([arrays[f"{kind}_keypoints"][..., [1, 0]], scores], axis=-1)
        yield from keypoint_rows(source, stage, found, theirs)


SOURCES = {"detectron2": (detectron2,)}
