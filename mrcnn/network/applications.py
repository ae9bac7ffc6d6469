"""The models of `keras.applications` by name, and the pixel scaling that their ImageNet weights expect."""

import difflib
import inspect
import re
import sys
import warnings
from collections.abc import Callable

import keras
import numpy as np

from mrcnn.network.pixels import PixelScaling

# Arguments that this package sets itself.
RESERVED = (
    "include_top",
    "weights",
    "input_tensor",
    "input_shape",
    "pooling",
    "classes",
    "classifier_activation",
    "name",
)


def application_names() -> list[str]:
    """The names of all models of `keras.applications`, as Keras spells them."""
    return sorted(
        name for name, value in vars(keras.applications).items() if callable(value) and not name.startswith("_")
    )


def find_application(name: str) -> Callable[..., keras.Model] | None:
    """The function of `keras.applications` called `name`, ignoring case and underscores, or None."""
    wanted = _plain(name)
    return next((getattr(keras.applications, known) for known in application_names() if _plain(known) == wanted), None)


def build_application(function: Callable[..., keras.Model], channels: int, options: dict) -> keras.Model:
    """Builds a model of `keras.applications` without its classifier, with random weights, for images of any size.

    Raises:
        ValueError: for an option that the model does not have or that this package sets itself.
    """
    known = [name for name in inspect.signature(function).parameters if name not in RESERVED]
    for option in options:
        if option not in known:
            close = difflib.get_close_matches(option, known, n=1)
            raise ValueError(
                f"BACKBONE_OPTIONS: {function.__name__} takes {known}, received {option!r}"
                + (f"; did you mean {close[0]!r}?" if close else "")
            )
    with warnings.catch_warnings():
        # Some warn about an input size or channel count other than their ImageNet weights'; both are intended here.
        warnings.simplefilter("ignore", UserWarning)
        return function(include_top=False, weights=None, input_shape=(None, None, channels), **options)


def pixel_scaling(function: Callable[..., keras.Model], channels: int = 3) -> PixelScaling:
    """The pixel scaling of a model's ImageNet weights, measured by its `preprocess_input` on black and primary pixels.

    Every `preprocess_input` is linear in each channel, with or without reversing the channels. For a model that scales
    its input itself, the result is mean 0 and std 1.
    """
    preprocess = sys.modules[function.__module__].preprocess_input
    probe = np.concatenate([np.zeros((1, 3)), 255 * np.eye(3)]).astype(np.float32).reshape(4, 1, 1, 3)
    black, *primaries = np.asarray(preprocess(probe.copy(), data_format="channels_last"), np.float64).reshape(4, 3)
    gains = np.array(primaries) - black  # [channel in, channel out]
    bgr = bool(abs(gains[0, 2]) > abs(gains[0, 0]))
    offset, gain = (black[::-1], np.diag(gains[:, ::-1])) if bgr else (black, np.diag(gains))
    std = 255 / gain
    mean = -offset * std
    return for_channels(PixelScaling(tuple(map(_rounded, mean)), tuple(map(_rounded, std)), bgr), channels)


def for_channels(scaling: PixelScaling, channels: int) -> PixelScaling:
    """A three-channel scaling for another number of channels: each gets the mean over the three."""
    if channels == 3:
        return scaling
    mean, std = ((sum(values) / 3,) * channels for values in (scaling.mean, scaling.std))
    return PixelScaling(mean, std)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _rounded(value: float) -> float:
    """Removes the float32 errors of `preprocess_input`, in the sixth digit; its constants have three decimals."""
    return round(float(value), 3) + 0.0  # no -0.0
