"""Networks with generated weights, and generated inputs: the same numbers on every machine and backend."""

import zlib
from typing import Any

import keras
import numpy as np
from keras import layers

from mrcnn.config import Config
from mrcnn.network.graph import Network, build_network

OBJECTS = 20  # of each image to learn from
# Last layers, and what makes their outputs as spread as a trained network's on images of `inputs`
SPREAD = {
    "rpn/rpn_class_raw": 0.5,
    "rpn/rpn_bbox_pred": 0.1,
    "box_head/mrcnn_class_logits": 3.0,
    "mask_head/masks": 4.0,
}


def settings(network: str, *, precision: str, batch: int, **more: Any) -> Config:
    """The configuration of "resnet50" or "resnet101" with COCO's classes, or of "small", which tests run."""
    own: dict[str, Any] = {"BACKBONE": network, "NUM_CLASSES": 81}
    if network == "small":
        own = {
            "BACKBONE": small_backbone,
            "NUM_CLASSES": 5,
            "TOP_DOWN_PYRAMID_SIZE": 16,
            "RPN_CHANNELS": 16,
            "FPN_CLASSIF_FC_LAYERS_SIZE": 32,
            "MASK_HEAD": {"name": "fcn", "filters": 16, "convolutions": 1},
            "RPN_ANCHOR_SCALES": (16, 32, 48, 64, 96),
            "PRE_NMS_LIMIT": 60,
            "POST_NMS_ROIS_INFERENCE": 40,
            "PRE_NMS_LIMIT_TRAINING": 60,
            "POST_NMS_ROIS_TRAINING": 40,
            "TRAIN_ROIS_PER_IMAGE": 32,
        }
    both = {"NAME": "accelerator", "PRECISION": precision, "IMAGES_PER_GPU": batch, "DETECTION_BATCH_SIZE": batch}
    return Config(**own | both | more)


def small_backbone(image: Any) -> list[Any]:
    """[C2, C3, C4, C5] of one convolution each; layers are called after their stage."""
    x, taps = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="res1")(image), []
    for stage, width in ((2, 8), (3, 16), (4, 16), (5, 16)):
        x = layers.Conv2D(width, 3, strides=2, padding="same", activation="relu", name=f"res{stage}")(x)
        taps.append(x)
    return taps


def seeded(config: Config) -> Network:
    """A network whose weights follow from the names of its layers."""
    network = build_network(config)
    for key, layer in network.layers().items():
        random = np.random.RandomState(zlib.crc32(key.encode()))
        layer.set_weights(
            [_values(weight.name, tuple(weight.shape), SPREAD.get(key, 1.0), random) for weight in layer.weights]
        )
    return network


def _values(name: str, shape: tuple[int, ...], spread: float, random: np.random.RandomState) -> np.ndarray:
    if name.endswith("kernel"):
        # The product of all but the outputs' side keeps the variance; transposed kernels are square in it here
        return (spread * np.sqrt(2 / np.prod(shape[:-1])) * random.standard_normal(shape)).astype(np.float32)
    if name.endswith("gamma"):
        return random.uniform(0.4, 0.6, shape).astype(np.float32)  # lower than 1, as sums of residual blocks grow
    if name.endswith("moving_variance"):
        return random.uniform(0.8, 1.2, shape).astype(np.float32)
    return (0.1 * random.standard_normal(shape)).astype(np.float32)


def find_much(network: Network) -> None:
    """Sets the last layers so that every RoI is a sure object of class 1 where its anchor was: 100 detections."""
    for part, name in (("rpn", "rpn_bbox_pred"), ("box_head", "mrcnn_bbox_fc"), ("box_head", "mrcnn_class_logits")):
        layer = network.parts()[part].get_layer(name)
        values = [np.zeros(weight.shape, np.float32) for weight in layer.weights]
        if name == "mrcnn_class_logits":
            values[1][1] = 10
        layer.set_weights(values)


def inputs(batch: int, height: int, width: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Images with discs and bars on waves, normalized, and their windows, which leave the last 11 columns out."""
    random = np.random.RandomState(seed)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    images = np.empty((batch, height, width, 3), np.float32)
    for image in images:
        image[...] = np.sin(rows / 17 + columns / 23)[..., None] + 0.1 * random.standard_normal((height, width, 3))
        for number in range(12):
            y, x, size = random.uniform(0, height), random.uniform(0, width), random.uniform(0.05, 0.25) * height
            inside = (
                (rows - y) ** 2 + (columns - x) ** 2 < size**2
                if number % 2
                else (abs(rows - y) < size) & (abs(columns - x) < size / 2)
            )
            image[inside] = random.uniform(-2, 2, 3)
        image[:, width - 11 :] = 0
    window = np.tile(np.array([0, 0, height, width - 11], np.float32), (batch, 1))
    return {"image": images, "window": window}


def training_batch(config: Config, height: int, width: int) -> dict[str, np.ndarray]:
    """A batch as the loader makes it, of discs in boxes of a quarter to a half of the image."""
    random, count = np.random.RandomState(0), min(OBJECTS, config.MAX_GT_INSTANCES)
    batch, most, side = config.IMAGES_PER_GPU, config.MAX_GT_INSTANCES, config.MINI_MASK_SHAPE[0]
    class_ids, boxes = np.zeros((batch, most), np.int32), np.zeros((batch, most, 4), np.float32)
    sizes = random.uniform(0.25, 0.5, (batch, count, 2)) * (height, width)
    corners = random.uniform(0, 1, (batch, count, 2)) * ((height, width) - sizes)
    boxes[:, :count] = np.concatenate([corners, corners + sizes], axis=2)
    class_ids[:, :count] = random.randint(1, config.NUM_CLASSES, (batch, count))
    y, x = np.mgrid[:side, :side] + 0.5 - side / 2
    masks = np.zeros((batch, most, side, side), np.uint8)
    masks[:, :count] = np.where(y**2 + x**2 < (side / 2) ** 2, 255, 0)
    return inputs(batch, height, width) | {
        "gt_class_ids": class_ids,
        "gt_boxes": boxes,
        "gt_masks": masks,
        "active_classes": np.ones((batch, config.NUM_CLASSES), np.float32),
        "image_id": np.arange(batch, dtype=np.int32),
        "seed": np.arange(batch, dtype=np.int32),
    }


def device() -> str:
    """What the backend computes on, in words."""
    if keras.backend.backend() != "jax":
        return "processor"
    import jax

    first = jax.local_devices()[0]
    return f"{first.device_kind} ({first.platform}), jax {jax.__version__}, keras {keras.__version__}"
