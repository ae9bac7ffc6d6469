"""Every name of the old package exists and takes the old arguments, or using it says what replaces it."""

import importlib
import inspect
import types

import pytest

from mrcnn import model as modellib
from mrcnn import utils, visualize
from mrcnn.config import REMOVED, Config
from mrcnn.legacy import names
from mrcnn.legacy.names import Gone, Kept
from mrcnn.legacy.removed import Removed, RemovedNameError
from tests.old_programs import BalloonConfig

# Names in the old package (commit 3deaec5), by the module or class from which programs import them.
OLD = {
    "mrcnn.model": """
        log BatchNorm compute_backbone_shapes identity_block conv_block resnet_graph apply_box_deltas_graph
        clip_boxes_graph ProposalLayer log2_graph PyramidROIAlign overlaps_graph detection_targets_graph
        DetectionTargetLayer refine_detections_graph DetectionLayer rpn_graph build_rpn_model fpn_classifier_graph
        build_fpn_mask_graph smooth_l1_loss rpn_class_loss_graph rpn_bbox_loss_graph mrcnn_class_loss_graph
        mrcnn_bbox_loss_graph mrcnn_mask_loss_graph load_image_gt build_detection_targets build_rpn_targets
        generate_random_rois data_generator MaskRCNN compose_image_meta parse_image_meta parse_image_meta_graph
        mold_image unmold_image trim_zeros_graph batch_pack_graph norm_boxes_graph denorm_boxes_graph K KL KM KE""",
    "mrcnn.model.MaskRCNN": """
        mode config model_dir log_dir epoch checkpoint_path keras_model anchors build find_last load_weights
        get_imagenet_weights compile set_trainable set_log_dir train mold_inputs unmold_detections detect detect_molded
        get_anchors ancestor find_trainable_layer get_trainable_layers run_graph keras_model.metrics_tensors
        keras_model._make_predict_function keras_model.fit_generator keras_model.predict_generator""",
    "mrcnn.utils": """
        extract_bboxes compute_iou compute_overlaps compute_overlaps_masks non_max_suppression apply_box_deltas
        box_refinement_graph box_refinement Dataset resize_image resize_mask minimize_mask expand_mask mold_mask
        unmold_mask generate_anchors generate_pyramid_anchors trim_zeros compute_matches compute_ap compute_ap_range
        compute_recall batch_slice download_trained_weights norm_boxes denorm_boxes resize COCO_MODEL_URL""",
    "mrcnn.visualize": """
        display_images random_colors apply_mask display_instances display_differences draw_rois draw_box
        display_top_masks plot_precision_recall plot_overlaps draw_boxes display_table display_weight_stats""",
    "mrcnn.parallel_model": "ParallelModel",
    "samples.balloon.balloon": """
        BalloonConfig BalloonDataset train color_splash detect_and_color_splash COCO_WEIGHTS_PATH DEFAULT_LOGS_DIR
        ROOT_DIR""",
    "samples.coco.coco": """
        CocoConfig CocoDataset build_coco_results evaluate_coco COCO_MODEL_PATH DEFAULT_DATASET_YEAR DEFAULT_LOGS_DIR
        ROOT_DIR""",
    "samples.nucleus.nucleus": """
        NucleusConfig NucleusInferenceConfig NucleusDataset train detect rle_encode rle_decode mask_to_rle VAL_IMAGE_IDS
        RESULTS_DIR COCO_WEIGHTS_PATH DEFAULT_LOGS_DIR ROOT_DIR""",
    "samples.shapes.shapes": "ShapesConfig ShapesDataset",
}
DATASET = """
    add_class add_image image_reference prepare map_source_class_id get_source_class_id image_ids source_image_link
    load_image load_mask image_info class_info class_names class_ids num_classes num_images sources source_class_ids
    class_from_source_map image_from_source_map""".split()

