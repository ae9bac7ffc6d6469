"""BatchNorm that does not learn, for trunks that start from ImageNet and see too few images per batch to do better."""

import random
from collections.abc import Callable
from typing import Any, Self

import keras

from mrcnn.ops.keras_internals import replace_layers


@keras.saving.register_keras_serializable("mrcnn", name="FrozenBatchNormalization")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` that always uses its moving statistics and whose weights never train.

    `trainable = False` on the ordinary layer is undone by setting it on a model around it, and `training=False` at the
    call by calling that model with `training=True`. Here neither has an effect.

    The name of the class is the ordinary layer's because Keras finds the layers of a `.weights.h5` file by it.
    """

    @classmethod
    def of(cls, layer: keras.layers.BatchNormalization) -> Self:
        """A frozen layer with the settings and the weights of a built one."""
        frozen = cls.from_config(layer.get_config())
        frozen.build(layer.get_build_config()["input_shape"])
        frozen.set_weights(layer.get_weights())
        return frozen

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        # A model collects what trains from the weights' own flags, without asking their layer.
        for weight in self.weights:
            weight.trainable = False

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """`training` is ignored. Keras passes it to every layer whose `call` takes it."""
        return super().call(inputs, training=False, mask=mask)

    @property
    def trainable(self) -> bool:
        return False

    @trainable.setter
    def trainable(self, value: bool) -> None:
        pass


def fixed_norms(*, training: bool) -> tuple[type[keras.layers.BatchNormalization], ...]:
    """The BatchNorm classes that use their moving statistics in training, or in inference."""
    return (BatchNormalization,) if training else (BatchNormalization, keras.layers.BatchNormalization)


def freeze_batch_norm(model: keras.Model) -> keras.Model:
    """The same model with a frozen layer in place of each `keras.layers.BatchNormalization`, at any depth.

    Args:
        model: functional or sequential; built.

    Returns:
        A new model of new layers with the same settings, names and weights. A layer that Keras cannot make anew, as it
        has no `get_config`, is shared, and any BatchNorm inside it is replaced there.
    """
    frozen: dict[int, keras.layers.Layer] = {}

    def replaced(layer: keras.layers.Layer) -> keras.layers.Layer:
        if id(layer) not in frozen:
            frozen[id(layer)] = _frozen(layer, replaced)
        return frozen[id(layer)]

    state = random.getstate()  # Keras draws the seeds of initial values from it; these are overwritten
    try:
        return keras.models.clone_model(model, clone_function=replaced)
    finally:
        random.setstate(state)


def _frozen(layer: keras.layers.Layer, replaced: Callable[[keras.layers.Layer], keras.layers.Layer]) -> Any:
    if type(layer) is keras.layers.BatchNormalization:
        return BatchNormalization.of(layer)
    if isinstance(layer, keras.Sequential) or (isinstance(layer, keras.Model) and layer.inputs):
        return freeze_batch_norm(layer)
    if not isinstance(layer, keras.layers.Layer):  # an operation such as `x + y`
        return layer
    try:
        new = type(layer).from_config(layer.get_config())
        new.build_from_config(layer.get_build_config() or {})
        new.set_weights(layer.get_weights())
    except (NotImplementedError, TypeError, ValueError):
        new = layer
    replace_layers(new, replaced)
    return new
