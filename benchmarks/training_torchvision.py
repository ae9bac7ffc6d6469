"""One training step of torchvision's Mask, Faster or Keypoint R-CNN, run by a Python with torch, without this project.

    DIR/bin/python training_torchvision.py --oracles ORACLES --model v1 --seed 1 --batch batch.npz --out FOLDER

Its samplers take every candidate. Writes FOLDER/weights.pth, FOLDER/step.npz and FOLDER/gradients.npz (each parameter's
gradient, under its name). batch.npz: images [B, H, W, 3] uint8, boxes [B, N, (x1, y1, x2, y2)], labels [B, N], masks
[B, N, H, W], keypoints [B, N, K, (x, y, visibility)]. step.npz: the losses by their names; `pixels` as the network sees
them; `anchors`, and for image i `anchor_labels_i` (1, 0, -1 for neither) and `anchor_boxes_i`, the object matched to
each; `rois_i`, `roi_labels_i` and `roi_objects_i` of the sampled RoIs; `mask_targets_i` of those with a label, or
`keypoint_cells_i`, -1 for a keypoint that does not count.

Models: "v1" and "faster_v1", see parity_torchvision.py; "keypoint_v1".
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parity_torchvision import calibrate, fill
from seeded_weights import seeded
from torchvision.models import detection
from torchvision.models.detection import roi_heads
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.misc import FrozenBatchNorm2d

ALL = 10**6  # more samples than there are candidates
MODELS = {"v1": detection.MaskRCNN, "faster_v1": detection.FasterRCNN, "keypoint_v1": detection.KeypointRCNN}
LIMITS = {"rpn_pre_nms_top_n_train": 200, "rpn_post_nms_top_n_train": 150}


def build(name: str, classes: int, keypoints: int, side: int) -> torch.nn.Module:
    """A model without weights, all of whose layers but BatchNorm learn; side: the shorter of its images."""
    options = {"num_keypoints": keypoints} if name == "keypoint_v1" else {}
    trunk = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=5
    )
    model = MODELS[name](
        trunk,
        classes,
        min_size=side,
        max_size=4 * side,
        rpn_batch_size_per_image=ALL,
        box_batch_size_per_image=ALL,
        **LIMITS,
        **options,
    )
    overwrite_eps(model, 0.0)
    return model


class Recorder(dict[str, Any]):
    """What the model matches and samples in a step."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self._of_anchors(model.rpn)
        self._of_rois(model.roi_heads)
        model.transform.register_forward_hook(lambda _, __, out: self.update(pixels=out[0].tensors))
        model.rpn.anchor_generator.register_forward_hook(lambda _, __, out: self.update(anchors=out[0]))
        project, self["mask_targets"] = roi_heads.project_masks_on_boxes, []
        cells_of, self["keypoint_cells"] = roi_heads.keypoints_to_heatmap, []

        def projected(*arguments: Any) -> torch.Tensor:
            self["mask_targets"].append(project(*arguments))
            return self["mask_targets"][-1]

        def cells(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
            found, valid = cells_of(*arguments)
            self["keypoint_cells"].append(torch.where(valid > 0, found, -1))
            return found, valid

        roi_heads.project_masks_on_boxes, roi_heads.keypoints_to_heatmap = projected, cells

    def _of_anchors(self, rpn: torch.nn.Module) -> None:
        assign = rpn.assign_targets_to_anchors

        def assigned(*arguments: Any) -> Any:
            labels, boxes = assign(*arguments)
            self.update(anchor_labels=labels, anchor_boxes=boxes)
            return labels, boxes

        rpn.assign_targets_to_anchors = assigned

    def _of_rois(self, heads: torch.nn.Module) -> None:
        select = heads.select_training_samples

        def selected(*arguments: Any) -> Any:
            rois, objects, labels, targets = select(*arguments)
            self.update(rois=rois, roi_objects=objects, roi_labels=labels)
            return rois, objects, labels, targets

        heads.select_training_samples = selected


def main() -> None:
    """Writes weights, step and gradients."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--oracles", type=Path, required=True)
    flags.add_argument("--model", choices=[*MODELS], required=True)
    flags.add_argument("--seed", type=int, required=True)
    flags.add_argument("--classes", type=int, default=8)
    flags.add_argument("--batch", type=Path, required=True)
    flags.add_argument("--out", type=Path, required=True)
    arguments = flags.parse_args()
    oracles = seeded(arguments.oracles)
    batch = np.load(arguments.batch)
    height, width = batch["images"].shape[1:3]
    model = build(arguments.model, arguments.classes, batch["keypoints"].shape[2], min(height, width)).eval()
    fill(model, oracles, arguments.seed)
    calibrate(model, oracles.image(height, width, arguments.seed))
    torch.save(model.state_dict(), arguments.out / "weights.pth")
    model.train()
    kept = Recorder(model)
    images = [torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in batch["images"]]
    names = ("boxes", "labels", "masks", "keypoints")
    targets = [{name: torch.from_numpy(batch[name][i]) for name in names} for i in range(len(images))]
    losses = model(images, targets)
    sum(losses.values()).backward()
    step = {name: loss.detach().numpy() for name, loss in losses.items()}
    step |= {"pixels": kept["pixels"].numpy(), "anchors": kept["anchors"].numpy()}
    matches = ("anchor_labels", "anchor_boxes", "rois", "roi_labels", "roi_objects")
    for name in (*matches, "mask_targets", "keypoint_cells"):
        step |= {f"{name}_{i}": values.detach().numpy() for i, values in enumerate(kept[name])}
    np.savez(arguments.out / "step.npz", **step)
    gradients = {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
    np.savez(arguments.out / "gradients.npz", **gradients)


if __name__ == "__main__":
    main()
