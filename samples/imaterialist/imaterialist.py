"""Clothes, their parts and accessories: run lengths in a csv (Kaggle's iMaterialist Fashion 2019, FGVC6).

    python samples/imaterialist/imaterialist.py train    --dataset DIR --weights mobilenet.weights.h5
    python samples/imaterialist/imaterialist.py evaluate --dataset DIR --weights last
    python samples/imaterialist/imaterialist.py submit   --dataset DIR --weights last --subset test

DIR holds `train.csv` (ImageId, EncodedPixels, Height, Width, ClassId) with the photographs in train/, the same for
other parts such as val, and `label_descriptions.json` with the names of the classes; test/ needs photographs only. The
competition's own data has no val: there `--validation 0.02` holds a fiftieth of the photographs out. README.md beside
this file has the commands.
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
    """A narrow MobileNet and 512 pixels: trains on two cores without a GPU."""

    NAME = "imaterialist"
    NUM_CLASSES = 1 + 46  # the competition's; training takes it from the data
    BACKBONE = "mobilenet"
    BACKBONE_OPTIONS = {"alpha": 0.75}
    IMAGE_MIN_DIM = 512
    IMAGE_MAX_DIM = 512
    IMAGES_PER_GPU = 2
    STEPS_PER_EPOCH = None
    VALIDATION_STEPS = None
    TRAIN_ROIS_PER_IMAGE = 128  # a person wears a dozen things, no more to learn from; the mask head is most of a step
    LEARNING_RATE = 0.01
    WARMUP_STEPS = 100
    LR_STEPS = (0.75,)


def load_fashion(folder: str | Path, subset: str, class_names: Sequence[str] | None = None) -> Dataset:
    """The photographs of `folder`/`subset` with what `subset`.csv says of them, ready to use.

    class_names: the classes, in this order; None: those of label_descriptions.json, or without it those in the csv.
    """
    images = subset_folder(folder, subset)
    return read_rle_csv(Path(folder) / f"{subset}.csv", images, class_names=class_names)


def train(config: Config, arguments: argparse.Namespace) -> None:
    """Trains on one part of the data, with another, or a share of it, for the val_ losses."""
    named = (Path(arguments.dataset) / LABELS).is_file()  # else the csv of each part would have classes of its own
    names = None if named else load_fashion(arguments.dataset, arguments.subset or "train").class_names[1:]
    training, validation = competition.datasets(partial(load_fashion, arguments.dataset, class_names=names), arguments)
    config.NUM_CLASSES = training.num_classes
    model = competition.build(config, arguments)
    model.train(training, validation, epochs=arguments.epochs, layers=arguments.layers, verbose=arguments.verbose)


def evaluate(config: Config, arguments: argparse.Namespace) -> None:
    """Prints COCO's tables for the validation photographs, and draws them when asked for."""
    from mrcnn.evaluation.coco_evaluation import evaluate as evaluate_dataset

    model = competition.build(config, arguments)
    names = model.class_names[1:] or None  # in the order in which the checkpoint learnt them
    load = partial(load_fashion, arguments.dataset, class_names=names)
    dataset = competition.validation_dataset(load, arguments)
    print(evaluate_dataset(model, dataset, limit=arguments.limit))
    if arguments.pictures:
        draw_overlays(model, dataset, Path(arguments.pictures))


def submit(config: Config, arguments: argparse.Namespace) -> None:
    """Writes the competition's csv."""
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
    """A row a mask, the smallest first, as pockets and buckles lie on what is larger and would lose all their pixels.

    No image may be missing. One without masks gets a single pixel, as the public starting points had it; it can match
    nothing.

    Args:
        source_ids: the ClassId of each class of the model, from class 1 on.
    """
    areas, none = found["masks"].sum(axis=(0, 1)), True
    for i, mask in separated(found["masks"], np.argsort(areas, kind="stable")):
        none = False
        yield image_id, encoded_pixels(mask), source_ids[found["class_ids"][i] - 1]
    if none:
        yield image_id, "1 1", source_ids[0]


def class_ids(folder: str | Path, class_names: Sequence[str]) -> list[int]:
    """The ClassId of each class of a model, without the background.

    Without label_descriptions.json classes are named by their ids. Raises ValueError for a class that is not there,
    AnnotationError for a file of names that is broken.
    """
    labels = Path(folder) / LABELS
    if not class_names:
        raise ValueError("the weights do not say which classes they know; submit needs a checkpoint of `train`")
    if labels.is_file():
        ids = {name: class_id for class_id, name in read_labels(labels).items()}
    else:
        ids = {name: int(name) for name in class_names if name.isdecimal()}
    unknown = [name for name in class_names[1:] if name not in ids]
    if unknown:
        raise ValueError(
            f"the model knows classes {unknown[:5]}, which {labels} does not; give --dataset the folder "
            "of the data that it was trained on"
        )
    return [ids[name] for name in class_names[1:]]


def image_files(folder: str | Path, subset: str) -> list[tuple[str, Path]]:
    """ImageIds, which are the names of files, and paths. Raises FileNotFoundError when there is no photograph."""
    part = Path(subset_folder(folder, subset))
    found = sorted(path for path in part.iterdir() if path.name.lower().endswith(PICTURES) and path.name[0] != ".")
    if not found:
        raise FileNotFoundError(f"{part} holds no photographs ({', '.join(PICTURES)}); choose another --subset")
    return [(path.name, path) for path in found]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    return competition.parser(__doc__, epochs=12).parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    arguments = parse(arguments)
    config = competition.configuration(FashionConfig, arguments)
    {"train": train, "evaluate": evaluate, "submit": submit}[arguments.command](config, arguments)


if __name__ == "__main__":
    main()
