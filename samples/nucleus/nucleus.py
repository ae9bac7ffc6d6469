"""Nuclei under the microscope: many small objects, one mask a file (Kaggle's Data Science Bowl 2018).

    python samples/nucleus/nucleus.py train    --dataset DIR --weights mobilenet.weights.h5 --augment
    python samples/nucleus/nucleus.py evaluate --dataset DIR --weights last
    python samples/nucleus/nucleus.py submit   --dataset DIR --weights last --subset stage1_test

DIR holds a folder a part, such as train/ and val/, with <id>/images/<id>.png and <id>/masks/*.png for each image. The
competition's own data has no val/: there `--subset stage1_train --validation 0.1` holds a tenth of the images out.
README.md beside this file has the commands and the numbers of a short trial.
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
    """A narrow MobileNet on doubled images: trains on two cores without a GPU."""

    NAME = "nucleus"
    NUM_CLASSES = 2
    BACKBONE = "mobilenet"
    BACKBONE_OPTIONS = {"alpha": 0.75}

    # Half of the nuclei are smaller than 18 pixels and many touch, while the finest level of the pyramid has a cell
    # every 4: so images are shown at twice their size, whatever that is. The magnification of the microscope says more
    # about nuclei than the share of the image that they fill, so nothing is fitted to one size, as photographs are.
    # Training sees a random 512 of those pixels: of most images all, of the largest an eighth, and never any padding.
    IMAGE_RESIZE_MODE = "crop"
    IMAGE_MIN_SCALE = 2
    IMAGE_MIN_DIM = 512
    IMAGE_MAX_DIM = 512
    RPN_ANCHOR_SCALES = (8, 16, 32, 64, 128)  # doubled, nine nuclei in ten measure 13 to 107 pixels

    # Whole images hold up to 400 nuclei
    MAX_GT_INSTANCES = 256
    DETECTION_MAX_INSTANCES = 400
    MINI_MASK_SHAPE = (56, 56)  # hardly a nucleus is larger, and the head's masks are half of it

    IMAGES_PER_GPU = 2
    STEPS_PER_EPOCH = None
    VALIDATION_STEPS = None
    TRAIN_ROIS_PER_IMAGE = 128  # 32 of them nuclei; more would make the mask head most of a step
    LEARNING_RATE = 0.01
    WARMUP_STEPS = 100
    LR_STEPS = (0.75,)


class NucleusInferenceConfig(NucleusConfig):
    """Whole images, at the size that crops are cut from."""

    IMAGES_PER_GPU = 1
    IMAGE_RESIZE_MODE = "pad64"


def load_nuclei(folder: str | Path, subset: str) -> Dataset:
    """The images of `folder`/`subset` with their nuclei, ready to use."""
    return read_mask_files(folder, subset, class_names=["nucleus"])


def augmenter() -> Any:
    """An imgaug augmenter: under a microscope there is no up, and neither light nor focus are ever the same."""
    from imgaug import augmenters as iaa

    return iaa.Sequential(
        [
            iaa.Flipud(0.5),  # from side to side the loader flips by itself, see HORIZONTAL_FLIP
            iaa.Lambda(func_images=turn, func_segmentation_maps=turn_masks),
            iaa.Multiply((0.8, 1.3)),
            iaa.Sometimes(0.5, iaa.GaussianBlur((0.0, 1.5))),
        ]
    )


def turn(images: Sequence[np.ndarray], random_state: Any, *_: Any) -> list[np.ndarray]:
    """Turns square images by 0 to 3 quarters. Others would change their size, which images must keep here."""
    quarters = int(random_state.copy().integers(4))  # of a copy, so that masks are turned by as many
    return [np.rot90(image, quarters) if image.shape[0] == image.shape[1] else image for image in images]


def turn_masks(maps: Sequence[Any], random_state: Any, *_: Any) -> Sequence[Any]:
    """Turns masks with their image."""
    for one in maps:
        (one.arr,) = turn([one.arr], random_state)
    return maps


def train(config: Config, arguments: argparse.Namespace) -> None:
    """Trains on one part of the data, with another, or a share of it, for the val_ losses."""
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
    """Prints COCO's tables for the validation images, and draws them when asked for.

    COCO's protocol takes the 100 best detections an image; nuclei beyond those count as missed.
    """
    from mrcnn.evaluation.coco_evaluation import evaluate as evaluate_dataset

    dataset = competition.validation_dataset(partial(load_nuclei, arguments.dataset), arguments)
    model = competition.build(config, arguments)
    print(evaluate_dataset(model, dataset, limit=arguments.limit))
    if arguments.pictures:
        draw_overlays(model, dataset, Path(arguments.pictures))


def submit(config: Config, arguments: argparse.Namespace) -> None:
    """Writes the competition's csv."""
    images = image_files(arguments.dataset, arguments.subset or "test")
    model = competition.build(config, arguments)
    write_submission(
        arguments.output, ("ImageId", "EncodedPixels"), model, images, submission_rows, min_score=arguments.min_score
    )
    print(f"Saved to {arguments.output}")


def detect(model: MaskRCNN, dataset_dir: str | Path, subset: str, output: str = "submission.csv") -> None:
    """`submit` as programs of the old package call it, with a model of their own."""
    images = image_files(dataset_dir, subset)
    write_submission(output, ("ImageId", "EncodedPixels"), model, images, submission_rows)
    print(f"Saved to {output}")


def submission_rows(image_id: str, found: dict[str, np.ndarray]) -> Iterator[tuple[str, str]]:
    """A row a nucleus, the surest first; an image without any gets one without pixels, as none may be missing."""
    none = True
    for _, mask in separated(found["masks"], np.argsort(-found["scores"], kind="stable")):
        none = False
        yield image_id, encoded_pixels(mask)
    if none:
        yield image_id, ""


def image_files(folder: str | Path, subset: str) -> list[tuple[str, Path]]:
    """Ids and files of `folder`/`subset`, whose images need no masks.

    Raises FileNotFoundError for a folder that is not there or holds no such images, ValueError for an id with several.
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
    """The command line."""
    parser = competition.parser(__doc__, epochs=20)
    parser.add_argument(
        "--augment", action="store_true", help="train: flip, turn by 90 degrees, brighten and blur, through imgaug"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    arguments = parse(arguments)
    config = competition.configuration(NucleusConfig, arguments)
    if arguments.command != "train" and config.IMAGE_RESIZE_MODE == "crop":
        config.IMAGE_RESIZE_MODE = "pad64"  # the whole image, at the size that crops were cut from
    {"train": train, "evaluate": evaluate, "submit": submit}[arguments.command](config, arguments)


if __name__ == "__main__":
    main()
