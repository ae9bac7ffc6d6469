r"""torchvision on the same device, for `accelerator.py`; a process of its own. Prints a json line a configuration.

python -m accelerators.torchvision_side '{"works": [["detect", "resnet50", "bfloat16", 1]], "size": [800, 1344], ...}'
"""

import contextlib
import json
import statistics
import sys
import time

import numpy as np
import torch
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

OBJECTS = 20


def main() -> None:
    """Measures each configuration until the time is up."""
    told = json.loads(sys.argv[1])
    end = time.monotonic() + told["seconds"]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for work, network, precision, batch in told["works"]:
        row = {"work": work, "network": network, "precision": precision, "batch": batch}
        if time.monotonic() < end:
            try:
                row |= measure(work, network, precision, batch, told["size"], told["runs"], device)
            except Exception as error:
                row["error"] = f"{type(error).__name__}: {error}"[:200]
        else:
            row["error"] = "no time left"
        print(json.dumps(row), flush=True)


def measure(work, network, precision, batch, size, runs, device) -> dict:
    """Milliseconds an image, and the device's memory."""
    torch.manual_seed(0)
    height, width = size
    model = MaskRCNN(
        resnet_fpn_backbone(backbone_name=network, weights=None, trainable_layers=5),
        81,
        min_size=min(size),
        max_size=max(size),
        _skip_resize=True,
    ).to(device, memory_format=torch.channels_last)
    images = [torch.rand(3, height, width, device=device) for _ in range(batch)]
    cast = torch.autocast(device, torch.bfloat16) if precision == "bfloat16" else contextlib.nullcontext()
    call = (training if work == "train" else detection)(model, images, cast)
    call()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    taken = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - start))
    ms = statistics.median(taken[1:])
    memory = torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else None
    return {"ms": ms / batch, "images/s": 1000 * batch / ms, "MB": memory}


def detection(model, images, cast):
    """A call of detection with 100 objects an image, masks left at 28 x 28 as here, its results on the host."""
    predictor = model.roi_heads.box_predictor
    for layer in (model.rpn.head.bbox_pred, predictor.bbox_pred, predictor.cls_score):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    predictor.cls_score.bias.data[1] = 10
    model.eval().transform.postprocess = lambda result, image_shapes, original_sizes: result

    @torch.inference_mode()
    def call():
        with cast:
            return [{name: value.cpu() for name, value in one.items()} for one in model(images)]

    return call


def training(model, images, cast):
    """A step on images that are ready."""
    random = np.random.RandomState(0)
    height, width = images[0].shape[1:]
    targets = []
    for image in images:
        sizes = random.uniform(0.25, 0.5, (OBJECTS, 2)) * (width, height)
        corners = random.uniform(0, 1, (OBJECTS, 2)) * ((width, height) - sizes)
        boxes = torch.tensor(np.concatenate([corners, corners + sizes], axis=1), dtype=torch.float32)
        masks = torch.zeros(OBJECTS, height, width, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
        target = {"boxes": boxes, "labels": torch.from_numpy(random.randint(1, 81, OBJECTS)), "masks": masks}
        targets.append({name: value.to(image.device) for name, value in target.items()})
    optimizer = torch.optim.SGD(model.parameters(), 1e-6, 0.9, weight_decay=1e-4)
    model.train()

    def call():
        with cast:
            loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return call


if __name__ == "__main__":
    main()
