"""Shapes: images with squares, circles and triangles on them, drawn on demand and never stored.

The backgrounds are photographs that ship with scikit-image, so there is nothing to download; training and validation
use different ones. As in the old package's sample::

    dataset = ShapesDataset()
    dataset.load_shapes(500, 128, 128)
    dataset.prepare()
    image, (masks, class_ids) = dataset.load_image(0), dataset.load_mask(0)
"""

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from mrcnn.config import Config
from mrcnn.data.dataset import Dataset
from mrcnn.data.images import read_image
from mrcnn.legacy.removed import Removed
from samples.shapes import drawing
from samples.shapes.backbone import compact

TRAINING_BACKGROUNDS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "coffee.png",
    "gravel.png",
    "ihc.png",
    "hubble_deep_field.jpg",
    "motorcycle_left.png",
)
VALIDATION_BACKGROUNDS = ("chelsea.png", "grass.png", "moon.png", "rocket.jpg")

MIN_SIDE = 32  # pixels; in a smaller image the smallest shapes are not recognizable
MIN_VISIBLE = 0.6  # minimum visible fraction of a shape's area; a shape that would hide more is not placed
CANDIDATES = 5  # tries per shape, because some candidates hide others


class ShapesConfig(Config):
    """A network small enough to train on the shapes in minutes on two CPU cores."""

    NAME = "shapes"
    NUM_CLASSES = 1 + 3
    BACKBONE = compact
    TRAIN_BN = True
    IMAGE_RESIZE_MODE = "square"
    IMAGE_MIN_DIM = 128
    IMAGE_MAX_DIM = 128
    TOP_DOWN_PYRAMID_SIZE = 64
    RPN_CHANNELS = 64
    FPN_CLASSIF_FC_LAYERS_SIZE = 128
    RPN_ANCHOR_SCALES = (12, 24, 48, 96, 192)
    RPN_ANCHOR_RATIOS = [1]
    RPN_TRAIN_ANCHORS_PER_IMAGE = 64
    PRE_NMS_LIMIT_TRAINING = 200
    PRE_NMS_LIMIT = 100
    POST_NMS_ROIS_TRAINING = 100
    POST_NMS_ROIS_INFERENCE = 50
    TRAIN_ROIS_PER_IMAGE = 32
    MAX_GT_INSTANCES = 8
    MINI_MASK_SHAPE = (56, 56)
    DETECTION_MAX_INSTANCES = 20
    IMAGES_PER_GPU = 8
    STEPS_PER_EPOCH = 100
    LEARNING_RATE = 0.02
    WARMUP_STEPS = 50
    LR_SCHEDULE = "cosine"


