"""The COCO sample's configurations, and the training plan for a command line."""

import argparse
from pathlib import Path

from mrcnn import presets
from mrcnn.config import Config
from mrcnn.experiments import plan
from mrcnn.model import MaskRCNN
from samples.settings import configure
from samples.weights import path_of


class CocoConfig(Config):
    """The reference recipe: ResNet-101, 800/1333 pixels; an epoch is one pass over the images."""

    NAME = "coco"
    NUM_CLASSES = 81
    LR_SCHEDULE = "step"  # also for a rate from the command line
    STEPS_PER_EPOCH = None
    VALIDATION_STEPS = None


class MatterportCocoConfig(CocoConfig, presets.Matterport):
    """The old package's recipe."""

    STEPS_PER_EPOCH = 1000
    VALIDATION_STEPS = 50
    HORIZONTAL_FLIP = 0.5
    DETECTION_MIN_CONFIDENCE = 0.0  # AP also needs the detections with low scores


class TorchvisionCocoConfig(CocoConfig, presets.Torchvision):
    """torchvision's conventions, with COCO's 80 classes numbered without gaps."""


class Detectron2CocoConfig(CocoConfig, presets.Detectron2):
    """Detectron2's conventions."""


CONFIGS = {
    "reference": CocoConfig,
    "matterport": MatterportCocoConfig,
    "torchvision": TorchvisionCocoConfig,
    "detectron2": Detectron2CocoConfig,
}
EPOCHS = {"matterport": 160}
REFERENCE_EPOCHS = 12  # Detectron2's "1x": 90,000 steps of 16 images are 12.3 passes over COCO


def training_config(
    arguments: argparse.Namespace, num_classes: int | None = None, folder: Path | None = None
) -> Config:
    """The settings of a training run.

    Args:
        num_classes: of the data, used if known unless --set NUM_CLASSES is given.
        folder: of a run to continue, with its settings and preset. None: those of --preset.

    The learning rate scales with --batch, as in the reference recipe, unless it is given or the preset is matterport.
    """
    preset = _preset(arguments, plan.Run.load(folder) if folder else None)
    sample, settings = CONFIGS[preset], dict(arguments.set)
    beside = folder / "config.json" if folder else None
    stored = Config.load(beside).to_dict() if beside and beside.is_file() else None
    config = configure(sample, arguments, stored)
    if num_classes is not None and "NUM_CLASSES" not in settings:
        config.NUM_CLASSES = num_classes
    if preset != "matterport" and arguments.learning_rate is None and "LEARNING_RATE" not in settings:
        before = configure(sample, argparse.Namespace(**vars(arguments) | {"batch": None}), stored)
        config.LEARNING_RATE *= config.BATCH_SIZE / before.BATCH_SIZE
    config.validate()
    return config


def planned(arguments: argparse.Namespace, model: MaskRCNN, data: str, folder: Path | None = None) -> plan.Run:
    """The planned training run; call it before the model loads weights, which may change its settings.

    Args:
        data: fingerprint of the training images.
        folder: of a run to continue as it started, unless flags override it. If they do, or the data differ, its key
            matches no other run, because its earlier epochs were trained differently.
    """
    old = plan.Run.load(folder) if folder else None
    preset = _preset(arguments, old)
    stages = stages_of(arguments, model.config.LEARNING_RATE, old)
    if old is None or arguments.exclude:  # a partly loaded checkpoint starts over
        path = None if arguments.model == "none" else path_of(arguments.model, model.config, arguments.logs)
        start = plan.start_of(path, arguments.exclude)
        return plan.Run(stages, start, data, preset, plan.key(model.config, stages, start, data))
    if (stages, data) == (old.stages, old.data) and _same_settings(model.config, folder / "config.json"):
        return old
    return plan.Run(stages, old.start, data, preset, plan.key(model.config, stages, old.start, data, after=old.key))


def stages_of(arguments: argparse.Namespace, rate: float, old: plan.Run | None = None) -> list[plan.Stage]:
    """The schedule for a command line; `old` is the run to continue."""
    preset = _preset(arguments, old)
    epochs = arguments.epochs or (old.stages[-1].until if old else EPOCHS.get(preset, REFERENCE_EPOCHS))
    if preset == "matterport" and not arguments.layers:
        return plan.matterport(epochs, rate)
    fresh = "all" if arguments.model == "none" else "3+"  # do not freeze random weights
    return plan.reference(epochs, arguments.layers or (old.stages[-1].layers if old else fresh), rate)


def _preset(arguments: argparse.Namespace, old: plan.Run | None) -> str:
    return arguments.preset or (old.preset if old else "reference")


def _same_settings(config: Config, file: Path) -> bool:
    return file.is_file() and plan.settings(config) == plan.settings(Config.load(file))
