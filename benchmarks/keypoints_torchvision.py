"""torchvision's keypoint model on images; run by a Python that has torch, and not this project.

    DIR/bin/python keypoints_torchvision.py --oracles ORACLES --seed 1 --images images.npz --out FOLDER

Writes FOLDER/weights.pth, the state dict, and FOLDER/<name>.npz for every array [H, W, 3] uint8 of images.npz.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from parity_torchvision import SIZES, Kept, copied, ended, fill
from seeded_weights import seeded
from torchvision.models import detection
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.misc import FrozenBatchNorm2d

SPREAD = {"rpn_logits": 1.5, "rpn_deltas": 0.25, "scores": 2.0, "deltas": 1.0, "heatmaps": 3.0}


def build() -> torch.nn.Module:
    """As torchvision builds it for the weights that it publishes, without weights."""
    trunk = resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d)
    model = detection.KeypointRCNN(trunk, 2, num_keypoints=17, **SIZES)
    overwrite_eps(model, 0.0)
    return model


def last_layers(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """What `SPREAD` names."""
    roi, head = model.roi_heads, model.rpn.head
    layers = {"rpn_logits": head.cls_logits, "rpn_deltas": head.bbox_pred, "scores": roi.box_predictor.cls_score}
    layers |= {"deltas": roi.box_predictor.bbox_pred, "heatmaps": roi.keypoint_predictor.kps_score_lowres}
    return layers


def calibrate(model: torch.nn.Module, image: np.ndarray) -> None:
    """Scales the last layers, so that outputs spread as those of trained weights, the earlier ones first."""
    for name, layer in last_layers(model).items():
        kept = Kept()
        kept.of(layer, name)
        run(model, image)
        layer._forward_hooks.clear()
        with torch.no_grad():
            scale = SPREAD[name] / torch.cat([output.flatten() for output in kept[name]]).std()
            layer.weight *= scale
            layer.bias *= scale


def run(model: torch.nn.Module, image: np.ndarray) -> dict[str, torch.Tensor]:
    """The model's own output for one image."""
    with torch.no_grad():
        return model([torch.from_numpy(image).permute(2, 0, 1).float() / 255])[0]


def stages(model: torch.nn.Module, image: np.ndarray) -> dict[str, np.ndarray]:
    """Of one image: its pixels for the network, the pyramid, the detections there and in the image, and heatmaps."""
    kept, roi = Kept(), model.roi_heads
    for name, module in (
        ("transform", model.transform),
        ("trunk", model.backbone),
        ("rpn", model.rpn),
        ("heatmaps", roi.keypoint_predictor),
    ):
        kept.of(module, name)
    roi.register_forward_hook(lambda _, __, output: kept.update(found=copied(output[0])))
    out = run(model, image)
    arrays = {f"P{level}": tensor for level, tensor in zip((2, 3, 4, 5, 6), kept["trunk"][0].values(), strict=True)}
    arrays |= {"pixels": kept["transform"][0][0].tensors[0], "proposals": kept["rpn"][0][0][0]}
    arrays |= {f"det_{name}": tensor for name, tensor in kept["found"].items()}
    arrays |= {f"out_{name}": tensor for name, tensor in out.items()} | {"heatmaps": kept["heatmaps"][0]}
    return ended(model, arrays)


def main() -> None:
    """Writes weights and stages."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--oracles", type=Path, required=True)
    flags.add_argument("--seed", type=int, required=True)
    flags.add_argument("--images", type=Path, required=True)
    flags.add_argument("--out", type=Path, required=True)
    arguments = flags.parse_args()
    oracles = seeded(arguments.oracles)
    model = build().eval()
    fill(model, oracles, arguments.seed)
    calibrate(model, oracles.image(256, 320, arguments.seed))
    torch.save(model.state_dict(), arguments.out / "weights.pth")
    with np.load(arguments.images) as images:
        for name in images.files:
            np.savez(arguments.out / f"{name}.npz", **stages(model, images[name]))


if __name__ == "__main__":
    main()
