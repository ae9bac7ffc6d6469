import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn.data.augmentation import apply_imgaug, augment, crop_randomly, distort, flip_horizontally
from mrcnn.data.masks import extract_bboxes


def scene(seed=0, count=3, height=30, width=40):
    """An image whose red channel is 200 inside the masks."""
    rng = np.random.default_rng(seed)
    masks = np.zeros([height, width, count], bool)
    for i in range(count):
        y, x = rng.integers(0, height - 9), rng.integers(0, width - 9)
        masks[y : y + rng.integers(3, 9), x : x + rng.integers(3, 9), i] = True
    image = rng.integers(0, 100, (height, width, 3), dtype=np.uint8)
    image[masks.any(axis=2), 0] = 200
    return image, masks, extract_bboxes(masks).astype(float)


def test_flip_by_hand():
    image = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    masks = np.array([[[True], [False]]])
    flipped, flipped_masks, boxes = flip_horizontally(image, masks, np.array([[0, 0.25, 1, 0.75]]))
    np.testing.assert_array_equal(flipped, [[[3, 4, 5], [0, 1, 2]]])
    np.testing.assert_array_equal(flipped_masks[:, :, 0], [[False, True]])
    np.testing.assert_array_equal(boxes, [[0, 1.25, 1, 1.75]])


@given(st.integers(0, 2**32 - 1))
def test_flip_twice_is_nothing_and_boxes_stay_tight(seed):
    image, masks, boxes = scene(seed)
    flipped = flip_horizontally(image, masks, boxes)
    np.testing.assert_array_equal(flipped[2], extract_bboxes(flipped[1]))
    for before, after in zip((image, masks, boxes), flip_horizontally(*flipped), strict=True):
        np.testing.assert_array_equal(before, after)


def test_flip_probability():
    image, masks, boxes = scene()
    flipped = [
        not np.array_equal(augment(image, masks, boxes, np.random.default_rng(i), flip=0.5).image, image)
        for i in range(200)
    ]
    assert 70 < sum(flipped) < 130
    assert augment(image, masks, boxes, np.random.default_rng(0), flip=0).image is image


def test_the_same_generator_gives_the_same_augmentation():
    image, masks, boxes = scene()
    options = {"scale_jitter": (0.1, 2.0), "photometric": True}
    first, second = (augment(image, masks, boxes, np.random.default_rng(5), **options) for _ in range(2))
    other = augment(image, masks, boxes, np.random.default_rng(6), **options)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert other.zoom != first.zoom


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_jitter_keeps_image_masks_and_boxes_together(seed):
    image, masks, boxes = scene(seed, count=4)
    out = augment(image, masks, boxes, np.random.default_rng(seed), scale_jitter=(0.1, 3.0))
    assert 0.1 <= out.zoom <= 3
    height, width = (min(n, int(n / out.zoom)) for n in (30, 40))
    assert out.image.shape[:2] == (height, width) == out.masks.shape[:2]
    assert out.masks.shape[2] == len(out.boxes) == len(out.kept)
    np.testing.assert_array_equal(out.boxes, extract_bboxes(out.masks))
    assert out.masks.any(axis=(0, 1)).all()
    assert (out.image[out.masks.any(axis=2), 0] == 200).all()
    lost = np.setdiff1d(np.arange(4), out.kept)
    assert len(lost) == 0 or out.zoom > 1


def test_the_view_is_what_the_canvas_holds():
    image, masks, boxes = scene()
    out = augment(image, masks, boxes, np.random.default_rng(0), view=(20, 400))
    assert out.image.shape == (20, 40, 3) and out.zoom == 1


def test_cut_boxes_come_from_masks_and_whole_ones_stay():
    masks = np.zeros([10, 10, 3], bool)
    masks[0:10, 0:10, 0] = masks[4:6, 4:6, 1] = masks[0, 0, 2] = True
    boxes = np.array([[0, 0, 10, 10], [3.9, 3.8, 6.1, 6.2], [0, 0, 1, 1]])

    class Corner:
        @staticmethod
        def integers(stop):
            return min(2, stop - 1)

    _, cut, moved = crop_randomly(np.zeros([10, 10, 3], np.uint8), masks, boxes, (6, 7), Corner)
    assert cut.shape == (6, 7, 3)
    np.testing.assert_allclose(moved, [[0, 0, 6, 7], [1.9, 1.8, 4.1, 4.2], [0, 0, 0, 0]])


@pytest.mark.parametrize("seed", range(30))
def test_what_must_be_shown_is(seed):
    image, masks, boxes = scene(seed)
    out = augment(image, masks, boxes, np.random.default_rng(seed), scale_jitter=(8, 8), show=(1,))
    assert 1 in out.kept and out.image.shape[:2] == (3, 5)


