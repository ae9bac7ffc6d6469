"""A network, a dataset and settings small enough to train inside a test."""

from typing import Any

import numpy as np
from keras import layers

from mrcnn.config import Config
from mrcnn.data.dataset import Dataset
from mrcnn.data.keypoints import Skeleton
from mrcnn.data.masks import extract_bboxes

SIDE = 64


def tiny_backbone(image: Any, *, width: int = 8) -> list:
    """[C2, C3, C4, C5]: one convolution a halving, each with BatchNorm; layers are called after their stage."""
    x, taps = _convolution(image, width, "res1"), []
    for stage in (2, 3, 4, 5):
        x = _convolution(x, width * min(stage - 1, 3), f"res{stage}")
        taps.append(x)
    return taps


def _convolution(x: Any, filters: int, name: str) -> Any:
    x = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False, kernel_initializer="he_normal", name=name)(
        x
    )
    return layers.ReLU(name=f"{name}_relu")(layers.BatchNormalization(momentum=0.9, name=name.replace("res", "bn"))(x))


class TinyConfig(Config):
    """64 pixels, few channels, few RoIs: builds in a second or two, a step takes milliseconds."""

    NAME = "tiny"
    NUM_CLASSES = 3
    BACKBONE = tiny_backbone
    TOP_DOWN_PYRAMID_SIZE = 16
    RPN_CHANNELS = 16
    FPN_CLASSIF_FC_LAYERS_SIZE = 32
    MASK_HEAD = {"name": "fcn", "filters": 16, "convolutions": 1}
    MASK_POOL_SIZE = 8
    IMAGES_PER_GPU = 2
    STEPS_PER_EPOCH = 2
    VALIDATION_STEPS = 1
    LOADER_WORKERS = 1
    IMAGE_MIN_DIM = SIDE
    IMAGE_MAX_DIM = SIDE
    RPN_ANCHOR_SCALES = (8, 16, 32, 48, 64)
    RPN_ANCHOR_RATIOS = [1]
    RPN_TRAIN_ANCHORS_PER_IMAGE = 32
    PRE_NMS_LIMIT_TRAINING = 50
    PRE_NMS_LIMIT = 50
    POST_NMS_ROIS_TRAINING = 30
    POST_NMS_ROIS_INFERENCE = 30
    TRAIN_ROIS_PER_IMAGE = 16
    MAX_GT_INSTANCES = 4
    MINI_MASK_SHAPE = (28, 28)
    DETECTION_MAX_INSTANCES = 10
    LEARNING_RATE = 0.01
    WARMUP_STEPS = 0
    LR_SCHEDULE = "constant"
    HORIZONTAL_FLIP = 0.0


class TinyDataset(Dataset):
    """Bright boxes (class 1) and discs (class 2) on dark noise; image i is a function of (seed, i).

    Args:
        count: how many images; each has 1 or 2 objects that do not touch.
        sizes: (height, width) of the images, taken in turn.
        empty: ids of images without objects. crowds: ids of images whose first object is a crowd.
    """

    def __init__(self, count: int = 4, *, sizes=((SIDE, SIDE),), empty=(), crowds=(), seed: int = 0) -> None:
        super().__init__()
        self.sizes, self.empty, self.crowds, self.seed = sizes, set(empty), set(crowds), seed
        self.add_class("tiny", 1, "box")
        self.add_class("tiny", 2, "disc")
        for i in range(count):
            self.add_image("tiny", i, path=f"tiny/{i}.png")
        self.prepare()

    def load_image(self, image_id: int) -> np.ndarray:
        height, width = self.sizes[image_id % len(self.sizes)]
        rng = np.random.default_rng([self.seed, image_id, 1])
        image = rng.integers(0, 60, (height, width, 3))
        masks, class_ids = self.load_mask(image_id)
        for i, class_id in enumerate(class_ids):
            image[masks[..., i]] += np.array((180, 90, 0) if abs(class_id) == 1 else (0, 90, 180))
        return image.astype(np.uint8)

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        height, width = self.sizes[image_id % len(self.sizes)]
        rng = np.random.default_rng([self.seed, image_id, 0])
        count = 0 if image_id in self.empty else int(rng.integers(1, 3))
        masks, class_ids = np.zeros((height, width, count), bool), []
        for i in range(count):  # one in the left half, one in the right
            class_ids.append(int(rng.integers(1, 3)))
            size = rng.uniform(0.14, 0.2) * min(height, width)
            y, x = rng.uniform(0.3, 0.7) * height, (0.25 + 0.5 * i) * width
            rows, columns = np.mgrid[:height, :width] + 0.5
            masks[..., i] = (
                (abs(rows - y) < size) & (abs(columns - x) < size)
                if class_ids[-1] == 1
                else (rows - y) ** 2 + (columns - x) ** 2 < size**2
            )
        if image_id in self.crowds:
            class_ids[0] *= -1
        return masks, np.array(class_ids, np.int32)


class TinyKeypoints(TinyDataset):
    """The same with three keypoints an object: the middle of its box, of the box's left side and of its right side."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.skeleton = Skeleton(["middle", "left_side", "right_side"], [(0, 1), (0, 2)])

    def load_keypoints(self, image_id: int) -> np.ndarray:
        y1, x1, y2, x2 = extract_bboxes(self.load_mask(image_id)[0]).astype(float).T
        y, x = (y1 + y2) / 2, (x1 + x2) / 2
        seen = np.full_like(y, 2)
        return np.stack([np.stack([y, at, seen], axis=-1) for at in (x, x1 + 0.5, x2 - 0.5)], axis=1)


class TinyKeypointConfig(TinyConfig):
    """Masks and keypoints."""

    KEYPOINT_HEAD = {"name": "keypoints", "filters": 16, "convolutions": 1}
    NUM_KEYPOINTS = 3
    KEYPOINT_POOL_SIZE = 8
