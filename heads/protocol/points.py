"""Points: numbers read off maps at fractions of a cell, and random numbers that repeat."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

_WEYL = 2654435761  # 2**32 / golden ratio: spreads consecutive seeds over the 32 bits


@keras.saving.register_keras_serializable("heads")
class SampleMap(keras.layers.Layer):
    """Features at points of RoIs, by bilinear interpolation; zero beyond the map (`grid_sample` of torch).

    Args:
        stride: pixels of the network input between the cells of the map.
        side: sample the centers of side x side cells of each RoI, row by row, where no points are given.

    call: (map [B, H, W, C], boxes [R, (y1, x1, y2, x2)] in pixels of the network input, image_index [R], points [R, P,
        (y, x)] as fractions of the boxes' sides) -> [R, P, C] in the compute dtype.
    """

    def __init__(self, stride: float, side: int | None = None, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.stride, self.side = stride, side
        self.supports_jit = True

    def call(self, feature_map: Any, boxes: Any, image_index: Any, points: Any = None) -> Any:
        points = cell_centers(self.side or 1)[None] if points is None else ops.cast(points, "float32")
        boxes = ops.stop_gradient(ops.cast(boxes, "float32"))[:, None]
        places = boxes[..., :2] + points * (boxes[..., 2:] - boxes[..., :2])
        samples = bilinear(feature_map, places / self.stride, ops.cast(image_index, "int32")[:, None])
        return ops.cast(samples, self.compute_dtype)

    def compute_output_spec(self, feature_map: Any, boxes: Any, image_index: Any, points: Any = None) -> Any:
        count = (self.side or 1) ** 2 if points is None else points.shape[1]
        return keras.KerasTensor((boxes.shape[0], count, feature_map.shape[-1]), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "stride": self.stride, "side": self.side}


@keras.saving.register_keras_serializable("heads")
class SampleGrid(keras.layers.Layer):
    """Values of a grid per RoI at points of that RoI, by bilinear interpolation; zero beyond the grid.

    Args:
        side: sample the centers of side x side cells, row by row, where no points are given.

    call: (grid [R, m, m, C], points [R, P, (y, x)] as fractions of the sides) -> [R, P, C] in the grid's dtype.
    """

    def __init__(self, side: int | None = None, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.side = side
        self.supports_jit = True

    def call(self, grid: Any, points: Any = None) -> Any:
        points = cell_centers(self.side or 1)[None] if points is None else ops.cast(points, "float32")
        places = points * ops.convert_to_tensor([float(side) for side in grid.shape[1:3]])
        rows = ops.arange(ops.shape(grid)[0], dtype="int32")[:, None]
        return ops.cast(bilinear(grid, places, rows), grid.dtype)

    def compute_output_spec(self, grid: Any, points: Any = None) -> Any:
        count = (self.side or 1) ** 2 if points is None else points.shape[1]
        return keras.KerasTensor((grid.shape[0], count, grid.shape[-1]), grid.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "side": self.side}


def bilinear(maps: Any, places: Any, index: Any) -> Any:
    """Values of maps between their cells; the center of the first cell is at 0.5, and beyond the edge cells is zero.

    Args:
        maps: [N, H, W, C]. places: [R, P, (y, x)] float32, in cells. index: [R, 1 or P] int32, the map of each.

    Returns:
        [R, P, C] float32.
    """
    _, height, width, channels = ops.shape(maps)
    flat = ops.reshape(maps, (-1, channels))

    def cell(y: Any, x: Any) -> Any:
        return ops.cast(ops.take(flat, (index * height + y) * width + x, axis=0), "float32")

    return interpolate(cell, places, height, width)


def interpolate(cell: Callable[[Any, Any], Any], places: Any, height: Any, width: Any) -> Any:
    """Bilinear interpolation between the cells of a grid of height x width; zero beyond it.

    Args:
        cell: (y [R, P] int32, x [R, P] int32), inside the grid, -> values [R, P] or [R, P, C] float32.
        places: [R, P, (y, x)] float32, in cells; the center of the first cell is at 0.5.
    """
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
            values = cell(ops.where(inside, y, 0), ops.where(inside, x, 0))
            share = ops.where(inside, share, 0.0)
            result = result + values * (share if len(values.shape) == len(share.shape) else share[..., None])
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
    bits = ops.expand_dims(_mix(start), -1) + ops.cast(ops.arange(count), "uint32")
    numbers = ops.cast(ops.right_shift(_mix(bits), ops.cast(8, "uint32")), "float32") / 2**24
    return ops.reshape(numbers, (-1, *shape))


def _mix(bits: Any) -> Any:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        bits = ops.bitwise_xor(bits, ops.right_shift(bits, ops.cast(shift, "uint32")))
        bits = bits * ops.cast(factor, "uint32")
    return ops.bitwise_xor(bits, ops.right_shift(bits, ops.cast(16, "uint32")))
