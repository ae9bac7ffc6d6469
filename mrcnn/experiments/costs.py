"""The costs of a mask head: arithmetic and time."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from mrcnn.network.graph import trial_inputs

ROIS = 100  # RoIs per batch: the maximum per image in detection
ROUNDS = 15


def flops(head: keras.Model, rois: int = ROIS) -> int:
    """Floating-point operations of a head on a batch of RoIs, from TensorFlow's profiler.

    A multiply-add counts as two. Operations without a profiler rule, such as ReLU and upsampling, count as zero.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    features = tf.TensorSpec((rois, *head.input_shape[1:]), "float32")
    traced = tf.function(lambda x: head(x, training=False)).get_concrete_function(features)
    graph = convert_variables_to_constants_v2(traced).graph
    options = (
        tf.compat.v1.profiler.ProfileOptionBuilder(tf.compat.v1.profiler.ProfileOptionBuilder.float_operation())
        .with_empty_output()
        .build()
    )
    return int(tf.compat.v1.profiler.profile(graph, options=options).total_float_ops)


def milliseconds(heads: Mapping[str, Any], rois: int = ROIS, rounds: int = ROUNDS) -> dict[str, float]:
    """Median time of inference of each head on a batch of random RoIs. The heads take turns, so that all see the same
    load.

    Args:
        heads: models from RoI features to masks, or `heads.Head`s, by name.
    """
    calls = {name: _call(head, rois) for name, head in heads.items()}
    for call in calls.values():
        call()
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: 1000 * float(np.median(values)) for name, values in times.items()}


def _call(head: Any, rois: int) -> Callable[[], np.ndarray]:
    import tensorflow as tf

    model = head if isinstance(head, keras.Model) else head.inference
    if isinstance(model.input, Mapping):
        given: Any = trial_inputs(head, rois)
    else:
        given = tf.constant(np.random.default_rng(0).normal(size=(rois, *model.input_shape[1:])).astype("float32"))
    # Traced here: called as it is, the sixth head's function would make TensorFlow warn of retracing
    traced = tf.function(lambda: keras.tree.flatten(model(given, training=False))).get_concrete_function()
    return lambda: traced()[0].numpy()
