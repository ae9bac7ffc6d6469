"""torchvision's Mask R-CNN on photographs, every stage kept; run by a Python that has torch, and not this project.

    DIR/bin/python parity_torchvision.py --oracles ORACLES --model v1 --seed 1 --photographs images.npz --out FOLDER

Writes FOLDER/zip.pth and FOLDER/legacy.pth, the state dict as torch saves it today and as it did before 1.6, and
FOLDER/<name>.npz for every array [H, W, 3] uint8 of images.npz.

Models: "v1" (what torchvision publishes: frozen BatchNorm of epsilon 0), "v1_bn" (as it trains from nothing), "v2",
"resnet101" and "resnet152" (`resnet_fpn_backbone`, whose frozen BatchNorm has epsilon 1e-5); of Faster R-CNN, without
masks, "faster_v1" and "faster_v2".
"""

import argparse
from collections.abc import Hashable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from seeded_weights import seeded
from torchvision.models import detection
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import boxes as box_ops
from torchvision.ops.misc import FrozenBatchNorm2d

SIZES = {"min_size": 320, "max_size": 512, "rpn_pre_nms_top_n_test": 500, "rpn_post_nms_top_n_test": 200}
CLASSES = {"v1": 91, "v1_bn": 91, "v2": 91, "resnet101": 8, "resnet152": 3, "faster_v1": 91, "faster_v2": 91}


def build(name: str) -> torch.nn.Module:
    """A model without weights."""
    if name in ("v2", "faster_v2"):
        make = detection.maskrcnn_resnet50_fpn_v2 if name == "v2" else detection.fasterrcnn_resnet50_fpn_v2
        return make(weights=None, weights_backbone=None, num_classes=CLASSES[name], **SIZES)
    if name == "v1_bn":
        return detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES[name], **SIZES)
    depth = name if name.startswith("resnet") else "resnet50"
    trunk = resnet_fpn_backbone(backbone_name=depth, weights=None, norm_layer=FrozenBatchNorm2d)
    model = (detection.FasterRCNN if name == "faster_v1" else detection.MaskRCNN)(trunk, CLASSES[name], **SIZES)
    if name in ("v1", "faster_v1"):
        overwrite_eps(model, 0.0)
    return model


def fill(model: torch.nn.Module, seeded, seed: int) -> None:
    """Weights by their names. Norms are called so, as `seeded` knows torchvision's first model only."""
    state = model.state_dict()
    norms = {name.removesuffix(".running_mean") for name in state if name.endswith(".running_mean")}
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        layer, kind = name.rsplit(".", 1)
        known = ".bn" in name or "downsample.1" in name
        key = f"{layer}.norm.{kind}" if layer in norms and not known else name
        state[name] = torch.from_numpy(seeded.torch_like(key, tuple(tensor.shape), "torchvision", seed))
    model.load_state_dict(state)


def calibrate(model: torch.nn.Module, image: np.ndarray) -> None:
    """Scales the last layers, so that outputs spread as those of trained weights and no score is 1 to the last digit.

    Equal scores are kept in any order, and a deep network of random weights makes many.
    """
    roi, wanted = model.roi_heads, {}
    for module, spread in (
        (model.rpn.head.cls_logits, 1.5),
        (model.rpn.head.bbox_pred, 0.25),
        (roi.box_predictor.cls_score, 2.0),
        (roi.box_predictor.bbox_pred, 1.0),
        *([(roi.mask_predictor.mask_fcn_logits, 2.0)] if roi.has_mask() else []),
    ):
        wanted[module] = spread
    for first, last in ((0, 2), (2, 4), (4, 5)):  # what comes later depends on what is before
        kept = Kept()
        for module in list(wanted)[first:last]:
            kept.of(module, module)
        stages(model, image)  # which removes all hooks at its end
        with torch.no_grad():
            for module, outputs in kept.items():
                scale = wanted[module] / torch.cat([output.flatten() for output in outputs]).std()
                module.weight *= scale
                module.bias *= scale


class Kept(dict):
    """Outputs of modules, by name."""

    def of(self, module: torch.nn.Module, name: Hashable) -> None:
        """Keeps what a module gives, a list as it may be called more than once."""
        module.register_forward_hook(lambda _, __, output: self.setdefault(name, []).append(output))


