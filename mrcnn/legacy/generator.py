"""`data_generator`: the old package's endless batches, for inspection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mrcnn.config import Config
from mrcnn.data.dataset import Dataset
from mrcnn.legacy.anchors import compute_backbone_shapes, generate_pyramid_anchors
from mrcnn.legacy.images import load_image_gt, mold_image
from mrcnn.legacy.targets import build_detection_targets, build_rpn_targets, generate_random_rois

Batch = tuple[list[np.ndarray], list[np.ndarray]]


def data_generator(
    dataset: Dataset,
    config: Config,
    shuffle: bool = True,
    augment: bool = False,
    augmentation: Any = None,
    random_rois: int = 0,
    batch_size: int = 1,
    detection_targets: bool = False,
    no_augmentation_sources: Sequence[str] | None = None,
) -> Iterator[Batch]:
    """The old package's batches, without end. `MaskRCNN.train` takes a dataset and creates its own batches.

    Images without objects are skipped. NumPy's global generator shuffles the images. Errors are raised immediately; the
    old package printed the first five.

    Args:
        augment, augmentation: see `load_image_gt`.
        random_rois: if above 0, the number of `generate_random_rois` per image.
        detection_targets: with `random_rois`, adds the results of `build_detection_targets`.
        no_augmentation_sources: sources whose images are not augmented.

    Yields:
        inputs and outputs, lists of arrays. Inputs, with N = MAX_GT_INSTANCES: images [batch, H, W, C] float32,
        normalized; image metas [batch, length]; rpn_match [batch, anchors, 1] and rpn_bbox, see `build_rpn_targets`;
        gt_class_ids [batch, N], gt_boxes [batch, N, 4] and gt_masks [batch, H, W, N] (with USE_MINI_MASK
        [batch, *MINI_MASK_SHAPE, N]), zero-padded. With `random_rois`: rpn_rois [batch, random_rois, 4]; and with
        `detection_targets` the sampled rois [batch, RoIs, 4]. Outputs: with `detection_targets` class_ids
        [batch, RoIs, 1], bboxes and masks, else none.

    Raises ValueError if no image of the dataset has an object.
    """
    anchors: dict[tuple[int, ...], np.ndarray] = {}
    images = _image_ids(dataset, shuffle)
    skipped = 0
    inputs, outputs = [], []
    while True:
        image_id = next(images)
        still = dataset.image_info[image_id]["source"] in (no_augmentation_sources or ())
        image, meta, class_ids, boxes, masks = load_image_gt(
            dataset,
            config,
            image_id,
            augment=augment and not still,
            augmentation=None if still else augmentation,
            use_mini_mask=config.USE_MINI_MASK,
        )
        if not (class_ids > 0).any():
            skipped += 1
            if skipped > len(dataset.image_ids):
                raise ValueError(f"none of the {len(dataset.image_ids)} images of the dataset has an object.")
            continue
        skipped = 0
        if image.shape not in anchors:
            anchors[image.shape] = _anchors(config, image.shape)
        match, deltas = build_rpn_targets(image.shape, anchors[image.shape], class_ids, boxes, config)
        truth = [
            _first(array, config.MAX_GT_INSTANCES, axis) for array, axis in ((class_ids, 0), (boxes, 0), (masks, 2))
        ]
        one: list[np.ndarray] = [mold_image(image, config), meta, match[:, None], deltas, *truth]
        targets: list[np.ndarray] = []
        if random_rois:
            one.append(generate_random_rois(image.shape, random_rois, class_ids, boxes))
            if detection_targets:
                rois, *targets = build_detection_targets(one[-1], class_ids, boxes, masks, config)
                one.append(rois)
                targets[0] = targets[0][:, None]
        inputs.append(one)
        outputs.append(targets)
        if len(inputs) == batch_size:
            yield [np.stack(a) for a in zip(*inputs, strict=True)], [np.stack(a) for a in zip(*outputs, strict=True)]
            inputs, outputs = [], []


def _image_ids(dataset: Dataset, shuffle: bool) -> Iterator[int]:
    """The ids of a dataset, repeated endlessly, in a new order each time."""
    if not len(dataset.image_ids):
        raise ValueError("the dataset has no images; add some and call its prepare() first.")
    while True:
        ids = np.array(dataset.image_ids)
        yield from (np.random.permutation(ids) if shuffle else ids).tolist()


def _anchors(config: Config, shape: Sequence[int]) -> np.ndarray:
    shapes = compute_backbone_shapes(config, shape)
    return generate_pyramid_anchors(
        config.RPN_ANCHOR_SCALES, config.RPN_ANCHOR_RATIOS, shapes, config.BACKBONE_STRIDES, config.RPN_ANCHOR_STRIDE
    )


def _first(array: np.ndarray, count: int, axis: int) -> np.ndarray:
    """The first `count` instances along an axis, zero-padded to that number."""
    array = array.take(range(min(count, array.shape[axis])), axis=axis)
    padding = [(0, 0)] * array.ndim
    padding[axis] = (0, count - array.shape[axis])
    return np.pad(array, padding)
