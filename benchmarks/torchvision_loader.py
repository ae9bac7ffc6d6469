"""Passes of torchvision's own COCO loader, for `loader.py`; run by a Python that has torchvision, and not this project.

As torchvision's documentation builds it: CocoDetection, wrapped for transforms v2, the transforms on uint8 tensors
until they must be floats, a DataLoader. One worker loads in the process itself, more are processes of their own.
"""

import os

import torch
import torchvision
from passes import flags, serve, timed
from torch.utils.data import DataLoader
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.transforms import v2


def make_loader(arguments, masks: bool) -> DataLoader:
    """The loader; masks: whether instances come with theirs."""
    transforms = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize(size=None, max_size=arguments.size),
            v2.RandomHorizontalFlip(0.5),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
            v2.ClampBoundingBoxes(),
            v2.SanitizeBoundingBoxes(),
        ]
    )
    dataset = CocoDetection(arguments.images, arguments.annotations, transforms=transforms)
    keys = {"image_id", "boxes", "labels"} | ({"masks"} if masks else set())
    dataset = wrap_dataset_for_transforms_v2(dataset, target_keys=keys)
    workers = len(arguments.cores) if len(arguments.cores) > 1 else 0
    return DataLoader(
        dataset, arguments.batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0, collate_fn=collate
    )


def collate(samples):
    """Images and targets as tuples, as torchvision's detection models take them."""
    return tuple(zip(*samples, strict=True))


def main() -> None:
    """Answers with the figures of passes."""
    arguments = flags(__doc__).parse_args()
    os.sched_setaffinity(0, arguments.cores)
    torch.set_num_threads(1)
    loaders = {}

    def answer(masks: bool) -> dict:
        if masks not in loaders:
            loaders[masks] = make_loader(arguments, masks)
            if len(arguments.cores) > 1:
                next(iter(loaders[masks]))  # starts its processes
        loader = loaders[masks]
        iterator = loader._iterator if loader.num_workers else None
        processes = [worker.pid for worker in iterator._workers] if iterator else []
        figures = timed(lambda: (len(images) for images, _ in loader), processes)
        return figures | {"version": f"torchvision {torchvision.__version__}, torch {torch.__version__}"}

    serve(answer)


if __name__ == "__main__":
    main()
