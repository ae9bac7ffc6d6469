"""Training targets of the old package: by hand, and its own values."""

import numpy as np
import pytest

from mrcnn.legacy.anchors import compute_backbone_shapes, generate_pyramid_anchors
from mrcnn.legacy.boxes import apply_box_deltas
from mrcnn.legacy.generator import data_generator
from mrcnn.legacy.images import mold_image
from mrcnn.legacy.targets import build_detection_targets, build_rpn_targets, generate_random_rois
from mrcnn.presets import Matterport
from tests import oracles


@pytest.fixture(scope="module")
def anchors():
    config = Matterport()
    shapes = compute_backbone_shapes(config, (256, 256))
    return generate_pyramid_anchors(
        config.RPN_ANCHOR_SCALES, config.RPN_ANCHOR_RATIOS, shapes, config.BACKBONE_STRIDES, config.RPN_ANCHOR_STRIDE
    )


@pytest.mark.parametrize("ids, case", [("rt_gt_ids", "nosub"), ("rt_gt_ids_crowd", "crowd_nosub")])
def test_all_rpn_targets_are_the_old_package_s(anchors, ids, case):
    old = oracles.load("matterport/utils.npz")
    config = Matterport(RPN_TRAIN_ANCHORS_PER_IMAGE=2 * len(anchors))
    match, deltas = build_rpn_targets((256, 256, 3), anchors, old[ids], old["rt_gt_boxes"], config)
    np.testing.assert_array_equal(match, old[f"rpn_match_{case}"])
    positive = (match == 1).sum()
    np.testing.assert_allclose(deltas[:positive], old[f"rpn_bbox_{case}"], atol=1e-6)
    assert not deltas[positive:].any()


def test_sampled_rpn_targets_are_the_old_package_s(anchors):
    old, config = oracles.load("matterport/utils.npz"), Matterport(RPN_TRAIN_ANCHORS_PER_IMAGE=64)
    np.random.seed(0)
    match, deltas = build_rpn_targets((256, 256, 3), anchors, old["rt_gt_ids"], old["rt_gt_boxes"], config)
    np.testing.assert_array_equal(match, old["rpn_match_sub64_seed0"])
    np.testing.assert_allclose(deltas, old["rpn_bbox_sub64_seed0"], atol=1e-6)


def test_rpn_targets_by_hand():
    anchors = np.array([[0, 0, 10, 10], [0, 0, 10, 14], [0, 0, 10, 20], [50, 50, 60, 60], [52, 52, 58, 58]], float)
    config = Matterport(RPN_TRAIN_ANCHORS_PER_IMAGE=8)
    boxes, class_ids = np.array([[0, 0, 10, 10], [50, 50, 60, 60]]), np.array([1, -1])
    match, deltas = build_rpn_targets(None, anchors, class_ids, boxes, config)
    assert match.tolist() == [1, 1, 0, 0, 0]  # 1, 0.71, 0.5; the last two touch the crowd
    np.testing.assert_allclose(deltas[1], [0, (5 - 7) / 14 / 0.1, 0, np.log(10 / 14) / 0.2])
    assert deltas.shape == (8, 4) and not deltas[2:].any() and not deltas[0].any()
    far = np.array([[0, 0, 40, 40]])  # no anchor reaches 0.7, but the best one is positive anyway
    assert build_rpn_targets(None, anchors, [1], far, config)[0].tolist() == [-1, -1, 1, -1, -1]
    assert build_rpn_targets(None, anchors, [], np.zeros((0, 4)), config)[0].tolist() == [-1] * 5


def test_random_rois_lie_in_the_image_and_mostly_around_objects():
    np.random.seed(0)
    rois = generate_random_rois((64, 80, 3), 100, [1], np.array([[20, 30, 30, 44]]))
    assert rois.shape == (100, 4) and rois.dtype == np.int32
    assert rois.min() >= 0 and (rois[:, 2] <= 64).all() and (rois[:, 3] <= 80).all()
    assert (rois[:, 2:] > rois[:, :2]).all()
    near = (rois[:, :2] >= [10, 16]).all(axis=1) & (rois[:, 2:] <= [41, 59]).all(axis=1)
    assert 90 <= near.sum() < 100
    assert generate_random_rois((64, 80, 3), 5, [], np.zeros((0, 4))).shape == (5, 4)


