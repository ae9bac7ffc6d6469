"""Clothes, their parts and accessories: RLE in a CSV file (Kaggle's iMaterialist Fashion 2019, FGVC6).

    python samples/imaterialist/imaterialist.py train    --dataset DIR --weights mobilenet.weights.h5
    python samples/imaterialist/imaterialist.py evaluate --dataset DIR --weights last
    python samples/imaterialist/imaterialist.py submit   --dataset DIR --weights last --subset test

DIR holds `train.csv` (ImageId, EncodedPixels, Height, Width, ClassId) with the images in train/, the same for other
parts such as val, and `label_descriptions.json` with the class names; test/ only needs images. The competition's own
data has no val: use `--validation 0.02` to hold out 2% of the images. README.md in this folder has the commands.
"""

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from mrcnn.config import Config
from mrcnn.data.annotations.folders import PICTURES, subset_folder
from mrcnn.data.dataset import Dataset
from mrcnn.data.formats.rle_csv import LABELS, read_labels, read_rle_csv
from samples import competition
from samples.balloon.balloon import draw_overlays
from samples.submission import encoded_pixels, separated, write_submission


class FashionConfig(Config):
    """A narrow MobileNet at 512 pixels: trains on two cores without a GPU."""

    NAME = "imaterialist"
    NUM_CLASSES = 1 + 46  # the competition's; training reads it from the data
    BACKBONE = "mobilenet"
    BACKBONE_OPTIONS = {"alpha": 0.75}
    IMAGE_MIN_DIM = 512
    IMAGE_MAX_DIM = 512
    IMAGES_PER_GPU = 2
    STEPS_PER_EPOCH = None
    VALIDATION_STEPS = None
    TRAIN_ROIS_PER_IMAGE = 128  # enough for the dozen things a person wears; the mask head takes most of a step
    LEARNING_RATE = 0.01
    WARMUP_STEPS = 100
    LR_STEPS = (0.75,)


def load_fashion(folder: str | Path, subset: str, class_names: Sequence[str] | None = None) -> Dataset:
    """The images of `folder`/`subset` with the annotations in `subset`.csv, as a prepared dataset.

    class_names: the classes, in this order; None: those of label_descriptions.json, or without it those in the CSV.
    """
    images = subset_folder(folder, subset)
    return read_rle_csv(Path(folder) / f"{subset}.csv", images, class_names=class_names)


def train(config: Config, arguments: argparse.Namespace) -> None:
    """Trains on one part of the data, with another part or a fraction for the val_ losses."""
    named = (Path(arguments.dataset) / LABELS).is_file()  # else each part's CSV would have its own classes
    names = None if named else load_fashion(arguments.dataset, arguments.subset or "train").class_names[1:]
    training, validation = competition.datasets(partial(load_fashion, arguments.dataset, class_names=names), arguments)
    config.NUM_CLASSES = training.num_classes
    model = competition.build(config, arguments)
    model.train(training, validation, epochs=arguments.epochs, layers=arguments.layers, verbose=arguments.verbose)


def evaluate(config: Config, arguments: argparse.Namespace) -> None:
    """Prints COCO's tables for the validation images, and draws them if requested."""
    from mrcnn.evaluation.coco_evaluation import evaluate as evaluate_dataset

    model = competition.build(config, arguments)
    names = model.class_names[1:] or None  # in the checkpoint's order
    load = partial(load_fashion, arguments.dataset, class_names=names)
    dataset = competition.validation_dataset(load, arguments)
    print(evaluate_dataset(model, dataset, limit=arguments.limit))
    if arguments.pictures:
        draw_overlays(model, dataset, Path(arguments.pictures))


def submit(config: Config, arguments: argparse.Namespace) -> None:
    """Writes the competition's CSV file."""
    images = image_files(arguments.dataset, arguments.subset or "test")
    model = competition.build(config, arguments)
    source_ids = class_ids(arguments.dataset, model.class_names)
    write_submission(
        arguments.output,
        ("ImageId", "EncodedPixels", "ClassId"),
        model,
        images,
        partial(submission_rows, source_ids),
        min_score=arguments.min_score,
    )
    print(f"Saved to {arguments.output}")


def submission_rows(
    source_ids: Sequence[int], image_id: str, found: dict[str, np.ndarray]
) -> Iterator[tuple[str, str, int]]:
    """One row per mask, smallest first, because pockets and buckles overlap larger things and would lose all pixels.

    No image may be missing. One without masks gets a single pixel, as in the public starter kernels; it cannot match.

    Args:
        source_ids: the ClassId of each class of the model, starting at class 1.
    """
    areas, none = found["masks"].sum(axis=(0, 1)), True
    for i, mask in separated(found["masks"], np.argsort(areas, kind="stable")):
        none = False
        yield image_id, encoded_pixels(mask), source_ids[found["class_ids"][i] - 1]
    if none:
        yield image_id, "1 1", source_ids[0]


def class_ids(folder: str | Path, class_names: Sequence[str]) -> list[int]:
    """The ClassId of each class of a model, without background.

    Without label_descriptions.json, classes are named by their ids. Raises ValueError for a missing class,
    AnnotationError for an invalid file of names.
    """
    labels = Path(folder) / LABELS
    if not class_names:
        raise ValueError("the weights have no class names; submit needs a checkpoint made by `train`")
    if labels.is_file():
        ids = {name: class_id for class_id, name in read_labels(labels).items()}
    else:
        ids = {name: int(name) for name in class_names if name.isdecimal()}
    unknown = [name for name in class_names[1:] if name not in ids]
    if unknown:
        raise ValueError(
            f"the model has classes {unknown[:5]}, which {labels} does not; set --dataset to the folder "
            "of the data it was trained on"
        )
    return [ids[name] for name in class_names[1:]]


def image_files(folder: str | Path, subset: str) -> list[tuple[str, Path]]:
    """ImageIds, which are file names, and paths. Raises FileNotFoundError if there are no images."""
    part = Path(subset_folder(folder, subset))
    found = sorted(path for path in part.iterdir() if path.name.lower().endswith(PICTURES) and path.name[0] != ".")
    if not found:
        raise FileNotFoundError(f"{part} holds no images ({', '.join(PICTURES)}); choose another --subset")
    return [(path.name, path) for path in found]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    return competition.parser(__doc__, epochs=12).parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    arguments = parse(arguments)
    config = competition.configuration(FashionConfig, arguments)
    {"train": train, "evaluate": evaluate, "submit": submit}[arguments.command](config, arguments)


if __name__ == "__main__":
    main()
