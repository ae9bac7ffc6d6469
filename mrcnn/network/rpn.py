"""Region proposal network: objectness and box deltas for each anchor of a level (Ren et al. 2015, section 3.1)."""

import keras


def build_rpn(
    input_channels: int, channels: int, anchors_per_cell: int, anchor_stride: int = 1, convolutions: int = 1
) -> keras.Model:
    """Builds the one network that all levels share.

    Args:
        input_channels: channels of a pyramid level.
        channels: of the shared 3x3 convolutions.
        anchors_per_cell: number of anchors at each location.
        anchor_stride: cells between anchors.
        convolutions: number of 3x3 convolutions before the logits and deltas; the first has the stride.

    Returns:
        Model of [batch, height, width, input_channels] ->
        logits [batch, anchors] float32, objectness before the sigmoid, and
        deltas [batch, anchors, (dy, dx, log dh, log dw)] float32; anchors in the order (y, x, ratio).
    """
    feature = keras.Input((None, None, input_channels), name="rpn_feature")
    normal = keras.initializers.RandomNormal(stddev=0.01)
    x = feature
    for i in range(convolutions):
        x = keras.layers.Conv2D(
            channels,
            3,
            strides=1 if i else anchor_stride,
            padding="same",
            activation="relu",
            kernel_initializer=_clone(normal) if i else normal,
            name=f"rpn_conv_shared{i + 1 if i else ''}",
        )(x)
    logits = keras.layers.Conv2D(anchors_per_cell, 1, kernel_initializer=_clone(normal), name="rpn_class_raw")(x)
    deltas = keras.layers.Conv2D(4 * anchors_per_cell, 1, kernel_initializer=_clone(normal), name="rpn_bbox_pred")(x)
    logits = keras.layers.Reshape((-1,), dtype="float32", name="rpn_class_logits")(logits)
    deltas = keras.layers.Reshape((-1, 4), dtype="float32", name="rpn_bbox")(deltas)
    return keras.Model(feature, [logits, deltas], name="rpn")


def _clone(initializer: keras.initializers.Initializer) -> keras.initializers.Initializer:
    return initializer.clone()  # a reused initializer would draw the same numbers again
