"""Layers that compute what others would, with the weights of those others."""

from typing import Any, ClassVar, Self

import keras


class Sharing(keras.layers.Layer):
    """A layer made from others, whose weights it has; it is saved with them inside.

    Inputs and weights come to `call` as they are, without Keras's casts: float32 weights of a bfloat16 layer would be
    rounded before anything is computed from them. So its own policy is float32, whatever those of the layers are; with
    another, Keras rounds weights where such a layer is called by itself, though `autocast` is off.

    Args:
        layers: one for each name in `shared`, under which they become attributes.
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
        """A layer around new ones, without weights."""
        layers = [keras.saving.deserialize_keras_object(config[name]) for name in cls.shared]
        return cls(*layers, **{name: value for name, value in config.items() if name not in cls.shared})


def build_unbuilt(layer: keras.layers.Layer, shape: Any) -> None:
    """Gives a layer inside another its weights, if it has none yet: it comes from a file."""
    if not layer.built:
        layer.build(shape)
