"""torchvision's Mask and Keypoint R-CNN for `against_peers.py`; run by a Python with torchvision, without this project.

Built as `maskrcnn_resnet50_fpn` builds it, for any depth, with frozen BatchNorm and random weights, and channels last,
which was the faster for every work and precision. bfloat16: the weights of detection are converted, and autocast gives
NMS and RoIAlign the float32 they need; training runs under autocast on float32 weights.
"""

import contextlib
import itertools
import os

import numpy as np
import torch
import torchvision
import worker
from torchvision.models.detection import KeypointRCNN, MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone


def load(case):
    """Sets the threads; the version."""
    torch.set_num_threads(case["threads"])
    return f"torchvision {torchvision.__version__}, torch {torch.__version__}"


def build(case):
    """The job of the work."""
    model = network(case)
    return {"train": train_job, "detect": detect_job, "folder": folder_job}[case["work"]](model, case)


def network(case) -> "MaskRCNN | KeypointRCNN":
    """The model of a case, with random weights."""
    torch.manual_seed(0)
    training = case["work"] == "train"
    trunk = resnet_fpn_backbone(backbone_name=case["backbone"], weights=None, trainable_layers=5)
    points = case.get("system") == "keypoints"
    # Photographs for training have their size already: resizing is the loader's work
    return (KeypointRCNN if points else MaskRCNN)(
        trunk,
        2 if points else case["classes"],
        min_size=case["min_dim"],
        max_size=case["max_dim"],
        _skip_resize=training and not case.get("coco"),
    ).to(memory_format=torch.channels_last)


def autocast(case):
    """The context of the precision."""
    bfloat16 = case["precision"] == "bfloat16"
    return torch.autocast("cpu", torch.bfloat16) if bfloat16 else contextlib.nullcontext()


def find_much(model) -> None:
    """Sets the last layers so that every RoI is a sure object of class 1 where its anchor was."""
    predictor = model.roi_heads.box_predictor
    for layer in (model.rpn.head.bbox_pred, predictor.bbox_pred, predictor.cls_score):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    predictor.cls_score.bias.data[1] = 10


def detect_job(model, case) -> worker.Job:
    """From uint8 photographs to pasted masks, as the model's own postprocessing leaves them."""
    find_much(model)
    model.eval()
    if case["precision"] == "bfloat16":
        model = model.to(torch.bfloat16)
    images, name = worker.photographs(case), "keypoints" if case.get("system") == "keypoints" else "masks"

    @torch.inference_mode()
    def call():
        with autocast(case):
            found = model([torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in images])
        return [{name: value.float().numpy() for name, value in one.items()} for one in found]

    def found(result):
        return {"detections": [len(one["scores"]) for one in result], "pasted": True, name: list(result[0][name].shape)}

    return worker.Job(call, found, note="channels last")


def folder_job(model, case) -> worker.Job:
    """From paths of images of mixed sizes to run-length masks, as its users write it: a loop over the files."""
    from PIL import Image
    from pycocotools import mask as coco_mask

    find_much(model)
    model.eval()
    if case["precision"] == "bfloat16":
        model = model.to(torch.bfloat16)
    calls = worker.folder_calls(case)

    def read(path):
        with Image.open(path) as image:
            return torch.from_numpy(np.asarray(image.convert("RGB"))).permute(2, 0, 1).float() / 255

    @torch.inference_mode()
    def call():
        paths, counts = next(calls), []
        for start in range(0, len(paths), case["batch"]):
            with autocast(case):
                found = model([read(path) for path in paths[start : start + case["batch"]]])
            for one in found:
                masks = (one["masks"][:, 0] > 0.5).numpy().astype(np.uint8)
                counts.append(len(coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0)))))
        return counts

    return worker.Job(call, lambda counts: {"images": len(counts), "detections": sum(counts)}, note="channels last")


def train_job(model, case) -> worker.Job:
    """One step on a batch that is ready."""
    if case.get("coco"):
        batches = coco_batches(case)
    else:
        batches = [generated(case)]
    turns = itertools.cycle(batches)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1e-6, 0.9, weight_decay=1e-4)
    positives, pixels = [], []
    model.train().roi_heads.mask_head.register_forward_hook(lambda _, given, __: positives.append(len(given[0])))

    def count_pixels(_, __, output):
        images = output[0]
        computed = images.tensors.shape[0] * images.tensors.shape[2] * images.tensors.shape[3]
        pixels.append((sum(height * width for height, width in images.image_sizes), computed))

    model.transform.register_forward_hook(count_pixels)

    def call():
        images, targets = next(turns)
        with autocast(case):
            loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    def found(loss):
        images, computed = np.sum(pixels[-len(batches) :], axis=0)
        return {"loss": loss, "positive_rois": positives[-1], "image_pixels": round(float(images / computed), 3)}

    return worker.Job(call, found, note="channels last")


def generated(case):
    """(images, targets) of the images that are made here."""
    size = worker.resized(case)
    images = [torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in worker.photographs(case, size)]
    targets = [target(*worker.instances(case, size, seed)) for seed in range(len(images))]
    return images, targets


def coco_batches(case):
    """(images, targets) of the batches of `worker.coco_batches`, at the images' own sizes; the model resizes them."""
    from PIL import Image
    from pycocotools import mask as coco_mask

    content, chosen = worker.coco_batches(case)
    infos = {image["id"]: image for image in content["images"]}
    classes = {category["id"]: number for number, category in enumerate(content["categories"], 1)}
    batches = []
    for ids in chosen:
        images, targets = [], []
        for i in ids:
            height, width = infos[i]["height"], infos[i]["width"]
            with Image.open(os.path.join(case["coco"], "train2017", infos[i]["file_name"])) as image:
                images.append(torch.from_numpy(np.asarray(image.convert("RGB"))).permute(2, 0, 1).float() / 255)
            own = [a for a in content["annotations"] if a["image_id"] == i and not a["iscrowd"]]
            own = [a for a in own if min(a["bbox"][2:]) > 0]
            runs = [coco_mask.merge(coco_mask.frPyObjects(a["segmentation"], height, width)) for a in own]
            masks = np.stack([coco_mask.decode(run) for run in runs])
            boxes = np.array([[y, x, y + h, x + w] for x, y, w, h in (a["bbox"] for a in own)])
            targets.append(target(boxes, np.array([classes[a["category_id"]] for a in own]), masks))
        batches.append((images, targets))
    return batches


def target(boxes, class_ids, masks) -> dict[str, torch.Tensor]:
    """The instances of one photograph as torchvision takes them."""
    return {
        "boxes": torch.from_numpy(boxes[:, [1, 0, 3, 2]]).float(),
        "labels": torch.from_numpy(class_ids).long(),
        "masks": torch.from_numpy(masks),
    }


if __name__ == "__main__":
    worker.serve(load, build)
