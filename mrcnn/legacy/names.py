"""Every name of the old package: its new location and what differs, or what replaces it.

`mrcnn.model` and other modules look up old names here. docs/coming_from_matterport.md lists them.
"""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Any, NamedTuple

from mrcnn.legacy.removed import Removed


class Kept(NamedTuple):
    """A name that works.

    home: its module, if programs import it from a different one.
    differs: what differs from the old package.
    restore: code that gives the old behavior, if the difference is one of behavior.
    """

    home: str = ""
    differs: str = ""
    restore: str = ""


class Gone(NamedTuple):
    """A name that raises when used, and what replaces it."""

    instead: str


BOXES, ANCHORS, IMAGES, TARGETS = (f"mrcnn.legacy.{name}" for name in ("boxes", "anchors", "images", "targets"))
OLD_PIXELS = "MEAN_PIXEL, PIXEL_STD = (123.7, 116.8, 103.9), (1, 1, 1)"
SHOWS = "training does not use it"
LAYER = "it was a layer inside the graph. `{}` is the layer now, and `mrcnn.inspection.{}` shows what it does."
LOSS = "use `mrcnn.training.losses.{}`."
PART = "the graph is assembled in mrcnn/network; {}"

MODEL: dict[str, Kept | Gone] = {
    "MaskRCNN": Kept(),
    "log": Kept(IMAGES),
    "load_image_gt": Kept(IMAGES, 'IMAGE_RESIZE_MODE is "fit" unless set', 'IMAGE_RESIZE_MODE = "square"'),
    "mold_image": Kept(IMAGES, "without MEAN_PIXEL, normalizes as the backbone expects; float32", OLD_PIXELS),
    "unmold_image": Kept(IMAGES, "without MEAN_PIXEL, inverts the backbone's normalization; rounds", OLD_PIXELS),
    "compose_image_meta": Kept(IMAGES),
    "parse_image_meta": Kept(IMAGES),
    "parse_image_meta_graph": Kept(IMAGES),
    "compute_backbone_shapes": Kept(ANCHORS, "does not call COMPUTE_BACKBONE_SHAPE, which is gone"),
    "build_rpn_targets": Kept(TARGETS, SHOWS),
    "build_detection_targets": Kept(TARGETS, f"{SHOWS}; a mask has 2 * MASK_POOL_SIZE pixels per side"),
    "generate_random_rois": Kept(TARGETS, "different random numbers"),
    "data_generator": Kept("mrcnn.legacy.generator", f"{SHOWS}; the first error is raised"),
    "apply_box_deltas_graph": Kept(BOXES),
    "clip_boxes_graph": Kept(BOXES),
    "overlaps_graph": Kept(BOXES),
    "norm_boxes_graph": Kept(BOXES),
    "denorm_boxes_graph": Kept(BOXES),
    "trim_zeros_graph": Kept(BOXES),
    "batch_pack_graph": Kept(BOXES),
    "log2_graph": Kept(BOXES),
    "smooth_l1_loss": Kept(BOXES),
    "BatchNorm": Gone("use `keras.layers.BatchNormalization`; TRAIN_BN = False freezes the backbone's."),
    "ProposalLayer": Gone(LAYER.format("mrcnn.layers.proposals.Proposals", "proposal_steps")),
    "PyramidROIAlign": Gone(LAYER.format("mrcnn.layers.roi_align.roi_align.RoIAlign", "mask_predictions")),
    "DetectionTargetLayer": Gone(LAYER.format("mrcnn.layers.targets.RoITargets", "training_targets")),
    "detection_targets_graph": Gone(LAYER.format("mrcnn.layers.targets.RoITargets", "training_targets")),
    "DetectionLayer": Gone(LAYER.format("mrcnn.layers.detections.Detections", "detection_steps")),
    "refine_detections_graph": Gone(LAYER.format("mrcnn.layers.detections.Detections", "detection_steps")),
    "resnet_graph": Gone(PART.format('BACKBONE = "resnet50" or your own function selects the backbone.')),
    "identity_block": Gone(PART.format("BACKBONE takes a function that returns [C2, C3, C4, C5].")),
    "conv_block": Gone(PART.format("BACKBONE takes a function that returns [C2, C3, C4, C5].")),
    "rpn_graph": Gone(PART.format("`mrcnn.network.rpn.build_rpn` builds the RPN.")),
    "build_rpn_model": Gone(PART.format("`mrcnn.network.rpn.build_rpn` builds the RPN.")),
    "fpn_classifier_graph": Gone(PART.format("`mrcnn.network.box_head.build_box_head` builds the box head.")),
    "build_fpn_mask_graph": Gone(PART.format("`heads.register` adds your own mask head, MASK_HEAD selects one.")),
    "rpn_class_loss_graph": Gone(LOSS.format("rpn_class_loss")),
    "rpn_bbox_loss_graph": Gone(LOSS.format("rpn_bbox_loss")),
    "mrcnn_class_loss_graph": Gone(LOSS.format("mrcnn_class_loss")),
    "mrcnn_bbox_loss_graph": Gone(LOSS.format("box_loss")),
    "mrcnn_mask_loss_graph": Gone(LOSS.format("mrcnn_mask_loss")),
    "K": Gone("Keras 3 has no sessions or backend module; use `keras.ops`. Remove K.get_session()."),
    "KL": Gone("write `from keras import layers`."),
    "KM": Gone("write `import keras`; models are `keras.Model`."),
    "KE": Gone("write `from keras import layers`; your own layers derive from `keras.layers.Layer`."),
}

