"""Test-time augmentation: the mask head on given boxes, one view is plain detection, and mirrored images agree."""

import numpy as np
import pytest

from mrcnn.inference.augmentation import Augmentation, nms_per_class
from mrcnn.model import MaskRCNN
from tests.tiny import TinyConfig, TinyDataset

ONE_VIEW = Augmentation(min_dims=(64,), max_dim=64, flip=False)


@pytest.fixture(scope="module")
def model():
    return MaskRCNN("inference", TinyConfig(DETECTION_MIN_CONFIDENCE=0.0))


@pytest.fixture(scope="module")
def image():
    return TinyDataset(1, sizes=((64, 48),)).load_image(0)


@pytest.mark.slow
def test_masks_of_given_boxes_are_those_of_the_whole_graph(model, image):
    source = model.detector.network_input(image)
    (raw,) = model.detector.run(source.image[None], source.window[None])
    count, slots = len(raw["scores"]), model.config.DETECTION_MAX_INSTANCES
    given = {"image": source.image[None], "valid": np.arange(slots)[None] < count}
    for name in ("boxes", "class_ids", "scores"):
        given[name] = np.zeros((1, slots, *raw[name].shape[1:]), raw[name].dtype)
        given[name][0, :count] = raw[name]
    masks = np.asarray(model._masks_of_boxes(given)["masks"])
    assert count > 3
    np.testing.assert_allclose(masks[:count], raw["masks"], atol=1e-5)


@pytest.mark.slow
def test_one_view_is_plain_detection(model, image):
    (plain,), (augmented,) = model.detect([image]), model.detect([image], augment=ONE_VIEW)
    np.testing.assert_allclose(augmented.rois, plain.rois, atol=1e-3)
    np.testing.assert_array_equal(augmented.class_ids, plain.class_ids)
    np.testing.assert_allclose(augmented.scores, plain.scores, atol=1e-6)
    np.testing.assert_allclose(augmented.soft.probabilities, plain.soft.probabilities, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 48), (40, 30)], ids=str)
def test_boxes_in_whole_pixels_are_those_of_plain_detection(size):
    """Masks are pasted into the rounded boxes, too."""
    model = MaskRCNN("inference", TinyConfig(DETECTION_MIN_CONFIDENCE=0.0, DETECTION_ROUND_BOXES=True))
    image = TinyDataset(1, sizes=(size,)).load_image(0)
    (plain,), (augmented,) = model.detect([image]), model.detect([image], augment=ONE_VIEW)
    assert augmented.count > 3 and augmented.rois.dtype == np.int32
    np.testing.assert_array_equal(augmented.rois, plain.rois)
    np.testing.assert_array_equal(augmented.soft.boxes, plain.soft.boxes)
    np.testing.assert_allclose(augmented.soft.probabilities, plain.soft.probabilities, atol=1e-4)
    (both,) = model.detect([image], augment=Augmentation(min_dims=(48, 64), max_dim=96))
    assert both.rois.dtype == np.int32 and (both.soft.boxes == both.rois).all()
    assert (both.rois >= 0).all() and (both.rois <= size * 2).all()


@pytest.mark.slow
def test_a_mirrored_image_gives_the_mirrored_result(model, image):
    views = Augmentation(min_dims=(48, 64), max_dim=96, flip=True)
    (one,), (other,) = model.detect([image], augment=views), model.detect([image[:, ::-1]], augment=views)
    width = image.shape[1]
    mirrored = np.stack(
        [other.rois[:, 0], width - other.rois[:, 3], other.rois[:, 2], width - other.rois[:, 1]], axis=1
    )
    np.testing.assert_allclose(np.sort(one.scores), np.sort(other.scores), atol=1e-5)
    for box, class_id, soft in zip(one.rois, one.class_ids, one.soft.probabilities, strict=True):
        distance = np.abs(mirrored - box).max(axis=1) + 100 * (other.class_ids != class_id)
        twin = int(distance.argmin())
        assert distance[twin] < 0.01
        np.testing.assert_allclose(soft, other.soft.probabilities[twin][:, ::-1], atol=1e-3)


