"""Wiring of a head: RoI features, its named inputs from the graph, and what detection needs from its outputs."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from mrcnn.config import Config
from mrcnn.layers.roi_align.roi_align import RoIAlign, fastest_method
from mrcnn.layers.roi_align.roi_pool import RoIPool

if TYPE_CHECKING:
    from heads.protocol.head import Head

Pool = Callable[[int, list[Any], str], Any]


def roi_layer(
    config: Config, pool_size: int, name: str, *, fast: bool, portable: bool = False, levels: int = 4
) -> RoIAlign | RoIPool:
    """The layer that computes RoI features, from the given number of pyramid levels."""
    strides = tuple(config.BACKBONE_STRIDES[:levels])
    method = fastest_method(config.ROI_SAMPLING_RATIO, config.ROI_GEOMETRY) if fast else None
    if config.ROI_POOLING == "pool":
        return RoIPool(pool_size, strides=strides, level_rounding=config.ROI_LEVEL_ROUNDING, name=name)
    return RoIAlign(
        pool_size,
        config.ROI_SAMPLING_RATIO,
        config.ROI_ALIGNED,
        strides=strides,
        level_rounding=config.ROI_LEVEL_ROUNDING,
        reduction=config.ROI_REDUCTION,
        rounded=config.ROI_POOLING == "warp",
        geometry=config.ROI_GEOMETRY,
        method="gather" if portable else method,
        name=name,
    )


def pooling(config: Config, rois: Any, image_index: Any, *, fast: bool, portable: bool = False) -> Pool:
    """The function (cells per side, levels, name) -> features of rois [R, 4]."""
    return lambda size, levels, name: roi_layer(config, size, name, fast=fast, portable=portable, levels=len(levels))(
        levels, rois, image_index
    )


def head_inputs(
    head: "Head", levels: list[Any], given: dict[str, Any], pool: Pool, *, training: bool
) -> dict[str, Any]:
    """The inputs that a head requires, by name; see `heads.Head`.

    Args:
        levels: the feature maps that RoIs are pooled from, finest first.
        given: known inputs: boxes [R, (y1, x1, y2, x2)], class_ids and image_index [R]; in training also seed [R];
            features, if they are not pooled from `levels`.
        pool: (cells per side, levels, name) -> RoI features of the boxes.
    """
    makers: dict[str, Callable[[], Any]] = {
        "features": lambda: pool(head.input_shape[0], levels, f"roi_align_{head.kind}"),
        "fine": lambda: pool(head.fine_size or 0, levels[:1], f"roi_align_{head.kind}_fine"),
        "pyramid": lambda: levels,
    }
    return {name: given[name] if name in given else makers[name]() for name in head.needs(training)}


class Rescore(keras.layers.Layer):
    """Mask scores from a head. call: (outputs of the head, scores [R], class_ids [R]) -> [R] float32."""

    def __init__(self, head: "Head", **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.head = head

    def call(self, outputs: dict[str, Any], scores: Any, class_ids: Any) -> Any:
        return ops.cast(self.head.rescore(outputs, scores, class_ids), "float32")

    def compute_output_spec(self, outputs: dict[str, Any], scores: Any, class_ids: Any) -> Any:
        return keras.KerasTensor(scores.shape, "float32")
