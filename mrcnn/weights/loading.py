"""Loads a weight file of any supported program into a network, with the settings that the weights depend on."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mrcnn.config import Config, setting_names
from mrcnn.data.keypoints import Skeleton
from mrcnn.network.backbone import build_backbone
from mrcnn.network.graph import Network
from mrcnn.network.pixels import scaling_of
from mrcnn.weights import conventions, transfer
from mrcnn.weights.assign import excluded, named_weights
from mrcnn.weights.checkpoint import read_metadata
from mrcnn.weights.importers import imagenet
from mrcnn.weights.recognize import read_source
from mrcnn.weights.report import LoadReport
from mrcnn.weights.source import Source

DEFAULTS = {name: getattr(Config, name) for name in setting_names()}


class Loaded(NamedTuple):
    """The result of loading a weights file.

    Attributes:
        report: the outcome for every tensor.
        class_names: of the model, background first; None if unchanged.
        skeleton: of the model's keypoints; None if unchanged.
        checkpoint: the metadata of a checkpoint of this package that was loaded completely; else None.
    """

    report: LoadReport
    class_names: list[str] | None
    skeleton: Skeleton | None
    checkpoint: Mapping[str, Any] | None


def agreed(
    path: Path, network: Network, config: Config, exclude: Sequence[str] | str | None, bn_epsilon: float | None
) -> conventions.Agreement:
    """The contents of a file, and the settings with which a model uses it. Raises like `conventions.agreed`."""
    source = read_source(path, bn_epsilon)
    parts = transfer.loaded_parts(source, transfer.our_names(exclude, network.layers()))
    return conventions.agreed(config, source, parts, DEFAULTS, path)


def load(
    path: Path,
    network: Network,
    agreement: conventions.Agreement,
    *,
    known_names: Sequence[str] = (),
    fresh: bool = False,
    exclude: Sequence[str] | str | None = None,
    by_name: bool = False,
    strict: bool = False,
    keep_classes: bool | Sequence[str] = False,
    class_names: Sequence[str] | None = None,
) -> Loaded:
    """Loads a file into a network; the arguments not listed are those of `MaskRCNN.load_weights`.

    Args:
        path: of the file, for messages.
        network: built with the settings of `agreement`.
        known_names: the model's current class names.
        fresh: the network is discarded if this raises, so it may change before an error.

    Raises ValueError like `MaskRCNN.load_weights`; nothing has changed then, unless the network is `fresh`.
    """
    config, source = agreement.config, _with_stage_5(agreement.source, network)
    excluded_names = transfer.our_names(exclude, network.layers())
    names = list(class_names or (keep_classes and known_names) or ())
    if names and len(names) != config.NUM_CLASSES:
        raise ValueError(f"class_names has {len(names)} names with background; NUM_CLASSES is {config.NUM_CLASSES}.")
    if {"trunk", "backbone"} & set(transfer.loaded_parts(source, excluded_names)):
        conventions.check_backbone(source, path, config.BACKBONE, config.BACKBONE_OPTIONS)
    report = transfer.load_source(
        path,
        network.layers(),
        source,
        exclude=excluded_names,
        by_name=by_name,
        strict=strict,
        keep_classes=keep_classes,
        class_names=names,
        reverse_channels=scaling_of(config, network.backbone.scaling).bgr,
        mixed=network.class_layers,
        fresh=fresh,
        hint=agreement.mismatch,
    )
    if report.notes or (by_name and report.skipped + report.missing + report.unexpected):
        print(f"{path} (weights of {source.program}): {report}")
    if agreement.text:
        print(f"{path} (weights of {source.program}) {agreement.text}")
    whole = source.is_own and not (report.skipped or report.missing or report.notes)
    points = any(tensor.name.startswith("keypoint_head/deconv/") for tensor in report.loaded)
    names_after, skeleton = _names_after(names, report, source, config), source.skeleton if points else None
    return Loaded(report, names_after, skeleton, read_metadata(path) if whole else None)


def _with_stage_5(source: Source, network: Network) -> Source:
    """A source whose stage 5 of a ResNet is in the part where the network has it: "roi_stage" with NECK = "c4"."""
    here, there = ("roi_stage", "trunk") if network.roi_stage is not None else ("trunk", "roi_stage")
    stage = re.compile(rf"{there}/(?=(res|bn)5)")
    moved = {name: stage.sub(f"{here}/", name, count=1) for name in source.tensors if stage.match(name)}
    if not moved:
        return source
    tensors = {moved.get(name, name): tensor for name, tensor in source.tensors.items()}
    parts = tuple(part for part in source.parts if part != "roi_stage")
    return dataclasses.replace(source, tensors=tensors, parts=(*parts, *(["roi_stage"] * (here == "roi_stage"))))


def _names_after(names: list[str], report: LoadReport, source: Source, config: Config) -> list[str] | None:
    """The model's class names after loading the weights; None if unchanged."""
    logits = any(tensor.name.startswith("box_head/mrcnn_class_logits/") for tensor in report.loaded)
    if logits and not names and len(source.class_names) == config.NUM_CLASSES:
        return list(source.class_names)
    return names if names or (logits and source.is_own) else None


def load_application(
    path: Path, network: Network, config: Config, *, exclude: Sequence[str] | str | None = None, **arguments: Any
) -> LoadReport:
    """Loads ImageNet weights into a backbone that is a model of keras.applications.

    Args:
        exclude, arguments: as in `MaskRCNN.load_weights`. Layers that such a file does not have may be excluded.

    Raises the errors of `mrcnn.weights.importers.imagenet.load`.
    """
    expressions = transfer.our_names(exclude, network.layers()) or []
    names = list(named_weights(network.layers()))
    of_backbone = [
        expression
        for expression in expressions
        if any(name.startswith("trunk/") and "/fpn_" not in name for name in excluded([expression], names))
    ]
    report = imagenet.load(
        path,
        network.backbone,
        partial(build_backbone, config.BACKBONE, options=config.BACKBONE_OPTIONS),
        exclude=of_backbone or None,
        **arguments,
    )
    if report.notes:
        print(f"{path}: {report}")
    return report
