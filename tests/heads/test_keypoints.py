"""The keypoint head, its targets and its loss."""

import keras
import numpy as np
import pytest

import heads


def targets(keypoints, boxes, size, weight=None):
    one = heads.Targets(
        class_ids=np.ones(len(boxes), np.int32),
        weight=np.ones(len(boxes), np.float32) if weight is None else np.array(weight, np.float32),
        boxes=np.array(boxes, np.float32),
        image_index=np.zeros(len(boxes), np.int32),
        instance=np.zeros(len(boxes), np.int32),
        gt_boxes=np.array([[boxes[0]]], np.float32),
        gt_keypoints=np.array([[keypoints]], np.float32),
    )
    cells, visible = one.keypoints(size)
    return np.array(cells).tolist(), np.array(visible).tolist()


def test_structure_of_the_paper():
    head = heads.make("keypoints", (14, 14, 256), 17)
    assert head.kind == "keypoints" and head.loss_names == ["mrcnn_keypoint_loss"]
    assert head.model.output["keypoints"].shape == (None, 56, 56, 17)
    kernels = [tuple(weight.shape) for weight in head.model.weights if len(weight.shape) == 4]
    assert kernels == [(3, 3, 256, 512)] + 7 * [(3, 3, 512, 512)] + [(4, 4, 17, 512)]
    assert head.model.count_params() == 9 * 256 * 512 + 7 * 9 * 512**2 + 8 * 512 + 16 * 17 * 512 + 17


def test_cells_by_hand():
    """A box of 8 x 16 pixels in 4 x 4 cells; its lower and right edges belong to the last cells."""
    keypoints = [[2, 4, 2], [10, 20, 1], [9.9, 4.1, 2], [2, 4, 0], [1.9, 4, 2], [10.1, 20, 2], [5, 12, 2]]
    cells, visible = targets(keypoints, [[2, 4, 10, 20]], 4)
    assert visible == [[1, 1, 1, 0, 0, 0, 1]]
    assert cells == [[0, 15, 12, 0, 0, 0, 4 * 1 + 2]]


def test_padding_and_boxes_without_area_teach_nothing():
    assert targets([[5, 5, 2]], [[0, 0, 10, 10]], 4, weight=[0.0])[1] == [[0]]
    cells, visible = targets([[5, 5.5, 2]], [[5, 5, 5, 5]], 4)
    assert visible == [[0]] and cells == [[0]]


def test_loss_is_the_cross_entropy_over_all_cells():
    head = heads.make("keypoints", (2, 2, 3), 2, {"filters": 4, "convolutions": 1})
    rng = np.random.default_rng(0)
    heatmaps = rng.normal(size=(2, 8, 8, 2)).astype(np.float32) * 3
    one = heads.Targets(
        class_ids=np.ones(2, np.int32),
        weight=np.array([1, 1], np.float32),
        boxes=np.array([[0, 0, 8, 8], [0, 0, 8, 8]], np.float32),
        image_index=np.zeros(2, np.int32),
        instance=np.array([0, 1], np.int32),
        gt_boxes=np.zeros((1, 2, 4), np.float32),
        gt_keypoints=np.array([[[[1.5, 2.5, 2], [7.5, 0.5, 1]], [[3.5, 3.5, 2], [3, 3, 0]]]], np.float32),
    )
    total, count = head.loss({"keypoints": heatmaps}, one)["mrcnn_keypoint_loss"]
    flat = heatmaps.reshape(2, 64, 2)
    log_sum = np.log(np.exp(flat).sum(axis=1))
    expected = (
        log_sum[0, 0]
        - heatmaps[0, 1, 2, 0]
        + log_sum[0, 1]
        - heatmaps[0, 7, 0, 1]
        + log_sum[1, 0]
        - heatmaps[1, 3, 3, 0]
    )
    np.testing.assert_allclose(float(total), expected, rtol=1e-5)
    assert float(count) == 3


def test_a_keypoint_head_is_no_mask_head():
    assert heads.names("keypoints") == ["keypoints"]
    with pytest.raises(ValueError, match="is a keypoints head; a mask head is needed"):
        heads.make("keypoints", (8, 8, 4), 3, {"filters": 4, "convolutions": 1}, kind="mask")


def test_upsampling_is_that_of_torch():
    """Bilinear, half-pixel centers, edges repeated: rows 0, .25, .75, 1.25 ... of [0, 1]."""
    x = keras.ops.convert_to_tensor(np.array([0.0, 1.0], np.float32).reshape(1, 2, 1, 1))
    up = keras.layers.UpSampling2D(2, interpolation="bilinear")(x)
    np.testing.assert_allclose(np.array(up)[0, :, 0, 0], [0, 0.25, 0.75, 1])