def test_distortion_changes_colors_and_nothing_else():
    image, masks, boxes = scene()
    out = augment(image, masks, boxes, np.random.default_rng(1), flip=0, photometric=True)
    assert out.image.dtype == np.uint8 and out.image.shape == image.shape
    assert not np.array_equal(out.image, image)
    assert out.masks is masks
    changed = [not np.array_equal(distort(image, np.random.default_rng(i)), image) for i in range(64)]
    assert 50 <= sum(changed) < 64  # one in sixteen skips all four steps
    gray = np.full([4, 4, 3], 90, np.uint8)
    for i in range(20):
        distorted = distort(gray, np.random.default_rng(i))
        assert np.ptp(distorted.astype(int), axis=2).max() == 0  # gray has neither hue nor saturation
        assert 90 * 0.5 - 32 <= distorted.mean() <= (90 + 32) * 1.5
    with pytest.raises(ValueError, match="image with 4 channels; set PHOTOMETRIC_DISTORTION to False"):
        distort(np.zeros([4, 4, 4], np.uint8), np.random.default_rng(0))


def test_images_without_instances():
    image, masks, boxes = scene(count=0)
    out = augment(image, masks, boxes, np.random.default_rng(0), scale_jitter=(2, 2), flip=1)
    assert out.masks.shape == (15, 20, 0) and out.boxes.shape == (0, 4)


@pytest.fixture(scope="module")
def iaa():
    return pytest.importorskip("imgaug.augmenters", reason="imgaug is not installed (pip install imaug)")


def test_imgaug_moves_image_masks_and_boxes_alike(iaa):
    image, masks, boxes = scene(count=7)
    augmenter = iaa.Sequential([iaa.Fliplr(1.0), iaa.Affine(translate_px={"x": 5, "y": -2})])
    moved, moved_masks, moved_boxes = apply_imgaug(image, masks, boxes, augmenter, np.random.default_rng(0))
    np.testing.assert_array_equal(moved[:-2, 5:], image[2:, ::-1][:, :-5])
    np.testing.assert_array_equal(moved_masks[:-2, 5:], masks[2:, ::-1][:, :-5])
    np.testing.assert_array_equal(moved_boxes, extract_bboxes(moved_masks))


def test_imgaug_of_pixels_leaves_masks_and_boxes(iaa):
    image, masks, boxes = scene()
    boxes = boxes + 0.25
    changed, same, same_boxes = apply_imgaug(image, masks, boxes, iaa.GaussianBlur(2.0), np.random.default_rng(0))
    assert not np.array_equal(changed, image)
    np.testing.assert_array_equal(same, masks)
    assert same_boxes is boxes


def test_imgaug_is_seeded_from_the_generator_and_left_as_it_was(iaa):
    image, masks, boxes = scene()
    augmenter = iaa.Affine(rotate=(-40, 40))
    first = apply_imgaug(image, masks, boxes, augmenter, np.random.default_rng(3))
    apply_imgaug(image, masks, boxes, augmenter, np.random.default_rng(4))
    second = apply_imgaug(image, masks, boxes, augmenter, np.random.default_rng(3))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    other = apply_imgaug(image, masks, boxes, augmenter, np.random.default_rng(4))
    assert not np.array_equal(first[0], other[0])
    assert not augmenter.deterministic


def test_imgaug_through_augment(iaa):
    image, masks, boxes = scene()
    out = augment(image, masks, boxes, np.random.default_rng(0), flip=0, imgaug=iaa.Fliplr(1.0))
    np.testing.assert_array_equal(out.image, image[:, ::-1])
    np.testing.assert_array_equal(out.boxes, extract_bboxes(masks[:, ::-1]))
    empty = augment(image, masks[:, :, :0], boxes[:0], np.random.default_rng(0), flip=0, imgaug=iaa.Fliplr(1.0))
    np.testing.assert_array_equal(empty.image, image[:, ::-1])


def test_imgaug_that_changes_the_size_is_refused(iaa):
    image, masks, boxes = scene()
    with pytest.raises(ValueError, match=r"shape \(30, 40, 3\) to \(40, 30, 3\).*keep_size=True"):
        apply_imgaug(image, masks, boxes, iaa.Rot90(1, keep_size=False), np.random.default_rng(0))


@pytest.mark.parametrize("count", [1, 8, 9, 17])
@pytest.mark.parametrize("name", ["affine", "perspective", "elastic", "crop", "blend"])
def test_imgaug_moves_packed_masks_as_it_moves_each(iaa, name, count):
    from imgaug.augmentables.segmaps import SegmentationMapsOnImage

    augmenter = {
        "affine": iaa.Affine(rotate=(-30, 30), scale=(0.7, 1.3), mode=["constant", "reflect"]),
        "perspective": iaa.PerspectiveTransform((0.05, 0.1)),
        "elastic": iaa.ElasticTransformation(alpha=30, sigma=3),
        "crop": iaa.CropAndPad(percent=(-0.2, 0.2)),
        "blend": iaa.BlendAlphaCheckerboard(3, 3, iaa.Fliplr(1.0)),
    }[name]
    image, masks, boxes = scene(count=count)
    rng = np.random.default_rng(2)
    own = augmenter.deepcopy()
    own.seed_(int(rng.integers(2**31)))
    own = own.to_deterministic()
    own.augment_image(image)
    expected = own.augment_segmentation_maps(SegmentationMapsOnImage(masks, shape=masks.shape[:2])).get_arr()
    _, moved, moved_boxes = apply_imgaug(image, masks, boxes, augmenter, np.random.default_rng(2))
    assert moved.dtype == bool and not np.array_equal(moved, masks)
    np.testing.assert_array_equal(moved, expected.astype(bool))
    np.testing.assert_array_equal(moved_boxes, extract_bboxes(moved))


