"""The last layer of heads from features to masks: which channels there are, and what they compete with."""

from typing import Any

import keras
from keras import layers

from heads.protocol.head import SoftmaxHead

ACTIVATIONS = ("sigmoid", "softmax")


def mask_model(
    features: Any, x: Any, num_classes: int, *, activation: str = "sigmoid", class_agnostic: bool = False
) -> keras.Model | SoftmaxHead:
    """The head from `features` to masks that a 1x1 convolution, "masks", makes of `x`, in float32 under any policy.

    He et al. 2017, table 2b and section 4.2: a sigmoid for each class (the paper's choice), a softmax over the classes
    of each cell (5.5 AP less), or one mask for whatever the class is (0.6 AP less).

    Args:
        features: the input. x: [R, m, m, channels].
        activation: "sigmoid"; or "softmax", over all classes and the background, with the loss that belongs to it.
        class_agnostic: one channel that stands for every class.

    Raises ValueError for another activation, and for a softmax over a single one.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation of a mask head is one of {ACTIVATIONS}, received {activation!r}")
    if class_agnostic and activation == "softmax":
        raise ValueError('class_agnostic=True leaves a softmax nothing to compare; use activation="sigmoid"')
    if activation == "softmax" and num_classes < 2:
        raise ValueError(f"a softmax needs the background beside a class; received num_classes={num_classes}")
    # Keras's own initial values: Detectron2's deviation of 0.001 costs a short training its first epochs.
    channels = 1 if class_agnostic else num_classes
    masks = layers.Conv2D(channels, 1, activation=activation, dtype="float32", name="masks")(x)
    model = keras.Model(features, masks, name="mask_head")
    return SoftmaxHead(model) if activation == "softmax" else model
