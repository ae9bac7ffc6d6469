"""BatchNorm that does not learn, for trunks that start from ImageNet and see too few images a batch to do better."""

import keras


@keras.saving.register_keras_serializable("mrcnn", name="FrozenBatchNormalization")
class FrozenBatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` that always uses its moving statistics and whose weights never train.

    `trainable = False` on the ordinary layer is undone by setting it on a model around it, and `training=False` at the
    call by calling that model with `training=True`. Here neither has an effect.
    """

    def build(self, input_shape):
        super().build(input_shape)
        self._freeze_weights()

    def call(self, inputs, training=None, mask=None):
        """`training` is taken, and ignored, because Keras passes it to every layer that takes it."""
        return super().call(inputs, training=False, mask=mask)

    @property
    def trainable(self) -> bool:
        return False

    @trainable.setter
    def trainable(self, value: bool) -> None:
        pass

    def _freeze_weights(self) -> None:
        # A model collects what trains from the weights' own flags, without asking their layer.
        for weight in self.weights:
            weight.trainable = False


# Keras keys the layers of a .weights.h5 file by class name: with this one, files of the ordinary layer load.
FrozenBatchNormalization.__name__ = "BatchNormalization"


def freeze_batch_norm(model: keras.Model) -> int:
    """Freezes every `keras.layers.BatchNormalization` anywhere inside `model`, in place; returns how many.

    The class of each layer is exchanged: a copy of the model would lose the identity of its layers and would not reach
    into layers that hold others.
    """
    count = 0
    for layer in model._flatten_layers():
        if type(layer) is keras.layers.BatchNormalization:
            layer.__class__ = FrozenBatchNormalization
            layer._freeze_weights()
            count += 1
    return count
