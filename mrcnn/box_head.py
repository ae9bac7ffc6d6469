"""Box head: class and box deltas of a RoI by two fully connected layers (Lin et al. 2017, FPN, section 4.2)."""

import keras


def build_box_head(pool_size: int, channels: int, fc_size: int, num_classes: int) -> keras.Model:
    """Initialised as Detectron2's FastRCNNConvFCHead and FastRCNNOutputLayers.

    Returns:
        Model of [rois, pool_size, pool_size, channels] ->
        class logits [rois, num_classes] float32, background first, and
        deltas [rois, num_classes, (dy, dx, log dh, log dw)] float32.
    """
    features = keras.Input((pool_size, pool_size, channels), name="roi_features")
    x = keras.layers.Flatten(name="mrcnn_flatten")(features)
    for name in ("mrcnn_fc1", "mrcnn_fc2"):
        xavier = keras.initializers.VarianceScaling(1.0, mode="fan_in", distribution="uniform")
        x = keras.layers.Dense(fc_size, activation="relu", kernel_initializer=xavier, name=name)(x)
    logits = keras.layers.Dense(num_classes, kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
                                dtype="float32", name="mrcnn_class_logits")(x)
    deltas = keras.layers.Dense(4 * num_classes, kernel_initializer=keras.initializers.RandomNormal(stddev=0.001),
                                dtype="float32", name="mrcnn_bbox_fc")(x)
    deltas = keras.layers.Reshape((num_classes, 4), dtype="float32", name="mrcnn_bbox")(deltas)
    return keras.Model(features, [logits, deltas], name="box_head")
