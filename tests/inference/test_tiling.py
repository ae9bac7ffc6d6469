"""Tiles: an object on a seam is found once and whole, neighbors stay apart; with a network that finds bright shapes."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from mrcnn.inference import tiling
from mrcnn.inference.detector import Detector
from mrcnn.inference.results import Crop
from mrcnn.inference.tiling import Piece, _reduced, detect_tiled, merged, tile_windows, tiled
from mrcnn.network.pixels import PixelScaling
from tests.tiny import TinyConfig

MASK = 28


def find_shapes(images, windows):
    """What an inference graph gives, for every connected shape of one color; its class is the color's channel."""
    found = [_shapes(image) for image in images]
    most = max(len(shapes) for shapes in found)
    boxes, ids, scores = (
        np.zeros((len(found), most, 4)),
        np.zeros((len(found), most), int),
        np.zeros((len(found), most)),
    )
    masks = []
    for i, shapes in enumerate(found):
        for j, (box, class_id, mask) in enumerate(shapes):
            boxes[i, j], ids[i, j], scores[i, j] = box, class_id, 0.9 - 0.001 * j
            masks.append(mask)
    return {
        "boxes": boxes.astype(np.float32),
        "class_ids": ids,
        "scores": scores.astype(np.float32),
        "valid": ids > 0,
        "masks": np.array(masks, np.float32).reshape(-1, MASK, MASK)
        if masks
        else np.zeros((1, MASK, MASK), np.float32),
        "counts": np.zeros((len(found), 4), np.int32),
    }


def _shapes(image):
    shapes = []
    for channel in range(3):
        count, labels, stats, _ = cv2.connectedComponentsWithStats((image[..., channel] > 150).astype(np.uint8))
        for k in range(1, count):
            x, y, width, height, area = stats[k]
            if area >= 4:
                part = (labels[y : y + height, x : x + width] == k).astype(np.float32)
                method = cv2.INTER_AREA if min(width, height) > MASK else cv2.INTER_LINEAR
                mask = cv2.resize(part, (MASK, MASK), interpolation=method)
                shapes.append(((y, x, y + height, x + width), channel + 1, mask))
    return shapes


def detector(**settings):
    given = {"IMAGE_RESIZE_MODE": "fit", "IMAGE_MIN_DIM": 128, "IMAGE_MAX_DIM": 128, "NUM_CLASSES": 4, **settings}
    return Detector(find_shapes, TinyConfig(**given), PixelScaling((0,) * 3, (1,) * 3))


def draw(size, *ellipses):
    """An image and its true masks: filled ellipses (y, x, ry, rx, channel)."""
    image, masks = np.zeros((*size, 3), np.uint8), []
    for y, x, ry, rx, channel in ellipses:
        mask = cv2.ellipse(np.zeros(size, np.uint8), (x, y), (rx, ry), 0, 0, 360, 1, -1).astype(bool)
        image[..., channel][mask] = 255
        masks.append(mask)
    return image, masks


def overlaps(result, masks):
    """IoU of each true mask with each found one, [true, found]."""
    full = result["masks"]
    return np.array([[(m & full[..., i]).sum() / (m | full[..., i]).sum() for i in range(result.count)] for m in masks])


@pytest.mark.parametrize(
    "length, tile, overlap", [(100, 100, 0.2), (101, 100, 0.2), (300, 100, 0.2), (8192, 1024, 0.2)]
)
def test_tiles_cover_the_image_and_overlap_enough(length, tile, overlap):
    windows = tile_windows(length, 50, tile, overlap)
    starts, ends = [w[0] for w in windows], [w[2] for w in windows]
    assert starts[0] == 0 and ends[-1] == length and all(w[1::2] == (0, 50) for w in windows)
    assert all(end - start == min(tile, length) for start, end in zip(starts, ends, strict=True))
    assert all(end - start >= overlap * tile - 1 for end, start in zip(ends, starts[1:], strict=False))


def test_tiles_by_hand():
    assert tile_windows(40, 100, 64, 0.25) == [(0, 0, 40, 64), (0, 36, 40, 100)]
    assert tile_windows(30, 30, 64, 0.2) == [(0, 0, 30, 30)]
    for tile, overlap in ((31, 0.2), (64, -0.1), (64, 1)):
        with pytest.raises(ValueError, match="tile must be 32 pixels or more and overlap 0 to 0.9"):
            tile_windows(100, 100, tile, overlap)