# Leading parameters, which programs written for the old package pass by position.
SURFACE = {
    Config: {"display": "self"},
    modellib: {
        "MaskRCNN": "mode config model_dir",
        "load_image_gt": "dataset config image_id augment augmentation use_mini_mask",
        "mold_image": "image config",
        "compose_image_meta": "image_id original_image_shape image_shape window scale active_class_ids",
        "parse_image_meta": "meta",
        "log": "text array",
        "unmold_image": "normalized_images config",
        "parse_image_meta_graph": "meta",
        "compute_backbone_shapes": "config image_shape",
        "build_rpn_targets": "image_shape anchors gt_class_ids gt_boxes config",
        "build_detection_targets": "rpn_rois gt_class_ids gt_boxes gt_masks config",
        "generate_random_rois": "image_shape count gt_class_ids gt_boxes",
        "data_generator": "dataset config shuffle augment augmentation random_rois batch_size detection_targets "
        "no_augmentation_sources",
        "apply_box_deltas_graph": "boxes deltas",
        "clip_boxes_graph": "boxes window",
        "overlaps_graph": "boxes1 boxes2",
        "norm_boxes_graph": "boxes shape",
        "denorm_boxes_graph": "boxes shape",
        "trim_zeros_graph": "boxes name",
        "batch_pack_graph": "x counts num_rows",
        "log2_graph": "x",
        "smooth_l1_loss": "y_true y_pred",
    },
    modellib.MaskRCNN: {
        "train": "self train_dataset val_dataset learning_rate epochs layers augmentation custom_callbacks "
        "no_augmentation_sources",
        "detect": "self images verbose",
        "load_weights": "self filepath by_name exclude",
        "find_last": "self",
        "get_imagenet_weights": "self",
        "set_trainable": "self layer_regex keras_model indent verbose",
        "set_log_dir": "self model_path",
        "mold_inputs": "self images",
        "unmold_detections": "self detections mrcnn_mask original_image_shape image_shape window",
        "detect_molded": "self molded_images image_metas verbose",
        "get_anchors": "self image_shape",
        "ancestor": "self tensor name checked",
        "find_trainable_layer": "self layer",
        "get_trainable_layers": "self",
        "run_graph": "self images outputs image_metas",
    },
    utils.Dataset: {
        "__init__": "self class_map",
        "add_class": "self source class_id class_name",
        "add_image": "self source image_id path",
        "prepare": "self class_map",
        "load_image": "self image_id",
        "load_mask": "self image_id",
        "image_reference": "self image_id",
        "source_image_link": "self image_id",
        "map_source_class_id": "self source_class_id",
        "get_source_class_id": "self class_id source",
    },
    utils: {
        "compute_iou": "box boxes box_area boxes_area",
        "compute_overlaps": "boxes1 boxes2",
        "compute_overlaps_masks": "masks1 masks2",
        "compute_matches": "gt_boxes gt_class_ids gt_masks pred_boxes pred_class_ids pred_scores pred_masks "
        "iou_threshold score_threshold",
        "compute_ap": "gt_boxes gt_class_ids gt_masks pred_boxes pred_class_ids pred_scores pred_masks iou_threshold",
        "compute_ap_range": "gt_box gt_class_id gt_mask pred_box pred_class_id pred_score pred_mask iou_thresholds "
        "verbose",
        "compute_recall": "pred_boxes gt_boxes iou",
        "extract_bboxes": "mask",
        "resize_image": "image min_dim max_dim min_scale mode",
        "resize_mask": "mask scale padding crop",
        "minimize_mask": "bbox mask mini_shape",
        "expand_mask": "bbox mini_mask image_shape",
        "unmold_mask": "mask bbox image_shape",
        "non_max_suppression": "boxes scores threshold",
        "apply_box_deltas": "boxes deltas",
        "box_refinement": "box gt_box",
        "box_refinement_graph": "box gt_box",
        "norm_boxes": "boxes shape",
        "denorm_boxes": "boxes shape",
        "batch_slice": "inputs graph_fn batch_size names",
        "generate_anchors": "scales ratios shape feature_stride anchor_stride",
        "generate_pyramid_anchors": "scales ratios feature_shapes feature_strides anchor_stride",
        "trim_zeros": "x",
        "download_trained_weights": "coco_model_path verbose",
        "resize": "image output_shape order mode cval clip preserve_range anti_aliasing anti_aliasing_sigma",
    },
    visualize: {
        "display_instances": "image boxes masks class_ids class_names scores title figsize ax show_mask show_bbox "
        "colors captions",
        "display_images": "images titles cols cmap norm interpolation",
        "display_differences": "image gt_box gt_class_id gt_mask pred_box pred_class_id pred_score pred_mask "
        "class_names title ax show_mask show_box iou_threshold score_threshold",
        "display_top_masks": "image mask class_ids class_names limit",
        "plot_precision_recall": "AP precisions recalls",
        "plot_overlaps": "gt_class_ids pred_class_ids pred_scores overlaps class_names threshold",
        "draw_rois": "image rois refined_rois mask class_ids class_names limit",
        "draw_boxes": "image boxes refined_boxes masks captions visibilities title ax",
        "display_weight_stats": "model",
        "random_colors": "N bright",
        "apply_mask": "image mask color alpha",
        "draw_box": "image box color",
        "display_table": "table",
    },
}
SETTINGS = """
    NAME GPU_COUNT IMAGES_PER_GPU STEPS_PER_EPOCH VALIDATION_STEPS BACKBONE COMPUTE_BACKBONE_SHAPE BACKBONE_STRIDES
    FPN_CLASSIF_FC_LAYERS_SIZE TOP_DOWN_PYRAMID_SIZE NUM_CLASSES RPN_ANCHOR_SCALES RPN_ANCHOR_RATIOS RPN_ANCHOR_STRIDE
    RPN_NMS_THRESHOLD RPN_TRAIN_ANCHORS_PER_IMAGE PRE_NMS_LIMIT POST_NMS_ROIS_TRAINING POST_NMS_ROIS_INFERENCE
    USE_MINI_MASK MINI_MASK_SHAPE IMAGE_RESIZE_MODE IMAGE_MIN_DIM IMAGE_MAX_DIM IMAGE_MIN_SCALE IMAGE_CHANNEL_COUNT
    MEAN_PIXEL TRAIN_ROIS_PER_IMAGE ROI_POSITIVE_RATIO POOL_SIZE MASK_POOL_SIZE MASK_SHAPE MAX_GT_INSTANCES
    RPN_BBOX_STD_DEV BBOX_STD_DEV DETECTION_MAX_INSTANCES DETECTION_MIN_CONFIDENCE DETECTION_NMS_THRESHOLD
    LEARNING_RATE LEARNING_MOMENTUM WEIGHT_DECAY LOSS_WEIGHTS USE_RPN_ROIS TRAIN_BN GRADIENT_CLIP_NORM
    BATCH_SIZE IMAGE_SHAPE IMAGE_META_SIZE""".split()

