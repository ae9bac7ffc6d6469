"""Box head: class logits and box deltas of each RoI from fully connected layers (two in FPN, Lin et al. 2017, 4.2)."""

import keras


def build_box_head(
    pool_size: int, channels: int, fc_size: int, num_classes: int, *, convolutions: int = 0, fc_layers: int = 2
) -> keras.Model:
    """Builds the box head, initialized as Detectron2's FastRCNNConvFCHead and FastRCNNOutputLayers.

    Args:
        channels: of the features, and of each of the `convolutions` 3x3 convolutions that come first.
        fc_size: units of each of the `fc_layers` fully connected layers; with none, the mean of the features is
            classified (the C4 head, whose layers are stage 5).

    Returns:
        Model of [rois, pool_size, pool_size, channels] ->
        class logits [rois, num_classes] float32, background first, and
        deltas [rois, num_classes, (dy, dx, log dh, log dw)] float32.
    """
    features = keras.Input((pool_size, pool_size, channels), name="roi_features")
    x = features
    for i in range(1, convolutions + 1):
        msra = keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")
        x = keras.layers.Conv2D(
            channels, 3, padding="same", activation="relu", kernel_initializer=msra, name=f"mrcnn_conv{i}"
        )(x)
    flatten = (
        keras.layers.Flatten(name="mrcnn_flatten")
        if fc_layers
        else keras.layers.GlobalAveragePooling2D(name="mrcnn_mean")
    )
    x = flatten(x)
    for i in range(1, fc_layers + 1):
        xavier = keras.initializers.VarianceScaling(1.0, mode="fan_in", distribution="uniform")
        x = keras.layers.Dense(fc_size, activation="relu", kernel_initializer=xavier, name=f"mrcnn_fc{i}")(x)
    logits = keras.layers.Dense(
        num_classes,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        dtype="float32",
        name="mrcnn_class_logits",
    )(x)
    deltas = keras.layers.Dense(
        4 * num_classes,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.001),
        dtype="float32",
        name="mrcnn_bbox_fc",
    )(x)
    deltas = keras.layers.Reshape((num_classes, 4), dtype="float32", name="mrcnn_bbox")(deltas)
    return keras.Model(features, [logits, deltas], name="box_head")
