"""Base class of layers that compute the result of other layers with those layers' weights."""

from typing import Any, ClassVar, Self

import keras


class SharedWeightsLayer(keras.layers.Layer):
    """A layer that uses the weights of other layers and is saved together with them.

    Its policy is float32 and its inputs are not cast, whatever the policies of those layers: Keras would round the
    float32 weights of a bfloat16 layer before using them.

    Args:
        layers: one for each attribute name in `shared`.
    """

    shared: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *layers: keras.layers.Layer, **kwargs: Any) -> None:
        super().__init__(autocast=False, **{**kwargs, "dtype": "float32"})
        for name, layer in zip(self.shared, layers, strict=True):
            setattr(self, name, layer)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            **{name: keras.saving.serialize_keras_object(getattr(self, name)) for name in self.shared},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The layer with newly created, unbuilt inner layers."""
        layers = [keras.saving.deserialize_keras_object(config[name]) for name in cls.shared]
        return cls(*layers, **{name: value for name, value in config.items() if name not in cls.shared})


def build_unbuilt(layer: keras.layers.Layer, shape: Any) -> None:
    """Builds an inner layer if it has no weights yet, as after loading from a file."""
    if not layer.built:
        layer.build(shape)