UTILS: dict[str, Kept | Gone] = {
    "Dataset": Kept(),
    "COCO_MODEL_URL": Kept(),
    "download_trained_weights": Kept(differs="keeps an existing complete file, but not a damaged one"),
    "extract_bboxes": Kept(),
    "compute_iou": Kept(differs="computes the areas itself; 0 for empty boxes instead of nan"),
    "compute_overlaps": Kept(differs="float32; 0 for empty boxes instead of nan"),
    "compute_overlaps_masks": Kept(differs="0 for two empty masks instead of nan"),
    "non_max_suppression": Kept(differs="returns no boxes for empty input instead of failing"),
    "apply_box_deltas": Kept(),
    "box_refinement": Kept(),
    "box_refinement_graph": Kept(),
    "norm_boxes": Kept(),
    "denorm_boxes": Kept(),
    "batch_slice": Kept(),
    "resize": Kept(),
    "resize_image": Kept(differs='also has the mode "fit"'),
    "resize_mask": Kept(),
    "minimize_mask": Kept(),
    "expand_mask": Kept(),
    "unmold_mask": Kept(),
    "generate_anchors": Kept(),
    "generate_pyramid_anchors": Kept(
        differs="the network orders anchors by height / width", restore='RPN_ANCHOR_RATIO_MEANING = "width/height"'
    ),
    "trim_zeros": Kept(),
    "compute_matches": Kept(differs="a detection matches the free object it overlaps most; crowds count as in COCO"),
    "compute_ap": Kept(differs="crowds (negative class ids) need not be found"),
    "compute_ap_range": Kept(differs="crowds (negative class ids) need not be found"),
    "compute_recall": Kept(differs="0 without objects instead of nan"),
    "mold_mask": Gone("it had no body; `minimize_mask` crops masks to their boxes."),
}

VISUALIZE: dict[str, Kept | Gone] = {
    "display_images": Kept(differs="returns the Figure"),
    "random_colors": Kept(differs="returns the same colors on every call", restore="random.shuffle(colors)"),
    "apply_mask": Kept(),
    "display_instances": Kept(
        differs="draws scores of at least 0.5; returns the Axes", restore="display_instances(..., min_score=0)"
    ),
    "display_differences": Kept(differs="returns the Axes"),
    "draw_rois": Kept(
        differs="draws the same RoIs on every call; returns the Axes", restore="draw_rois(..., seed=None)"
    ),
    "draw_box": Kept(),
    "display_top_masks": Kept(differs="returns the Figure"),
    "plot_precision_recall": Kept(differs="returns the Axes"),
    "plot_overlaps": Kept(differs="returns the Axes"),
    "draw_boxes": Kept(differs="returns the Axes"),
    "display_table": Kept(differs="prints text outside of notebooks"),
    "display_weight_stats": Kept(differs="also returns the rows"),
}

METHODS: dict[str, Kept | Gone] = {
    "mode": Kept(),
    "config": Kept(),
    "model_dir": Kept(differs="a Path", restore="str(model.model_dir)"),
    "log_dir": Kept(differs="a Path; the folder is created when training starts", restore="str(model.log_dir)"),
    "epoch": Kept(),
    "checkpoint_path": Kept(differs="a method", restore="model.checkpoint_path(epoch)"),
    "keras_model": Kept(differs="has different layers, inputs and outputs"),
    "train": Kept(differs="also takes `verbose`"),
    "detect": Kept(
        differs="any number of images of any sizes; boxes are float32", restore="DETECTION_ROUND_BOXES = True"
    ),
    "load_weights": Kept(differs="raises for layers that do not match", restore="load_weights(path, by_name=True)"),
    "find_last": Kept(),
    "get_imagenet_weights": Kept(differs="for the backbone in use; the old package always used ResNet-50's"),
    "set_trainable": Kept(differs="`keras_model` and `indent` are not used"),
    "set_log_dir": Kept(),
    "mold_inputs": Kept(differs="all images must have the same network input size"),
    "unmold_detections": Kept(),
    "detect_molded": Kept(differs="boxes are float32", restore='r["rois"].round().astype(int)'),
    "get_anchors": Kept(),
    "anchors": Kept(),
    "ancestor": Kept(differs="finds layers; for a TensorFlow operation, the error names the function to call"),
    "find_trainable_layer": Kept(),
    "get_trainable_layers": Kept(),
    "run_graph": Kept(differs="takes tensors, or names of layers, of `inference_model`"),
    "build": Gone(
        "the graphs are built on first use, as `training_model` and `inference_model`. To change the network, "
        "register a mask head (`heads.register`) or set BACKBONE to a function."
    ),
    "compile": Gone(
        "`train` compiles. Pass it learning_rate, and set LEARNING_MOMENTUM, WEIGHT_DECAY and GRADIENT_CLIP_NORM."
    ),
    "keras_model.metrics_tensors": Gone(
        "the losses are Keras metrics. `train` returns a History with them by name; callbacks get them as `logs`."
    ),
    "keras_model._make_predict_function": Gone("Keras 3 builds it at the first detection; remove the call."),
    "keras_model.fit_generator": Gone("MaskRCNN.train takes datasets and creates the batches."),
    "keras_model.predict_generator": Gone("MaskRCNN.detect takes any number of images."),
}