@pytest.mark.parametrize("tile, overlap", [("64", 0.2), (64.0, 0.2), (True, 0.2), (64, "0.2"), (64, float("nan"))])
def test_what_is_no_tile_is_said(tile, overlap):
    with pytest.raises(ValueError, match=f"and overlap 0 to 0.9, got {tile!r} and {overlap!r}"):
        tile_windows(100, 100, tile, overlap)


@pytest.mark.parametrize("overlap", [0.1, 0.2, 0.4])
@pytest.mark.parametrize(
    "ellipse",
    [
        (150, 116, 20, 20, 0),  # on a seam
        (116, 116, 12, 12, 0),  # on the corner of four tiles
        (200, 200, 90, 20, 1),  # over two seams
        (200, 200, 150, 150, 1),  # larger than a tile
        (200, 200, 6, 190, 2),  # over all of the width
        (40, 40, 5, 5, 0),  # inside of one tile
        (390, 395, 20, 20, 0),  # beyond the image
    ],
)
def test_an_object_is_found_once_and_whole_wherever_it_lies(ellipse, overlap):
    image, masks = draw((400, 400), ellipse)
    result = detect_tiled(detector(), image, 128, overlap)
    assert result.count == 1 and result.class_ids.tolist() == [ellipse[4] + 1] and result.size == (400, 400)
    assert overlaps(result, masks)[0, 0] > 0.8
    y, x = np.nonzero(masks[0])
    truth = [y.min(), x.min(), y.max() + 1, x.max() + 1]
    np.testing.assert_allclose(result.rois[0], truth, atol=6)


def test_masks_kept_as_bits_give_the_same(monkeypatch):
    ellipses = [(150, 116, 20, 20, 0), (200, 200, 90, 20, 1), (300, 300, 80, 70, 2), (390, 395, 20, 20, 0)]
    image, _ = draw((400, 400), *ellipses)
    expected = detect_tiled(detector(), image, 128)
    monkeypatch.setattr(tiling, "LARGE", 0)
    pieces = []
    monkeypatch.setattr(tiling, "merged", lambda given, threshold: merged(pieces.extend(given) or given, threshold))
    found = detect_tiled(detector(), image, 128)
    assert pieces and all(isinstance(piece.crop, tiling.Packed) for piece in pieces)
    assert found.rle == expected.rle and found.count == expected.count == 4
    np.testing.assert_array_equal(found.rois, expected.rois)


def test_neighbors_on_a_seam_stay_apart():
    image, masks = draw(
        (400, 400), (150, 100, 15, 15, 0), (150, 134, 15, 15, 0), (184, 116, 15, 15, 0), (150, 117, 3, 40, 1)
    )
    image[..., 0][masks[3]] = 0
    result = detect_tiled(detector(), image, 128, 0.2)
    masks = [mask & ~masks[3] if i < 3 else mask for i, mask in enumerate(masks)]
    assert sorted(result.class_ids.tolist()).count(2) == 1
    found = overlaps(result, masks)
    assert found[2].max() > 0.8 and found[3].max() > 0.6


@pytest.mark.slow
def test_many_objects_of_all_sizes_are_each_found_once():
    rng = np.random.default_rng(0)
    ellipses, taken = [], np.zeros((900, 900), bool)
    for _ in range(400):
        radius = int(rng.choice([6, 12, 25, 60, 130]))
        y, x = rng.integers(0, 900, 2).tolist()
        ry, rx = max(4, int(radius * rng.uniform(0.5, 1))), radius
        _, (mask,) = draw((900, 900), (y, x, ry + 6, rx + 6, 0))
        if not (mask & taken).any() and min(y, x, 900 - y, 900 - x) > 8:
            taken |= mask
            ellipses.append((y, x, ry, rx, int(rng.integers(0, 3))))
    image, masks = draw((900, 900), *ellipses)
    result = detect_tiled(detector(), image, 128, 0.25)
    found = overlaps(result, masks)
    assert len(ellipses) > 40 and result.count == len(ellipses)
    assert (found.max(axis=1) > 0.7).all()
    assert len(set(found.argmax(axis=1).tolist())) == len(ellipses)


def test_an_image_of_one_tile_is_what_detect_gives():
    image, _ = draw((100, 120), (50, 60, 20, 30, 0), (20, 20, 8, 8, 2))
    (plain,) = detector().detect([image])
    result = detect_tiled(detector(), image, 128)
    np.testing.assert_array_equal(result["masks"], plain["masks"])
    np.testing.assert_allclose(result.rois, plain.rois)