def copied(result: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The first result of the heads, which torchvision changes in place when it scales boxes to the photograph."""
    return {name: tensor.clone() for name, tensor in result[0].items()}


def hooks(model: torch.nn.Module) -> Kept:
    """Keeps every stage."""
    kept, roi = Kept(), model.roi_heads
    for name, module in (
        ("trunk", model.backbone),
        ("body", model.backbone.body),
        ("rpn_head", model.rpn.head),
        ("anchors", model.rpn.anchor_generator),
        ("rpn", model.rpn),
        ("box_pool", roi.box_roi_pool),
        ("box_head", roi.box_head),
        ("box", roi.box_predictor),
        *([("mask_pool", roi.mask_roi_pool), ("masks", roi.mask_predictor)] if roi.has_mask() else []),
        ("transform", model.transform),
    ):
        kept.of(module, name)
    roi.register_forward_hook(lambda _, __, output: kept.update(found=copied(output[0])))  # what it returns counts
    return kept


class Suppression:
    """torchvision's NMS per class, which keeps what it was last called with: the candidates of detections."""

    def __init__(self) -> None:
        self.body, self.last = box_ops.batched_nms, ()

    def __call__(self, *arguments: Any) -> torch.Tensor:
        self.last = arguments
        return self.body(*arguments)


def stages(model: torch.nn.Module, image: np.ndarray) -> dict[str, np.ndarray]:
    """Of one photograph, under the names of the stored oracles, whole."""
    kept, nms = hooks(model), Suppression()
    with torch.no_grad(), mock.patch.object(box_ops, "batched_nms", nms):
        out = model([torch.from_numpy(image).permute(2, 0, 1).float() / 255])[0]
    arrays = {f"C{level}": tensor for level, tensor in zip((2, 3, 4, 5), kept["body"][0].values(), strict=True)}
    arrays |= {f"P{level}": tensor for level, tensor in zip((2, 3, 4, 5, 6), kept["trunk"][0].values(), strict=True)}
    for level, logits, deltas in zip((2, 3, 4, 5, 6), *kept["rpn_head"][0], strict=True):
        arrays |= {f"rpn_objectness_P{level}": logits, f"rpn_deltas_P{level}": deltas}
    logits, deltas = kept["box"][0]
    found = kept["found"]
    arrays |= {
        "pixels": kept["transform"][0][0].tensors[0],
        "anchors": kept["anchors"][0][0],
        "proposals": kept["rpn"][0][0][0],
        "box_roi_pool": kept["box_pool"][0],
        "box_head": kept["box_head"][0],
        "class_logits": logits,
        "box_regression": deltas,
        "candidate_boxes": nms.last[0],
        "candidate_scores": nms.last[1],
        "candidate_labels": nms.last[2],
        "det_boxes": found["boxes"],
        "det_scores": found["scores"],
        "det_labels": found["labels"],
        "out_boxes": out["boxes"],
    }
    if "masks" in kept:
        arrays |= {"mask_roi_pool": kept["mask_pool"][0], "out_masks": out["masks"][:, 0] > 0.5}
        masks = kept["masks"][0]
        arrays["masks"] = masks[torch.arange(len(masks)), found["labels"]].sigmoid()
    return ended(model, arrays)


def ended(model: torch.nn.Module, arrays: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The recorded tensors as arrays, after the hooks that recorded them are gone."""
    for module in model.modules():
        module._forward_hooks.clear()
    return {name: tensor.numpy() for name, tensor in arrays.items()}


def main() -> None:
    """Writes weights and stages."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--oracles", type=Path, required=True)
    flags.add_argument("--model", choices=list(CLASSES), required=True)
    flags.add_argument("--seed", type=int, required=True)
    flags.add_argument("--photographs", type=Path, required=True)
    flags.add_argument("--out", type=Path, required=True)
    arguments = flags.parse_args()
    oracles = seeded(arguments.oracles)
    model = build(arguments.model).eval()
    fill(model, oracles, arguments.seed)
    calibrate(model, oracles.image(256, 320, arguments.seed))
    torch.save(model.state_dict(), arguments.out / "zip.pth")
    torch.save(model.state_dict(), arguments.out / "legacy.pth", _use_new_zipfile_serialization=False)
    with np.load(arguments.photographs) as photographs:
        for name in photographs.files:
            np.savez(arguments.out / f"{name}.npz", **stages(model, photographs[name]))


if __name__ == "__main__":
    main()
