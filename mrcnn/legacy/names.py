"""Every name of the old package: where it is now and what differs, or what replaces it.

`mrcnn.model` finds its old names here, and others those that are gone. docs/coming_from_matterport.md lists them.
"""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Any, NamedTuple

from mrcnn.legacy.removed import Removed


class Kept(NamedTuple):
    """A name that works, and what differs. `home` is its module if programs import it from another one."""

    home: str = ""
    differs: str = ""


class Gone(NamedTuple):
    """A name that raises when used, and what replaces it."""

    instead: str


BOXES, ANCHORS, IMAGES, TARGETS = (f"mrcnn.legacy.{name}" for name in ("boxes", "anchors", "images", "targets"))
LAYER = "it was a layer inside the graph. `{}` is the layer now, and `mrcnn.inspection.{}` shows what it does."
LOSS = "use `mrcnn.training.losses.{}`."
PART = "the graph is assembled in mrcnn/network; {}"

MODEL: dict[str, Kept | Gone] = {
    "MaskRCNN": Kept(),
    "log": Kept(IMAGES),
    "load_image_gt": Kept(IMAGES, 'resizes by IMAGE_RESIZE_MODE, whose default is "fit"'),
    "mold_image": Kept(
        IMAGES, "float32 rather than float64; subtracts what the backbone expects if MEAN_PIXEL is None"
    ),
    "unmold_image": Kept(IMAGES, "rounds instead of truncating"),
    "compose_image_meta": Kept(IMAGES),
    "parse_image_meta": Kept(IMAGES),
    "parse_image_meta_graph": Kept(IMAGES),
    "compute_backbone_shapes": Kept(ANCHORS, "does not call COMPUTE_BACKBONE_SHAPE"),
    "build_rpn_targets": Kept(TARGETS, "raises nothing; for looking at, training computes its own"),
    "build_detection_targets": Kept(TARGETS, "masks have twice MASK_POOL_SIZE pixels a side; MASK_SHAPE is gone"),
    "generate_random_rois": Kept(TARGETS, "other random numbers"),
    "data_generator": Kept("mrcnn.legacy.generator", "raises at the first error instead of printing five"),
    "apply_box_deltas_graph": Kept(BOXES),
    "clip_boxes_graph": Kept(BOXES),
    "overlaps_graph": Kept(BOXES),
    "norm_boxes_graph": Kept(BOXES),
    "denorm_boxes_graph": Kept(BOXES),
    "trim_zeros_graph": Kept(BOXES),
    "batch_pack_graph": Kept(BOXES),
    "log2_graph": Kept(BOXES),
    "smooth_l1_loss": Kept(BOXES),
    "BatchNorm": Gone("use `keras.layers.BatchNormalization`; TRAIN_BN freezes that of the backbone."),
    "ProposalLayer": Gone(LAYER.format("mrcnn.layers.proposals.Proposals", "proposal_steps")),
    "PyramidROIAlign": Gone(LAYER.format("mrcnn.layers.roi_align.roi_align.RoIAlign", "mask_predictions")),
    "DetectionTargetLayer": Gone(LAYER.format("mrcnn.layers.targets.RoITargets", "training_targets")),
    "detection_targets_graph": Gone(LAYER.format("mrcnn.layers.targets.RoITargets", "training_targets")),
    "DetectionLayer": Gone(LAYER.format("mrcnn.layers.detections.Detections", "detection_steps")),
    "refine_detections_graph": Gone(LAYER.format("mrcnn.layers.detections.Detections", "detection_steps")),
    "resnet_graph": Gone(PART.format('BACKBONE = "resnet50" or a function of your own chooses the backbone.')),
    "identity_block": Gone(PART.format("BACKBONE takes a function that returns [C2, C3, C4, C5].")),
    "conv_block": Gone(PART.format("BACKBONE takes a function that returns [C2, C3, C4, C5].")),
    "rpn_graph": Gone(PART.format("`mrcnn.network.rpn.build_rpn` builds the RPN.")),
    "build_rpn_model": Gone(PART.format("`mrcnn.network.rpn.build_rpn` builds the RPN.")),
    "fpn_classifier_graph": Gone(PART.format("`mrcnn.network.box_head.build_box_head` builds the box head.")),
    "build_fpn_mask_graph": Gone(PART.format("`heads.register` adds a mask head of your own, MASK_HEAD chooses one.")),
    "rpn_class_loss_graph": Gone(LOSS.format("rpn_class_loss")),
    "rpn_bbox_loss_graph": Gone(LOSS.format("rpn_bbox_loss")),
    "mrcnn_class_loss_graph": Gone(LOSS.format("mrcnn_class_loss")),
    "mrcnn_bbox_loss_graph": Gone(LOSS.format("box_loss")),
    "mrcnn_mask_loss_graph": Gone(LOSS.format("mrcnn_mask_loss")),
    "K": Gone("Keras 3 has no sessions and no graph of its own; `keras.ops` has the functions. Drop K.get_session()."),
    "KL": Gone("write `from keras import layers`."),
    "KM": Gone("write `import keras`; models are `keras.Model`."),
    "KE": Gone("write `from keras import layers`; layers of your own derive from `keras.layers.Layer`."),
}

