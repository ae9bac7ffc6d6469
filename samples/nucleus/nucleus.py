"""Cell nuclei in microscopy: many small objects, one mask per file (Kaggle's Data Science Bowl 2018).

    python samples/nucleus/nucleus.py train    --dataset DIR --weights mobilenet.weights.h5 --augment
    python samples/nucleus/nucleus.py evaluate --dataset DIR --weights last
    python samples/nucleus/nucleus.py submit   --dataset DIR --weights last --subset stage1_test

DIR holds one folder per part, such as train/ and val/, with <id>/images/<id>.png and <id>/masks/*.png for each image.
The competition's own data has no val/: use `--subset stage1_train --validation 0.1` to hold out 10% of the images.
README.md in this folder has the commands and the results of a short trial.
"""

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.config import Config
from mrcnn.data.annotations.folders import subset_folder
from mrcnn.data.dataset import Dataset
from mrcnn.data.formats.mask_files import read_mask_files
from mrcnn.model import MaskRCNN
from samples import competition
from samples.balloon.balloon import draw_overlays
from samples.old_names import (  # noqa: F401
    COCO_WEIGHTS_PATH,
    DEFAULT_LOGS_DIR,
    RESULTS_DIR,
    ROOT_DIR,
    VAL_IMAGE_IDS,
    NucleusDataset,
    mask_to_rle,
    rle_decode,
    rle_encode,
)
from samples.submission import encoded_pixels, separated, write_submission


class NucleusConfig(Config):
    """A narrow MobileNet on images at twice their size: trains on two cores without a GPU."""

    NAME = "nucleus"
    NUM_CLASSES = 2
    BACKBONE = "mobilenet"
    BACKBONE_OPTIONS = {"alpha": 0.75}

    # Half of the nuclei are smaller than 18 pixels and many touch, while the finest pyramid level has one cell per 4
    # pixels, so images are always doubled in size. A nucleus's size depends on the magnification of the microscope,
    # not on the size of the image, so images are not scaled to a common size as usual. Training uses random crops of
    # 512 pixels: all of most images, an eighth of the largest, and never any padding.
    IMAGE_RESIZE_MODE = "crop"
    IMAGE_MIN_SCALE = 2
    IMAGE_MIN_DIM = 512
    IMAGE_MAX_DIM = 512
    RPN_ANCHOR_SCALES = (8, 16, 32, 64, 128)  # 90% of the nuclei measure 13 to 107 pixels after doubling

    # Whole images hold up to 400 nuclei
    MAX_GT_INSTANCES = 256
    DETECTION_MAX_INSTANCES = 400
    MINI_MASK_SHAPE = (56, 56)  # few nuclei are larger; the head's masks are half this size

    IMAGES_PER_GPU = 2
    STEPS_PER_EPOCH = None
    VALIDATION_STEPS = None
    TRAIN_ROIS_PER_IMAGE = 128  # 32 of them nuclei; with more, the mask head would take most of a step
    LEARNING_RATE = 0.01
    WARMUP_STEPS = 100
    LR_STEPS = (0.75,)


class NucleusInferenceConfig(NucleusConfig):
    """Whole images, at the scale of the training crops."""

    IMAGES_PER_GPU = 1
    IMAGE_RESIZE_MODE = "pad64"


def load_nuclei(folder: str | Path, subset: str) -> Dataset:
    """The images of `folder`/`subset` with their nuclei, as a prepared dataset."""
    return read_mask_files(folder, subset, class_names=["nucleus"])


def augmenter() -> Any:
    """An imgaug augmenter: microscopy images have no fixed orientation, and light and focus vary."""
    from imgaug import augmenters as iaa

    return iaa.Sequential(
        [
            iaa.Flipud(0.5),  # the loader does horizontal flips itself, see HORIZONTAL_FLIP
            iaa.Lambda(func_images=turn, func_segmentation_maps=turn_masks),
            iaa.Multiply((0.8, 1.3)),
            iaa.Sometimes(0.5, iaa.GaussianBlur((0.0, 1.5))),
        ]
    )