EVERY = [(module, name) for module, text in OLD.items() for name in text.split()]


def test_the_table_lists_every_name():
    assert {module: set(text.split()) for module, text in OLD.items()} == {
        module: set(table) for module, table in names.TABLE.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("module, name", EVERY)
def test_a_name_is_there_or_says_what_replaces_it(module, name, tmp_path):
    entry = names.TABLE[module][name]
    if name.startswith("keras_model."):
        return  # for graphs, see test_methods
    owner = modellib.MaskRCNN if module.endswith("MaskRCNN") else importlib.import_module(module)
    if isinstance(entry, Kept):
        if owner is modellib.MaskRCNN and name in ("mode", "config", "model_dir", "epoch"):
            return  # for objects, see below
        assert not isinstance(getattr(owner, name), Removed)
        return
    with pytest.raises(RemovedNameError, match=rf"\.{name} of the old package no longer exists: "):
        getattr(owner, name)()
    with pytest.raises(RemovedNameError):
        types.new_class("Mine", (getattr(owner, name),))
    with pytest.raises(RemovedNameError):
        isinstance(1, getattr(owner, name))
    with pytest.raises(RemovedNameError):
        getattr(owner, name).anything  # noqa: B018
    assert name in repr(getattr(owner, name))
    assert not hasattr(getattr(owner, name), "_repr_html_")


def test_what_replaces_a_name_exists():
    """Every dotted name in a message is a module, or a name in one."""
    for table in names.TABLE.values():
        for entry in table.values():
            if isinstance(entry, Gone):
                for word in entry.instead.replace("`", " ").replace("(", " ").split():
                    word = word.strip(".,;:")
                    if word.startswith("mrcnn."):
                        module, _, name = word.rpartition(".")
                        assert hasattr(importlib.import_module(module), name), word


def test_names_that_are_gone_can_be_imported():
    """A program that imports names it does not use still runs."""
    from mrcnn.model import BatchNorm, K, ProposalLayer
    from mrcnn.parallel_model import ParallelModel

    assert all(isinstance(name, Removed) for name in (BatchNorm, K, ProposalLayer, ParallelModel))
    with pytest.raises(RemovedNameError, match=r"Remove K\.get_session"):
        K.get_session()
    with pytest.raises(RemovedNameError, match='DISTRIBUTION = "mirrored"'):
        ParallelModel(None, gpu_count=2)


@pytest.mark.parametrize("module", ["mrcnn.model", "mrcnn.utils", "mrcnn.parallel_model"])
def test_a_name_that_neither_package_has(module):
    owner = importlib.import_module(module)
    with pytest.raises(AttributeError, match=f"module '{module}' has no attribute 'nothing'"):
        owner.nothing  # noqa: B018
    if module == "mrcnn.model":
        with pytest.raises(AttributeError, match="Did you mean load_image_gt"):
            owner.load_image_gtt  # noqa: B018


def test_everything_can_be_imported_with_a_star():
    space = {}
    exec("from mrcnn.model import *", space)
    assert {"MaskRCNN", "load_image_gt", "ProposalLayer"} <= set(space)
    exec("from mrcnn.utils import *", space)
    assert {"Dataset", "compute_ap", "norm_boxes"} <= set(space)


@pytest.mark.parametrize("name", DATASET)
def test_a_dataset_has_its_old_attributes(name):
    dataset = utils.Dataset()
    dataset.add_class("source", 1, "cat")
    dataset.add_image("source", image_id="a", path="a.png")
    dataset.prepare()
    assert getattr(dataset, name) is not None


@pytest.mark.parametrize(
    "owner, name",
    [(owner, name) for owner, names in SURFACE.items() for name in names],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_old_names_take_old_arguments_in_their_order(owner, name):
    old, ours = SURFACE[owner][name].split(), inspect.signature(getattr(owner, name)).parameters
    assert list(ours)[: len(old)] == old
    further = [p for p in list(ours.values())[len(old) :] if p.kind is not p.VAR_KEYWORD]
    assert all(p.default is not p.empty for p in further), "an old call would lack an argument"


@pytest.mark.parametrize("name", SETTINGS)
def test_an_old_setting_is_there_or_says_where_it_went(name):
    if hasattr(Config(), name):
        return
    assert name in REMOVED
    with pytest.raises(AttributeError, match=f"{name} of the old package is gone: .*; drop it"):
        getattr(Config(), name)
    with pytest.raises(ValueError, match=f"{name} of the old package is gone: .*; drop it"):
        type("OldConfig", (Config,), {name: None})


def test_train_bn_none_of_the_old_package_is_not_taken_for_false():
    with pytest.raises(ValueError, match="TRAIN_BN must be True or False, got None"):
        Config(TRAIN_BN=None)


def test_display_prints_every_setting(capsys):
    BalloonConfig().display()
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.strip()][1:]
    printed = {line[0]: line[1] for line in lines}
    assert set(SETTINGS) - set(REMOVED) <= set(printed)
    assert (printed["NUM_CLASSES"], printed["BATCH_SIZE"], printed["IMAGE_SHAPE"]) == ("3", "2", "(64, 64, 3)")