def test_imgaug_works_for_one_thread_at_a_time(iaa):
    """It changes a global switch during a call, which two threads could leave in a wrong state."""
    inside, most = [], []

    def note(images, *_):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.02)
        inside.pop()
        return images

    image, masks, boxes = scene()
    augmenter = iaa.Lambda(func_images=note)
    threads = [
        threading.Thread(target=apply_imgaug, args=(image, masks, boxes, augmenter, np.random.default_rng(i)))
        for i in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5


def with_keypoints(height=40, width=60):
    """An image whose pixels say where they are, a mask, its box, and keypoints on pixels of the mask."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows * 4, columns * 4, 0 * rows], axis=-1).astype(np.uint8)
    masks = np.zeros((height, width, 2), bool)
    masks[10:30, 15:45, 0] = masks[2:8, 2:8, 1] = True
    boxes = np.array([[10, 15, 30, 45], [2, 2, 8, 8]], float)
    keypoints = np.array([[[12.5, 20.5, 2], [25.5, 40.5, 1], [0, 0, 0]], [[3.5, 4.5, 2], [6.5, 6.5, 2], [5.5, 2.5, 2]]])
    return image, masks, boxes, keypoints


MIRRORED = np.array([1, 0, 2])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("augmenter", [None, "affine"])
def test_keypoints_stay_on_the_pixels_that_they_were_on(seed, augmenter):
    """Through flips, crops and a geometric augmenter; what leaves the image, and only that, is not labeled any more."""
    image, masks, boxes, keypoints = with_keypoints()
    options = {"flip": 0.5, "scale_jitter": (1.0, 2.0), "keypoints": keypoints, "mirrored": MIRRORED}
    if augmenter:
        pytest.importorskip("imgaug")
        import imgaug.augmenters as iaa

        options["imgaug"] = iaa.Sequential([iaa.Fliplr(0.5), iaa.Affine(translate_px={"x": (-5, 5), "y": (-5, 5)})])
    out = augment(image, masks, boxes, np.random.default_rng(seed), **options)
    assert out.keypoints.shape == (len(out.kept), 3, 3)
    seen = {}
    for points in out.keypoints:
        for y, x, visibility in points:
            if visibility:
                seen[tuple(out.image[int(y), int(x)])] = visibility
    original = {
        tuple(image[int(y), int(x)]): visibility for points in keypoints for y, x, visibility in points if visibility
    }
    assert seen.items() <= original.items()
    colors = {tuple(color) for color in out.image.reshape(-1, 3)}
    kept = [p for i in out.kept for p in keypoints[i] if p[2] and tuple(image[int(p[0]), int(p[1])]) in colors]
    assert len(seen) == len(kept)


def test_a_flip_swaps_left_and_right():
    image, masks, boxes, keypoints = with_keypoints()
    options = {"keypoints": keypoints, "mirrored": MIRRORED}
    out = augment(image, masks, boxes, np.random.default_rng(0), flip=1.0, **options)
    assert out.keypoints[0].tolist() == [[25.5, 19.5, 1], [12.5, 39.5, 2], [0, 0, 0]]
    twice = augment(out.image, out.masks, out.boxes, np.random.default_rng(0), flip=1.0, keypoints=out.keypoints)
    assert twice.keypoints[0, [1, 0]].tolist() == keypoints[0, :2].tolist()


def test_a_mirroring_augmenter_swaps_left_and_right():
    pytest.importorskip("imgaug")
    import imgaug.augmenters as iaa

    image, masks, boxes, keypoints = with_keypoints()
    options = {"flip": 0.0, "keypoints": keypoints, "mirrored": MIRRORED}
    out = augment(image, masks, boxes, np.random.default_rng(0), imgaug=iaa.Fliplr(1.0), **options)
    np.testing.assert_allclose(out.keypoints[0, :2], [[25.5, 19.5, 1], [12.5, 39.5, 2]], atol=1e-3)
    blurred = augment(image, masks, boxes, np.random.default_rng(0), imgaug=iaa.GaussianBlur(1.0), **options)
    np.testing.assert_allclose(blurred.keypoints, keypoints, atol=1e-4)


def test_without_keypoints_there_are_none():
    image, masks, boxes, _ = with_keypoints()
    assert augment(image, masks, boxes, np.random.default_rng(0)).keypoints is None
