"""How close a training step comes to torchvision's: matches, losses and the gradient of every weight. Prints a table.

    python benchmarks/training_parity.py --oracles ORACLES --torchvision-python DIR/bin/python

torchvision runs live, in a Python of its own. Both programs get the same seeded weights, the same batch and samplers
that take every candidate, so that nothing is random. Matches must be identical, one by one: of anchors with objects,
low-quality matches among them, and of RoIs. Losses and the norms of gradients may differ by 1e-3 of their value.

The mask loss is taken over torchvision's own mask targets, which are fractions of a cell; those of this package are 0
or 1, as Detectron2's. A row of the table says how many cells agree. The keypoint loss is taken in torchvision's RoIs,
which differ from those here by rounding, as a keypoint on the border of two cells is otherwise in another one; a row
counts the keypoints that are in another cell though they are not on a border. docs/how_it_works.md lists the other
intentional differences, none of which counts here.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import common  # noqa: F401  makes the checkout importable
import keras
import numpy as np
from parity_oracles import load
from parity_rows import Row, nhwc, report, xyxy
from seeded_weights import seeded

import heads
from mrcnn.data.masks import crop_masks
from mrcnn.layers.targets import match_anchors
from mrcnn.model import MaskRCNN
from mrcnn.training.model import set_trainable
from mrcnn.weights.importers.torchvision import torchvision_source

PROGRAM = Path(__file__).with_name("training_torchvision.py")
MODELS = {"v1": "Mask R-CNN", "faster_v1": "Faster R-CNN", "keypoint_v1": "Keypoint R-CNN"}
CLOSE = 1e-3
ZERO = "keypoint_head/deconv/bias"  # it moves all cells of a heatmap alike, which a softmax over them does not notice
ROUNDING = 1e-5
OBJECTS, CLASSES, MASK_SIDE, KEYPOINTS = 4, 8, 112, 5
SAME_BOX = 0.01  # pixels between the corners of a RoI here and there
LOSSES = {
    "rpn_class_loss": "loss_objectness",
    "rpn_bbox_loss": "loss_rpn_box_reg",
    "mrcnn_class_loss": "loss_classifier",
    "mrcnn_bbox_loss": "loss_box_reg",
    "mrcnn_mask_loss": "loss_mask",
    "mrcnn_keypoint_loss": "loss_keypoint",
}
Arrays = Mapping[str, np.ndarray]


def batch_of(oracles: Path, seed: int, height: int, width: int, count: int = 2) -> dict[str, np.ndarray]:
    """Images with rectangles and discs, as training_torchvision.py takes them.

    Keypoints lie in the boxes, two of each object on its corners; a quarter is not labeled, nor is any of one object.
    """
    rng = np.random.default_rng(seed)
    images = np.stack([seeded(oracles).image(height, width, 10 * seed + i) for i in range(count)])
    rows, columns = np.mgrid[:height, :width] + 0.5
    boxes, masks = np.zeros((count, OBJECTS, 4), np.float32), np.zeros((count, OBJECTS, height, width), np.uint8)
    for i, k in np.ndindex(count, OBJECTS):
        tall, wide = rng.integers(height // 8, height // 2), rng.integers(width // 8, width // 2)
        top, left = rng.integers(height - tall), rng.integers(width - wide)
        boxes[i, k] = left, top, left + wide, top + tall
        y, x = (rows - top) / tall * 2 - 1, (columns - left) / wide * 2 - 1
        masks[i, k] = (abs(y) < 1) & (abs(x) < 1) if k % 2 else y**2 + x**2 < 1
    labels, corners = rng.integers(1, CLASSES, (count, OBJECTS)), boxes.reshape(count, OBJECTS, 2, 2)
    places = rng.uniform(corners[:, :, :1], corners[:, :, 1:], (count, OBJECTS, KEYPOINTS, 2))
    places[:, :, :2] = corners
    visible = rng.choice([0, 1, 2, 2], (count, OBJECTS, KEYPOINTS, 1))
    visible[0, 0] = 0
    keypoints = np.concatenate([places, visible], axis=-1).astype(np.float32)
    return {"images": images, "boxes": boxes, "masks": masks, "labels": labels, "keypoints": keypoints}


def torchvision_step(
    python: str, oracles: Path, name: str, seed: int, batch: Arrays, folder: Path
) -> tuple[Arrays, Arrays]:
    """What training_torchvision.py wrote: the step and the gradients. The weights are in folder/weights.pth."""
    np.savez(folder / "batch.npz", **batch)
    flags = {
        "--oracles": oracles,
        "--model": name,
        "--seed": seed,
        "--classes": CLASSES,
        "--batch": folder / "batch.npz",
        "--out": folder,
    }
    subprocess.run([python, str(PROGRAM), *(str(part) for flag in flags.items() for part in flag)], check=True)
    return load(folder / "step.npz"), load(folder / "gradients.npz")


def model_of(weights: Path, step: Arrays) -> MaskRCNN:
    """A model with these weights, whose samplers take every candidate of the step."""
    count, _, height, width = step["pixels"].shape
    model = MaskRCNN.from_pretrained(
        weights,
        "training",
        NAME="parity",
        IMAGES_PER_GPU=count,
        IMAGE_MIN_DIM=min(height, width),
        IMAGE_MAX_DIM=max(height, width),
        RPN_TRAIN_ANCHORS_PER_IMAGE=2 * len(step["anchors"]),  # at most half of them positive
        PRE_NMS_LIMIT_TRAINING=200,
        POST_NMS_ROIS_TRAINING=150,
        TRAIN_ROIS_PER_IMAGE=150 + OBJECTS,
        ROI_POSITIVE_RATIO=1.0,
        MAX_GT_INSTANCES=OBJECTS,
        MINI_MASK_SHAPE=(MASK_SIDE, MASK_SIDE),
    )
    set_trainable(model.network, "all", train_bn=False)
    return model


def inputs_of(model: MaskRCNN, batch: Arrays, step: Arrays) -> dict[str, np.ndarray]:
    """The batch as the training graph takes it, of torchvision's own normalized pixels."""
    count, _, height, width = step["pixels"].shape
    boxes = xyxy(batch["boxes"])
    masks = [
        crop_masks(whole.transpose(1, 2, 0).astype(bool), own, (MASK_SIDE, MASK_SIDE))
        for whole, own in zip(batch["masks"], boxes, strict=True)
    ]
    inputs = {
        "image": nhwc(step["pixels"]),
        "window": np.tile(np.float32([0, 0, height, width]), (count, 1)),
        "gt_class_ids": batch["labels"].astype(np.int32),
        "gt_boxes": boxes.astype(np.float32),
        "gt_masks": np.stack(masks),
        "gt_keypoints": batch["keypoints"][..., [1, 0, 2]],
        "active_classes": np.ones((count, CLASSES), np.float32),
        "image_id": np.arange(count, dtype=np.int32),
        "seed": np.arange(count, dtype=np.int32),
    }
    return {name: inputs[name] for name in model.training_model.input}


