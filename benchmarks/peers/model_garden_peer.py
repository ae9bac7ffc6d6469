"""TF Model Garden's Mask R-CNN for `against_peers.py`; run by a Python that has it, and not this project.

Detection is its serving module, resizing included, in one `tf.function`; it leaves masks at 28 x 28, and its own
pasting is timed apart. Training is its task's step in one `tf.function`, on labels that its parser made before. The box
head is the paper's two layers of 1024, as the others have it; its default has four convolutions and one layer. NMS is
its default, which suits TPUs, or with the option "batched" the operator for CPUs and GPUs, which has no bfloat16.
bfloat16: the policy mixed_bfloat16.
"""

import os

os.environ.update(TF_USE_LEGACY_KERAS="1", TF_CPP_MIN_LOG_LEVEL="3")

import importlib.metadata

import numpy as np
import worker


def load(case):
    """Sets threads and precision; the version."""
    import tensorflow as tf
    import tf_keras

    tf.config.threading.set_intra_op_parallelism_threads(case["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(case["threads"])
    if case["precision"] == "bfloat16":
        tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
    return f"tf-models-official {importlib.metadata.version('tf-models-official')}, tensorflow {tf.__version__}"


def build(case):
    """The job of detection or training."""
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    return (train_job if case["work"] == "train" else detect_job)(case)


def settings(case):
    """Its COCO experiment with the backbone, classes and size of the case."""
    from official.core import exp_factory
    from official.vision.configs import maskrcnn  # noqa: F401  registers the experiment

    params = exp_factory.get_exp_config("maskrcnn_resnetfpn_coco")
    height, width = worker.resized(case)
    batched = bool(case.get("batched"))
    params.task.override(
        {
            "init_checkpoint": "",
            "losses": {"l2_weight_decay": 1e-4},
            "model": {
                "num_classes": case["classes"],
                "input_size": [padded(height), padded(width), 3],
                "backbone": {"resnet": {"model_id": int(case["backbone"].removeprefix("resnet"))}},
                "norm_activation": {"use_sync_bn": False},
                "roi_generator": {"use_batched_nms": batched},
                "detection_generator": {"nms_version": "batched" if batched else "v2"},
                "detection_head": {"num_convs": 0, "num_fcs": 2},
            },
        }
    )
    return params


def padded(side: int) -> int:
    """Pixels of a side as the coarsest of its levels, of stride 64, wants it."""
    return -(-side // 64) * 64


def find_much(model) -> None:
    """Sets the last layers so that every RoI is a sure object of class 1 where its anchor was."""
    head = model.detection_head[0]
    for layer in (model.rpn_head._box_regressor, head._box_regressor, head._classifier):
        bias = np.zeros(layer.bias.shape)
        if layer is head._classifier:
            bias[1] = 10
        layer.set_weights([np.zeros(layer.kernel.shape), bias])


def detect_job(case) -> worker.Job:
    """From uint8 photographs to masks of 28 x 28."""
    import tensorflow as tf
    from official.vision.ops import mask_ops
    from official.vision.serving.detection import DetectionModule

    images = np.stack(worker.photographs(case))
    module = DetectionModule(settings(case), batch_size=case["batch"], input_image_size=list(worker.resized(case)))
    run = tf.function(module.serve)
    run.get_concrete_function(tf.TensorSpec(images.shape, tf.uint8))  # builds the layers
    find_much(module.model)

    def call():
        return {name: value.numpy() for name, value in run(tf.constant(images)).items()}

    def paste(result):
        names = ("detection_boxes", "detection_masks", "image_info")
        for boxes, masks, info in zip(*(result[name] for name in names), strict=True):
            boxes = boxes / np.tile(info[2], 2)  # in pixels of the photograph
            corners, sides = boxes[:, 1::-1], boxes[:, 3:1:-1] - boxes[:, 1::-1]
            mask_ops.paste_instance_masks(
                masks.astype(np.float32), np.concatenate([corners, sides], axis=1), case["height"], case["width"]
            )

    def found(result):
        return {
            "detections": result["num_detections"].tolist(),
            "pasted": False,
            "masks": list(result["detection_masks"].shape[1:]),
        }

    return worker.Job(call, found, {"paste": paste}, "two-layer box head")


def train_job(case) -> worker.Job:
    """One step on a batch that is ready."""
    import tensorflow as tf
    import tf_keras
    from official.vision.tasks.maskrcnn import MaskRCNNTask

    params = settings(case)
    task = MaskRCNNTask(params.task)
    model = task.build_model()
    optimizer = tf_keras.optimizers.SGD(1e-6, momentum=0.9)
    batch = labeled(case, params.task)
    positives = tf.Variable(0, dtype=tf.int32)
    losses = task.build_losses

    def counting(outputs, labels, aux_losses=None):
        positives.assign(tf.math.count_nonzero(outputs["mask_class_targets"] > 0, dtype=tf.int32))
        return losses(outputs, labels, aux_losses)

    task.build_losses = counting
    step = tf.function(lambda inputs: task.train_step(inputs, model, optimizer))
    return worker.Job(
        lambda: float(step(batch)[task.loss]),
        lambda loss: {"loss": loss, "positive_rois": int(positives.numpy())},
        note="two-layer box head, anchors labeled before the step, BatchNorm learns",
    )


def labeled(case, task):
    """The images and labels of a batch, as its input pipeline makes them."""
    import tensorflow as tf
    from official.vision.dataloaders.maskrcnn_input import Parser

    model, size = task.model, worker.resized(case)
    parser = Parser(
        output_size=model.input_size[:2],
        min_level=model.min_level,
        max_level=model.max_level,
        num_scales=model.anchor.num_scales,
        aspect_ratios=model.anchor.aspect_ratios,
        anchor_size=model.anchor.anchor_size,
        include_mask=True,
        mask_crop_size=112,
        max_num_instances=100,
        dtype=case["precision"],
    )
    parse, rows = parser.parse_fn(True), []
    for seed, image in enumerate(worker.photographs(case, size)):
        boxes, class_ids, masks = worker.instances(case, size, seed)
        rows.append(
            parse(
                {
                    "image": tf.constant(image),
                    "groundtruth_classes": tf.constant(class_ids, tf.int64),
                    "groundtruth_boxes": tf.constant(boxes / np.tile(size, 2), tf.float32),
                    "groundtruth_is_crowd": tf.zeros(len(boxes), tf.bool),
                    "groundtruth_area": tf.ones(len(boxes)),
                    "source_id": tf.constant("0"),
                    "height": tf.constant(size[0]),
                    "width": tf.constant(size[1]),
                    "groundtruth_instance_masks": tf.constant(masks, tf.float32),
                }
            )
        )
    return tf.nest.map_structure(lambda *same: tf.stack(same), *rows)


if __name__ == "__main__":
    worker.serve(load, build)
