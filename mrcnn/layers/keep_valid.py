"""Drops a batch's zero-padded rows if the backend supports data-dependent shapes.

The graph's shapes are static up to here. The mask head that follows runs on at most 128 RoIs per image, of which few
are real: padding rows would waste time, and BatchNorm in a head must not see them.
"""

from typing import Any

import keras
from keras import ops

from mrcnn.layers.static_output import StaticOutputLayer, spec


def trim(valid: Any, *arrays: Any) -> tuple[Any, ...]:
    """Drops the trailing rows that are padding in every image of the batch; keeps at least one.

    Args:
        valid: [batch, rows] bool; in each image, valid rows come before padding.
        arrays: [batch, rows, ...] each.

    Returns:
        `valid` and the arrays, [batch, longest, ...]; unchanged on a backend with static shapes.
    """
    if keras.backend.backend() != "tensorflow":
        return (valid, *arrays)
    longest = ops.maximum(ops.max(ops.sum(ops.cast(valid, "int32"), axis=1)), 1)
    return tuple(array[:, :longest] for array in (valid, *arrays))


@keras.saving.register_keras_serializable("mrcnn")
class KeepValid(StaticOutputLayer):
    """Folds the batch axis into the rows and keeps the valid ones.

    call: (valid [batch, rows] bool, arrays: list of [batch, rows, ...]) ->
        kept: list of [kept, ...], the valid rows of image 0, then of image 1, ... At least one row is returned even
            if none is valid, so that no layer gets an empty batch.
        image_index: [kept] int32, the image of each row.
        weight: [kept] float32, 1 for a valid row, 0 for any other.

    Args:
        static: keep every row, so that shapes do not depend on the data, on TensorFlow too. Other backends always do.

    With static shapes every row is kept, and `weight` marks the valid ones. Each invalid row then holds a
    copy of a valid row; all valid rows are copied equally often (within one), so BatchNorm in a head sees no padding.
    """

    def __init__(self, static: bool = False, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.static = bool(static)
        self.supports_jit = self._is_static

    @property
    def _is_static(self) -> bool:
        return self.static or keras.backend.backend() != "tensorflow"

    def call(self, valid: Any, arrays: list[Any]) -> tuple[list[Any], Any, Any]:
        image_index = ops.cumsum(ops.ones_like(valid, dtype="int32"), axis=0) - 1
        weight = ops.cast(ops.reshape(valid, (-1,)), "float32")
        folded = [ops.reshape(array, (-1, *array.shape[2:])) for array in arrays]
        image_index = ops.reshape(image_index, (-1,))
        if self._is_static:
            rows = _filled(weight)
            return [ops.take(a, rows, axis=0) for a in folded], ops.take(image_index, rows), weight
        first = ops.cast(ops.cumsum(ops.ones_like(weight)) == 1.0, "float32")
        keep = ops.maximum(weight, first * (1.0 - ops.max(weight)))
        rows = ops.where(keep > 0)[0]
        return [ops.take(a, rows, axis=0) for a in folded], ops.take(image_index, rows), ops.take(weight, rows)

    def static_outputs(self, valid: Any, arrays: list[Any]) -> tuple[list[Any], Any, Any]:
        rows = None if None in valid.shape[:2] else valid.shape[0] * valid.shape[1]
        kept = [spec(rows, *array.shape[2:], dtype=array.dtype) for array in arrays]
        return kept, spec(rows, dtype="int32"), spec(rows)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "static": self.static}


def _filled(weight: Any) -> Any:
    """[rows] int32: each row with weight maps to itself, the others to those rows in turn (to themselves if none)."""
    count = ops.cast(ops.sum(weight), "int32")
    place = ops.arange(weight.shape[0], dtype="int32")
    with_weight = ops.argsort(1.0 - weight)  # those rows first
    # Number the free rows, so that they copy different rows
    free = ops.cast(ops.cumsum(1.0 - weight), "int32") - 1
    copy = ops.take(ops.cast(with_weight, "int32"), free % ops.maximum(count, 1))
    return ops.where(ops.logical_or(weight > 0, count == 0), place, copy)