def anchor_rows(source: str, model: MaskRCNN, inputs: Arrays, step: Arrays) -> Iterator[Row]:
    """Every anchor: object, background or neither, and the object of each that is one."""
    anchors = xyxy(step["anchors"]).astype(np.float32)
    positive, negative, matched = (
        np.asarray(part)
        for part in match_anchors(
            anchors,
            inputs["gt_boxes"],
            inputs["gt_class_ids"],
            positive_overlap=model.config.RPN_POSITIVE_OVERLAP,
            negative_overlap=model.config.RPN_NEGATIVE_OVERLAP,
        )
    )
    labels = np.where(positive, 1, np.where(negative, 0, -1))
    theirs = np.stack([step[f"anchor_labels_{i}"] for i in range(len(labels))])
    yield Row(source, "anchors labeled otherwise", 0, int((labels != theirs).sum()), f"of {labels.size}")
    ours = np.take_along_axis(inputs["gt_boxes"], matched[..., None], axis=1)
    boxes = np.stack([xyxy(step[f"anchor_boxes_{i}"]) for i in range(len(labels))])
    apart = (ours != boxes).any(axis=-1) & (theirs == 1)
    low = (theirs == 1) & (_best_overlap(anchors, inputs["gt_boxes"]) < model.config.RPN_POSITIVE_OVERLAP)
    note = f"of {int((theirs == 1).sum())}, {int(low.sum())} of low quality"
    yield Row(source, "anchors matched with another object", 0, int(apart.sum()), note)