def turn(images: Sequence[np.ndarray], random_state: Any, *_: Any) -> list[np.ndarray]:
    """Rotates square images by 0 to 3 quarter turns. Others would change their size, which is not allowed here."""
    quarters = int(random_state.copy().integers(4))  # from a copy, so that masks get the same rotation
    return [np.rot90(image, quarters) if image.shape[0] == image.shape[1] else image for image in images]


def turn_masks(maps: Sequence[Any], random_state: Any, *_: Any) -> Sequence[Any]:
    """Rotates masks with their image."""
    for one in maps:
        (one.arr,) = turn([one.arr], random_state)
    return maps


def train(config: Config, arguments: argparse.Namespace) -> None:
    """Trains on one part of the data, with another part or a fraction for the val_ losses."""
    training, validation = competition.datasets(partial(load_nuclei, arguments.dataset), arguments)
    model = competition.build(config, arguments)
    model.train(
        training,
        validation,
        epochs=arguments.epochs,
        layers=arguments.layers,
        augmentation=augmenter() if arguments.augment else None,
        verbose=arguments.verbose,
    )


def evaluate(config: Config, arguments: argparse.Namespace) -> None:
    """Prints COCO's tables for the validation images, and draws them if requested.

    COCO's protocol uses the 100 best detections per image; nuclei beyond those count as missed.
    """
    from mrcnn.evaluation.coco_evaluation import evaluate as evaluate_dataset

    dataset = competition.validation_dataset(partial(load_nuclei, arguments.dataset), arguments)
    model = competition.build(config, arguments)
    print(evaluate_dataset(model, dataset, limit=arguments.limit))
    if arguments.pictures:
        draw_overlays(model, dataset, Path(arguments.pictures))


def submit(config: Config, arguments: argparse.Namespace) -> None:
    """Writes the competition's CSV file."""
    images = image_files(arguments.dataset, arguments.subset or "test")
    model = competition.build(config, arguments)
    write_submission(
        arguments.output, ("ImageId", "EncodedPixels"), model, images, submission_rows, min_score=arguments.min_score
    )
    print(f"Saved to {arguments.output}")


def detect(model: MaskRCNN, dataset_dir: str | Path, subset: str, output: str = "submission.csv") -> None:
    """`submit` as called by programs of the old package, with their own model."""
    images = image_files(dataset_dir, subset)
    write_submission(output, ("ImageId", "EncodedPixels"), model, images, submission_rows)
    print(f"Saved to {output}")


def submission_rows(image_id: str, found: dict[str, np.ndarray]) -> Iterator[tuple[str, str]]:
    """One row per nucleus, highest score first; an image without nuclei gets an empty row, as none may be missing."""
    none = True
    for _, mask in separated(found["masks"], np.argsort(-found["scores"], kind="stable")):
        none = False
        yield image_id, encoded_pixels(mask)
    if none:
        yield image_id, ""


def image_files(folder: str | Path, subset: str) -> list[tuple[str, Path]]:
    """Ids and files of `folder`/`subset`, whose images need no masks.

    Raises FileNotFoundError if the folder is missing or holds no such images, ValueError for an id with several.
    """
    part, found = Path(subset_folder(folder, subset)), []
    for images in sorted(part.glob("*/images")):
        files = sorted(path for path in images.iterdir() if not path.name.startswith("."))
        if len(files) != 1:
            raise ValueError(f"{images} holds {[path.name for path in files]}; expected one image")
        found.append((images.parent.name, files[0]))
    if not found:
        raise FileNotFoundError(f"{part} holds no <id>/images/<id>.png; choose another --dataset or --subset")
    return found


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = competition.parser(__doc__, epochs=20)
    parser.add_argument(
        "--augment", action="store_true", help="train: flip, rotate by 90 degrees, brighten and blur with imgaug"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    arguments = parse(arguments)
    config = competition.configuration(NucleusConfig, arguments)
    if arguments.command != "train" and config.IMAGE_RESIZE_MODE == "crop":
        config.IMAGE_RESIZE_MODE = "pad64"  # the whole image, at the scale of the training crops
    {"train": train, "evaluate": evaluate, "submit": submit}[arguments.command](config, arguments)


if __name__ == "__main__":
    main()
