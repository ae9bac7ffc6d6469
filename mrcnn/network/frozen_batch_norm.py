"""BatchNorm that is not trained, for trunks that start from ImageNet weights and see few images per batch."""

import random
from collections.abc import Callable
from typing import Any, Self

import keras

from mrcnn.layers.dilated import copy_of
from mrcnn.ops.keras_internals import replace_layers


@keras.saving.register_keras_serializable("mrcnn", name="FrozenBatchNormalization")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` that always uses its moving statistics and is never trained.

    On the Keras layer, setting `trainable` on the enclosing model overrides the layer's own value, and calling that
    model with `training=True` overrides `training=False`. Here neither has an effect.

    The class has the name of the Keras layer because Keras finds the layers of a `.weights.h5` file by class name.
    """

    @classmethod
    def of(cls, layer: keras.layers.BatchNormalization) -> Self:
        """A frozen layer with the settings and weights of a built layer."""
        frozen = cls.from_config(layer.get_config())
        frozen.build(layer.get_build_config()["input_shape"])
        frozen.set_weights(layer.get_weights())
        return frozen

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        # A model collects its trainable weights by their own flags, not by the layer's.
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
    """The BatchNorm classes that use their moving statistics: in training, or in inference."""
    return (BatchNormalization,) if training else (BatchNormalization, keras.layers.BatchNormalization)


def freeze_batch_norm(model: keras.Model) -> keras.Model:
    """The same model with each `keras.layers.BatchNormalization`, at any depth, replaced by a frozen layer.

    Args:
        model: functional or sequential; built.

    Returns:
        A new model of new layers with the same settings, names and weights. A layer that Keras cannot rebuild, because
        it has no `get_config`, is shared, and any BatchNorm inside it is replaced in place.
    """
    frozen: dict[int, keras.layers.Layer] = {}

    def replaced(layer: keras.layers.Layer) -> keras.layers.Layer:
        if id(layer) not in frozen:
            frozen[id(layer)] = _frozen(layer, replaced)
        return frozen[id(layer)]

    state = random.getstate()  # Keras draws initializer seeds from it; the initial values are overwritten anyway
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
        new = copy_of(layer)
    except (NotImplementedError, TypeError, ValueError):
        new = layer
    replace_layers(new, replaced)
    return new
