"""Several images in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mrcnn.data.images import read_image
from mrcnn.pictures import canvas
from mrcnn.pictures.colors import random_colors
from mrcnn.pictures.instances import checked_instances, class_captions


def display_images(
    images: Sequence[ArrayLike],
    titles: Sequence[str] | None = None,
    cols: int = 4,
    cmap: Any = None,
    norm: Any = None,
    interpolation: str | None = None,
) -> Any:
    """Shows images in rows of `cols`.

    Args:
        images: each [height, width] or [height, width, 3], in a range supported by matplotlib's `imshow`.
        titles: one text per image.
        cmap, norm, interpolation: passed to `imshow`; without `cmap`, images [height, width] are gray.

    Returns:
        The matplotlib Figure.

    Raises:
        ValueError: no images, no columns, or a different number of titles than images.
    """
    from matplotlib import pyplot

    arrays = [np.asarray(image) for image in images]
    titles = [""] * len(arrays) if titles is None else [str(title) for title in titles]
    if not arrays or cols < 1:
        raise ValueError(f"expected at least one image and one column, got {len(arrays)} images and cols={cols}")
    if len(titles) != len(arrays):
        raise ValueError(f"expected one title per image, got {len(titles)} titles for {len(arrays)} images")
    cols = min(cols, len(arrays))
    rows = -(-len(arrays) // cols)
    tallest = max(image.shape[0] / image.shape[1] for image in arrays)
    width = 14 / max(cols, 3)
    size = (cols * width, rows * (width * min(tallest, 2) + 0.3))
    figure, axes = pyplot.subplots(rows, cols, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, image, title in zip(axes.flat, arrays, titles, strict=False):
        colormap = "gray" if cmap is None and image.ndim == 2 else cmap
        canvas.show_image(ax, image, cmap=colormap, norm=norm, interpolation=interpolation)
        ax.set_title(title, fontsize=10)
    canvas.show(figure)
    return figure


def display_top_masks(
    image: Any, mask: ArrayLike, class_ids: ArrayLike, class_names: Sequence[str], limit: int = 4
) -> Any:
    """Shows an image and, for each of the classes that cover most of it, its instances in colors.

    Args:
        image: anything `detect` takes.
        mask: [height, width, N].
        class_ids: [N].
        class_names: class names, background first.
        limit: number of classes.

    Returns:
        The matplotlib Figure.

    Raises:
        ValueError: counts or sizes that differ, or a class id without a name.
    """
    from matplotlib.colors import ListedColormap

    image = read_image(image)
    _, masks, ids = checked_instances(image, None, mask, class_ids)
    assert masks is not None
    ids = np.abs(ids)
    areas = {int(i): int(masks[..., ids == i].sum()) for i in np.unique(ids)}
    top = sorted(areas, key=lambda i: -areas[i])[:limit]
    names = class_captions(top, class_names)
    # White for the background, then one color per instance; each class starts with the first color
    palette = ListedColormap(["white", *random_colors(max(len(ids), 1))])
    numbered = [_numbered(masks[..., ids == i]) for i in top]
    titles = [f"{name}: {(ids == i).sum()}" for i, name in zip(top, names, strict=True)]
    panels = [image, *(palette(numbers)[..., :3] for numbers in numbered)]
    titles = [f"H x W = {image.shape[0]} x {image.shape[1]}", *(titles or ["no instances"])]
    panels += [np.ones((*image.shape[:2], 3))] * (len(titles) - len(panels))
    return display_images(panels, titles, cols=limit + 1)


def _numbered(masks: np.ndarray) -> np.ndarray:
    """[H, W]: the number (from 1) of the last mask of [H, W, N] at each pixel, 0 if there is none."""
    numbers = np.arange(1, masks.shape[-1] + 1)
    return (masks * numbers).max(axis=-1, initial=0)
