"""The inference graph as one function, compiled by the backend."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from mrcnn.inference.input_sizes import InputLimits

UNIT = 64  # pixels; bucket sides are multiples of it
PER_DOUBLING = 4  # bucket sizes per doubling of a side


def compiled(model: keras.Model, limits: InputLimits) -> Callable[[Any, Any], Mapping[str, Any]]:
    """The function (image, window) -> outputs of a model of `mrcnn.network.graph.inference_graph`.

    On TensorFlow it is traced once for all image and batch sizes, so new sizes cost nothing and results do not depend
    on earlier calls. It reads the weights at each call, so it stays valid after training and loading. On other backends
    it is a `PerBucket`, which compiles once for each of a few sizes.
    """
    if keras.backend.backend() != "tensorflow":
        return PerBucket(model, limits)
    import tensorflow as tf

    signature = [tf.TensorSpec(model.input[name].shape, tf.float32) for name in ("image", "window")]

    @tf.function(input_signature=signature, autograph=False)
    def call(image: Any, window: Any) -> Mapping[str, Any]:
        return model({"image": image, "window": window}, training=False)

    return call


def compiled_masks(model: keras.Model) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """The function of a model of `mrcnn.network.graph.mask_graph`; on TensorFlow traced once for all sizes."""
    if keras.backend.backend() != "tensorflow":
        return model.predict_on_batch
    import tensorflow as tf

    names = ("image", "boxes", "class_ids", "scores", "valid")
    specs = {name: tf.TensorSpec(model.input[name].shape, model.input[name].dtype) for name in names}

    @tf.function(input_signature=[specs], autograph=False)
    def call(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        return model(inputs, training=False)

    return call


class PerBucket:
    """The function of `compiled` on backends that compile for each shape: uses only a few input and batch sizes.

    Each image is padded with zeros at the bottom and right to the next `bucket`, as Detectron2 and torchvision pad the
    smaller images of a batch; benchmarks/README.md has the measured cost. Images that only fill up a batch are removed
    from the results.

    Args:
        model: of `mrcnn.network.graph.inference_graph`.
        limits: known limits of the image sizes.
    """

    def __init__(self, model: keras.Model, limits: InputLimits) -> None:
        self.model, self.limits = model, limits

    def __call__(self, image: Any, window: Any) -> dict[str, Any]:
        image, window = np.asarray(image, np.float32), np.asarray(window, np.float32)
        count, height, width, channels = image.shape
        known = self.limits
        size = (height, width) if known.one_size else bucket(height, width, known.short, known.long)
        number = bucket_count(count, known.batch)
        if (number, *size) != (count, height, width):
            larger = np.zeros((number, *size, channels), np.float32)
            larger[:count, :height, :width] = image
            image, window = larger, np.concatenate([window, np.zeros((number - count, 4), np.float32)])
        outputs = self.model.predict_on_batch({"image": image, "window": window})
        return {name: value[: count * (len(value) // number)] for name, value in outputs.items()}


def bucket(height: int, width: int, short: int | None = None, long: int | None = None) -> tuple[int, int]:
    """The bucket for a network input of (height, width) pixels, with each side rounded up to 64, 128, 192, ...

    Up to 256 pixels: every multiple of 64. Above: 4 sizes per doubling: 320, 384, 448, 512, 640, 768, 896, 1024, 1280.

    Args:
        height, width: multiples of 32.
        short, long: see `InputLimits`; larger buckets are limited to these.
    """
    sides = [_next_side(side) for side in (height, width)]
    for axis, limit in zip(np.argsort([height, width], kind="stable"), (short, long), strict=True):
        if limit is not None and limit >= (height, width)[axis]:
            sides[axis] = min(sides[axis], limit)
    return sides[0], sides[1]


def bucket_count(count: int, most: int | None = None) -> int:
    """The batch size for `count` images: the next power of two, but at most `most`."""
    power = 1 << (count - 1).bit_length()
    return power if most is None or most < count else min(power, most)


def _next_side(side: int) -> int:
    below = 1 << ((side - 1).bit_length() - 1)  # the next lower power of two
    step = max(UNIT, below // PER_DOUBLING)
    return -(-side // step) * step