class ShapesDataset(Dataset):
    """Images with 1 to `max_shapes` shapes each; image i is a pure function of (seed, i) and the arguments."""

    draw_shape, random_shape, random_image = (
        Removed(f"ShapesDataset.{name}", f"`samples.shapes.drawing.{instead}` replaces it.")
        for name, instead in (
            ("draw_shape", "paint"),
            ("random_shape", "random_shape"),
            ("random_image", "random_shape"),
        )
    )

    def load_shapes(
        self,
        count: int,
        height: int,
        width: int,
        seed: int = 0,
        *,
        kinds: tuple[str, ...] = ("square", "circle", "triangle"),
        max_shapes: int = 4,
        radii: tuple[float, float] = (0.1, 0.24),
        backgrounds: tuple[str, ...] = TRAINING_BACKGROUNDS,
    ) -> None:
        """Adds images, which are drawn on demand.

        Args:
            count: number of images.
            height, width: their size in pixels.
            seed: different seeds give different images.
            kinds: the shapes, in order of their class ids from 1; "star" is available besides the default three.
            max_shapes: maximum number of shapes per image.
            radii: minimum and maximum radius, as fractions of the image's shorter side.
            backgrounds: files in scikit-image's data folder.

        Raises:
            ValueError: a count, size or kind that cannot be drawn.
        """
        if count < 1 or max_shapes < 1:
            raise ValueError(f"count and max_shapes must be at least 1, got {count} and {max_shapes}")
        if min(height, width) < MIN_SIDE:
            raise ValueError(f"shapes need images of at least {MIN_SIDE} pixels per side, got {height} x {width}")
        unknown = set(kinds) - set(drawing.KINDS)
        if unknown or not kinds:
            raise ValueError(f"kinds must be some of {drawing.KINDS}, got {tuple(kinds)}")
        for class_id, kind in enumerate(kinds, start=1):
            self.add_class("shapes", class_id, kind)
        for index in range(count):
            self.add_image(
                "shapes",
                image_id=f"{seed}-{index}",
                path=None,
                height=height,
                width=width,
                key=(seed, index),
                kinds=tuple(kinds),
                max_shapes=max_shapes,
                radii=tuple(radii),
                backgrounds=tuple(backgrounds),
            )

    def load_image(self, image_id: int) -> np.ndarray:
        """Draws the image: uint8 [H, W, RGB]."""
        info = self.image_info[image_id]
        rng = np.random.default_rng((*info["key"], 1))
        image = _background(rng, info["backgrounds"], info["height"], info["width"])
        for shape, _ in _scene(info):
            drawing.paint(image, shape, rng)
        image += rng.normal(0, 2, image.shape)
        return np.clip(np.rint(image), 0, 255).astype(np.uint8)

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """The visible part of each shape, bool [H, W, N], and class ids, int32 [N]."""
        info = self.image_info[image_id]
        scene = _scene(info)
        masks = np.stack([visible for _, visible in scene], axis=-1)
        class_ids = [self.map_source_class_id(f"shapes.{1 + info['kinds'].index(shape.kind)}") for shape, _ in scene]
        return masks, np.array(class_ids, np.int32)

    def image_reference(self, image_id: int) -> str:
        """The seed and number that determine the image."""
        return f"shapes {self.image_info[image_id]['id']}"


def _scene(info: dict) -> list[tuple[drawing.Shape, np.ndarray]]:
    """Shapes from back to front, each with its visible part, [H, W] bool; at least one."""
    rng = np.random.default_rng((*info["key"], 0))
    wanted = rng.integers(1, info["max_shapes"] + 1)
    shapes: list[drawing.Shape] = []
    visible: list[np.ndarray] = []
    areas: list[int] = []
    for _ in range(CANDIDATES * wanted):
        shape = drawing.random_shape(rng, info["kinds"], info["height"], info["width"], info["radii"])
        covered, area = drawing.mask(shape, info["height"], info["width"])
        after = [seen & ~covered for seen in visible] + [covered]
        if all(seen.sum() >= MIN_VISIBLE * whole for seen, whole in zip(after, [*areas, area], strict=True)):
            shapes, visible, areas = [*shapes, shape], after, [*areas, area]
        if len(shapes) == wanted:
            break
    return list(zip(shapes, visible, strict=True))


def _background(rng: np.random.Generator, names: tuple[str, ...], height: int, width: int) -> np.ndarray:
    """A random part of a random photograph, possibly mirrored, with random brightness: float [H, W, RGB]."""
    photograph = _photograph(str(rng.choice(names)))
    # A random fraction of the largest part with the right aspect ratio, so that photographs are not distorted.
    fit = min(photograph.shape[0] / height, photograph.shape[1] / width) * rng.uniform(0.4, 1.0)
    tall, wide = max(int(fit * height), 1), max(int(fit * width), 1)
    top, left = rng.integers(photograph.shape[0] - tall + 1), rng.integers(photograph.shape[1] - wide + 1)
    part = photograph[top : top + tall, left : left + wide]
    if rng.random() < 0.5:
        part = part[:, ::-1]
    method = cv2.INTER_AREA if fit > 1 else cv2.INTER_CUBIC
    part = cv2.resize(np.ascontiguousarray(part), (width, height), interpolation=method).astype(np.float64)
    return (part - 128) * rng.uniform(0.6, 1.0) + 128 + rng.uniform(-25, 25)


@lru_cache(maxsize=32)
def _photograph(name: str) -> np.ndarray:
    """A photograph in scikit-image's data folder, uint8 [H, W, RGB]; raises FileNotFoundError naming the file."""
    import skimage

    path = Path(skimage.__file__).parent / "data" / name
    if not path.is_file():
        raise FileNotFoundError(f"scikit-image {skimage.__version__} does not include {name}; pass other backgrounds")
    return read_image(path)
