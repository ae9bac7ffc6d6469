"""Mask scoring: any mask head, and a branch that predicts how good its masks are."""

from typing import Any

import keras
from keras import layers, ops

from heads.protocol.head import Head, own_channel
from heads.protocol.targets import Targets
from heads.registry import construct, name_and_options, register


@register("mask_scoring")
class MaskScoring(Head):
    """The head `of`, whose masks are ranked by their predicted overlap with the object.

    Huang et al. 2019, "Mask Scoring R-CNN". The branch reads the RoI's features and the predicted mask of its class,
    pooled to their size; four 3x3 convolutions, the last of stride 2, and two dense layers give an IoU for each class.
    It learns the IoU of the mask, cut at 0.5, with the whole object, also beyond the RoI, by the squared error of those
    masks that touch their object. In inference a mask's score is its box's score times the IoU; the scores of boxes
    stay. The paper adds the loss with weight 1; LOSS_WEIGHTS = {"mask_iou_loss": 0.5} is mmdetection's.

    Cost at 80 classes, beside the head that it wraps: 16.3 million parameters, 0.39 G multiply-adds per RoI. Use it
    where masks are ranked, as in AP (the paper: +1.4 to +1.5 mask AP), or where poor masks are to be sorted out; it
    does not change the masks.

    Args:
        of: the head, as MASK_HEAD takes it: a name, or a dict of a name and options.
        filters, units: of the convolutions and of the dense layers of the branch.

    Raises ValueError for a head that scores its masks already.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        *,
        of: str | dict[str, Any] = "fcn",
        filters: int = 256,
        units: int = 1024,
    ) -> None:
        super().__init__(input_shape, num_classes)
        name, options = name_and_options(of, {})
        self.inner = inner = construct(name, input_shape, num_classes, options)
        if inner.rescores or inner.kind != "mask":
            raise ValueError(f"mask_scoring scores masks that have no scores of their own, not those of {of!r}")
        self.activation, self.fine_size, self.source_masks = inner.activation, inner.fine_size, inner.source_masks
        self.train_on_predicted_boxes, self.class_layers = inner.train_on_predicted_boxes, inner.class_layers
        self.branch = self._branch(filters, units)

    def _branch(self, filters: int, units: int) -> keras.Model:
        """Features and a mask [R, h, w, C + 1] to the IoU of each class [R, num_classes], float32."""
        height, width, channels = self.input_shape
        given = x = keras.Input((height, width, channels + 1), name="features_and_mask")
        for i in range(1, 5):
            x = layers.Conv2D(
                filters,
                3,
                strides=2 if i == 4 else 1,
                padding="same",
                activation="relu",
                kernel_initializer="he_normal",
                name=f"conv{i}",
            )(x)
        x = layers.Flatten(name="flatten")(x)
        for i in (1, 2):
            x = layers.Dense(units, activation="relu", name=f"fc{i}")(x)
        iou = layers.Dense(self.num_classes, dtype="float32", name="iou")(x)
        return keras.Model(given, iou, name="mask_iou")

    @property
    def infers_apart(self) -> bool:
        return self.inner.infers_apart

    def needs(self, training: bool) -> list[str]:
        return list(dict.fromkeys(["features", "class_ids", *self.inner.needs(training)]))

    def assemble(self) -> None:
        self.inner.strides, self.inner.channels = self.strides, self.channels
        super().assemble()

    def call(self, **inputs: Any) -> dict[str, Any]:
        return self._scored(self.inner.call, self.inner.needs(True), inputs)

    def infer(self, **inputs: Any) -> dict[str, Any]:
        return self._scored(self.inner.infer, self.inner.needs(False), inputs)

    def _scored(self, function: Any, names: list[str], inputs: dict[str, Any]) -> dict[str, Any]:
        """The outputs of the inner head, with the predicted IoU of each RoI's own class, "iou" [R]."""
        outputs = self.inner.named(function(**{name: inputs[name] for name in names}))
        features = inputs["features"]
        mask = fit(own_channel(outputs["masks"], inputs["class_ids"])[..., None], self.input_shape[:2])
        iou = self.branch(ops.concatenate([features, ops.cast(mask, features.dtype)], axis=-1))
        own = ops.one_hot(inputs["class_ids"], self.num_classes, dtype="float32")
        return outputs | {"iou": ops.sum(iou * own, axis=-1)}

    def loss(self, outputs: dict[str, Any], targets: Targets) -> dict[str, tuple[Any, Any]]:
        masks = outputs["masks"]
        truth = targets.at(masks.shape[1])
        mask = ops.cast(own_channel(masks, targets.class_ids) >= 0.5, "float32")
        both, found, inside = (ops.sum(cells, axis=(1, 2)) for cells in (mask * truth, mask, truth))
        whole = inside / ops.maximum(targets.area_ratio(), 1e-3)  # the object's area in cells, also beyond the RoI
        iou = ops.stop_gradient(both / ops.maximum(found + whole - both, 1e-6))
        counted = targets.weight * ops.cast(iou > 0, "float32")
        error = ops.sum(counted * ops.square(outputs["iou"] - iou))
        return self.inner.loss(outputs, targets) | {"mask_iou_loss": (error, ops.sum(counted))}

    def rescore(self, outputs: dict[str, Any], scores: Any, class_ids: Any) -> Any:
        del class_ids
        return scores * ops.clip(outputs["iou"], 0.0, 1.0)

    def _symbol(self, name: str) -> Any:
        return self.inner._symbol(name)


def fit(masks: Any, size: tuple[int, int]) -> Any:
    """Masks [R, m, m, 1] at another size: the largest of the cells that fall into one, else values between cells."""
    cells, rest = divmod(masks.shape[1], size[0])
    if rest or not cells or size[0] != size[1]:
        return ops.image.resize(masks, size, interpolation="bilinear")
    return masks if cells == 1 else ops.max_pool(masks, cells, strides=cells)  # JAX needs the strides
