"""The old package's notebooks, rewritten from what their documentation shows and run from top to bottom.

The shapes notebook, and the training of the balloon and nucleus samples, are in tests/test_surface.py.
"""

import os
import random

import imgaug.augmenters as iaa
import numpy as np
import pytest
import skimage.io
from matplotlib import pyplot as plt

import mrcnn.model as modellib
from mrcnn import inspection, utils, visualize
from mrcnn.model import log
from samples.balloon import balloon
from samples.coco import coco
from samples.nucleus import nucleus
from tests.old_programs import write_balloons, write_nuclei
from tests.samples.tiny_coco import write_coco
from tests.weights import matterport_writer

pytestmark = pytest.mark.slow


class Small:
    """Settings that make a network small enough for a test; everything else is as in the notebooks."""

    BACKBONE = "resnet50"
    BACKBONE_OPTIONS = {"width": 8}
    TOP_DOWN_PYRAMID_SIZE = 16
    FPN_CLASSIF_FC_LAYERS_SIZE = 12
    RPN_CHANNELS = 20
    MASK_HEAD = {"name": "fcn", "filters": 16}
    RPN_ANCHOR_SCALES = (8, 16, 32, 64, 128)
    RPN_TRAIN_ANCHORS_PER_IMAGE = 64
    IMAGE_RESIZE_MODE = "square"
    IMAGE_MIN_DIM = 128
    IMAGE_MAX_DIM = 128
    POST_NMS_ROIS_INFERENCE = 50
    TRAIN_ROIS_PER_IMAGE = 32
    MAX_GT_INSTANCES = 8
    MINI_MASK_SHAPE = (28, 28)
    DETECTION_MAX_INSTANCES = 20


class InferenceConfig(Small, coco.CocoConfig):
    GPU_COUNT = 1
    IMAGES_PER_GPU = 1
    NUM_CLASSES = 1 + 2
    DETECTION_MIN_CONFIDENCE = 0


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def get_ax(rows=1, cols=1, size=4):
    _, ax = plt.subplots(rows, cols, figsize=(size * cols, size * rows))
    return ax


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The data of three samples, and the old package's weights in its own file."""
    folder = tmp_path_factory.mktemp("old")
    write_coco(folder / "coco", year=2014)
    write_balloons(folder / "balloon", 3, list)
    write_nuclei(folder / "stage1_train", 3)
    layers = matterport_writer.values_of(matterport_writer.shapes(classes=3))
    layers["bn_conv1"]["moving_variance"] *= 4000
    matterport_writer.save(folder / "mask_rcnn_coco.h5", layers)
    return folder


def load_coco(root):
    dataset = coco.CocoDataset()
    dataset.load_coco(str(root / "coco"), "val")
    return dataset


def load_balloon(root):
    dataset = balloon.BalloonDataset()
    dataset.load_balloon(str(root), "balloon")
    return dataset


def load_nucleus(root):
    dataset = nucleus.NucleusDataset()
    dataset.load_nucleus(str(root), "stage1_train")
    return dataset


LOADERS = {"coco": load_coco, "balloon": load_balloon, "nucleus": load_nucleus}


@pytest.fixture(params=LOADERS)
def dataset(root, request):
    with np.testing.suppress_warnings() as quiet:
        quiet.filter(UserWarning)  # an image without balloons is skipped
        dataset = LOADERS[request.param](root)
    dataset.prepare()
    return dataset


@pytest.fixture(scope="module")
def model(root):
    """Set up as at the start of the demo and of the model inspection notebooks."""
    config = InferenceConfig()
    config.display()
    model = modellib.MaskRCNN(mode="inference", model_dir=str(root / "logs"), config=config)
    COCO_MODEL_PATH = os.path.join(root, "mask_rcnn_coco.h5")
    if not os.path.exists(COCO_MODEL_PATH):
        utils.download_trained_weights(COCO_MODEL_PATH)
    model.load_weights(COCO_MODEL_PATH, by_name=True)
    return model


# demo


def test_demo(root, model):
    class_names = ["BG", "disc", "box"]
    IMAGE_DIR = os.path.join(root, "coco", "val2014")
    file_names = sorted(next(os.walk(IMAGE_DIR))[2])
    image = skimage.io.imread(os.path.join(IMAGE_DIR, random.choice(file_names)))
    results = model.detect([image], verbose=1)
    r = results[0]
    visualize.display_instances(image, r["rois"], r["masks"], r["class_ids"], class_names, r["scores"])
    assert r["rois"].shape == (20, 4) and r["masks"].shape == (64, 80, 20) and r["scores"].max() <= 1


