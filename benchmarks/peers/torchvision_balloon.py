"""Trains torchvision's Mask R-CNN on one class; run by a Python that has torch and pycocotools, and not this project.

    DIR/bin/python torchvision_balloon.py --folder FOLDER --seed 0 --epochs 12

FOLDER contains train/ and val/ with <number>.npz (image [H, W, 3] uint8, masks [N, H, W] bool), and weights.npz, the
arrays of Keras's MobileNet (alpha 0.75). Writes FOLDER/results.json, the detections of val/ as COCO results.

The schedule is the one of samples/balloon: batch 2, SGD 0.01 with momentum 0.9 and weight decay 1e-4, 100 warm-up
steps, a tenth of the rate after three quarters of the steps, horizontal flips, the trunk's BatchNorm frozen, gradients
clipped at a global norm of 5: without that, seed 2 diverged in its second epoch. Everything else is torchvision's own.
"""

import argparse
import json
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.misc import FrozenBatchNorm2d

SIDE, BATCH, RATE, WARM_UP, DROP, CLIP = 512, 2, 0.01, 100, 0.75, 5.0
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)  # of the depthwise convolutions
TAPS = (3, 5, 11, 13)  # the blocks whose outputs feed the pyramid: strides 4, 8, 16 and 32
Target = dict[str, torch.Tensor]


class Padded(nn.Module):
    """A convolution, its BatchNorm and ReLU6, padded as in Keras's MobileNet: with stride 2 at the far side only."""

    def __init__(self, convolution: nn.Conv2d, norm: FrozenBatchNorm2d) -> None:
        super().__init__()
        self.convolution, self.norm = convolution, norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.convolution.kernel_size == (3, 3):
            x = nn.functional.pad(x, (0, 1, 0, 1) if self.convolution.stride == (2, 2) else (1, 1, 1, 1))
        return nn.functional.relu6(self.norm(self.convolution(x)))


def layer(arrays: Any, name: str, norm: str, stride: int = 1) -> Padded:
    """A layer of the trunk from Keras's arrays; a depthwise one if its name says so."""
    kernel = torch.from_numpy(arrays[f"{name}/0"])
    depthwise = "_dw_" in f"{name}_"
    kernel = kernel.permute(2, 3, 0, 1) if depthwise else kernel.permute(3, 2, 0, 1)
    outputs, size = len(kernel), kernel.shape[-1]
    convolution = nn.Conv2d(
        kernel.shape[1] * (outputs if depthwise else 1),
        outputs,
        size,
        stride,
        bias=False,
        groups=outputs if depthwise else 1,
    )
    convolution.weight = nn.Parameter(kernel.contiguous())
    frozen = FrozenBatchNorm2d(outputs, eps=1e-3)
    for buffer, i in (("weight", 0), ("bias", 1), ("running_mean", 2), ("running_var", 3)):
        getattr(frozen, buffer).copy_(torch.from_numpy(arrays[f"{norm}/{i}"]))
    return Padded(convolution, frozen)


class Trunk(nn.Module):
    """MobileNet with a pyramid of 256 channels."""

    def __init__(self, arrays: Any) -> None:
        super().__init__()
        self.stem = layer(arrays, "conv1", "conv1_bn", 2)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                layer(arrays, f"conv_dw_{i}", f"conv_dw_{i}_bn", stride),
                layer(arrays, f"conv_pw_{i}", f"conv_pw_{i}_bn"),
            )
            for i, stride in enumerate(STRIDES, 1)
        )
        channels = [self.blocks[i - 1][1].convolution.out_channels for i in TAPS]
        self.out_channels = 256
        self.pyramid = FeaturePyramidNetwork(channels, self.out_channels, LastLevelMaxPool())

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x, taps = self.stem(x), OrderedDict()
        for i, block in enumerate(self.blocks, 1):
            x = block(x)
            if i in TAPS:
                taps[str(len(taps))] = x
        return self.pyramid(taps)


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


def example(path: Path, flip: bool) -> tuple[torch.Tensor, Target]:
    """An image and its objects."""
    with np.load(path) as stored:
        image, masks = stored["image"], stored["masks"]
    if flip:
        image, masks = image[:, ::-1].copy(), masks[:, :, ::-1].copy()
    boxes = []
    for mask in masks:
        (rows,), (columns,) = np.nonzero(mask.any(1)), np.nonzero(mask.any(0))
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    target = {"boxes": torch.tensor(boxes).float(), "labels": torch.ones(len(boxes), dtype=torch.int64)}
    return tensor(image), target | {"masks": torch.from_numpy(masks).to(torch.uint8)}


def batches(folder: Path, seed: int, steps: int) -> Iterator[list[tuple[torch.Tensor, Target]]]:
    """Endless passes over the images in random order, flipped at random."""
    paths, rng, order = sorted(folder.glob("*.npz")), np.random.default_rng(seed), []
    for _ in range(steps):
        while len(order) < BATCH:
            order += list(rng.permutation(len(paths)))
        yield [example(paths[order.pop(0)], rng.random() < 0.5) for _ in range(BATCH)]


def rate(step: int, steps: int) -> float:
    """The factor of the learning rate."""
    return min(1.0, (step + 1) / WARM_UP) * (0.1 if step >= DROP * steps else 1.0)


def train(model: nn.Module, folder: Path, seed: int, epochs: int) -> None:
    """Trains all parameters, and prints the loss and the remaining time after every epoch."""
    model.train()
    each = -(-len(list(folder.glob("*.npz"))) // BATCH)
    steps, start, total = epochs * each, time.monotonic(), 0.0
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
    for step, batch in enumerate(batches(folder, seed, steps), 1):
        loss = sum(model([image for image, _ in batch], [target for _, target in batch]).values())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        total += loss.item()
        if step % each == 0:
            left = (time.monotonic() - start) / step * (steps - step)
            print(f"epoch {step // each}/{epochs}: loss {total / each:.4f}, {left:.0f} s left", flush=True)
            total = 0.0


def results(model: nn.Module, folder: Path) -> list[dict[str, Any]]:
    """The detections of every image; image_id is the number in its file name."""
    model.eval()
    records = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as stored, torch.no_grad():
            found = model([tensor(stored["image"])])[0]
        values = (found[name] for name in ("boxes", "scores", "masks"))
        for box, score, mask in zip(*values, strict=True):
            runs = coco_mask.encode(np.asfortranarray((mask[0] > 0.5).numpy(), np.uint8))
            runs["counts"] = runs["counts"].decode()
            x1, y1, x2, y2 = box.tolist()
            record = {"image_id": int(path.stem), "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            records.append(record | {"score": score.item(), "segmentation": runs})
    return records


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--folder", type=Path, required=True)
    flags.add_argument("--seed", type=int, required=True)
    flags.add_argument("--epochs", type=int, default=12)
    arguments = flags.parse_args()
    torch.manual_seed(arguments.seed)
    with np.load(arguments.folder / "weights.npz") as arrays:
        trunk = Trunk(arrays)
    scaling = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}  # -1..1, as the trunk was trained
    model = MaskRCNN(trunk, num_classes=2, min_size=SIDE, max_size=SIDE, **scaling)
    train(model, arguments.folder / "train", arguments.seed, arguments.epochs)
    (arguments.folder / "results.json").write_text(json.dumps(results(model, arguments.folder / "val")))


if __name__ == "__main__":
    main()
