"""Turns images into network inputs: size, position, pixel values and padding, and the mapping back."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np

from mrcnn.config import Config
from mrcnn.data.resize import choose_scale, resize_by_pillow, resize_exactly, resize_into, shrink
from mrcnn.network.pixels import PixelScaling

MODES = ("fit", "square", "pad64", "none", "crop")


class Placement(NamedTuple):
    """Position of an image: resized to (height, width), at (top, left) in an input of (input_height, input_width)."""

    height: int
    width: int
    top: int
    left: int
    input_height: int
    input_width: int

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the network input."""
        return self.input_height, self.input_width

    @property
    def window(self) -> np.ndarray:
        """(y1, x1, y2, x2) float32 of the image in the network input."""
        return np.array([self.top, self.left, self.top + self.height, self.left + self.width], np.float32)


class NetworkInput(NamedTuple):
    """An image as network input, and the values that map results back to its own pixels.

    A box in the image is at box * (y, x, y, x) + (window y1, x1, y1, x1) in the network input.
    """

    image: np.ndarray  # [height, width, channels] float32, normalized and padded
    window: np.ndarray  # (y1, x1, y2, x2) float32: position of the image, in pixels
    scale: tuple[float, float]  # (y, x): pixels of the network input per pixel of the image
    size: tuple[int, int]  # (height, width) of the image


