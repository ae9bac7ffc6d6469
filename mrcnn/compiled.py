"""The inference graph as one compiled function, of the backend's own kind."""

from collections.abc import Callable, Mapping
from typing import Any

import keras


def compiled(model: keras.Model) -> Callable[[Any, Any], Mapping[str, Any]]:
    """The function (image, window) -> outputs of `mrcnn.graph.inference_graph`'s model; arrays as there.

    On TensorFlow it is traced once, for photographs of every size and number: a size that is new costs nothing, and
    results do not depend on which came before. It reads the weights at each call, so training and loading need no
    other. On other backends Keras compiles it for each shape.
    """
    if keras.backend.backend() != "tensorflow":
        return lambda image, window: model.predict_on_batch({"image": image, "window": window})
    import tensorflow as tf

    signature = [tf.TensorSpec(model.input[name].shape, tf.float32) for name in ("image", "window")]

    @tf.function(input_signature=signature, autograph=False)
    def call(image: Any, window: Any) -> Mapping[str, Any]:
        return model({"image": image, "window": window}, training=False)

    return call