def test_without_a_mask_head_boxes_are_merged():
    image, masks = draw((400, 400), (150, 116, 20, 20, 0), (40, 40, 8, 8, 1))

    def boxes_only(images, windows):
        return {name: value for name, value in find_shapes(images, windows).items() if name != "masks"}

    config = detector(MASK_HEAD=None).config
    result = detect_tiled(Detector(boxes_only, config, PixelScaling((0,) * 3, (1,) * 3)), image, 128)
    np.testing.assert_allclose(sorted(result.rois.tolist()), [[32, 32, 49, 49], [130, 96, 171, 137]], atol=6)
    assert result["masks"].shape == (400, 400, 2) and not result["masks"].any(), "as without tiles"


def test_mask_scores_are_those_of_the_masks_that_are_shown():
    """A mask's score is its box's score, the best of all views, times a quality, which follows the mask."""
    image, _ = draw((400, 400), (150, 116, 20, 20, 0), (40, 40, 8, 8, 1))

    def scoring(images, windows):
        outputs = find_shapes(images, windows)
        return outputs | {"mask_scores": 0.5 * outputs["scores"][outputs["valid"]]}

    result = detect_tiled(Detector(scoring, detector().config, PixelScaling((0,) * 3, (1,) * 3)), image, 128)
    assert result.count == 2
    np.testing.assert_allclose(result["mask_scores"], 0.5 * result.scores, atol=1e-6)
    assert "mask_scores" not in detect_tiled(detector(), image, 128)
    empty = detect_tiled(Detector(scoring, detector().config, PixelScaling((0,) * 3, (1,) * 3)), 0 * image, 128)
    assert empty["mask_scores"].shape == (0,)


@pytest.mark.parametrize("head", [TinyConfig.MASK_HEAD, None], ids=["masks", "boxes"])
def test_boxes_in_whole_pixels_stay_so(head):
    """In one tile, on a seam, and with nothing found."""
    image, _ = draw((300, 300), (150, 116, 20, 20, 0), (40, 50, 12, 15, 1))
    whole = detector(DETECTION_ROUND_BOXES=True, MASK_HEAD=head)
    result = detect_tiled(whole, image, 128)
    assert result.rois.dtype == np.int32 and result.count == 2
    for y1, x1, y2, x2 in result.rois:
        assert image[y1:y2, x1:x2].any()
    np.testing.assert_allclose(
        result.rois[np.argsort(result.class_ids)], [[130, 96, 171, 137], [28, 35, 53, 66]], atol=2
    )
    assert detect_tiled(whole, 0 * image, 128).rois.dtype == np.int32
    assert detect_tiled(detector(MASK_HEAD=head), image, 128).rois.dtype == np.float32


def test_keypoints_are_not_merged():
    with pytest.raises(NotImplementedError, match="tiles merge boxes and masks, not keypoints"):
        tiled(detector(KEYPOINT_HEAD={"name": "keypoints"}, NUM_KEYPOINTS=3), 128, 0.2)


def test_nothing_is_found_in_nothing():
    result = detect_tiled(detector(), np.zeros((300, 300, 3), np.uint8), 128)
    assert result.count == 0 and result["masks"].shape == (300, 300, 0) and result.rois.shape == (0, 4)


def piece(view, window, top, left, height, width, *, score=0.9, class_id=1, cut=False):
    box = np.array([top, left, top + height, left + width], float)
    return Piece(view, window, Crop(np.ones((height, width), bool), top, left), box, class_id, score, cut)


LEFT, RIGHT, ALL = (0, 0, 100, 100), (0, 80, 100, 180), (0, 0, 100, 180)


def test_halves_that_agree_in_the_overlap_are_one():
    """40..100 and 80..150: only a fifth is common, but in the overlap both are the same."""
    (one,) = merged([piece(1, LEFT, 10, 40, 20, 60, cut=True), piece(2, RIGHT, 10, 80, 20, 70, cut=True)], 0.5)
    assert (one.crop.left, one.crop.mask.shape) == (40, (20, 110)) and one.box.tolist() == [10, 40, 30, 150]


def test_halves_that_differ_in_the_overlap_are_two():
    """The same bounds of the overlap, but one lies above the other."""
    assert len(merged([piece(1, LEFT, 10, 40, 20, 60, cut=True), piece(2, RIGHT, 40, 80, 20, 70, cut=True)], 0.5)) == 2
    assert len(merged([piece(1, LEFT, 10, 40, 20, 60), piece(2, RIGHT, 10, 80, 20, 70, class_id=2)], 0.5)) == 2


def test_a_tile_that_shows_all_of_it_decides_the_mask():
    (one,) = merged(
        [piece(1, LEFT, 10, 75, 20, 25, score=0.95, cut=True), piece(2, RIGHT, 10, 82, 20, 30, score=0.7)], 0.5
    )
    assert (one.crop.left, one.crop.mask.shape, one.score) == (82, (20, 30), 0.95)