@dataclass(frozen=True)
class InputTransform:
    """Turns images into network inputs: resizes, normalizes and pads them.

    Args:
        scaling: the pixel values that the backbone expects.
        mode: "fit" (`fit_size`, top left), "square" and "pad64" (the old package's, centered), "none" (unscaled, top
            left), "crop" (scaled up as in the old package; the caller has already cropped the part).
        min_dim, max_dim: limits for the shorter and the longer side, in pixels.
        min_scale: "square", "pad64" and "crop": minimum scale.
        divisor: sides of network inputs are multiples of it.
        resizer: "opencv"; "skimage" resizes as the old package: zeros beyond the border, truncated values; "pillow"
            resizes as Detectron2: antialiased, rounded values and size.
        antialias: for "opencv": when shrinking, average all source pixels of a target pixel instead of interpolating
            between the nearest two.
        pad_pixel: padding value for each channel, normalized like the image. None: zero after normalization.
    """

    scaling: PixelScaling
    mode: str = "fit"
    min_dim: int | None = None
    max_dim: int | None = None
    min_scale: float | None = None
    divisor: int = 32
    resizer: str = "opencv"
    antialias: bool = False
    pad_pixel: Sequence[float] | None = None

    @classmethod
    def from_config(cls, config: Config, scaling: PixelScaling, *, training: bool) -> Self:
        """The transform for a config. "crop" is for training only: detection uses the whole image, in a square."""
        mode, max_dim = config.IMAGE_RESIZE_MODE, config.IMAGE_MAX_DIM
        if mode == "crop" and not training:
            mode, max_dim = "square", max_dim or config.IMAGE_MIN_DIM
        return cls(
            scaling=scaling,
            mode=mode,
            min_dim=config.IMAGE_MIN_DIM,
            max_dim=max_dim,
            min_scale=config.IMAGE_MIN_SCALE,
            divisor=config.SIZE_DIVISOR,
            resizer=config.IMAGE_RESIZER,
            antialias=config.IMAGE_ANTIALIAS,
            pad_pixel=config.IMAGE_PAD_PIXEL,
        )

    @cached_property
    def square(self) -> tuple[int, int]:
        """Size of the square that fits every training image: `max_dim` ("crop": `min_dim`), rounded up.

        Raises ValueError if no maximum side is set.
        """
        side = self.min_dim if self.mode == "crop" else self.max_dim
        if not side:
            raise ValueError(
                f"the maximum side is {side}, but training needs one; set IMAGE_MAX_DIM "
                "(IMAGE_MIN_DIM for IMAGE_RESIZE_MODE 'crop')"
            )
        return (round_up(side, self.divisor),) * 2

    def few_sizes(self) -> list[tuple[int, int]]:
        """A few network input sizes for mode "fit", so that few programs are compiled; every image fits one of them.

        Both orientations of a longer side at its limit and halfway to the shorter one, and the square.
        """
        long = self.square[0]
        short = min(round_up(self.min_dim or long, self.divisor), long)
        half = round_up((short + long) / 2, self.divisor)
        sizes = [(short, half), (half, short), (short, long), (long, short), (long, long)]
        return list(dict.fromkeys(sizes))

    def scale(self, height: int, width: int) -> float:
        """The mode's scale for an image of (height, width)."""
        if self.mode == "none":
            return 1.0
        return choose_scale(height, width, self.min_dim, self.max_dim, self.min_scale, self.mode)

    def place(
        self, height: int, width: int, *, scale: float | None = None, input_size: tuple[int, int] | None = None
    ) -> Placement:
        """Computes size and position of an image of (height, width).

        Args:
            scale: replaces the mode's scale; for parts of images (large-scale jitter).
            input_size: (height, width) of the network input; None: the smallest possible.

        Raises ValueError for an unknown mode or an image larger than the network input.
        """
        if self.mode not in MODES:
            raise ValueError(f"unknown IMAGE_RESIZE_MODE {self.mode!r}; expected one of {MODES}")
        tall, wide = self._size(height, width, scale)
        if input_size is None and self.mode == "square":
            input_size = self.square
        elif input_size is None:
            unit = math.lcm(self.divisor, 64) if self.mode == "pad64" else self.divisor
            input_size = round_up(tall, unit), round_up(wide, unit)
        if tall > input_size[0] or wide > input_size[1]:
            raise ValueError(
                f"a {height} x {width} image becomes {tall} x {wide} in IMAGE_RESIZE_MODE {self.mode!r}, larger than "
                f"the network input of {input_size[0]} x {input_size[1]}; use 'fit' or raise IMAGE_MAX_DIM"
            )
        centered = self.mode in ("square", "pad64")
        top, left = ((input_size[0] - tall) // 2, (input_size[1] - wide) // 2) if centered else (0, 0)
        return Placement(tall, wide, top, left, *input_size)

    def _size(self, height: int, width: int, scale: float | None) -> tuple[int, int]:
        if scale is None and self.mode == "fit":
            return fit_size(height, width, self.min_dim, self.max_dim, half_up=self.resizer == "pillow")
        scale = self.scale(height, width) if scale is None else scale
        return max(1, round(height * scale)), max(1, round(width * scale))

    def apply(
        self, image: np.ndarray, placement: Placement | None = None, out: np.ndarray | None = None
    ) -> NetworkInput:
        """The network input of an image [H, W, C] uint8.

        Args:
            placement: see `place`; None: the smallest network input.
            out: [input_height, input_width, C] float32, overwritten: the image's place in a batch. None: a new
                array.
        """
        height, width, channels = image.shape
        place = placement or self.place(height, width)
        shape = (*place.input_size, channels)
        out = np.empty(shape, np.float32) if out is None else out
        if out.shape != shape or out.dtype != np.float32:
            raise ValueError(f"`out` is {out.dtype} of shape {out.shape}; expected float32 of {shape}")
        self._write(image, _fill_around(out, place, self._border(channels)))
        return NetworkInput(out, place.window, (place.height / height, place.width / width), (height, width))

    def _border(self, channels: int) -> float | np.ndarray:
        """The normalized padding value."""
        if self.pad_pixel is None:
            return 0.0
        return normalize(_per_channel("padding", self.pad_pixel, channels)[None, None], *self.scaling)[0, 0]

    def _write(self, image: np.ndarray, inside: np.ndarray) -> None:
        """Fills `inside` [h, w, C] float32 with the resized and normalized image [H, W, C] uint8.

        "opencv" resizes floats, as the references do: uint8 would round the pixels an extra time. Both steps are
        linear, so the smaller of the two images is normalized.
        """
        height, width = inside.shape[:2]
        if self.resizer == "skimage":
            if (height, width) != image.shape[:2]:
                image = resize_exactly(image, (height, width)).astype(np.uint8)
            inside[...] = normalize(image, *self.scaling)
        elif self.resizer == "pillow":
            inside[...] = normalize(resize_by_pillow(image, height, width), *self.scaling)
        elif height * width > image.shape[0] * image.shape[1]:
            resize_into(inside, normalize(image, *self.scaling), self.antialias)
        else:
            inside[...] = normalize(shrink(image, height, width, self.antialias), *self.scaling)


def fit_size(
    height: int, width: int, min_dim: float | None, max_dim: float | None, half_up: bool = False
) -> tuple[int, int]:
    """The size whose shorter side is `min_dim`, unless the longer side would exceed `max_dim`.

    Rounded down as in torchvision's GeneralizedRCNNTransform, or to the nearest as in Detectron2's ResizeShortestEdge:
    the scale of boxes follows from it.
    """
    scale = choose_scale(height, width, min_dim, max_dim, None, "fit")
    more = 0.5 if half_up else 0.0
    return max(1, math.floor(height * scale + more)), max(1, math.floor(width * scale + more))


def normalize(image: np.ndarray, mean: Any, std: Any = 1.0, bgr: bool = False) -> np.ndarray:
    """(image - mean) / std in the image's channel order, then reversed if `bgr`; float32 [H, W, C]."""
    height, width, channels = image.shape
    mean = _per_channel("mean", mean, channels)
    std = _per_channel("std", std, channels)
    # A row with all columns at once: NumPy's broadcasting over only 3 channels is several times slower
    rows = image.reshape(height, width * channels).astype(np.float32)
    rows -= np.tile(mean, width)
    if not np.all(std == 1):
        rows /= np.tile(std, width)
    image = rows.reshape(height, width, channels)
    return np.ascontiguousarray(image[:, :, ::-1]) if bgr else image


def denormalize(image: np.ndarray, mean: Any, std: Any = 1.0, bgr: bool = False) -> np.ndarray:
    """The inverse of `normalize`: [H, W, C] uint8, rounded (the old package truncates), clipped to 0..255."""
    image = image[:, :, ::-1] if bgr else image
    mean = _per_channel("mean", mean, image.shape[2])
    std = _per_channel("std", std, image.shape[2])
    return np.clip(np.rint(image * std + mean), 0, 255).astype(np.uint8)


def _fill_around(out: np.ndarray, place: Placement, border: float | np.ndarray) -> np.ndarray:
    """Sets everything outside the image to `border`, and returns the image's part of `out`."""
    bottom, right = place.top + place.height, place.left + place.width
    out[: place.top] = out[bottom:] = border
    out[place.top : bottom, : place.left] = out[place.top : bottom, right:] = border
    return out[place.top : bottom, place.left : right]


def _per_channel(name: str, value: Any, channels: int) -> np.ndarray:
    array = np.asarray(value, np.float32)
    if array.ndim and array.shape != (channels,):
        raise ValueError(
            f"{name} {tuple(array.ravel().tolist())} does not fit an image with {channels} channels; "
            "set MEAN_PIXEL, PIXEL_STD and IMAGE_PAD_PIXEL to one value per channel"
        )
    return np.broadcast_to(array, (channels,))


def round_up(value: float, unit: int) -> int:
    """The smallest multiple of `unit` that is at least `value`."""
    return -(-math.ceil(value) // unit) * unit
