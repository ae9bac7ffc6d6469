"""Mask scoring: what it wraps, the overlaps that it learns, and the scores that it gives."""

import numpy as np
import pytest
from keras import ops

import heads
from heads.mask_scoring import fit

SHAPE = (14, 14, 8)
SMALL = {"filters": 8, "units": 16}


def scoring(of, **options):
    return heads.make({"name": "mask_scoring", "of": of, **SMALL, **options}, SHAPE, 3)


def targets(boxes):
    """Of one object each, which fills its box of 20x20 pixels, in RoIs given as boxes."""
    count = len(boxes)
    return heads.Targets(
        class_ids=ops.ones((count,), "int32"),
        weight=ops.ones((count,)),
        boxes=ops.convert_to_tensor(boxes, "float32"),
        image_index=ops.zeros((count,), "int32"),
        instance=ops.zeros((count,), "int32"),
        gt_boxes=ops.convert_to_tensor([[[10.0, 10.0, 30.0, 30.0]]]),
        gt_masks=ops.full((1, 1, 28, 28), 255, "uint8"),
    )


@pytest.mark.slow
def test_cost_beside_fcn_is_the_papers():
    """0.39 G multiply-adds at 80 classes."""
    alone, wrapped = (
        heads.protocol.costs.multiply_adds(heads.make(name, (14, 14, 256), 81).model)
        for name in ("fcn", {"name": "mask_scoring", "of": "fcn"})
    )
    assert (wrapped - alone) / 1e9 == pytest.approx(0.39, abs=0.001)


def test_the_layers_of_what_is_wrapped_keep_their_names():
    head = scoring({"name": "fcn", "filters": 8})
    names = [layer.name for layer in head.model.layers if layer.weights]
    assert names == ["conv1", "conv2", "conv3", "conv4", "deconv", "masks", "mask_iou"]
    assert head.rescores and not head.is_plain and head.loss_names == ["mrcnn_mask_loss", "mask_iou_loss"]


@pytest.mark.parametrize(
    ("of", "needs"),
    [
        ({"name": "boundary", "filters": 8}, ["features", "class_ids", "fine"]),
        ({"name": "fcn", "filters": 8, "activation": "softmax"}, ["features", "class_ids"]),
    ],
)
def test_it_takes_what_the_wrapped_head_takes(of, needs):
    head = scoring(of)
    assert head.needs(True) == needs and head.fine_size == (28 if "fine" in needs else None)
    assert head.loss_names[-1] == "mask_iou_loss" and set(head.inference.output) == {"masks", "iou"}


def test_what_cannot_be_wrapped():
    with pytest.raises(ValueError, match="no scores of their own, not those of {'name': 'mask_scoring'}"):
        scoring({"name": "mask_scoring"})
    with pytest.raises(ValueError, match="unknown mask head 'unett'.*did you mean 'unet'"):
        scoring("unett")
    with pytest.raises(ValueError, match="'fcn' has no option 'filtres'"):
        scoring({"name": "fcn", "filtres": 8})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("roi", "mask", "iou"),
    [
        ((10, 10, 30, 30), 1.0, 1.0),
        ((10, 10, 30, 20), 1.0, 0.5),  # half of the object lies beyond the RoI
        ((10, 10, 30, 50), 1.0, 0.5),  # half of the mask lies beyond the object
        ((10, 20, 30, 40), 1.0, 1 / 3),
    ],
)
def test_it_learns_the_overlap_with_the_whole_object(roi, mask, iou):
    head = scoring({"name": "fcn", "filters": 8})
    outputs = {"masks": ops.full((1, 28, 28, 3), mask), "iou": ops.convert_to_tensor([0.75])}
    error, count = head.loss(outputs, targets([roi]))["mask_iou_loss"]
    assert float(count) == 1
    assert float(error) == pytest.approx((0.75 - iou) ** 2, abs=0.01)


def test_masks_that_miss_their_object_do_not_count():
    head = scoring({"name": "fcn", "filters": 8})
    outputs = {"masks": ops.zeros((2, 28, 28, 3)), "iou": ops.convert_to_tensor([0.75, 0.5])}
    boxes = [(10, 10, 30, 30), (40, 40, 60, 60)]
    assert [float(part) for part in head.loss(outputs, targets(boxes))["mask_iou_loss"]] == [0, 0]
    outputs["masks"] = ops.ones((2, 28, 28, 3))
    error, count = head.loss(outputs, targets(boxes))["mask_iou_loss"]
    assert float(count) == 1 and float(error) == pytest.approx(0.25**2, abs=1e-3)


def test_a_masks_score_is_its_boxs_times_the_overlap():
    head = scoring({"name": "fcn", "filters": 8})
    outputs = {"iou": ops.convert_to_tensor([0.5, 1.2, -0.1])}
    found = head.rescore(outputs, ops.convert_to_tensor([0.8, 0.6, 0.4]), ops.ones((3,), "int32"))
    np.testing.assert_allclose(found, [0.4, 0.6, 0.0], atol=1e-6)


def test_masks_are_brought_to_the_size_of_the_features():
    masks = np.zeros((1, 4, 4, 1), np.float32)
    masks[0, 3, 0] = 1
    np.testing.assert_array_equal(np.asarray(fit(masks, (2, 2)))[0, ..., 0], [[0, 0], [1, 0]])
    np.testing.assert_array_equal(fit(masks, (4, 4)), masks)
    assert fit(masks, (8, 8)).shape == (1, 8, 8, 1) and fit(masks, (3, 3)).shape == (1, 3, 3, 1)
