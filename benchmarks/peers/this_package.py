"""This package's side of `against_peers.py`: the checkout that the file lies in, or another, by its public facade."""

import inspect
import itertools
import json
import os
import sys
from pathlib import Path

import numpy as np
import worker
from systems import SYSTEMS

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(json.loads(sys.argv[1]).get("root") or Path(__file__).resolve().parents[2])
sys.path[1:1] = [str(ROOT / "benchmarks"), str(ROOT)]


def load(case) -> str:
    """Sets the threads; the version."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(case["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(case["threads"])
    import keras

    return f"tensorflow {tf.__version__}, keras {keras.__version__}"


def build(case) -> worker.Job:
    """The job of the work."""
    return {"train": train_job, "detect": detect_job, "folder": folder_job}[case["work"]](network(case), case)


def network(case):
    """The model of a case, with random weights."""
    from mrcnn.config import Config
    from mrcnn.model import MaskRCNN

    training = case["work"] == "train"
    settings = {
        "NAME": "benchmark",
        "BACKBONE": case["backbone"],
        "NUM_CLASSES": case["classes"],
        "PRECISION": case["precision"],
        "IMAGE_MIN_DIM": case["min_dim"],
        "IMAGE_MAX_DIM": case["max_dim"],
        "IMAGES_PER_GPU": case["batch"],
        "DETECTION_BATCH_SIZE": case["batch"],
        "HORIZONTAL_FLIP": 0.0,
        **SYSTEMS[case.get("system", "fpn")],
    }
    return MaskRCNN("training" if training else "inference", Config(**settings))


def find_much(model) -> None:
    """Sets the last layers so that each image gives 100 objects."""
    import inference

    inference.find_much(model.network)


def detect_job(model, case) -> worker.Job:
    """From uint8 photographs to pasted masks, or keypoints."""
    find_much(model)
    images, points = worker.photographs(case), case.get("system") == "keypoints"
    name, form = ("keypoints", "crops") if points else ("masks", "full")

    def found(result):
        return {"detections": [len(one["scores"]) for one in result], "pasted": True, name: list(result[0][name].shape)}

    asked = of_form(model, form)
    return worker.Job(lambda: model.detect(images, **asked), found)


def of_form(model, form: str) -> dict[str, str]:
    """Asks `detect` for masks of this form; versions before `stream` name it otherwise."""
    return {"prepare": form} if "prepare" in inspect.signature(model.detect).parameters else {"masks": form}


def folder_job(model, case) -> worker.Job:
    """From paths of images of mixed sizes to run-length masks; one call for a part of the images."""
    find_much(model)
    calls = worker.folder_calls(case)
    streams = hasattr(model, "stream") and not case.get("one_by_one")
    run, form = model.stream if streams else model.detect, of_form(model, "rle")

    def call():
        return [len(one["scores"]) for one in run(next(calls), **form)]

    how = "stream" if streams else "detect"
    return worker.Job(call, lambda counts: {"images": len(counts), "detections": sum(counts)}, note=how)


def train_job(model, case) -> worker.Job:
    """One step on a batch that is ready."""
    from mrcnn.data.dataset import Dataset
    from mrcnn.data.loader import Loader
    from mrcnn.training.model import compile_model, set_trainable

    if case.get("coco"):
        batches = coco_batches(model, case)
    else:
        loader = Loader(worker.generated(Dataset, case), model.config, scaling=model.scaling, steps=1)
        batches = [loader[0][0]]
        loader.close()
    turns = itertools.cycle(batches)
    trained = model.keras_model
    set_trainable(model.network, "all", train_bn=False)
    compile_model(trained, model.config, learning_rate=1e-6, total_steps=1000)

    def found(loss):
        positive = trained(batches[0], training=False)["roi_class_ids"] > 0
        y1, x1, y2, x2 = np.concatenate([batch["window"] for batch in batches]).T
        computed = sum(np.prod(batch["image"].shape[:3]) for batch in batches)
        return {
            "loss": float(np.ravel(loss)[0]),
            "positive_rois": int(positive.numpy().sum()),
            "image_pixels": round(float(((y2 - y1) * (x2 - x1)).sum() / computed), 3),
        }

    return worker.Job(lambda: trained.train_on_batch(next(turns)), found)


def coco_batches(model, case) -> list[dict]:
    """The batches of `worker.coco_batches`, as the loader makes them."""
    from mrcnn.data.formats.coco import read_coco
    from mrcnn.data.loader import Loader

    _, chosen = worker.coco_batches(case)
    folder = Path(case["coco"])
    dataset = read_coco(folder / "annotations" / "instances_train2017.json", folder / "train2017", strict=False)
    numbers = {info["id"]: number for number, info in enumerate(dataset.image_info)}
    batches = []
    for ids in chosen:
        part = dataset.subset(numbers[i] for i in ids)
        loader = Loader(part, model.config, scaling=model.scaling, steps=1, training=False)
        batches.append(loader[0][0])
        loader.close()
    return batches


if __name__ == "__main__":
    worker.serve(load, build)