@pytest.mark.parametrize("mini", [False, True])
def test_detection_targets_are_the_objects(config, mini):
    settings = config(
        NUM_CLASSES=3, TRAIN_ROIS_PER_IMAGE=9, ROI_POSITIVE_RATIO=0.34, USE_MINI_MASK=mini, MASK_POOL_SIZE=4
    )
    boxes = np.array([[10, 10, 26, 26], [0, 0, 0, 0]])
    class_ids = np.array([2, 0])
    masks = np.zeros((64, 64, 2), bool)
    masks[10:26, 10:18, 0] = True  # the left half of its box
    if mini:
        masks = np.zeros((8, 8, 2), bool)
        masks[:, :4, 0] = True
    rois = np.array([[10, 6, 26, 22], [40, 40, 60, 60], [0, 40, 20, 60]])
    found, ids, deltas, crops = build_detection_targets(rois, class_ids, boxes, masks, settings)
    assert found.shape == (9, 4) and ids.tolist() == [2, 2, *[0] * 7]  # at most 3 positives, of which there are 2
    np.testing.assert_allclose(
        apply_box_deltas(found[:2], deltas[:2, 2] * settings.BBOX_STD_DEV), boxes[[0, 0]], atol=1e-4
    )
    assert not deltas[2:].any() and not deltas[:, :2].any() and deltas.shape == (9, 3, 4)
    shifted = int(
        np.flatnonzero(found[:2, 1] == 6)[0]
    )  # contains 4 columns of background, 8 of the object, 4 of its box
    assert crops.shape == (9, 8, 8, 3) and crops[shifted, :, :, 2].tolist() == [[0, 0, 1, 1, 1, 1, 0, 0]] * 8
    assert crops[1 - shifted, :, :, 2].tolist() == [[1, 1, 1, 1, 0, 0, 0, 0]] * 8
    with pytest.raises(ValueError, match="needs at least one"):
        build_detection_targets(rois, [0, -1], boxes, masks, settings)


def test_detection_targets_repeat_where_there_are_too_few(config):
    settings = config(TRAIN_ROIS_PER_IMAGE=6, MASK_POOL_SIZE=4, USE_MINI_MASK=False)
    boxes, masks = np.array([[0, 0, 20, 20]]), np.ones((64, 64, 1), bool)
    _, ids, _, _ = build_detection_targets(np.zeros((0, 4)), [1], boxes, masks, settings)
    assert ids.tolist() == [1] * 6  # there is only the object


def test_batches_of_the_generator(squares, config):
    settings = config(IMAGE_RESIZE_MODE="square", RPN_TRAIN_ANCHORS_PER_IMAGE=32)
    dataset = squares([2, 0, 7])
    (image, meta, match, deltas, class_ids, boxes, masks), outputs = next(
        data_generator(dataset, settings, shuffle=False, batch_size=2)
    )
    assert image.shape == (2, 64, 64, 3) and outputs == []
    assert meta[:, 0].tolist() == [0, 2]  # the image without objects is skipped
    np.testing.assert_allclose(image[0, 32, 32], mold_image(np.full((1, 1, 3), 10, np.uint8), settings)[0, 0])
    assert match.shape == (2, 1023, 1) and deltas.shape == (2, 32, 4)
    assert class_ids.tolist() == [[1, 1, 0, 0, 0], [1] * 5]  # MAX_GT_INSTANCES is 5
    assert boxes.shape == (2, 5, 4) and not boxes[0, 2:].any() and masks.shape == (2, 4, 4, 5)
    assert ((match == 1).sum(axis=(1, 2)) == (deltas != 0).any(axis=2).sum(axis=1)).all()


def test_batches_with_random_rois_and_targets(squares, config):
    np.random.seed(0)
    settings = config(IMAGE_RESIZE_MODE="square", TRAIN_ROIS_PER_IMAGE=12, MASK_POOL_SIZE=4, USE_MINI_MASK=False)
    batches = data_generator(squares([1, 2]), settings, random_rois=20, batch_size=2, detection_targets=True)
    inputs, (class_ids, bboxes, masks) = next(batches)
    assert len(inputs) == 9 and inputs[6].shape == (2, 64, 64, 5)
    assert inputs[7].shape == (2, 20, 4) and inputs[8].shape == (2, 12, 4)
    assert class_ids.shape == (2, 12, 1) and bboxes.shape == (2, 12, 2, 4) and masks.shape == (2, 12, 8, 8, 2)
    assert [sorted(a) for a in (next(batches)[0][1][:, 0].tolist(), inputs[1][:, 0].tolist())] == [[0, 1]] * 2


def test_sources_that_are_not_augmented(squares, config):
    settings, dataset = config(IMAGE_RESIZE_MODE="none"), squares([1])
    np.random.seed(1)

    def columns(**arguments):
        batches = data_generator(dataset, settings, augment=True, **arguments)
        return {int(next(batches)[0][5][0, 0, 1]) for _ in range(12)}

    assert columns() == {0, 50} and columns(no_augmentation_sources=["made"]) == {0}


def test_a_generator_of_nothing_ends(squares, config):
    with pytest.raises(ValueError, match="none of the 2 images of the dataset has an object"):
        next(data_generator(squares([0, 0]), config(IMAGE_RESIZE_MODE="none")))
    with pytest.raises(ValueError, match="has no images"):
        next(data_generator(squares([]), config()))