def _best_overlap(anchors: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    from mrcnn.ops import boxes as box_ops

    return np.asarray(box_ops.iou(anchors[None], boxes)).max(axis=-1)


class Step:
    """This package's step on the inputs: RoIs, losses and gradients."""

    def __init__(self, model: MaskRCNN, inputs: Arrays) -> None:
        self.model, self.inputs = model, inputs
        training = model.training_model
        names = ["roi_targets"] + ["positive_rois"] * (model.network.head is not None)
        names += ["keypoint_rois"] * (model.network.keypoints is not None)
        self.inside = keras.Model(training.inputs, {name: training.get_layer(name).output for name in names})(inputs)

    def rois(self) -> tuple[np.ndarray, ...]:
        """rois [B, R, 4], class_ids, sampled and instance [B, R]."""
        rois, class_ids, _, sampled, instance = map(np.asarray, self.inside["roi_targets"])
        return rois, class_ids, sampled, instance

    def positives(self) -> tuple[np.ndarray, np.ndarray]:
        """Boxes [K, 4] and image [K] of the RoIs with masks."""
        boxes, *_, image, _ = keras.tree.flatten(self.inside["positive_rois"])
        return np.asarray(boxes), np.asarray(image)

    def losses(
        self, targets: np.ndarray | None, keypoint_rois: np.ndarray | None
    ) -> tuple[dict[str, float], dict[str, np.ndarray], np.ndarray | None]:
        """Losses and gradients by name, with these mask targets [K, m, m] and these boxes [K, 4] of the RoIs with
        keypoints; and the package's own mask targets."""
        import tensorflow as tf

        training, own = self.model.training_model, None
        with tf.GradientTape() as tape:
            outputs = dict(training(self.inputs, training=True))
            if targets is not None:
                own = np.asarray(outputs["mask_target"])
                outputs["mask_target"] = tf.constant(targets)
            if keypoint_rois is not None:
                outputs["keypoint_truth"] = {**outputs["keypoint_truth"], "boxes": tf.constant(keypoint_rois)}
            losses = training.losses_of(outputs)
            total = tf.add_n(list(losses.values()))
        layers = self.model.network.layers()
        weights = {f"{key}/{w.name}": w.value for key, layer in layers.items() for w in layer.trainable_weights}
        found = tape.gradient(total, list(weights.values()))
        gradients = {
            name: np.asarray(tf.convert_to_tensor(gradient))
            for name, gradient in zip(weights, found, strict=True)
            if gradient is not None
        }
        return {name: float(loss) for name, loss in losses.items()}, gradients, own


def roi_rows(source: str, ours: Step, step: Arrays) -> Iterator[Row]:
    """Every RoI: where it lies, its class, its object."""
    rois, class_ids, sampled, instance = ours.rois()
    alone = other_class = other_object = count = positives = 0
    for i in range(len(rois)):
        theirs, labels, objects = (step[f"{name}_{i}"] for name in ("rois", "roi_labels", "roi_objects"))
        mine = rois[i][sampled[i]]
        place, near = nearest(mine, xyxy(theirs))
        alone += int((~near).sum()) + len(theirs) - len(set(place[near].tolist()))
        other_class += int((class_ids[i][sampled[i]] != labels[place])[near].sum())
        same = near & (labels[place] > 0)
        other_object += int((instance[i][sampled[i]] != objects[place])[same].sum())
        count, positives = count + len(theirs), positives + int((labels > 0).sum())
    yield Row(source, "RoIs without a partner", 0, alone, f"of {count}")
    yield Row(source, "RoIs labeled otherwise", 0, other_class, f"of {count}")
    yield Row(source, "RoIs matched with another object", 0, other_object, f"of {positives}")


def nearest(boxes: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of boxes [N, 4] the place of the nearest of others [M, 4], and whether it is the same box."""
    apart = np.abs(boxes[:, None] - others[None]).max(axis=-1)
    return apart.argmin(axis=1), apart.min(axis=1) <= SAME_BOX


def mask_targets(ours: Step, step: Arrays) -> np.ndarray:
    """torchvision's mask targets for the RoIs here, [K, m, m]."""
    boxes, image = ours.positives()
    targets = np.zeros((len(boxes), *step["mask_targets_0"].shape[1:]), np.float32)
    for i in np.unique(image):
        theirs = xyxy(step[f"rois_{i}"][step[f"roi_labels_{i}"] > 0])
        place, _ = nearest(boxes[image == i], theirs)
        targets[image == i] = step[f"mask_targets_{i}"][place]
    return targets


def keypoint_rows(source: str, ours: Step, step: Arrays) -> tuple[list[Row], np.ndarray]:
    """The cell of every keypoint in every RoI that has any; and torchvision's boxes of these RoIs, [K, 4]."""
    boxes, class_ids, instance, image, real = map(np.asarray, keras.tree.flatten(ours.inside["keypoint_rois"]))
    given = {"class_ids": class_ids, "weight": real, "boxes": boxes, "image_index": image, "instance": instance}
    truth = heads.Targets(**given, **{name: ours.inputs[name] for name in ("gt_boxes", "gt_keypoints")})
    size = ours.model.network.keypoints.model.output["keypoints"].shape[1]
    cells, counts = map(np.asarray, truth.keypoints(size))
    theirs, expected, alone = boxes.copy(), np.full(cells.shape, -1), 0
    for i in range(len(ours.inputs["gt_boxes"])):
        mine, found = (image == i) & (real > 0), step[f"keypoint_cells_{i}"].reshape(-1, KEYPOINTS)
        rois = xyxy(step[f"rois_{i}"][step[f"roi_labels_{i}"] > 0])
        place, near = nearest(boxes[mine], rois)
        theirs[mine], expected[mine] = rois[place], found[place]
        taught = np.flatnonzero((found >= 0).any(axis=1))
        alone += int((~near).sum()) + len(set(taught.tolist()) - set(place[near].tolist()))
    cell_sides = (boxes[:, None, 2:] - boxes[:, None, :2]) / size
    within = (ours.inputs["gt_keypoints"][image, instance][..., :2] - boxes[:, None, :2]) / cell_sides
    border = (np.abs(within - np.round(within)) * cell_sides < SAME_BOX).any(axis=-1)
    apart = (np.where(counts > 0, cells, -1) != expected) & (real[:, None] > 0)
    note = f"of {int((expected >= 0).sum())}; {int((apart & border).sum())} more on a border"
    return [
        Row(source, "RoIs with keypoints without a partner", 0, alone, f"of {int(real.sum())}"),
        Row(source, "keypoints in another cell", 0, int((apart & ~border).sum()), note),
    ], theirs


def gradient_rows(source: str, ours: Arrays, theirs: Arrays, weights: Arrays) -> Iterator[Row]:
    """Norms of gradients, and whole gradients by their norm; theirs in the layout that the importer gives weights."""
    imported = torchvision_source({**weights, **theirs}, "gradients").tensors
    largest = max(float(np.linalg.norm(gradient)) for gradient in ours.values())
    norms, apart = {}, {}
    for name, gradient in ours.items():
        expected = imported[name].read()
        if name == ZERO:
            both = max(float(np.linalg.norm(one)) for one in (gradient, expected)) / largest
            yield Row(source, f"{name}, of the largest gradient", ROUNDING, both, "zero but for rounding")
            continue
        norm = float(np.linalg.norm(expected))
        norms[name] = abs(float(np.linalg.norm(gradient)) - norm) / norm
        apart[name] = float(np.linalg.norm(gradient - expected)) / norm
    lost = len(theirs) - len(ours)
    yield Row(source, "parameters with a gradient in one program alone", 0, abs(lost), f"of {len(theirs)}")
    for what, values in (("norm of a gradient", norms), ("gradient, whole", apart)):
        worst = max(values, key=lambda name: values[name])
        note = f"({worst}; median {np.median(list(values.values())):.1g}, {len(values)} weights)"
        yield Row(source, f"worst {what}", CLOSE if values is norms else None, values[worst], note)


def rows_of(python: str, oracles: Path, name: str, seed: int, size: tuple[int, int]) -> Iterator[Row]:
    """All rows of one model."""
    source, batch = f"{MODELS[name]}, seed {seed}", batch_of(oracles, seed, *size)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        step, theirs = torchvision_step(python, oracles, name, seed, batch, folder)
        model = model_of(folder / "weights.pth", step)
        weights = _state(folder / "weights.pth")
    inputs = inputs_of(model, batch, step)
    yield from anchor_rows(source, model, inputs, step)
    ours = Step(model, inputs)
    yield from roi_rows(source, ours, step)
    targets = mask_targets(ours, step) if model.network.head is not None else None
    rows, rois = keypoint_rows(source, ours, step) if model.network.keypoints is not None else ([], None)
    yield from rows
    losses, gradients, own = ours.losses(targets, rois)
    if targets is not None and own is not None:
        agree = float(((targets >= 0.5) == (own >= 0.5)).mean())
        yield Row(source, "cells of mask targets on the other side of one half", None, 1 - agree, f"of {own.size}")
    for mine, other in LOSSES.items():
        if mine in losses:
            value = float(step[other])
            yield Row(source, mine, CLOSE, abs(losses[mine] - value) / value, f"of {value:.4g}")
    yield from gradient_rows(source, gradients, theirs, weights)


def _state(path: Path) -> dict[str, Any]:
    from mrcnn.weights.importers.torch_file import load_torch

    return dict(load_torch(str(path)))


def main() -> int:
    """Prints the rows; 0 where all bars are kept."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--oracles", type=Path, required=True, help="folder of the oracles, with seeded.py")
    flags.add_argument("--torchvision-python", required=True, help="a Python with torch and torchvision")
    flags.add_argument("--models", nargs="+", default=[*MODELS], choices=[*MODELS])
    flags.add_argument("--seeds", type=int, nargs="+", default=[1])
    flags.add_argument("--size", type=int, nargs=2, default=[256, 320], metavar=("H", "W"), help="multiples of 32")
    flags.add_argument("--json", type=Path, help="file for the rows")
    arguments = flags.parse_args()
    rows = [
        row
        for name in arguments.models
        for seed in arguments.seeds
        for row in rows_of(arguments.torchvision_python, arguments.oracles, name, seed, tuple(arguments.size))
    ]
    return report(rows, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