def test_the_quality_of_a_mask_is_that_of_the_piece_that_shows_it():
    cut = replace(piece(1, LEFT, 10, 75, 20, 25, score=0.95, cut=True), quality=0.2)
    (one,) = merged([cut, replace(piece(2, RIGHT, 10, 82, 20, 30, score=0.7), quality=0.6)], 0.5)
    assert (one.score, one.quality) == (0.95, 0.6)
    halves = [piece(1, LEFT, 10, 40, 20, 60, cut=True), piece(2, RIGHT, 10, 80, 20, 70, cut=True)]
    (one,) = merged([replace(halves[0], quality=0.4), replace(halves[1], quality=0.8)], 0.5)
    assert one.quality == pytest.approx(0.6)


def test_a_whole_image_mask_that_spans_two_complete_objects_does_not_join_them():
    pieces = [
        piece(0, ALL, 10, 20, 20, 140, score=0.6),
        piece(1, LEFT, 10, 20, 20, 40),
        piece(2, RIGHT, 10, 120, 20, 40),
        piece(1, LEFT, 50, 20, 20, 40),
    ]
    boxes = [one.box.tolist() for one in merged(pieces, 0.5)]
    assert [10, 20, 30, 60] in boxes and [10, 120, 30, 160] in boxes and [50, 20, 70, 60] in boxes


def test_what_is_left_of_a_cut_object_inside_another_is_dropped():
    (one,) = merged(
        [piece(1, LEFT, 0, 85, 50, 15, score=0.95, cut=True), piece(2, RIGHT, 10, 82, 60, 60, score=0.7)], 0.5
    )
    assert one.crop.mask.shape == (60, 60)


def test_a_sliver_at_a_border_belongs_to_the_object_beside_it():
    """One pixel wide, and beside the mask of the object that the other tile shows whole."""
    whole = piece(1, LEFT, 10, 50, 30, 31)
    for left in (80, 81, 83):
        (one,) = merged([whole, piece(2, RIGHT, 18, left, 10, 1, cut=True)], 0.5)
        assert one.crop.left == 50
    assert len(merged([whole, piece(2, RIGHT, 18, 84, 10, 1, cut=True)], 0.5)) == 2
    assert len(merged([whole, piece(2, RIGHT, 18, 82, 10, 1)], 0.5)) == 2, "a complete small object stays"


def test_shrinking_by_a_whole_factor_keeps_means():
    image = np.random.default_rng(0).integers(0, 255, (1030, 515, 3), np.uint8)
    small, factor = _reduced(image, 100)
    assert factor == 10 and small.shape == (103, 51, 3)
    np.testing.assert_allclose(small[7, 9], image[70:80, 90:100].reshape(-1, 3).mean(axis=0), atol=0.51)
    assert _reduced(image, 600)[1] == 1


def test_detect_takes_paths_and_prepares(tmp_path):
    image, masks = draw((400, 400), (150, 116, 20, 20, 0))
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    found = detector()
    (result,) = found.detect_alone([tmp_path / "a.png"], tiled(found, 128, 0.2, ["BG", "red"]), "rle")
    assert result.count == 1 and result.names == ["red"] and result.path.endswith("a.png")
    with pytest.raises(ValueError, match="tile must be 32 pixels or more"):
        tiled(found, 8, 0.2)
    with pytest.raises(FileNotFoundError, match=r"images\[1\] of 2"):
        found.detect_alone([tmp_path / "a.png", "missing.png"], tiled(found, 128, 0.2), None)


def test_a_stream_of_tiled_images_goes_on_past_a_bad_one(tmp_path):
    image, masks = draw((400, 400), (150, 116, 20, 20, 0))
    (tmp_path / "text.png").write_text("no image")
    found = detector()
    options = {"failures": "yield", "keep_images": True, "each": lambda result: (result.count, result.image.shape)}
    stream = found.stream_alone(iter([image, tmp_path / "text.png", image]), tiled(found, 128, 0.2), **options)
    first, bad, last = stream
    assert first == last == (1, (400, 400, 3)) and isinstance(bad, ValueError) and "text.png" in str(bad)
    with pytest.raises(ValueError, match="text.png"):
        list(found.stream_alone([tmp_path / "text.png"], tiled(found, 128, 0.2)))
    with pytest.raises(ValueError, match='failures must be "raise" or "yield", got \'skip\''):
        list(found.stream_alone([image], tiled(found, 128, 0.2), failures="skip"))
