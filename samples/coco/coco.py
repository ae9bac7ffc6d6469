"""COCO: train, evaluate, compare mask heads, and detect.

    python samples/coco/coco.py train    --dataset DIR --model imagenet --backbone resnet50v2
    python samples/coco/coco.py evaluate --dataset DIR --model last --boundary --results detections.json
    python samples/coco/coco.py compare  --dataset DIR --model imagenet --backbone resnet50v2 --head fcn --head unet
    python samples/coco/coco.py detect   --model last --image image.jpg folder/

DIR is COCO's own folder (annotations/, train2017/, val2017/) or any other with that layout; --download fills it.
README.md in this folder has more commands.
"""

import argparse
from pathlib import Path
from typing import Any

from mrcnn.evaluation.callback import AveragePrecision
from mrcnn.evaluation.coco_evaluation import Results
from mrcnn.evaluation.coco_evaluation import evaluate as evaluate_dataset
from mrcnn.experiments import plan
from mrcnn.inference.class_names import WithClassesOf, names_of
from mrcnn.model import MaskRCNN
from mrcnn.training import run_folder
from samples.coco.compare import compare_heads
from samples.coco.detection import draw_detections, planned_drawings
from samples.coco.download import download
from samples.coco.flags import parse
from samples.coco.layout import fingerprint, load_split, require
from samples.coco.recipes import CONFIGS, CocoConfig, planned, training_config
from samples.old_names import (  # noqa: F401
    COCO_MODEL_PATH,
    DEFAULT_DATASET_YEAR,
    DEFAULT_LOGS_DIR,
    ROOT_DIR,
    CocoDataset,
    build_coco_results,
    evaluate_coco,
)
from samples.weights import configure_as_trained, load_weights


def train(arguments: argparse.Namespace) -> MaskRCNN:
    """Trains, with COCO AP on the validation images after epochs; continues an interrupted run in --logs."""
    training, validation = load_data(arguments, validation=not arguments.no_validation)
    folder = resumed_folder(arguments)
    model = MaskRCNN("training", training_config(arguments, training.num_classes, folder), arguments.logs)
    run = planned(arguments, model, fingerprint(arguments.dataset, arguments.year, "train", training), folder)
    load_weights(model, arguments.model, arguments.exclude)
    judge = None
    if validation is not None:
        judge = AveragePrecision(
            model,
            validation,
            arguments.every,
            metric=arguments.metric,
            patience=arguments.patience,
            verbose=arguments.verbose,
        )
    plan.carry_out(model, run, training, validation, judge=judge, verbose=arguments.verbose)
    return model


def load_data(arguments: argparse.Namespace, validation: bool = True) -> tuple[CocoDataset, CocoDataset | None]:
    """Training and validation images, with the same classes."""
    get(arguments, ["train", "val"] if validation else ["train"])
    folder, year = arguments.dataset, arguments.year
    training = load_split(folder, year, "train", arguments.train_limit)
    names = training.class_names[1:]
    return training, load_split(folder, year, "val", arguments.limit, names) if validation else None


def get(arguments: argparse.Namespace, splits: list[str]) -> None:
    """Checks that the files exist; downloads them with --download, else says which are missing."""
    if arguments.download:
        download(arguments.dataset, arguments.year, splits)
    require(arguments.dataset, arguments.year, splits)


def resumed_folder(arguments: argparse.Namespace) -> Path | None:
    """The folder of the run to continue: the newest, or that of a checkpoint in --logs; None for a new run."""
    name = dict(arguments.set).get("NAME", CocoConfig.NAME)
    if arguments.model == "last":
        return run_folder.find_last(Path(arguments.logs), name).parent
    folder = Path(arguments.model).resolve().parent
    inside = folder.parent == Path(arguments.logs).resolve() and folder.name.startswith(name.lower())
    return folder if inside else None


def evaluate(arguments: argparse.Namespace) -> Results:
    """Prints COCO's tables, and writes the detections for COCO's server if requested."""
    get(arguments, [arguments.split])
    dataset = load_split(arguments.dataset, arguments.year, arguments.split, arguments.limit)
    model = trained_model(arguments)
    names = names_of(model.class_names, model.config.NUM_CLASSES)
    if names != dataset.class_names:
        model = WithClassesOf(model, names, dataset.class_names)
    results = evaluate_dataset(model, dataset, boundary=arguments.boundary, results=arguments.results)
    print(results)
    return results


def trained_model(arguments: argparse.Namespace) -> MaskRCNN:
    """A model for detection, with the settings that its weights were trained with."""
    config = configure_as_trained(CONFIGS[arguments.preset or "reference"], arguments, arguments.model, arguments.logs)
    model = MaskRCNN("inference", config, arguments.logs)
    load_weights(model, arguments.model, arguments.exclude)
    return model


def compare(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Trains each head from the same start on the same batches, and writes the table of results."""
    return compare_heads(arguments, *load_data(arguments))


def detect(arguments: argparse.Namespace) -> list[Path]:
    """Draws the objects found in images."""
    drawings = planned_drawings(arguments.image, arguments.output)
    model = trained_model(arguments)
    names = names_of(model.class_names, model.config.NUM_CLASSES)
    return draw_detections(model, names, drawings, arguments.min_score)


COMMANDS = {"train": train, "evaluate": evaluate, "compare": compare, "detect": detect}


def main(arguments: list[str] | None = None) -> Any:
    """Runs the command."""
    parsed = parse(arguments, __doc__)
    return COMMANDS[parsed.command](parsed)


if __name__ == "__main__":
    main()
