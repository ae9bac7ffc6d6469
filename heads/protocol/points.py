"""Points: numbers read off maps at fractions of a cell, and random numbers that repeat."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

_WEYL = 2654435761  # 2**32 / golden ratio: spreads consecutive seeds over the 32 bits


@keras.saving.register_keras_serializable("heads")
class SampleMap(keras.layers.Layer):
    """Features at points of RoIs, by bilinear interpolation; zero beyond the map (`grid_sample` of torch).

    Args:
        stride: pixels of the network input between the cells of the map.

    call: (map [B, H, W, C], boxes [R, (y1, x1, y2, x2)] in pixels of the network input, points [R, P, (y, x)] fractions
        of the boxes' sides, image_index [R]) -> [R, P, C] in the compute dtype.
    """

    def __init__(self, stride: float, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.stride = stride
        self.supports_jit = True

    def call(self, feature_map: Any, boxes: Any, points: Any, image_index: Any) -> Any:
        boxes = ops.stop_gradient(ops.cast(boxes, "float32"))[:, None]
        places = boxes[..., :2] + ops.cast(points, "float32") * (boxes[..., 2:] - boxes[..., :2])
        samples = bilinear(feature_map, places / self.stride, ops.cast(image_index, "int32")[:, None])
        return ops.cast(samples, self.compute_dtype)

    def compute_output_spec(self, feature_map: Any, boxes: Any, points: Any, image_index: Any) -> Any:
        return keras.KerasTensor((boxes.shape[0], points.shape[1], feature_map.shape[-1]), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "stride": self.stride}


@keras.saving.register_keras_serializable("heads")
class SampleGrid(keras.layers.Layer):
    """Values of a grid per RoI at points of that RoI, by bilinear interpolation.

    call: (grid [R, m, m, C], points [R, P, (y, x)] fractions of the sides) -> [R, P, C] in the grid's dtype.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.supports_jit = True

    def call(self, grid: Any, points: Any) -> Any:
        rows = ops.cumsum(ops.ones_like(points[:, :1, 0], dtype="int32"), axis=0) - 1
        places = ops.cast(points, "float32") * ops.convert_to_tensor(grid.shape[1:3], "float32")
        return ops.cast(bilinear(grid, places, rows), grid.dtype)

    def compute_output_spec(self, grid: Any, points: Any) -> Any:
        return keras.KerasTensor((grid.shape[0], points.shape[1], grid.shape[-1]), grid.dtype)


def bilinear(maps: Any, places: Any, index: Any) -> Any:
    """Values of maps between their cells; the center of the first cell is at 0.5, and beyond the edge cells is zero.

    Args:
        maps: [N, H, W, C]. places: [R, P, (y, x)] float32, in cells. index: [R, 1 or P] int32, the map of each.

    Returns:
        [R, P, C] float32.
    """
    count, height, width, channels = ops.shape(maps)
    flat = ops.reshape(maps, (-1, channels))
    places = places - 0.5
    low = ops.floor(places)
    fraction = places - low
    low = ops.cast(ops.clip(low, -2.0, 1e6), "int32")
    result: Any = 0.0
    for down in (0, 1):
        for right in (0, 1):
            y, x = low[..., 0] + down, low[..., 1] + right
            share = _share(fraction[..., 0], down) * _share(fraction[..., 1], right)
            inside = ops.logical_and(ops.logical_and(y >= 0, y < height), ops.logical_and(x >= 0, x < width))
            place = (index * height + ops.clip(y, 0, height - 1)) * width + ops.clip(x, 0, width - 1)
            values = ops.cast(ops.take(flat, place, axis=0), "float32")
            result = result + values * ops.where(inside, share, 0.0)[..., None]
    return result


def _share(fraction: Any, upper: int) -> Any:
    return fraction if upper else 1.0 - fraction


def cell_centers(size: int) -> Any:
    """The centers of size x size cells, row by row, [size * size, (y, x)] float32 as fractions of the sides."""
    line = (ops.arange(size, dtype="float32") + 0.5) / size
    y, x = ops.meshgrid(line, line, indexing="ij")
    return ops.stack([ops.reshape(y, (-1,)), ops.reshape(x, (-1,))], axis=-1)


def uniform(seed: Any, shape: Sequence[int], salt: int = 0) -> Any:
    """Uniform random numbers in [0, 1), the same for the same seed on every machine and backend.

    Args:
        seed: [R] int32, such as the input `seed` of a head.
        shape: of the numbers for each seed.
        salt: another number gives other numbers from the same seeds.

    Returns:
        [R, *shape] float32.

    Source: the integer hash `lowbias32` of hash-prospector (Wellons 2018), over a Weyl sequence.
    """
    count = 1
    for side in shape:
        count *= side
    start = (ops.cast(seed, "uint32") + ops.cast(salt * 7919, "uint32")) * ops.cast(_WEYL, "uint32")
    bits = ops.expand_dims(_mix(start), -1) + ops.arange(count, dtype="uint32")
    numbers = ops.cast(ops.right_shift(_mix(bits), ops.cast(8, "uint32")), "float32") / 2**24
    return ops.reshape(numbers, (-1, *shape))


def _mix(bits: Any) -> Any:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        bits = ops.bitwise_xor(bits, ops.right_shift(bits, ops.cast(shift, "uint32")))
        bits = bits * ops.cast(factor, "uint32")
    return ops.bitwise_xor(bits, ops.right_shift(bits, ops.cast(16, "uint32")))
