"""DCT-Mask: a mask as a few coefficients of its cosine transform."""

import math
from typing import Any

import keras
from keras import layers, ops

from heads.protocol.head import MASK_LOSS, Head
from heads.protocol.points import cell_centers
from heads.protocol.targets import Targets
from heads.registry import register


@register("dct")
class DCTMask(Head):
    """The convolutions of `fcn`, and dense layers that give the low frequencies of a mask of 128x128 cells.

    Shen et al. 2021, "DCT-Mask: Discrete Cosine Transform Mask Representation for Instance Segmentation". Of the
    two-dimensional cosine transform of a mask, the coefficients of the lowest frequencies in zigzag order are
    predicted, for whatever the class is. Their inverse transform, cut to 0..1, is the mask. The loss is the absolute
    error of the coefficients of the true mask, with a weight that makes it about as large as a cross-entropy.

    Cost: 55 million parameters, nearly all in the first dense layer; 0.52 G multiply-adds per RoI, as `fcn`, for masks
    of 128x128. Use it for smooth contours of large objects at no further cost (the paper: +1.3 mask AP); holes and thin
    parts are beyond 300 coefficients, and little data is not enough to train the dense layers.

    Args:
        frequencies: how many of each axis are used; the coefficients are those of a triangle, 24 * 25 / 2 = 300.
        mask_size: cells per side of the masks.
        filters, convolutions: of the 3x3 convolutions. units: of both hidden dense layers.
        loss_weight: of the sum over the coefficients.

    Raises ValueError for more frequencies than cells.
    """

    source_masks = True

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        *,
        frequencies: int = 24,
        mask_size: int = 128,
        filters: int = 256,
        convolutions: int = 4,
        units: int = 1024,
        loss_weight: float = 0.007,
    ) -> None:
        super().__init__(input_shape, num_classes)
        if not 1 <= frequencies <= mask_size:
            raise ValueError(
                f"frequencies of the dct head lie in 1..mask_size; received {frequencies!r} and mask_size={mask_size!r}"
            )
        self.frequencies, self.side, self.loss_weight = frequencies, mask_size, loss_weight
        self.body = self._body(filters, convolutions, units)

    def _body(self, filters: int, convolutions: int, units: int) -> keras.Model:
        """Features [R, h, w, C] to coefficients, row by row of their triangle, float32."""
        features = x = keras.Input(self.input_shape, name="dct_features")
        for i in range(1, convolutions + 1):
            x = layers.Conv2D(
                filters, 3, padding="same", activation="relu", kernel_initializer="he_normal", name=f"conv{i}"
            )(x)
        x = layers.Flatten(name="flatten")(x)
        for i in (1, 2):
            x = layers.Dense(units, activation="relu", name=f"fc{i}")(x)
        x = layers.Dense(self.frequencies * (self.frequencies + 1) // 2, dtype="float32", name="coefficients")(x)
        return keras.Model(features, x, name="dct")

    def call(self, features: Any) -> dict[str, Any]:
        coefficients = self.body(features)
        return {"masks": MaskOfCoefficients(self.side, name="masks")(coefficients), "coefficients": coefficients}

    def loss(self, outputs: dict[str, Any], targets: Targets) -> dict[str, tuple[Any, Any]]:
        truth = ops.cast(targets.at_points(cell_centers(self.side)[None]) >= 0.5, "float32")
        expected = transform(ops.reshape(truth, (-1, self.side, self.side)), self.frequencies)
        apart = ops.sum(ops.abs(outputs["coefficients"] - expected), axis=-1)
        return {MASK_LOSS: targets.total(self.loss_weight * apart)}


@keras.saving.register_keras_serializable("heads")
class MaskOfCoefficients(layers.Layer):
    """call: coefficients [R, K * (K + 1) / 2], see `transform`, -> masks [R, side, side, 1] float32 in 0..1."""

    def __init__(self, side: int, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.side = side

    def call(self, coefficients: Any) -> Any:
        count = coefficients.shape[-1]
        frequencies = (math.isqrt(8 * count + 1) - 1) // 2
        rows = []
        for row in range(frequencies):  # the rows of the triangle become shorter
            length = frequencies - row
            start = row * frequencies - row * (row - 1) // 2
            rows.append(ops.pad(coefficients[:, start : start + length], ((0, 0), (0, row))))
        basis = cosines(frequencies, self.side)
        masks = ops.matmul(ops.matmul(ops.transpose(basis), ops.stack(rows, axis=1)), basis)
        return ops.clip(masks, 0.0, 1.0)[..., None]

    def compute_output_spec(self, coefficients: Any) -> Any:
        return keras.KerasTensor((coefficients.shape[0], self.side, self.side, 1), "float32")

    def multiply_adds(self, coefficients: Any) -> int:
        """Per RoI, of both products with the basis."""
        frequencies = (math.isqrt(8 * coefficients.shape[-1] + 1) - 1) // 2
        return self.side * frequencies * (frequencies + self.side)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "side": self.side}


def transform(masks: Any, frequencies: int) -> Any:
    """The coefficients of masks [R, m, m] whose frequencies of both axes add up to less than `frequencies`, row by row
    [R, frequencies * (frequencies + 1) / 2]: the first ones in zigzag order."""
    basis = cosines(frequencies, masks.shape[1])
    all_of_them = ops.matmul(ops.matmul(basis, masks), ops.transpose(basis))
    return ops.concatenate([all_of_them[:, row, : frequencies - row] for row in range(frequencies)], axis=-1)


def cosines(frequencies: int, side: int) -> Any:
    """The orthonormal basis of the cosine transform (DCT-II), [frequencies, side] float32."""
    places = (ops.arange(side, dtype="float32") + 0.5) * (math.pi / side)
    waves = ops.cos(ops.arange(frequencies, dtype="float32")[:, None] * places) * math.sqrt(2 / side)
    return ops.concatenate([waves[:1] / math.sqrt(2), waves[1:]], axis=0)
