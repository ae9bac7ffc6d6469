"""Whether a keypoint head learns: a few images of COCO until it knows them, or all of them for some minutes.

    python benchmarks/keypoints.py --data COCO --weights mobilenet_notop.weights.h5
    python benchmarks/keypoints.py --data COCO --weights ... --minutes 20

Without --minutes it overfits to those 8 images with one or two people, no crowd and the largest labeled people, and
prints AP by OKS on the same images. Images with labeled keypoints outside their person's box are left out, as the head
looks for keypoints inside boxes. With it, it trains on all images with labeled keypoints and prints the loss of
each epoch. The model is narrow: a mobilenet from ImageNet weights, 64 channels, images of 256 pixels.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import common  # noqa: F401  makes the checkout importable
import keras
import numpy as np

from mrcnn.config import Config
from mrcnn.data.formats import load_dataset
from mrcnn.evaluation.callback import AveragePrecision
from mrcnn.model import MaskRCNN


class Narrow(Config):
    """People with their keypoints, without masks."""

    NAME = "keypoints"
    NUM_CLASSES = 2
    BACKBONE = "mobilenet"
    BACKBONE_OPTIONS = {"alpha": 0.75}
    MASK_HEAD = None
    KEYPOINT_HEAD = {"name": "keypoints", "filters": 96, "convolutions": 4}
    TOP_DOWN_PYRAMID_SIZE = RPN_CHANNELS = 64
    FPN_CLASSIF_FC_LAYERS_SIZE = 128
    IMAGE_MIN_DIM = 256
    IMAGE_MAX_DIM = 320
    RPN_ANCHOR_SCALES = (16, 32, 64, 128, 256)
    POST_NMS_ROIS_TRAINING = POST_NMS_ROIS_INFERENCE = 200
    TRAIN_ROIS_PER_IMAGE = 32
    MAX_GT_INSTANCES = 20
    DETECTION_MAX_INSTANCES = 20
    IMAGES_PER_GPU = 2
    STEPS_PER_EPOCH = 100
    HORIZONTAL_FLIP = 0.0
    LEARNING_RATE = 0.02
    WARMUP_STEPS = 100
    LR_SCHEDULE = "cosine"
    BBOX_LOSS_BETA = 0.5
    LOADER_WORKERS = 1


class Clock(keras.callbacks.Callback):
    """Ends a training after so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.end = time.monotonic() + seconds

    def on_train_batch_end(self, batch, logs=None) -> None:
        if time.monotonic() > self.end:
            self.model.stop_training = True


def main() -> int:
    """Trains, and prints what was reached."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--data", type=Path, required=True, help="a folder of COCO")
    flags.add_argument("--weights", type=Path, help="ImageNet weights of the mobilenet; without: fetched")
    flags.add_argument("--subset", default="train2017")
    flags.add_argument("--images", type=int, default=8)
    flags.add_argument("--epochs", type=int, default=12)
    flags.add_argument("--minutes", type=float, help="train on all images for so long instead")
    flags.add_argument("--seed", type=int, default=0)
    arguments = flags.parse_args()
    dataset = load_dataset(arguments.data / f"annotations/person_keypoints_{arguments.subset}.json")
    labeled = [int(i) for i in dataset.image_ids if size_of_people(dataset, int(i)) > 0]
    if arguments.minutes:
        config, dataset = Narrow(SEED=arguments.seed, HORIZONTAL_FLIP=0.5), dataset.subset(labeled)
    else:
        best = sorted(labeled, key=lambda i: -size_of_people(dataset, i, most=2))[: arguments.images]
        config, dataset = Narrow(SEED=arguments.seed), dataset.subset(best)
    print(f"{len(dataset.image_ids)} images: {[info['id'] for info in dataset.image_info][:8]} ...", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        model = MaskRCNN("training", config, folder)
        model.load_weights(arguments.weights or model.get_imagenet_weights())
        start, epochs = time.monotonic(), 1000 if arguments.minutes else arguments.epochs
        judge = AveragePrecision(model, dataset, every=4, metric="keypoints AP")
        callbacks = [Clock(60 * arguments.minutes)] if arguments.minutes else [judge]
        model.train(dataset, None, epochs=epochs, verbose=2, custom_callbacks=callbacks)
        print(f"{(time.monotonic() - start) / 60:.1f} minutes")
        if not arguments.minutes:
            numbers = judge.history[max(judge.history)]["keypoints"]
            print({name: round(value, 3) for name, value in numbers.items()})
    return 0


def size_of_people(dataset, image_id: int, most: int = 100) -> float:
    """Side of the smallest person with labeled keypoints, by that of the image; 0 for images that are not meant."""
    points, info = dataset.load_keypoints(image_id), dataset.image_info[image_id]
    class_ids, boxes = dataset.load_class_ids(image_id), dataset.load_boxes(image_id)
    if not len(points) or len(points) > most or (class_ids < 0).any():
        return 0.0
    labeled = points[..., 2] > 0
    outside = (points[..., :2] < boxes[:, None, :2] - 1) | (points[..., :2] > boxes[:, None, 2:] + 1)
    if most < 100 and (labeled & outside.any(axis=-1)).any():
        return 0.0
    people = labeled.any(axis=1)
    sides = np.sqrt(np.prod(boxes[people, 2:] - boxes[people, :2], axis=1))
    return float(sides.min(initial=np.inf) / max(info["height"], info["width"])) if people.any() else 0.0


if __name__ == "__main__":
    sys.exit(main())
