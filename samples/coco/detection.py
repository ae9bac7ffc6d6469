"""Pictures of what a model finds in photographs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mrcnn import visualize
from mrcnn.data.images import read_image
from mrcnn.model import MaskRCNN
from samples.files import atomic_media

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
ENDING = "_detected"  # of the pictures' names; such files in a folder are no photographs


def photographs(paths: Sequence[Path]) -> list[Path]:
    """The files, and the images of the folders, by their names. Raises FileNotFoundError where there is nothing."""
    found = []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"there is no {path}; give photographs or folders of them.")
        inside = (
            sorted(
                file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and not file.stem.endswith(ENDING)
            )
            if path.is_dir()
            else [path]
        )
        if not inside:
            raise FileNotFoundError(f"the folder {path} holds no image ({', '.join(sorted(SUFFIXES))}).")
        found += inside
    return found


def planned_drawings(paths: Sequence[Path], output: Path | None = None) -> dict[Path, Path]:
    """<name>_detected.png for each photograph of the files and folders, beside it or in `output`.

    Raises FileNotFoundError where there is nothing, ValueError for two photographs of one name in one `output`.
    """
    drawings = {
        source: (source.parent if output is None else Path(output)) / f"{source.stem}{ENDING}.png"
        for source in photographs(paths)
    }
    targets = list(drawings.values())
    twice = sorted({target.name for target in targets if targets.count(target) > 1})
    if twice:
        raise ValueError(f"several photographs would be drawn to {twice[:5]}; rename them, or run once a folder.")
    return drawings


def draw_detections(
    model: MaskRCNN, class_names: Sequence[str], drawings: Mapping[Path, Path], min_score: float = 0.5
) -> list[Path]:
    """Draws what is found in each photograph, and returns the pictures' paths.

    Args:
        class_names: background's first.
        drawings: a photograph to the picture to make of it.
        min_score: what is found with less is not drawn.
    """
    for source, target in drawings.items():
        image = read_image(source)
        _draw(image, model.detect([image])[0], class_names, target, min_score)
        print(target)
    return list(drawings.values())


def _draw(
    image: np.ndarray, found: dict[str, np.ndarray], class_names: Sequence[str], path: Path, min_score: float
) -> None:
    """At the photograph's own size."""
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
