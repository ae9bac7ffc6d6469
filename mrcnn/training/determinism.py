"""Bit-for-bit reproducible training with TensorFlow on a CPU.

Otherwise, two equal runs in two processes differ after the first step, even on one thread and with
`enable_op_determinism`. The cause is the arithmetic pass of TensorFlow's graph optimizer, which rewrites the sums of
gradients in an order that differs between processes. Without this pass the results are equal, even on several threads.
"""

import keras


def make_deterministic() -> None:
    """Makes everything that this process traces from now on reproducible. This cannot be undone.

    It does nothing on backends other than TensorFlow.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
