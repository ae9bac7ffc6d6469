"""The keypoint head of the Mask R-CNN paper: a heatmap for each keypoint."""

from typing import Any

import keras
from keras import layers, ops

from heads.protocol.check import check_counts
from heads.protocol.head import Head, Pair
from heads.protocol.targets import Targets
from heads.registry import register


@register("keypoints")
class Keypoints(Head):
    """Eight 3x3 convolutions, a 4x4 transposed convolution that doubles the size, bilinear upsampling by two.

    He et al. 2017, section 5 and appendix B; layers and initialization as in Detectron2's KRCNNConvDeconvUpsampleHead.
    From RoI features [R, h, w, C] to `keypoints` [R, 4h, 4w, num_classes] float32, logits of where each keypoint is;
    `num_classes` is the number of keypoints.

    Args:
        filters: channels of each of the `convolutions` 3x3 convolutions.
    """

    kind = "keypoints"

    def __init__(
        self, input_shape: tuple[int, int, int], num_classes: int, *, filters: int = 512, convolutions: int = 8
    ) -> None:
        super().__init__(input_shape, num_classes)
        check_counts("keypoints", filters=(filters, 1), convolutions=(convolutions, 0))
        self.filters, self.convolutions = filters, convolutions

    def call(self, features: Any) -> Any:
        x = features
        for i in range(1, self.convolutions + 1):
            x = layers.Conv2D(
                self.filters, 3, padding="same", activation="relu", kernel_initializer=_msra(), name=f"conv{i}"
            )(x)
        x = layers.Conv2DTranspose(
            self.num_classes, 4, strides=2, padding="same", kernel_initializer=_msra(), dtype="float32", name="deconv"
        )(x)
        return layers.UpSampling2D(2, interpolation="bilinear", dtype="float32", name="upsampling")(x)

    def loss(self, outputs: dict[str, Any], targets: Targets) -> dict[str, Pair]:
        """Cross-entropy over all cells of a heatmap, averaged over the visible keypoints of the batch.

        Detectron2's NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS and torchvision's keypointrcnn_loss.
        """
        heatmaps = outputs["keypoints"]
        size, count = heatmaps.shape[1], heatmaps.shape[3]
        cells, visible = targets.keypoints(size)
        log_probability = ops.log_softmax(ops.reshape(heatmaps, (-1, size * size, count)), axis=1)
        own = ops.take_along_axis(log_probability, cells[:, None], axis=1)[:, 0]
        return {"mrcnn_keypoint_loss": (ops.sum(ops.where(visible > 0, -own, 0.0)), ops.sum(visible))}


def _msra() -> keras.initializers.Initializer:
    """Deviation of sqrt(2 / outputs of a kernel), He et al. 2015."""
    return keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")