# inspect_data, inspect_balloon_data, inspect_nucleus_data


class DataConfig(Small, coco.CocoConfig):
    IMAGES_PER_GPU = 2


def test_inspect_data_images_and_masks(dataset, capsys):
    print(f"Image Count: {len(dataset.image_ids)}\nClass Count: {dataset.num_classes}")
    for i, info in enumerate(dataset.class_info):
        print(f"{i:3}. {info['name']:50}")
    for image_id in np.random.choice(dataset.image_ids, 2):
        image = dataset.load_image(image_id)
        mask, class_ids = dataset.load_mask(image_id)
        visualize.display_top_masks(image, mask, class_ids, dataset.class_names)
    image_id = random.choice(dataset.image_ids)
    image, (mask, class_ids) = dataset.load_image(image_id), dataset.load_mask(image_id)
    bbox = utils.extract_bboxes(mask)
    print("image_id ", image_id, dataset.image_reference(image_id))
    log("image", image)
    log("mask", mask)
    log("class_ids", class_ids)
    log("bbox", bbox)
    visualize.display_instances(image, bbox, mask, class_ids, dataset.class_names)
    assert "bbox" in capsys.readouterr().out

    config = DataConfig()
    original_shape = image.shape
    image, window, scale, padding, _ = utils.resize_image(
        image, min_dim=config.IMAGE_MIN_DIM, max_dim=config.IMAGE_MAX_DIM, mode=config.IMAGE_RESIZE_MODE
    )
    mask = utils.resize_mask(mask, scale, padding)
    assert image.shape == (128, 128, 3) and mask.shape[:2] == (128, 128)
    bbox = utils.extract_bboxes(mask)
    assert (bbox[:, :2] >= window[:2]).all() and original_shape != image.shape
    visualize.display_instances(image, bbox, mask, class_ids, dataset.class_names)


def test_inspect_data_mini_masks_and_augmentation(dataset):
    config = DataConfig(NUM_CLASSES=dataset.num_classes)
    image_id = int(dataset.image_ids[0])
    image, image_meta, class_ids, bbox, mask = modellib.load_image_gt(dataset, config, image_id, use_mini_mask=False)
    log("image_meta", image_meta)
    visualize.display_images([image, *(mask[:, :, i] for i in range(min(mask.shape[-1], 7)))])
    augmentation = iaa.Sequential([iaa.Fliplr(1.0)])
    image, image_meta, class_ids, bbox, mini = modellib.load_image_gt(
        dataset, config, image_id, augmentation=augmentation, use_mini_mask=True
    )
    assert mini.shape == (*config.MINI_MASK_SHAPE, len(class_ids))
    mask_again = utils.expand_mask(bbox, mini, image.shape)
    overlaps = utils.compute_overlaps_masks(mask_again, mask[:, ::-1])
    assert overlaps.diagonal().min() > 0.85
    visualize.display_instances(image, bbox, mask_again, class_ids, dataset.class_names)
    image, _, class_ids, bbox, _ = modellib.load_image_gt(dataset, config, image_id, augment=True, use_mini_mask=True)
    meta = modellib.parse_image_meta(image_meta[None])
    assert meta["image_id"][0] == image_id and meta["image_shape"][0].tolist() == [128, 128, 3]


