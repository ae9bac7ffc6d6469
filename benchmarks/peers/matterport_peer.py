"""matterport's Mask R-CNN, the old package, for `against_peers.py`; run by a Python 3.7 that has it.

Its own defaults, but for the sizes: in training 200 RoIs an image, of which a third positive. Photographs are padded to
a square. There is no bfloat16.
"""

import os
import tempfile

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import worker


def load(case):
    """Sets the threads; the version."""
    import keras
    import tensorflow as tf

    tf.compat.v1.logging.set_verbosity("ERROR")
    options = tf.ConfigProto(intra_op_parallelism_threads=case["threads"], inter_op_parallelism_threads=case["threads"])
    keras.backend.set_session(tf.Session(config=options))
    return f"tensorflow {tf.__version__}, keras {keras.__version__}"


def build(case):
    """The job of detection or training."""
    from mrcnn.config import Config
    from mrcnn.model import MaskRCNN

    if case["precision"] != "float32":
        raise ValueError(f"matterport's package computes in float32 only, got {case['precision']}")

    class Settings(Config):
        NAME = "benchmark"
        BACKBONE, NUM_CLASSES, IMAGES_PER_GPU = case["backbone"], case["classes"], case["batch"]
        IMAGE_MIN_DIM, IMAGE_MAX_DIM = case["min_dim"], -(-case["max_dim"] // 64) * 64

    mode = "training" if case["work"] == "train" else "inference"
    model = MaskRCNN(mode, Settings(), tempfile.gettempdir())
    return (train_job if case["work"] == "train" else detect_job)(model, case)


def find_much(model):
    """Sets the last layers so that every RoI is a sure object of class 1 where its anchor was."""
    rpn = model.keras_model.get_layer("rpn_model").get_layer("rpn_bbox_pred")
    for layer in (rpn, model.keras_model.get_layer("mrcnn_bbox_fc"), model.keras_model.get_layer("mrcnn_class_logits")):
        kernel, bias = (np.zeros_like(value) for value in layer.get_weights())
        if layer.name == "mrcnn_class_logits":
            bias[1] = 10
        layer.set_weights([kernel, bias])


def detect_job(model, case):
    """From uint8 photographs to pasted masks."""
    find_much(model)
    images = worker.photographs(case)

    def found(result):
        return {
            "detections": [len(one["scores"]) for one in result],
            "pasted": True,
            "masks": list(result[0]["masks"].shape),
        }

    return worker.Job(lambda: model.detect(images), found)


def train_job(model, case):
    """One step on a batch that is ready."""
    import keras

    from mrcnn.model import data_generator
    from mrcnn.utils import Dataset

    batches = data_generator(worker.generated(Dataset, case), model.config, shuffle=False, batch_size=case["batch"])
    inputs, _ = next(batches)
    model.set_trainable(".*", verbose=0)
    model.compile(1e-6, 0.9)
    trained = model.keras_model
    class_ids = keras.backend.function(trained.inputs, [trained.get_layer("proposal_targets").output[1]])

    def found(losses):
        return {"loss": float(losses[0]), "positive_rois": int((class_ids(inputs)[0] > 0).sum())}

    return worker.Job(lambda: trained.train_on_batch(inputs, []), found, note="200 RoIs an image")


if __name__ == "__main__":
    worker.serve(load, build)
