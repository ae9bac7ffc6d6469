"""compare: mask heads from the same start, on the same batches, in one table.

For a seed every head has the same initial trunk, RPN and box head, the same order of images, the same flips and
samples, and the same schedule: what differs is the head. A training is known by a hash of its settings, schedule,
start and data; one in --logs that is finished is not repeated, one that was interrupted goes on, and so do evaluations.
"""

import argparse
import gc
import json
from pathlib import Path
from typing import Any

import keras

import heads
from mrcnn.data.formats.coco import CocoDataset
from mrcnn.evaluation.coco_evaluation import evaluate
from mrcnn.files import write_atomically
from mrcnn.model import MaskRCNN
from mrcnn.network.graph import precision
from mrcnn.training import run_folder
from samples.coco import costs, plan, report
from samples.coco.layout import fingerprint
from samples.coco.recipes import planned, training_config
from samples.weights import load_weights

AP_KEYS = tuple(name for name, *_ in report.APS)


def compare_heads(arguments: argparse.Namespace, training: CocoDataset, validation: CocoDataset) -> list[report.Row]:
    """Trains and judges every head with every seed, and writes the table, after each so far.

    Returns a row a head: head, seeds, a list of values a seed for each AP and ms_per_image, and parameters, flops and
    ms_per_batch of the head.
    """
    data = {
        split: fingerprint(arguments.dataset, arguments.year, split, dataset)
        for split, dataset in (("train", training), ("val", validation))
    }
    commands = single_commands(arguments)
    output = arguments.output or Path(arguments.logs) / "comparison"
    rows: dict[str, report.Row] = {}
    built = build_heads(commands, training.num_classes)  # a wrong option is said before anything is trained
    price = {label: {"parameters": head.count_params(), "flops": costs.flops(head)} for label, head in built.items()}
    for seed, label, command in commands:
        print(f"\n== {label}, seed {seed}", flush=True)
        model, run = trained(command, training, data["train"])
        numbers = judged(model, run, validation, data["val"])
        row = rows.setdefault(label, {"head": label, "seeds": [], **price[label]})
        row["seeds"].append(seed)
        for name, value in numbers.items():
            row.setdefault(name, []).append(value)
        about = _about(arguments, model, run, training, validation)
        print(report.write(list(rows.values()), output, about), flush=True)
        del model
        gc.collect()
    for label, value in costs.milliseconds(built).items():
        rows[label]["ms_per_batch"] = value
    text = report.write(list(rows.values()), output, about)
    print(f"\n{text}\n\nWritten to {output}/comparison.txt, .md, .json and .png")
    return list(rows.values())


def single_commands(arguments: argparse.Namespace) -> list[tuple[int, str, argparse.Namespace]]:
    """(seed, name of the head in the table, a command line with that one head and seed) of each training.

    Raises ValueError for a head or a seed that is given twice.
    """
    chosen = arguments.head or [{"name": name} for name in heads.names()]
    labels, seeds = [_label(head) for head in chosen], arguments.seeds or [arguments.seed]
    for what, values in (("heads", labels), ("seeds", seeds)):
        if len(set(values)) < len(values):
            raise ValueError(f"the {what} {values} repeat; give each once: the same training has the same result.")
    made = []
    for seed in seeds:
        for head, label in zip(chosen, labels, strict=True):
            command = argparse.Namespace(**vars(arguments) | {"head": head, "seed": seed})
            made.append((training_config(command).SEED, label, command))
    return made


def _label(head: dict[str, Any]) -> str:
    options = ",".join(f"{name}={value}" for name, value in head.items() if name != "name")
    return head["name"] + (f":{options}" if options else "")


def build_heads(commands: list[tuple[int, str, argparse.Namespace]], num_classes: int) -> dict[str, keras.Model]:
    """Each head by its label, as the network builds it. Raises ValueError for an option that a head does not have."""
    built = {}
    for label, command in {label: command for _, label, command in commands}.items():
        config = training_config(command, num_classes)
        side = config.MASK_POOL_SIZE
        with precision(config.PRECISION):
            built[label] = heads.build(config.MASK_HEAD, (side, side, config.TOP_DOWN_PYRAMID_SIZE), config.NUM_CLASSES)
    return built


def trained(command: argparse.Namespace, training: CocoDataset, data: str) -> tuple[MaskRCNN, plan.Run]:
    """The trained model of one head and seed: from --logs where it is there, all or in part."""
    config = training_config(command, training.num_classes)
    model = MaskRCNN("training", config, command.logs)
    exclude = [*command.exclude, "mask_head"]  # no head brings anything from the start
    run = planned(argparse.Namespace(**vars(command) | {"exclude": exclude}), model, data)
    folder = plan.find(command.logs, run.key)
    if folder is None:
        load_weights(model, command.model, exclude)
    else:
        print(f"{folder} is such a training")
        model.load_weights(run_folder.checkpoints(folder)[-1])
    plan.carry_out(model, run, training, verbose=command.verbose)
    return model, run


def judged(model: MaskRCNN, run: plan.Run, validation: CocoDataset, data: str) -> dict[str, float]:
    """The APs and the milliseconds an image, from the file beside the weights where they were taken before."""
    key = [run.key, data]
    file = model.log_dir / "evaluation.json"
    stored = json.loads(file.read_text()) if file.is_file() else {}
    if stored.get("key") != key:
        results = evaluate(model, validation, boundary=True)
        values = (
            results.box["AP"],
            results.mask["AP"],
            results.mask["AP50"],
            results.mask["AP75"],
            results.boundary["AP"],
        )
        stored = {
            "key": key,
            "numbers": dict(zip(AP_KEYS, values, strict=True)) | {"ms_per_image": results.ms_per_image},
        }
        write_atomically(file, json.dumps(stored, indent=2))
    return stored["numbers"]


def _about(
    arguments: argparse.Namespace, model: MaskRCNN, run: plan.Run, training: CocoDataset, validation: CocoDataset
) -> dict[str, Any]:
    """What the table was made with."""
    config = model.config
    settings = config.to_dict()
    return {
        "backbone": settings["BACKBONE"],
        "backbone_options": settings["BACKBONE_OPTIONS"],
        "model": arguments.model,
        "stages": [stage._asdict() for stage in run.stages],
        "batch": config.BATCH_SIZE,
        "image_min_dim": config.IMAGE_MIN_DIM,
        "image_max_dim": config.IMAGE_MAX_DIM,
        "precision": config.PRECISION,
        "rois_per_batch": costs.ROIS,
        "training_images": len(training.image_ids),
        "validation_images": len(validation.image_ids),
    }