def test_inspect_data_anchors(dataset):
    config = DataConfig(NUM_CLASSES=dataset.num_classes)
    backbone_shapes = modellib.compute_backbone_shapes(config, config.IMAGE_SHAPE)
    anchors = utils.generate_pyramid_anchors(
        config.RPN_ANCHOR_SCALES,
        config.RPN_ANCHOR_RATIOS,
        backbone_shapes,
        config.BACKBONE_STRIDES,
        config.RPN_ANCHOR_STRIDE,
    )
    num_levels, anchors_per_cell = len(backbone_shapes), len(config.RPN_ANCHOR_RATIOS)
    anchors_per_level = [h * w * anchors_per_cell // config.RPN_ANCHOR_STRIDE**2 for h, w in backbone_shapes]
    assert sum(anchors_per_level) == anchors.shape[0]
    image = modellib.load_image_gt(dataset, config, 0)[0]
    _, ax = plt.subplots(1, figsize=(4, 4))
    ax.imshow(image)
    for level in range(num_levels):
        level_anchors = anchors[sum(anchors_per_level[:level]) : sum(anchors_per_level[: level + 1])]
        cells = backbone_shapes[level] // config.RPN_ANCHOR_STRIDE
        start = (cells[0] // 2 * cells[1] + cells[1] // 2) * anchors_per_cell
        for y1, x1, y2, x2 in level_anchors[start : start + anchors_per_cell]:
            ax.add_patch(plt.Rectangle((x1, y1), x2 - x1, y2 - y1, facecolor="none"))
            assert (y1 + y2) / 2 == cells[0] // 2 * config.BACKBONE_STRIDES[level]
    assert len(ax.patches) == num_levels * anchors_per_cell


def test_inspect_data_generator_and_rois(dataset):
    np.random.seed(0)
    config = DataConfig(NUM_CLASSES=dataset.num_classes)
    random_rois = 200
    g = modellib.data_generator(
        dataset, config, shuffle=True, random_rois=random_rois, batch_size=2, detection_targets=True
    )
    inputs, outputs = next(g)
    normalized_images, image_meta, rpn_match, rpn_bbox, gt_class_ids, gt_boxes, gt_masks, rpn_rois, rois = inputs
    mrcnn_class_ids, mrcnn_bbox, mrcnn_mask = outputs
    for name, array in (("rois", rois), ("mrcnn_class_ids", mrcnn_class_ids), ("gt_masks", gt_masks)):
        log(name, array)
    image_id = modellib.parse_image_meta(image_meta)["image_id"][0]
    print("image_id: ", image_id, dataset.image_reference(image_id))

    b = 0
    sample_image = modellib.unmold_image(normalized_images[b], config)
    anchors = utils.generate_pyramid_anchors(
        config.RPN_ANCHOR_SCALES,
        config.RPN_ANCHOR_RATIOS,
        modellib.compute_backbone_shapes(config, config.IMAGE_SHAPE),
        config.BACKBONE_STRIDES,
        config.RPN_ANCHOR_STRIDE,
    )
    positive_ids = np.where(rpn_match[b, :, 0] == 1)[0]
    negative_ids = np.where(rpn_match[b, :, 0] == -1)[0]
    assert len(positive_ids) + len(negative_ids) == config.RPN_TRAIN_ANCHORS_PER_IMAGE
    refined_anchors = utils.apply_box_deltas(
        anchors[positive_ids], rpn_bbox[b, : len(positive_ids)] * config.RPN_BBOX_STD_DEV
    )
    overlaps = utils.compute_overlaps(refined_anchors, gt_boxes[b])
    assert overlaps.max(axis=1).min() > 0.99, "the refined anchors are the objects"
    visualize.draw_boxes(sample_image, boxes=anchors[positive_ids], refined_boxes=refined_anchors, ax=get_ax())
    visualize.draw_boxes(sample_image, boxes=anchors[negative_ids], ax=get_ax())

    class_ids = mrcnn_class_ids[b, :, 0]
    assert (class_ids > 0).any()
    specific = mrcnn_bbox[b, np.arange(len(class_ids)), class_ids]
    refined_rois = utils.apply_box_deltas(rois[b].astype(np.float32), specific * config.BBOX_STD_DEV)
    assert utils.compute_overlaps(refined_rois[class_ids > 0], gt_boxes[b]).max(axis=1).min() > 0.99
    masks = mrcnn_mask[b, np.arange(len(class_ids)), :, :, class_ids]
    ax = visualize.draw_rois(sample_image, rois[b], refined_rois, masks, class_ids, dataset.class_names)
    assert len(ax.patches) >= 10
    rows = np.ascontiguousarray(rois[b]).view(np.dtype((np.void, rois.dtype.itemsize * rois.shape[-1])))
    print("Unique ROIs: ", len(np.unique(rows)), "of", rois.shape[1])
    visualize.display_images(
        [np.clip(masks[i], 0, 1) for i in range(4)], titles=[dataset.class_names[i] for i in class_ids[:4]], cols=4
    )


def test_inspect_nucleus_data_statistics_and_crops(root):
    dataset = load_nucleus(root)
    dataset.prepare()
    stats = []
    for image_id in dataset.image_ids:
        image, (mask, class_ids) = dataset.load_image(image_id), dataset.load_mask(image_id)
        sizes = [b[2] - b[0] for b in utils.extract_bboxes(mask)]
        stats.append({"shape": image.shape, "count": len(class_ids), "largest": max(sizes)})
    assert {s["shape"] for s in stats} == {(40, 52, 3)} and {s["count"] for s in stats} == {2}

    class RandomCropConfig(Small, nucleus.NucleusConfig):
        IMAGE_RESIZE_MODE = "crop"
        IMAGE_MIN_DIM = 64
        IMAGE_MAX_DIM = 64
        IMAGE_MIN_SCALE = 2.0

    crops = [modellib.load_image_gt(dataset, RandomCropConfig(), 0) for _ in range(4)]
    assert {c[0].shape for c in crops} == {(64, 64, 3)}
    assert len({c[0].tobytes() for c in crops}) > 1
    visualize.display_images([c[0] for c in crops], titles=[f"{len(c[2])} nuclei" for c in crops])


# inspect_model, inspect_balloon_model, inspect_nucleus_model


def test_inspect_model_detections_and_scores(root, model):
    dataset = load_coco(root)
    dataset.prepare()
    config = model.config
    APs = []
    for image_id in dataset.image_ids:
        image, image_meta, gt_class_id, gt_bbox, gt_mask = modellib.load_image_gt(
            dataset, config, image_id, use_mini_mask=False
        )
        results = model.detect_molded(
            np.expand_dims(modellib.mold_image(image, config), 0), image_meta[None], verbose=1
        )
        r = results[0]
        AP, precisions, recalls, overlaps = utils.compute_ap(
            gt_bbox, gt_class_id, gt_mask, r["rois"], r["class_ids"], r["scores"], r["masks"]
        )
        APs.append(AP)
    assert 0 <= np.mean(APs) <= 1
    visualize.display_differences(
        image, gt_bbox, gt_class_id, gt_mask, r["rois"], r["class_ids"], r["scores"], r["masks"], dataset.class_names
    )
    visualize.plot_precision_recall(AP, precisions, recalls)
    visualize.plot_overlaps(gt_class_id, r["class_ids"], r["scores"], overlaps, dataset.class_names)
    assert 0 <= utils.compute_ap_range(
        gt_bbox, gt_class_id, gt_mask, r["rois"], r["class_ids"], r["scores"], r["masks"], verbose=1
    )


def test_inspect_model_stage_1(root, model):
    dataset = load_coco(root)
    dataset.prepare()
    image, _, gt_class_id, gt_bbox, _ = modellib.load_image_gt(dataset, model.config, 0)
    target_rpn_match, target_rpn_bbox = modellib.build_rpn_targets(
        image.shape, model.anchors, gt_class_id, gt_bbox, model.config
    )
    log("target_rpn_match", target_rpn_match)
    positive = np.where(target_rpn_match == 1)[0]
    refined = utils.apply_box_deltas(
        model.anchors[positive], target_rpn_bbox[: len(positive)] * model.config.RPN_BBOX_STD_DEV
    )
    visualize.draw_boxes(image, boxes=model.anchors[positive], refined_boxes=refined, ax=get_ax())

    # The values for which the notebook ran the graph
    rpn, steps = inspection.rpn_predictions(model, image), inspection.proposal_steps(model, image)
    np.testing.assert_allclose(rpn.anchors, model.anchors)
    limit = 20
    top = np.argsort(rpn.scores)[::-1][:limit]
    visualize.draw_boxes(image, boxes=rpn.anchors[top], ax=get_ax())
    ax = get_ax(1, 2)
    visualize.draw_boxes(image, boxes=steps.anchors[:limit], refined_boxes=steps.refined[:limit], ax=ax[0])
    visualize.draw_boxes(image, refined_boxes=steps.clipped[:limit], ax=ax[1])
    visualize.draw_boxes(image, refined_boxes=steps.proposals[:limit], ax=get_ax())
    assert utils.compute_recall(steps.proposals, gt_bbox, 0.1)[0] >= 0
    keep = utils.non_max_suppression(steps.clipped, steps.scores, model.config.RPN_NMS_THRESHOLD)
    assert len(keep) > 0


def test_inspect_model_stage_2_and_3(root, model):
    dataset = load_coco(root)
    dataset.prepare()
    image = dataset.load_image(1)
    steps = inspection.detection_steps(model, image)
    view = inspection.network_view(model, image)
    keep = np.where(steps.scores >= 0.3)[0]
    captions = [f"{dataset.class_names[c]} {s:.3f}" for c, s in zip(steps.class_ids, steps.scores, strict=True)]
    visualize.draw_boxes(
        view, boxes=steps.rois[steps.roi[keep][:10]], refined_boxes=steps.clipped[keep][:10],
        captions=[captions[i] for i in keep[:10]], ax=get_ax(),
    )  # fmt: skip
    kept = []
    for class_id in np.unique(steps.class_ids):
        ixs = np.where(steps.class_ids == class_id)[0]
        class_keep = utils.non_max_suppression(
            steps.clipped[ixs], steps.scores[ixs], model.config.DETECTION_NMS_THRESHOLD
        )
        kept += ixs[class_keep].tolist()
    kept = sorted(kept, key=lambda i: -steps.scores[i])[: model.config.DETECTION_MAX_INSTANCES]
    assert set(kept) == set(np.flatnonzero(steps.kept)), "the notebook's own NMS chooses what the network chose"

    masks = inspection.mask_predictions(model, image)
    specific = [masks.masks[i, :, :, c] for i, c in enumerate(masks.class_ids)]
    visualize.display_images([m * 255 for m in specific[:4]], cmap="Blues", interpolation="none")
    whole = np.stack([utils.unmold_mask(m, b, view.shape) for m, b in zip(specific, masks.boxes, strict=True)], axis=-1)
    assert whole.shape == (128, 128, len(specific))
    visualize.display_images([whole[:, :, i] for i in range(4)], cmap="Blues", interpolation="none")


def test_inspect_model_activations(root, model):
    image = load_coco(root)
    image.prepare()
    image = image.load_image(0)
    activations = inspection.activations(model, image, ["fpn_p2", "fpn_p5"])
    visualize.display_images(np.transpose(activations["fpn_p2"][:, :, :4], [2, 0, 1]))
    found = model.run_graph([image], [("detections", "detections"), ("proposals", "proposals")])
    plt.hist(found["proposals"][0][0].flatten(), 50)
    assert found["detections"][0].shape == (1, 20, 4)


def test_inspect_balloon_model_splash(root, model):
    with pytest.warns(UserWarning, match="left out 1 x image without instances"):
        dataset = load_balloon(root)
    dataset.prepare()
    image = dataset.load_image(0)
    r = model.detect([image], verbose=0)[0]
    splash = balloon.color_splash(image, r["masks"])
    visualize.display_images([splash], cols=1)
    assert splash.shape == image.shape


def test_inspect_nucleus_model_batch_map_and_submission(root, tmp_path):
    class NucleusTinyConfig(Small, nucleus.NucleusInferenceConfig):
        IMAGE_RESIZE_MODE = "pad64"
        IMAGE_MIN_SCALE = 1
        DETECTION_MIN_CONFIDENCE = 0

    dataset = load_nucleus(root)
    dataset.prepare()
    model = modellib.MaskRCNN(mode="inference", config=NucleusTinyConfig(), model_dir=str(tmp_path))
    model.load_weights(
        str(root / "mask_rcnn_coco.h5"),
        by_name=True,
        exclude=["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"],
    )
    APs = []
    for image_id in dataset.image_ids:
        image, _, gt_class_id, gt_bbox, gt_mask = modellib.load_image_gt(
            dataset, model.config, image_id, use_mini_mask=False
        )
        r = model.detect([image], verbose=0)[0]
        ap = utils.compute_ap_range(
            gt_bbox, gt_class_id, gt_mask, r["rois"], r["class_ids"], r["scores"], r["masks"], verbose=0
        )
        APs.append(ap)
    assert np.isfinite(np.mean(APs))
    text = nucleus.mask_to_rle("n0", r["masks"], r["scores"])
    assert text.startswith("n0,")


# inspect_weights


def test_inspect_weights(model, capsys):
    rows = visualize.display_weight_stats(model)
    assert any("fpn_p2" in row[0] for row in rows) and "min" in capsys.readouterr().out
    LAYER_TYPES = ["Conv2D"]
    layers = [layer for layer in model.get_trainable_layers() if layer.__class__.__name__ in LAYER_TYPES]
    _, ax = plt.subplots(len(layers[:3]), 2, figsize=(4, 6))
    for row, layer in enumerate(layers[:3]):
        assert model.find_trainable_layer(layer) is layer
        for w, weight in enumerate(layer.get_weights()[:2]):
            ax[row, w].set_title(layer.name)
            ax[row, w].hist(weight.flatten(), 20)
    assert len(layers) > 50