UTILS: dict[str, Kept | Gone] = {
    "Dataset": Kept(),
    "COCO_MODEL_URL": Kept(),
    "download_trained_weights": Kept(differs="checks the size of the file; an existing one is kept"),
    "extract_bboxes": Kept(),
    "compute_iou": Kept(differs="computes the areas itself; 0 for empty boxes"),
    "compute_overlaps": Kept(differs="float32 rather than float64; 0 for empty boxes"),
    "compute_overlaps_masks": Kept(differs="0 for two empty masks instead of nan"),
    "non_max_suppression": Kept(differs="returns [] for no boxes instead of failing"),
    "apply_box_deltas": Kept(),
    "box_refinement": Kept(),
    "box_refinement_graph": Kept(),
    "norm_boxes": Kept(),
    "denorm_boxes": Kept(),
    "batch_slice": Kept(),
    "resize": Kept(),
    "resize_image": Kept(differs='has the mode "fit", too'),
    "resize_mask": Kept(),
    "minimize_mask": Kept(),
    "expand_mask": Kept(),
    "unmold_mask": Kept(),
    "generate_anchors": Kept(),
    "generate_pyramid_anchors": Kept(differs="its order of ratios is the old one, see RPN_ANCHOR_RATIO_MEANING"),
    "trim_zeros": Kept(),
    "compute_matches": Kept(differs="each detection takes the free object it overlaps most"),
    "compute_ap": Kept(differs="crowds (negative class ids) need not be found"),
    "compute_ap_range": Kept(differs="crowds (negative class ids) need not be found"),
    "compute_recall": Kept(differs="0 without objects"),
    "mold_mask": Gone("it had no body; `minimize_mask` crops masks to their boxes."),
}

VISUALIZE: dict[str, Kept | Gone] = {
    "display_images": Kept(differs="returns the Figure"),
    "random_colors": Kept(differs="the same colors at every call"),
    "apply_mask": Kept(),
    "display_instances": Kept(differs="draws scores from 0.5 on: `min_score=0` draws all; returns the Axes"),
    "display_differences": Kept(differs="returns the Axes"),
    "draw_rois": Kept(differs="returns the Axes; the same choice for the same `seed`"),
    "draw_box": Kept(),
    "display_top_masks": Kept(differs="returns the Figure"),
    "plot_precision_recall": Kept(differs="returns the Axes"),
    "plot_overlaps": Kept(differs="returns the Axes"),
    "draw_boxes": Kept(differs="returns the Axes"),
    "display_table": Kept(differs="prints text outside of notebooks"),
    "display_weight_stats": Kept(differs="returns the rows, too"),
}

