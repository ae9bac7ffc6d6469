"""Detects thousands of images of random sizes, builds and deletes models, and detects in many threads at once.

    python -m benchmarks.soak --detections 2000 --models 50 --threads 8

Memory is what the process holds in RAM. It may not grow by more than 5% from the first detections to the last, from the
first models to the last, and while the threads detect. Equal images must have equal results: detected again at the end,
by another model with the same weights, and in any thread. The network is small, so that 2,000 detections take minutes.
Ends with status 1 if memory grew or results differed.
"""

import argparse
import gc
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mrcnn.config import Config
from mrcnn.model import MaskRCNN

GROWTH = 1.05
FIRST_DETECTIONS = 50  # after which memory is compared
FIRST_MODELS = 10
SIDES = 32, 160  # pixels of the images


def backbone(image: Any) -> list:
    """[C2, C3, C4, C5], a convolution each."""
    features, x = [], keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="stem")(image)
    for stage in (2, 3, 4, 5):
        x = keras.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name=f"stage{stage}")(x)
        features.append(x)
    return features


def build() -> MaskRCNN:
    """A model with random weights, the same each time."""
    return MaskRCNN(
        "inference",
        Config(
            NAME="soak",
            NUM_CLASSES=4,
            BACKBONE=backbone,
            TOP_DOWN_PYRAMID_SIZE=16,
            RPN_CHANNELS=16,
            FPN_CLASSIF_FC_LAYERS_SIZE=32,
            MASK_HEAD={"name": "fcn", "filters": 16, "convolutions": 1},
            IMAGE_MIN_DIM=64,
            IMAGE_MAX_DIM=128,
            RPN_ANCHOR_SCALES=(8, 16, 32, 64, 128),
            PRE_NMS_LIMIT=100,
            POST_NMS_ROIS_INFERENCE=50,
            DETECTION_MAX_INSTANCES=20,
            DETECTION_MIN_CONFIDENCE=0.0,
        ),
    )


def image(number: int) -> np.ndarray:
    """The image of a number: noise of random size."""
    generator = np.random.default_rng(number)
    height, width = generator.integers(*SIDES, 2)
    return generator.integers(0, 256, (height, width, 3), np.uint8)


def detect(model: MaskRCNN, number: int) -> tuple[np.ndarray, ...]:
    """What a model finds in the image of a number: boxes, classes, scores, and pixels per mask."""
    (found,) = model.detect([image(number)])
    return found.rois, found.class_ids, found.scores, found.masks.sum(axis=(0, 1))


def same(one: tuple[np.ndarray, ...], other: tuple[np.ndarray, ...]) -> bool:
    """Whether two results are equal bit for bit."""
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def megabytes() -> float:
    """Memory of this process in RAM."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def detections(model: MaskRCNN, count: int) -> Iterator[str]:
    """Detects `count` images, then the first ones again; yields what is wrong."""
    first = [detect(model, i) for i in range(FIRST_DETECTIONS)]
    if not any(len(result[0]) for result in first):
        yield "the model finds nothing, so nothing is compared"
    before = megabytes()
    for i in range(FIRST_DETECTIONS, count):
        detect(model, i)
    yield from growth(f"{count} detections", before)
    if not all(same(detect(model, i), result) for i, result in enumerate(first)):
        yield "detections: the same images gave other results at the end"


def models(count: int) -> Iterator[str]:
    """Builds, uses and deletes `count` models; yields what is wrong."""
    expected, before = None, 0.0
    for i in range(count):
        model = build()
        result = detect(model, 0)
        expected = expected or result
        if not same(result, expected):
            yield f"model {i} of the same weights gave another result than the first"
        del model
        if i + 1 == min(FIRST_MODELS, count):
            before = megabytes()
    yield from growth(f"{count} models", before)


def threads(model: MaskRCNN, count: int, each: int = 100) -> Iterator[str]:
    """Detects the same images in `count` threads at once; yields what is wrong."""
    expected = [detect(model, i) for i in range(each)]

    def work(thread: int) -> int:
        order = np.random.default_rng(thread).permutation(each)
        return sum(not same(detect(model, int(i)), expected[i]) for i in order)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))  # threads have memory of their own, which they keep
        before = megabytes()
        wrong = sum(pool.map(work, range(count)))
        yield from growth(f"{count} threads with {each} images each", before)
    if wrong:
        yield f"threads: {wrong} of {count * each} results differ from those of one thread"


def growth(what: str, before: float) -> Iterator[str]:
    """Prints how memory changed; yields a message if it grew too much."""
    after = megabytes()
    print(f"{what}: {before:.0f} MB, then {after:.0f} MB ({after / before - 1:+.1%})", flush=True)
    if after > GROWTH * before:
        yield f"{what}: memory grew by more than {GROWTH - 1:.0%}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detections", type=int, default=2000)
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--threads", type=int, default=8)
    arguments = parser.parse_args()
    begin, model = time.perf_counter(), build()
    wrong = [*detections(model, arguments.detections), *models(arguments.models), *threads(model, arguments.threads)]
    print("\n".join(wrong) or f"all results equal; {time.perf_counter() - begin:.0f} s")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
