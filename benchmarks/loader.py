"""Images a second of the training loader on COCO photographs, in turn with torchvision's own COCO loader. Prints one
json line.

    python benchmarks/loader.py --dataset COCO --torchvision-python DIR/bin/python

Both resize the longest side to `--size`, flip half of the images, normalize, and deliver boxes, classes and masks, on
the same photographs, decoded again in every pass, each worker on a core of its own. Rounds: every loader makes one
pass, then all make the next; figures are medians over rounds, and the ratio that of images a second within a round.

They differ in the masks. torchvision fills each in the photograph's size and resizes it whole: [N, h, w] a photograph
of its own size. Here each is filled, and resampled inside its box to MINI_MASK_SHAPE; photographs are padded to a
square and stacked. `torchvision_boxes_only` delivers no masks. `first_pass`: the outlines are filled, as torchvision
does in every pass; `later_passes`: the dataset has kept the masks that it filled (up to 256 MB, as bits).

Without --torchvision-python only this loader is measured. CPU time is all threads and processes of the loader.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import common  # noqa: F401  makes the checkout importable
from passes import Program, flags, serve, timed

DELIVERS = {
    "ours": "float32 [B, size, size, 3] padded; boxes; masks uint8 [B, 100, 112, 112], each inside its box",
    "torchvision": "float32 [3, h, w] each, not padded; boxes; masks uint8 [N, h, w] each, the whole photograph",
}


def main() -> None:
    """Takes turns, prints."""
    if "--cores" in sys.argv:
        return serve_passes()
    arguments = parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        annotations = Path(folder) / "annotations.json"
        split = arguments.dataset / "annotations" / f"instances_{arguments.split}.json"
        count = write_subset(split, annotations, arguments.photographs, arguments.batch)
        what = {
            "annotations": str(annotations),
            "images": str(arguments.dataset / arguments.split),
            "size": arguments.size,
            "batch": arguments.batch,
        }
        results = {f"workers_{n}": compare(arguments, what, n) for n in arguments.workers}
    print(
        json.dumps(
            {
                "size": arguments.size,
                "batch": arguments.batch,
                "photographs": count,
                "rounds": arguments.rounds,
                **results,
                "delivers": DELIVERS,
            }
        )
    )


def parser() -> argparse.ArgumentParser:
    """Flags of a person."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--dataset", type=Path, required=True, help="folder of annotations/ and the images, as COCO's")
    flags.add_argument("--split", default="train2017")
    flags.add_argument("--torchvision-python", help="a Python with torchvision and pycocotools")
    flags.add_argument("--size", type=int, default=1024, help="pixels of the longest side")
    flags.add_argument("--batch", type=int, default=2)
    flags.add_argument("--photographs", type=int, default=160, help="the first of the split that have instances")
    flags.add_argument("--rounds", type=int, default=5, help="after one that is not counted")
    flags.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    return flags


def write_subset(source: Path, target: Path, limit: int, batch: int) -> int:
    """Writes the annotations of the first photographs with instances to learn, in whole batches; how many those are."""
    content = json.loads(source.read_text())
    learnable = {a["image_id"] for a in content["annotations"] if not a["iscrowd"]}
    images = [image for image in content["images"] if image["id"] in learnable]
    images = images[: min(limit, len(images)) // batch * batch]
    chosen = {image["id"] for image in images}
    annotations = [a for a in content["annotations"] if a["image_id"] in chosen]
    target.write_text(json.dumps({**content, "images": images, "annotations": annotations}))
    return len(images)


def compare(arguments: argparse.Namespace, what: dict, workers: int) -> dict:
    """Figures of every loader with so many workers, on as many cores."""
    cores = sorted(os.sched_getaffinity(0))[:workers]
    if len(cores) < workers:
        return {"skipped": f"{workers} workers need as many cores, this process has {len(cores)}"}
    told = [text for name, value in what.items() for text in (f"--{name}", str(value))]
    told += ["--cores", *map(str, cores)]
    with Program([sys.executable, __file__, *told]) as ours:
        turns = {"first_pass": (ours, {"fresh": True}), "later_passes": (ours, {"fresh": False})}
        if not arguments.torchvision_python:
            return summary(take_turns(turns, arguments.rounds), workers)
        theirs = Path(__file__).with_name("torchvision_loader.py")
        with Program([arguments.torchvision_python, str(theirs), *told]) as torchvision:
            turns |= {
                "torchvision": (torchvision, {"masks": True}),
                "torchvision_boxes_only": (torchvision, {"masks": False}),
            }
            return summary(take_turns(turns, arguments.rounds), workers)


def take_turns(turns: dict[str, tuple[Program, dict]], rounds: int) -> list[dict[str, dict]]:
    """The figures of each loader in each round, after one that is not counted."""
    return [{name: program.ask(**request) for name, (program, request) in turns.items()} for _ in range(rounds + 1)][1:]


def summary(rounds: list[dict[str, dict]], workers: int) -> dict:
    """Medians over rounds."""

    def median(figure) -> float:
        return round(statistics.median(map(figure, rounds)), 2)

    found = {}
    for name, last in rounds[-1].items():
        found[name] = {
            "images_per_s_and_core": median(lambda r, n=name: r[n]["images"] / r[n]["wall_s"] / workers),
            "cpu_ms_per_image": median(lambda r, n=name: 1000 * r[n]["cpu_s"] / r[n]["images"]),
            "images": last["images"],
        } | ({"version": last["version"]} if "version" in last else {})
    for other in ("torchvision", "torchvision_boxes_only"):
        if other in found:
            for name in ("first_pass", "later_passes"):
                found[name][f"times_{other}"] = median(lambda r, n=name, o=other: r[o]["wall_s"] / r[n]["wall_s"])
                found[name][f"times_{other}_by_cpu"] = median(lambda r, n=name, o=other: r[o]["cpu_s"] / r[n]["cpu_s"])
    return found


def serve_passes() -> None:
    """This loader's process: answers with the figures of passes."""
    arguments = flags(__doc__).parse_args()
    os.sched_setaffinity(0, arguments.cores)
    import cv2

    from mrcnn.config import Config
    from mrcnn.data.formats.coco import read_coco
    from mrcnn.data.loader import Loader
    from mrcnn.network.pixels import PixelScaling

    cv2.setNumThreads(1)
    scaling = PixelScaling((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    loader = None

    def answer(fresh: bool) -> dict:
        nonlocal loader
        if fresh:
            if loader:
                loader.close()
            dataset = read_coco(arguments.annotations, arguments.images)
            config = Config(
                NAME="benchmark",
                NUM_CLASSES=dataset.num_classes,
                IMAGE_MIN_DIM=arguments.size,
                IMAGE_MAX_DIM=arguments.size,
                HORIZONTAL_FLIP=0.5,
                IMAGES_PER_GPU=arguments.batch,
                LOADER_WORKERS=len(arguments.cores),
            )
            loader = Loader(dataset, config, scaling=scaling)
        loader.on_epoch_begin()
        figures = timed(lambda: (len(loader[i][0]["image"]) for i in range(len(loader))))
        loader.on_epoch_end()
        return figures

    serve(answer)


if __name__ == "__main__":
    main()