PARALLEL: dict[str, Kept | Gone] = {
    "ParallelModel": Gone('set DISTRIBUTION = "mirrored" and GPU_COUNT; MaskRCNN then trains on all devices.')
}

FOLDERS = {"ROOT_DIR": Kept(), "DEFAULT_LOGS_DIR": Kept()}
SAMPLES: dict[str, dict[str, Kept | Gone]] = {
    "samples.balloon.balloon": {
        "BalloonConfig": Kept(
            differs="a MobileNet at 512 pixels", restore="class BalloonConfig(presets.Matterport): ..."
        ),
        "BalloonDataset": Kept(differs="`image_info` has `instances` instead of `polygons`"),
        "train": Kept(differs="also takes the command-line arguments"),
        "color_splash": Kept(),
        "detect_and_color_splash": Kept(differs="files are named after the image or video"),
        "COCO_WEIGHTS_PATH": Kept(),
        **FOLDERS,
    },
    "samples.coco.coco": {
        "CocoConfig": Kept(
            differs="the reference recipe; an epoch is one pass over the images",
            restore="from samples.coco.recipes import MatterportCocoConfig",
        ),
        "CocoDataset": Kept(),
        "build_coco_results": Kept(),
        "evaluate_coco": Kept(),
        "COCO_MODEL_PATH": Kept(),
        "DEFAULT_DATASET_YEAR": Kept(),
        **FOLDERS,
    },
    "samples.nucleus.nucleus": {
        "NucleusConfig": Kept(
            differs="a MobileNet, and the mean it expects", restore="class NucleusConfig(presets.Matterport): ..."
        ),
        "NucleusInferenceConfig": Kept(),
        "NucleusDataset": Kept(differs="holds out 4% of stage1_train as `val`, not the images of the old list"),
        "train": Kept(differs="takes a Config and the command-line arguments"),
        "detect": Kept(differs="writes submission.csv, but no images"),
        "rle_encode": Kept(),
        "rle_decode": Kept(),
        "mask_to_rle": Kept(),
        "VAL_IMAGE_IDS": Gone("a fraction of images is held out by id: `--validation 0.1`."),
        "RESULTS_DIR": Kept(),
        "COCO_WEIGHTS_PATH": Kept(),
        **FOLDERS,
    },
    "samples.shapes.shapes": {
        "ShapesConfig": Kept(differs="a small backbone that trains in minutes on two cores"),
        "ShapesDataset": Kept(differs="draws on real backgrounds; `draw_shape` and the like are gone"),
    },
}

# By the module or class from which programs import the names
TABLE: dict[str, dict[str, Kept | Gone]] = {
    "mrcnn.model": MODEL,
    "mrcnn.model.MaskRCNN": METHODS,
    "mrcnn.utils": UTILS,
    "mrcnn.visualize": VISUALIZE,
    "mrcnn.parallel_model": PARALLEL,
    **SAMPLES,
}
SHORT = {
    "mrcnn.model": "modellib",
    "mrcnn.model.MaskRCNN": "MaskRCNN",
    "mrcnn.utils": "utils",
    "mrcnn.parallel_model": "parallel_model",
    "samples.nucleus.nucleus": "nucleus",
}


def find(module: str, name: str) -> Any:
    """For a module's `__getattr__`: the old name, or an object that raises when used.

    Raises AttributeError for a name that neither package has.
    """
    entry = TABLE[module].get(name)
    if isinstance(entry, Gone):
        return Removed(f"{SHORT[module]}.{name}", entry.instead)
    if entry is None or not entry.home:
        near = difflib.get_close_matches(name, TABLE[module], n=3)
        hint = f". Did you mean {' or '.join(near)}?" if near else ""
        raise AttributeError(f"module {module!r} has no attribute {name!r}{hint}")
    return getattr(import_module(entry.home), name)
