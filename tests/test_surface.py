"""The surface that users of the old package know: its names, and its samples' flows, shortened, on generated data."""

import os
from types import SimpleNamespace

import imgaug.augmenters as iaa
import keras
import numpy as np
import pytest
from matplotlib import pyplot
from scipy.ndimage import binary_dilation, binary_erosion

from mrcnn import model as modellib
from mrcnn import utils, visualize
from mrcnn.config import LOSS_NAMES, Config
from mrcnn.data.formats.via import read_via
from tests.old_programs import (
    BalloonConfig,
    BalloonDataset,
    InferenceConfig,
    NucleusConfig,
    NucleusDataset,
    NucleusInferenceConfig,
    OldConfig,
    ShapesConfig,
    augmentation,
    mask_to_rle,
    rle_decode,
    shapes_dataset,
    write_balloons,
    write_nuclei,
)
from tests.tiny import TinyDataset

pytestmark = pytest.mark.slow

CLASS_LAYERS = ["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"]


# The shapes notebook


def weights_of(model):
    return {key: [np.array(weight) for weight in layer.weights] for key, layer in model.network.layers().items()}


def changed(before, after):
    """Keys of the layers of which a weight differs."""
    return {
        key
        for key, weights in before.items()
        if not all(np.array_equal(a, b) for a, b in zip(weights, after[key], strict=True))
    }


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Weights of another data set without their class layers, then the heads trained, then everything more slowly."""
    logs = tmp_path_factory.mktemp("shapes")
    coco = modellib.MaskRCNN("inference", ShapesConfig(NAME="coco", NUM_CLASSES=6, SEED=7), logs)
    coco_path = os.path.join(logs, "mask_rcnn_coco.h5")
    coco.save_weights(coco_path)
    config = ShapesConfig()
    run = SimpleNamespace(
        logs=logs, config=config, coco=weights_of(coco), train=shapes_dataset(24, seed=1), val=shapes_dataset(6, seed=2)
    )
    run.model = model = modellib.MaskRCNN(mode="training", config=config, model_dir=str(logs))
    run.fresh = weights_of(model)
    run.report = model.load_weights(coco_path, by_name=True, exclude=CLASS_LAYERS)
    run.begin = weights_of(model)
    run.heads = model.train(run.train, run.val, learning_rate=config.LEARNING_RATE, epochs=1, layers="heads")
    run.middle = weights_of(model)
    run.all = model.train(run.train, run.val, learning_rate=config.LEARNING_RATE / 10, epochs=2, layers="all")
    run.end = weights_of(model)
    yield run
    pyplot.close("all")


@pytest.fixture(scope="module")
def inference(shapes):
    model = modellib.MaskRCNN(mode="inference", config=InferenceConfig(), model_dir=str(shapes.logs))
    report = model.load_weights(model.find_last(), by_name=True)
    assert not report.skipped and not report.missing and not report.unexpected
    return model


def test_weights_of_another_data_set_load_without_their_class_layers(shapes):
    left = {"box_head/mrcnn_class_logits", "box_head/mrcnn_bbox_fc", "mask_head/masks"}
    assert {tensor.name.rpartition("/")[0] for tensor in shapes.report.skipped} == left
    assert not shapes.report.missing and not shapes.report.unexpected
    kept = {key: shapes.coco[key] for key in shapes.coco if key not in left}
    assert changed(kept, shapes.begin) == set()
    assert changed({key: shapes.fresh[key] for key in left}, shapes.begin) == set()


def test_heads_first_then_everything_with_a_lower_learning_rate(shapes):
    backbone = {key for key in shapes.begin if key.startswith(("trunk/res", "trunk/bn"))}
    frozen = {key for key in backbone if "/bn" in key}  # TRAIN_BN is False
    heads = set(shapes.begin) - backbone
    assert changed(shapes.begin, shapes.middle) == heads
    assert changed(shapes.middle, shapes.end) == heads | backbone - frozen
    names = {*LOSS_NAMES, *(f"val_{name}" for name in LOSS_NAMES), "loss", "val_loss"}
    assert names <= set(shapes.heads.history) and names <= set(shapes.all.history)
    assert (shapes.heads.epoch, shapes.all.epoch) == ([0], [1])
    assert shapes.all.history["loss"][0] < shapes.heads.history["loss"][0]
    assert float(shapes.model.training_model.optimizer.learning_rate) == pytest.approx(0.002)
    checkpoints = sorted(path.name for path in shapes.model.log_dir.glob("*.h5"))
    assert checkpoints == ["mask_rcnn_shapes_0001.h5", "mask_rcnn_shapes_0002.h5"]


def test_find_last_is_what_was_just_trained(shapes, inference):
    assert inference.find_last() == shapes.model.log_dir / "mask_rcnn_shapes_0002.h5"
    assert changed(shapes.end, weights_of(inference)) == set()
    assert inference.class_names == ["BG", "square", "circle", "triangle"]


def test_one_image_looked_at_as_in_the_notebook(shapes, inference, capsys):
    config, image_id = InferenceConfig(), int(shapes.val.image_ids[1])
    original_image, image_meta, gt_class_id, gt_bbox, gt_mask = modellib.load_image_gt(
        shapes.val, config, image_id, use_mini_mask=False
    )
    modellib.log("gt_bbox", gt_bbox)
    modellib.log("nothing", np.zeros([0, 4]))
    assert f"shape: ({len(gt_bbox)}, 4)" in capsys.readouterr().out
    np.testing.assert_array_equal(gt_bbox, utils.extract_bboxes(gt_mask))
    assert len(image_meta) == 12 + config.NUM_CLASSES
    assert shapes.val.image_reference(image_id) == shapes.val.image_info[image_id]["shapes"]
    r = inference.detect([original_image], verbose=1)[0]
    assert "image 0: 64 x 64 as 64 x 64: 30 proposals" in capsys.readouterr().out
    _, ax = pyplot.subplots(1, 1, figsize=(8, 8))
    drawn = visualize.display_instances(
        original_image, r["rois"], r["masks"], r["class_ids"], shapes.val.class_names, r["scores"], ax=ax
    )
    confident = int((r["scores"] >= 0.5).sum())
    assert drawn is ax and len(ax.patches) == confident > 0
    drawn = visualize.display_instances(
        original_image, r["rois"], r["masks"], r["class_ids"], shapes.val.class_names, r["scores"], min_score=0
    )
    assert len(drawn.patches) >= len(r["rois"]) >= confident
    assert any(text.get_text().startswith(shapes.val.class_names[r["class_ids"][0]]) for text in ax.texts)


def test_mean_ap_over_the_validation_set(shapes, inference):
    aps, config = [], InferenceConfig()
    for image_id in shapes.val.image_ids:
        image, _, gt_class_id, gt_bbox, gt_mask = modellib.load_image_gt(
            shapes.val, config, image_id, use_mini_mask=False
        )
        np.expand_dims(modellib.mold_image(image, config), 0)
        r = inference.detect([image], verbose=0)[0]
        ap, precisions, recalls, overlaps = utils.compute_ap(
            gt_bbox, gt_class_id, gt_mask, r["rois"], r["class_ids"], r["scores"], r["masks"]
        )
        aps.append(ap)
    visualize.plot_precision_recall(ap, precisions, recalls)
    visualize.plot_overlaps(gt_class_id, r["class_ids"], r["scores"], overlaps, shapes.val.class_names)
    visualize.display_differences(
        image, gt_bbox, gt_class_id, gt_mask, r["rois"], r["class_ids"], r["scores"], r["masks"], shapes.val.class_names
    )
    assert np.mean(aps) > 0.5


def test_any_number_of_images_whatever_the_batch_size(shapes, inference):
    small = shapes_dataset(1, seed=3, height=40, width=60).load_image(0)
    images = [shapes.val.load_image(0), small, shapes.val.load_image(1)]
    assert inference.config.BATCH_SIZE == 1
    together = inference.detect(images)
    for image, result in zip(images, together, strict=True):
        alone = inference.detect([image])[0]
        assert result["masks"].shape == (*image.shape[:2], len(result["rois"])) and result["masks"].dtype == bool
        np.testing.assert_array_equal(result["class_ids"], alone["class_ids"])
        np.testing.assert_allclose(result["rois"], alone["rois"], atol=1e-3)
    assert inference.detect([]) == []


def test_data_looked_at_as_in_the_inspection_notebooks(shapes):
    config, dataset = Config(NAME="x", IMAGE_MIN_DIM=80, IMAGE_MAX_DIM=96), shapes_dataset(1, seed=3, width=80)
    image, (mask, class_ids) = dataset.load_image(0), dataset.load_mask(0)
    visualize.display_top_masks(image, mask, class_ids, dataset.class_names)
    image, window, scale, padding, _ = utils.resize_image(
        image, min_dim=config.IMAGE_MIN_DIM, max_dim=config.IMAGE_MAX_DIM, mode=config.IMAGE_RESIZE_MODE
    )
    mask = utils.resize_mask(mask, scale, padding)
    assert (image.shape, window, scale) == ((77, 96, 3), (0, 0, 77, 96), 1.2)
    assert mask.shape == (77, 96, len(class_ids))
    boxes = utils.extract_bboxes(mask)
    mini = utils.minimize_mask(boxes, mask, (28, 28))
    overlaps = utils.compute_overlaps_masks(utils.expand_mask(boxes, mini, image.shape), mask)
    assert overlaps.diagonal().min() > 0.9
    with pytest.raises(ValueError, match='mode "fit" needs min_dim and max_dim, got None and 96'):
        utils.resize_image(image, max_dim=96, mode="fit")


@pytest.mark.parametrize(
    "backbone, settings, expected",
    [
        ("resnet50", {}, (0 - 123.675) / 58.395),
        ("mobilenet", {}, -1.0),
        ("resnet50", {"MEAN_PIXEL": np.array([10.0, 20.0, 30.0]), "PIXEL_STD": (1, 1, 1)}, -10.0),
    ],
)
def test_mold_image_knows_the_backbones_pixels(backbone, settings, expected):
    config = Config(BACKBONE=backbone, **settings)
    molded = modellib.mold_image(np.zeros((2, 3, 3), np.uint8), config)
    assert molded.shape == (2, 3, 3) and molded[0, 0, 0] == pytest.approx(expected)


def test_mold_image_gives_what_detect_gives_the_network(shapes, inference):
    image = shapes.val.load_image(0)
    np.testing.assert_array_equal(
        modellib.mold_image(image, inference.config), inference.detector.network_input(image).image
    )


# The balloon sample: annotations of VIA, and here a second source of another class beside them


class Recorder(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.logs = []

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append((epoch, dict(logs)))


@pytest.fixture(scope="module")
def balloons(tmp_path_factory):
    """A training of the heads on both sources, with an augmenter that notes the images it gets."""
    folder = tmp_path_factory.mktemp("balloons")
    write_balloons(folder / "train", 4, dict)  # VIA 1
    write_balloons(folder / "val", 2, list)  # VIA 2
    run = SimpleNamespace(folder=folder, augmented=[], recorder=Recorder(), config=BalloonConfig())
    run.train, run.val = BalloonDataset(), BalloonDataset()
    for dataset, subset in ((run.train, "train"), (run.val, "val")):
        dataset.load_balloon(folder, subset)
        dataset.load_discs(2)
        dataset.prepare()

    def note(images, random_state, parents, hooks):
        run.augmented += [np.array(image) for image in images]
        return images

    run.model = modellib.MaskRCNN(mode="training", config=run.config, model_dir=folder / "logs")
    run.model.train(
        run.train,
        None,
        learning_rate=run.config.LEARNING_RATE,
        epochs=1,
        layers="heads",
        augmentation=iaa.Sequential([iaa.Fliplr(0.5), iaa.Lambda(func_images=note)]),
        custom_callbacks=[run.recorder],
        no_augmentation_sources=["discs"],
    )
    return run


@pytest.mark.filterwarnings("ignore:.*left out 1 x image without instances")
@pytest.mark.parametrize("subset", ["train", "val"])
def test_polygons_read_by_hand_are_those_of_load_via(balloons, subset):
    theirs, ours = BalloonDataset(), read_via(balloons.folder, subset, class_name="balloon", source="balloon")
    theirs.load_balloon(balloons.folder, subset)
    theirs.prepare()
    assert theirs.class_names == ours.class_names == ["BG", "balloon"]
    assert [info["id"] for info in theirs.image_info] == [info["id"] for info in ours.image_info]
    for image_id in theirs.image_ids:
        (by_hand, their_ids), (filled, our_ids) = theirs.load_mask(image_id), ours.load_mask(image_id)
        np.testing.assert_array_equal(their_ids, our_ids)
        # scikit-image takes pixels by their corner, COCO's tools by their middle: they differ along the edge only
        around = np.ones((3, 3, 1))
        assert not (binary_erosion(by_hand, around) & ~filled).any()
        assert not (filled & ~binary_dilation(by_hand, around)).any()
        assert theirs.image_reference(image_id) == ours.source_image_link(image_id)


def test_two_sources_keep_their_class_ids_apart(balloons):
    dataset = balloons.train
    assert (dataset.num_classes, list(dataset.class_names)) == (3, ["BG", "balloon", "disc"])
    assert dataset.source_class_ids == {"": [0], "balloon": [0, 1], "discs": [0, 2]}
    assert (dataset.map_source_class_id("balloon.1"), dataset.map_source_class_id("discs.7")) == (1, 2)
    assert (dataset.get_source_class_id(1, "balloon"), dataset.get_source_class_id(2, "discs")) == (1, 7)
    with pytest.raises(ValueError, match="class 2 .'disc'. comes from 'discs', not from 'balloon'"):
        dataset.get_source_class_id(2, "balloon")
    active = [
        modellib.parse_image_meta(modellib.load_image_gt(dataset, balloons.config, i)[1][None])["active_class_ids"][
            0
        ].tolist()
        for i in (0, 5)
    ]
    assert active == [[1, 1, 0], [1, 0, 1]]
    assert dataset.image_reference(0).endswith("0.png") and dataset.image_reference(5) == ""


def test_augmentation_leaves_the_named_sources_alone(balloons):
    assert len(balloons.augmented) >= 4, "the training went through every balloon once"
    assert {image.shape for image in balloons.augmented} == {(48, 64, 3)}, "discs are 48 x 48"
    sides = {bool(image[20, 20, 0] > 200) for image in balloons.augmented}  # the balloon lies left, or right if flipped
    assert sides == {True, False}


def test_custom_callbacks_get_the_losses(balloons):
    ((epoch, logs),) = balloons.recorder.logs
    assert epoch == 0 and {"loss", *LOSS_NAMES} <= set(logs)
    assert np.isfinite(list(logs.values())).all()


def test_a_warm_up_longer_than_the_training_is_said(balloons, monkeypatch):
    """1000 steps where an old notebook trains fewer: its learning rate would hardly rise."""
    monkeypatch.setattr(balloons.config, "WARMUP_STEPS", 1000)
    monkeypatch.setattr(balloons.model.training_model, "fit", lambda *arguments, **options: None)
    with pytest.warns(UserWarning, match="WARMUP_STEPS = 1000 is more than the 6 steps"):
        balloons.model.train(balloons.train, None, epochs=2)


def test_splash_with_the_model_that_was_just_trained(balloons):
    image = balloons.val.load_image(0)
    r = balloons.model.detect([image], verbose=0)[0]
    again = balloons.model.detect([balloons.val.source_image_link(0)])[0]
    np.testing.assert_array_equal(r["masks"], again["masks"])
    grey = np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.uint8)
    mask = np.sum(r["masks"], -1, keepdims=True) >= 1
    splash = np.where(mask, image, grey).astype(np.uint8)
    assert len(r["scores"]) > 0 and splash.shape == image.shape


# The nucleus sample: a mask a file, crops, imgaug, and run lengths of its own


@pytest.fixture(scope="module")
def nuclei(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nuclei")
    write_nuclei(folder / "train", 4)
    dataset = NucleusDataset()
    dataset.load_nucleus(folder / "train")
    dataset.prepare()
    return SimpleNamespace(dataset=dataset, logs=folder / "logs")


def test_augmented_masks_stay_on_their_nuclei(nuclei):
    np.random.seed(0)
    places, brightness = set(), set()
    for _ in range(12):
        image, _, _, boxes, masks = modellib.load_image_gt(
            nuclei.dataset, NucleusInferenceConfig(), 0, augmentation=augmentation()
        )
        inside = masks.any(axis=-1)
        assert image[inside].mean() > 100 > 60 > image[~inside].mean()
        places.add(tuple(boxes.ravel()))
        brightness.add(round(float(image[inside].mean())))
    assert len(places) > 3 and len(brightness) > 3


def test_train_on_crops_and_submit_run_lengths(nuclei):
    model = modellib.MaskRCNN(mode="training", config=NucleusConfig(), model_dir=nuclei.logs)
    history = model.train(
        nuclei.dataset,
        None,
        learning_rate=model.config.LEARNING_RATE,
        epochs=1,
        augmentation=augmentation(),
        layers="heads",
    )
    assert np.isfinite(history.history["loss"]).all()
    model = modellib.MaskRCNN(mode="inference", config=NucleusInferenceConfig(), model_dir=nuclei.logs)
    model.load_weights(model.find_last(), by_name=True)
    image = nuclei.dataset.load_image(0)
    assert image.shape == (40, 52, 3)
    r = model.detect([image], verbose=0)[0]
    lines = mask_to_rle("n0", r["masks"], r["scores"])
    decoded = [rle_decode(line.split(",")[1], image.shape[:2]) for line in lines]
    assert lines and all(line.startswith("n0,") for line in lines)
    np.testing.assert_array_equal(np.sum(decoded, axis=0), r["masks"].any(axis=-1))


# Conventions of the old package as a whole


def test_the_matterport_preset_trains_and_detects(tmp_path):
    dataset = TinyDataset(2, sizes=((90, 120),))
    model = modellib.MaskRCNN("training", OldConfig(), tmp_path)
    before = weights_of(model)
    history = model.train(dataset, None, learning_rate=1e-5, epochs=1, layers="5+")
    assert np.isfinite(history.history["loss"]).all()
    moved = changed(before, weights_of(model))
    assert {"trunk/res5a_branch2a", "rpn/rpn_conv_shared", "box_head/mrcnn_class_logits"} <= moved
    assert not any(key.startswith(("trunk/res4", "trunk/bn")) for key in moved)
    model.network.layers()["box_head/mrcnn_class_logits"].bias.assign([0, 1e4, 0])  # else all is background
    image = dataset.load_image(0)
    r = model.detect([image])[0]
    assert 0 < len(r["rois"]) <= 40 and set(r["class_ids"]) == {1} and (r["scores"] >= 0.7).all()
    assert r["masks"].shape == (90, 120, len(r["rois"]))
    assert (r["rois"] >= 0).all() and (r["rois"] <= [90, 120, 90, 120]).all()