@pytest.mark.slow
def test_views_add_boxes_and_never_more_than_the_setting(model, image):
    (result,) = model.detect([image], augment=Augmentation(min_dims=(32, 64, 96), max_dim=128), prepare="rle")
    assert 0 < result.count <= model.config.DETECTION_MAX_INSTANCES and result.soft is None
    assert (
        (np.diff(result.scores) <= 0).all()
        and result.rois.min() >= 0
        and (result.rois.max(axis=0) <= [64, 48] * 2).all()
    )


@pytest.mark.slow
def test_a_stream_gives_what_detect_gives(model, image):
    (one,), (other,) = model.detect([image], augment=ONE_VIEW, prepare="rle"), model.stream([image], augment=ONE_VIEW)
    assert one.rle == other.rle and one.count > 3
    np.testing.assert_array_equal(one.rois, other.rois)


@pytest.mark.slow
def test_nothing_found_is_an_empty_result(image):
    nothing = MaskRCNN("inference", TinyConfig(DETECTION_MIN_CONFIDENCE=0.999))
    (result,) = nothing.detect([image], augment=ONE_VIEW)
    assert result.count == 0 and result["masks"].shape == (64, 48, 0)


@pytest.mark.slow
def test_mask_scores_are_those_of_the_mean(image):
    of = TinyConfig.MASK_HEAD
    scoring = {"name": "mask_scoring", "of": of, "filters": 8, "units": 8}
    model = MaskRCNN("inference", TinyConfig(DETECTION_MIN_CONFIDENCE=0.0, MASK_HEAD=scoring))
    (plain,), (augmented,) = model.detect([image]), model.detect([image], augment=ONE_VIEW)
    np.testing.assert_allclose(augmented["mask_scores"], plain["mask_scores"], atol=1e-5)
    both = Augmentation(min_dims=(64,), max_dim=64, flip=True)
    assert model.detect([image], augment=both)[0]["mask_scores"].shape == augmented["mask_scores"].shape


@pytest.mark.slow
def test_without_a_mask_head_only_boxes_are_merged(image):
    model = MaskRCNN("inference", TinyConfig(DETECTION_MIN_CONFIDENCE=0.0, MASK_HEAD=None))
    (plain,), (augmented,) = model.detect([image]), model.detect([image], augment=ONE_VIEW)
    np.testing.assert_allclose(augmented.rois, plain.rois, atol=1e-3)
    assert augmented.count > 3 and augmented.masks.shape == plain.masks.shape and not augmented.masks.any()


def test_what_cannot_be_is_said(model, image):
    with pytest.raises(ValueError, match="pass tile=64 or augment, not both"):
        model.detect([image], augment=True, tile=64)
    with pytest.raises(ValueError, match=r"min_dims must be one or more numbers of pixels, got \(\)"):
        Augmentation(min_dims=())
    with pytest.raises(FileNotFoundError, match=r"images\[1\] of 2"):
        model.detect([image, "missing.png"], augment=ONE_VIEW)


@pytest.mark.parametrize(
    "class_ids, threshold, kept", [([1, 1, 1], 0.5, [1, 2]), ([1, 2, 1], 0.5, [1, 0, 2]), ([1, 1, 1], 0.9, [1, 0, 2])]
)
def test_nms_by_hand(class_ids, threshold, kept):
    """The IoU of the first two is 80 / 100."""
    boxes = np.array([[0, 0, 10, 9], [0, 1, 10, 10], [20, 20, 30, 30]], float)
    scores = np.array([0.8, 0.9, 0.5])
    assert nms_per_class(boxes, scores, np.array(class_ids), threshold).tolist() == kept
    assert nms_per_class(boxes[:0], scores[:0], np.zeros(0, int), threshold).tolist() == []