METHODS: dict[str, Kept | Gone] = {
    "mode": Kept(),
    "config": Kept(),
    "model_dir": Kept(differs="a Path"),
    "log_dir": Kept(differs="a Path; made when training begins"),
    "epoch": Kept(),
    "checkpoint_path": Kept(differs="a method: `checkpoint_path(epoch)`"),
    "keras_model": Kept(differs="other layers, inputs and outputs"),
    "train": Kept(differs="any further arguments are new ones"),
    "detect": Kept(differs="any number of images of any sizes; boxes are float32 unless DETECTION_ROUND_BOXES is set"),
    "load_weights": Kept(differs="raises for layers that do not fit and are not excluded"),
    "find_last": Kept(),
    "get_imagenet_weights": Kept(differs="of the backbone in use; the old package always took ResNet-50's"),
    "set_trainable": Kept(differs="`keras_model` and `indent` are not used"),
    "set_log_dir": Kept(),
    "mold_inputs": Kept(differs="all images in one array, so they must give one size"),
    "unmold_detections": Kept(),
    "detect_molded": Kept(differs="boxes are float32"),
    "get_anchors": Kept(),
    "anchors": Kept(),
    "ancestor": Kept(differs="finds layers; raises for names of TensorFlow operations"),
    "find_trainable_layer": Kept(),
    "get_trainable_layers": Kept(),
    "run_graph": Kept(differs="tensors are those of `inference_model`; a layer's name will do"),
    "build": Gone("see its message"),
    "compile": Gone("see its message"),
}

PARALLEL: dict[str, Kept | Gone] = {
    "ParallelModel": Gone('set DISTRIBUTION = "mirrored" and GPU_COUNT; MaskRCNN then trains on all devices.')
}

FOLDERS = {"ROOT_DIR": Kept(), "DEFAULT_LOGS_DIR": Kept()}
SAMPLES: dict[str, dict[str, Kept | Gone]] = {
    "samples.balloon.balloon": {
        "BalloonConfig": Kept(differs="a MobileNet at 512 pixels"),
        "BalloonDataset": Kept(differs="`image_info` has `instances` instead of `polygons`"),
        "train": Kept(differs="takes the arguments of the command line, too"),
        "color_splash": Kept(),
        "detect_and_color_splash": Kept(differs="files are named after the image or video"),
        "COCO_WEIGHTS_PATH": Kept(),
        **FOLDERS,
    },
    "samples.coco.coco": {
        "CocoConfig": Kept(differs="an epoch is once through the images; `MatterportCocoConfig` has the old settings"),
        "CocoDataset": Kept(),
        "build_coco_results": Kept(),
        "evaluate_coco": Kept(),
        "COCO_MODEL_PATH": Kept(),
        "DEFAULT_DATASET_YEAR": Kept(),
        **FOLDERS,
    },
    "samples.nucleus.nucleus": {
        "NucleusConfig": Kept(differs="a MobileNet; MEAN_PIXEL is what it expects"),
        "NucleusInferenceConfig": Kept(),
        "NucleusDataset": Kept(differs="holds 4% of stage1_train out as `val`, other images than the old list"),
        "train": Kept(differs="takes a Config and the arguments of the command line"),
        "detect": Kept(differs="writes submission.csv; no pictures"),
        "rle_encode": Kept(),
        "rle_decode": Kept(),
        "mask_to_rle": Kept(),
        "VAL_IMAGE_IDS": Gone("see its message"),
        "RESULTS_DIR": Kept(),
        "COCO_WEIGHTS_PATH": Kept(),
        **FOLDERS,
    },
    "samples.shapes.shapes": {
        "ShapesConfig": Kept(differs="a small backbone; learns in minutes on two cores"),
        "ShapesDataset": Kept(differs="draws on photographs; `draw_shape`, `random_shape` and `random_image` are gone"),
    },
}

# By the module or class that programs take the names from.
TABLE: dict[str, dict[str, Kept | Gone]] = {
    "mrcnn.model": MODEL,
    "mrcnn.model.MaskRCNN": METHODS,
    "mrcnn.utils": UTILS,
    "mrcnn.visualize": VISUALIZE,
    "mrcnn.parallel_model": PARALLEL,
    **SAMPLES,
}
SHORT = {"mrcnn.model": "modellib", "mrcnn.utils": "utils", "mrcnn.parallel_model": "parallel_model"}


def find(module: str, name: str) -> Any:
    """What a module's `__getattr__` returns: the old name, or what raises when used.

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
