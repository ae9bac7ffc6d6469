"""The fully connected mask head that the Mask R-CNN paper compares its own with."""

import keras
from keras import layers

from heads.registry import register


@register("mlp")
def mlp(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    hidden_layers: int = 2,
    units: int = 1024,
    mask_size: int = 28,
) -> keras.Model:
    """Dense layers over the flattened features, the last of which gives every cell of every class.

    He et al. 2017, table 2e: two or three hidden layers of 1024 units, 2.1 AP below `fcn` with either, as a mask loses
    its place in a vector.

    Cost at 80 classes: 118 million parameters, nearly all in the first and the last layer, but 0.12 G multiply-adds per
    RoI against 0.53 G of `fcn`. Use it to repeat the comparison, or with few classes where time matters
    more than edges.

    Args:
        input_shape: (h, w, C) of one RoI's features.
        num_classes: mask channels, background included.
        hidden_layers: dense layers with ReLU before the last one, at least one.
        units: of each of them.
        mask_size: cells per side of the masks.

    Returns:
        Model [R, h, w, C] -> [R, mask_size, mask_size, num_classes] float32 probabilities.

    Raises:
        ValueError: without a hidden layer.
    """
    if hidden_layers < 1:
        raise ValueError(f"the mlp head has at least one hidden layer; received hidden_layers={hidden_layers!r}")
    features = keras.Input(input_shape, name="features")
    x = layers.Flatten(name="flatten")(features)
    for i in range(1, hidden_layers + 1):
        x = layers.Dense(units, activation="relu", kernel_initializer="he_normal", name=f"fc{i}")(x)
    x = layers.Dense(num_classes * mask_size**2, activation="sigmoid", dtype="float32", name="masks")(x)
    # Class after class, so that the weights of one class can be told from those of another
    x = layers.Reshape((num_classes, mask_size, mask_size), dtype="float32", name="classes")(x)
    return keras.Model(features, layers.Permute((2, 3, 1), dtype="float32", name="channels_last")(x), name="mask_head")
