"""Draws a model's detections in images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mrcnn import visualize
from mrcnn.data.images import SUFFIXES, read_image
from mrcnn.model import MaskRCNN
from samples.files import atomic_media

ENDING = "_detected"  # suffix of drawings; such files in a folder are not detected in again


def photographs(paths: Sequence[Path]) -> list[Path]:
    """The given files, and the images in the given folders, by name. Raises FileNotFoundError if there are none."""
    found = []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; pass images or folders of images.")
        inside = (
            sorted(
                file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and not file.stem.endswith(ENDING)
            )
            if path.is_dir()
            else [path]
        )
        if not inside:
            raise FileNotFoundError(f"the folder {path} holds no images ({', '.join(SUFFIXES)}).")
        found += inside
    return found


def planned_drawings(paths: Sequence[Path], output: Path | None = None) -> dict[Path, Path]:
    """<name>_detected.png for each image of the files and folders, next to it or in `output`.

    Raises FileNotFoundError if there are no images, ValueError if two images in one `output` have the same name.
    """
    drawings = {
        source: (source.parent if output is None else Path(output)) / f"{source.stem}{ENDING}.png"
        for source in photographs(paths)
    }
    targets = list(drawings.values())
    twice = sorted({target.name for target in targets if targets.count(target) > 1})
    if twice:
        raise ValueError(f"several images would be drawn to {twice[:5]}; rename them, or run once per folder.")
    return drawings


def draw_detections(
    model: MaskRCNN, class_names: Sequence[str], drawings: Mapping[Path, Path], min_score: float = 0.5
) -> list[Path]:
    """Draws the detections in each image, and returns the paths of the drawings.

    Args:
        class_names: class names, background first.
        drawings: maps each image to the drawing to create.
        min_score: minimum score of the detections to draw.
    """
    for source, target in drawings.items():
        image = read_image(source)
        _draw(image, model.detect([image])[0], class_names, target, min_score)
        print(target)
    return list(drawings.values())


def _draw(
    image: np.ndarray, found: dict[str, np.ndarray], class_names: Sequence[str], path: Path, min_score: float
) -> None:
    """Draws at the image's own size."""
    from matplotlib.figure import Figure

    shown = found["scores"] >= min_score
    height, width = image.shape[:2]
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    visualize.display_instances(
        image,
        found["rois"][shown],
        found["masks"][..., shown],
        found["class_ids"][shown],
        class_names,
        found["scores"][shown],
        ax=axes,
        min_score=0,
    )
    with atomic_media(path) as temporary:
        figure.savefig(temporary, dpi=100)
