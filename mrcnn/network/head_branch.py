"""Wiring of a head: its named inputs from the graph, and what detection needs from its outputs."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

if TYPE_CHECKING:
    from heads.protocol.head import Head

Pool = Callable[[int, list[Any], str], Any]


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
