"""From images to the network and back, with a network that answers what the test wants."""

import threading
import weakref

import cv2
import numpy as np
import pytest

from mrcnn.data.images import read_image
from mrcnn.inference.detector import Detector
from mrcnn.inference.input_sizes import InputLimits, input_limits
from mrcnn.inference.pipeline import READERS
from mrcnn.network.pixels import PixelScaling
from tests.tiny import TinyConfig

SLOTS = 5


class Answering:
    """Stands for the inference graph: the same boxes, in network pixels, for every image; keeps what it was asked.

    masks: [batch, boxes, 4, 4]; None for full ones. static: a row of masks for every slot, as without dynamic shapes.
    """

    def __init__(self, *boxes, masks=None, static=False):
        self.boxes, self.masks, self.static, self.asked = np.array(boxes, np.float32).reshape(-1, 4), masks, static, []

    def __call__(self, image, window):
        self.asked.append({"image": image.copy(), "window": window})  # the memory of images is used again
        batch, count = len(image), len(self.boxes)
        valid = np.tile(np.arange(SLOTS) < count, (batch, 1))
        padded = np.zeros((batch, SLOTS, 4), np.float32)
        padded[:, :count] = self.boxes
        masks = np.ones((batch, count, 4, 4)) if self.masks is None else np.asarray(self.masks)
        if self.static:
            masks = np.concatenate([masks, np.full((batch, SLOTS - count, 4, 4), 9)], axis=1)
        masks = masks.reshape(-1, 4, 4) if masks.size else np.zeros((1, 4, 4))
        return {
            "boxes": padded,
            "class_ids": valid * np.arange(1, SLOTS + 1),
            "valid": valid,
            "masks": masks.astype(np.float32),
            "scores": valid * np.linspace(0.9, 0.5, SLOTS, dtype=np.float32),
            "counts": np.tile(np.array([30, 20, 10, count], np.int32), (batch, 1)),
        }


AS_THEY_ARE = PixelScaling((0,) * 3, (1,) * 3)


def detector(model, scaling=AS_THEY_ARE, **settings):
    return Detector(model, TinyConfig(**settings), scaling)


def grey(height, width, value=100):
    return np.full((height, width, 3), value, np.uint8)


def test_boxes_come_back_in_the_pixels_of_the_image():
    """32 x 128 is shrunk to 16 x 64: a box of the network input is twice as large in the image."""
    model = Answering((2, 8, 10, 40))
    (found,) = detector(model).detect([grey(32, 128)])
    np.testing.assert_allclose(found["rois"], [[4, 16, 20, 80]], atol=1e-4)
    assert model.asked[0]["image"].shape == (1, 32, 64, 3), "padded below to a multiple of 32"
    np.testing.assert_array_equal(model.asked[0]["window"], [[0, 0, 16, 64]])
    rows, columns = np.nonzero(found["masks"][..., 0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 19, 16, 79)


def test_the_two_axes_have_a_scale_each():
    """65 x 101 becomes 41 x 64 (fit: rounded down), so 41 / 65 and 64 / 101."""
    (found,) = detector(Answering((0, 0, 41, 64))).detect([grey(65, 101)])
    np.testing.assert_allclose(found["rois"], [[0, 0, 65, 101]], atol=1e-3)
    assert found["masks"].mean() > 0.97, "all but the corners, where the mask fades to both sides"


def test_a_centered_image_is_shifted_back():
    """Square mode: 32 x 64 lies at row 16 of a square of 64."""
    model = Answering((16, 0, 48, 64), (20, 10, 40, 30))
    (found,) = detector(model, IMAGE_RESIZE_MODE="square", IMAGE_MIN_DIM=0).detect([grey(32, 64)])
    np.testing.assert_array_equal(model.asked[0]["window"], [[16, 0, 48, 64]])
    np.testing.assert_allclose(found["rois"], [[0, 0, 32, 64], [4, 10, 24, 30]], atol=1e-4)


def test_crop_mode_detects_on_the_whole_image():
    model = Answering((0, 0, 64, 64))
    settings = {"IMAGE_RESIZE_MODE": "crop", "IMAGE_MIN_DIM": 32, "IMAGE_MAX_DIM": 64}
    (found,) = detector(model, **settings).detect([grey(64, 64)])
    np.testing.assert_allclose(found["rois"], [[0, 0, 64, 64]])


@pytest.mark.parametrize("max_dim, side", [(100, 128), (None, 32)])
def test_crop_mode_detects_with_any_largest_side(max_dim, side):
    """The network input is a multiple of SIZE_DIVISOR; without IMAGE_MAX_DIM its side is IMAGE_MIN_DIM."""
    model = Answering()
    detector(model, IMAGE_RESIZE_MODE="crop", IMAGE_MIN_DIM=32, IMAGE_MAX_DIM=max_dim).detect([grey(40, 50)])
    assert model.asked[0]["image"].shape == (1, side, side, 3)


def test_boxes_and_masks_stay_inside_the_image():
    (found,) = detector(Answering((-5, -5, 70, 90), (50, 50, 64, 64))).detect([grey(64, 64)])
    assert found["rois"].min() >= 0 and found["rois"].max() <= 64
    assert found["masks"].shape == (64, 64, 2)


def test_masks_are_pasted_into_their_boxes():
    half = np.zeros((4, 4))
    half[:, :2] = 1
    (found,) = detector(Answering((8, 8, 24, 40), masks=[[half]])).detect([grey(64, 64)])
    expected = np.zeros((64, 64), bool)
    expected[8:24, 8:24] = True
    assert (found["masks"][..., 0] != expected).sum() == 4 * 3, "3 pixels at each corner, where the mask fades"


def test_types_and_shapes_of_a_result():
    (found,) = detector(Answering((0, 0, 9, 9), (9, 9, 20, 20))).detect([grey(40, 64)])
    assert {name: (value.shape, value.dtype.name) for name, value in found.items()} == {
        "rois": ((2, 4), "float32"),
        "class_ids": ((2,), "int32"),
        "scores": ((2,), "float32"),
        "masks": ((40, 64, 2), "bool"),
    }
    np.testing.assert_array_equal(found["class_ids"], [1, 2])


def test_nothing_found_is_empty_arrays_of_the_right_shapes():
    (found,) = detector(Answering()).detect([grey(40, 64)])
    assert {name: value.shape for name, value in found.items()} == {
        "rois": (0, 4),
        "class_ids": (0,),
        "scores": (0,),
        "masks": (40, 64, 0),
    }


def test_no_images_are_no_results():
    model = Answering()
    assert detector(model).detect([]) == []
    assert model.asked == []


def test_images_of_one_padded_size_share_a_batch():
    """100 x 90 to 100 x 93 are all 64 x 57 to 64 x 60 of a square of 64, and of a padded 64 x 64."""
    for mode in ("square", "fit"):
        model = Answering((0, 0, 16, 16))
        runner = detector(model, DETECTION_BATCH_SIZE=4, IMAGE_RESIZE_MODE=mode, IMAGE_MIN_DIM=64 * (mode == "fit"))
        images = [grey(100, 90 + i, value=i + 1) for i in range(4)]
        results = runner.detect(images)
        assert [len(asked["image"]) for asked in model.asked] == [4]
        assert model.asked[0]["image"].max(axis=(1, 2, 3)).round(3).tolist() == [1, 2, 3, 4]
        assert len({tuple(window) for window in model.asked[0]["window"].tolist()}) > 1
        assert [result.size for result in results] == [image.shape[:2] for image in images]
        for image, result in zip(images, results, strict=True):
            (alone,) = detector(
                Answering((0, 0, 16, 16)), IMAGE_RESIZE_MODE=mode, IMAGE_MIN_DIM=64 * (mode == "fit")
            ).detect([image])
            np.testing.assert_array_equal(result["rois"], alone["rois"])


@pytest.mark.parametrize("mode", ["fit", "square", "pad64", "none", "crop"])
@pytest.mark.parametrize("resizer", ["opencv", "pillow"])
def test_the_size_of_a_network_input_is_known_beforehand(mode, resizer):
    runner = detector(Answering(), IMAGE_RESIZE_MODE=mode, IMAGE_MIN_DIM=32, IMAGE_RESIZER=resizer)
    for size in ((32, 128), (65, 101), (101, 65), (33, 33), (1, 200)):
        if mode in ("square", "crop") or max(size) <= 128:
            assert runner.input_size(size) == runner.network_input(grey(*size)).image.shape[:2]


def test_images_of_one_size_share_a_batch_and_results_keep_the_order():
    model = Answering((0, 0, 16, 16))
    sizes = [(64, 64), (32, 64), (64, 64), (64, 64), (32, 64)]
    results = detector(model, DETECTION_BATCH_SIZE=2).detect([grey(*size, value=i) for i, size in enumerate(sizes)])
    assert [len(asked["image"]) for asked in model.asked] == [2, 2, 1], "as soon as a batch is full"
    assert [set(np.unique(asked["image"][:, :32]).tolist()) for asked in model.asked] == [{0, 2}, {1, 4}, {3}]
    assert [result["masks"].shape[:2] for result in results] == sizes


@pytest.mark.parametrize("static", [False, True])
def test_each_image_of_a_batch_gets_its_own_masks(static):
    """Whether the graph drops the rows of padding or keeps one for each slot."""
    there = np.array([[True, False, True], [False, True, True], [False, False, True]])
    masks = np.ones((3, 3, 4, 4)) * there[..., None, None]
    model = Answering((0, 0, 16, 16), (16, 16, 32, 32), (40, 40, 50, 50), masks=masks, static=static)
    results = detector(model, DETECTION_BATCH_SIZE=3).detect([grey(64, 64)] * 3)
    np.testing.assert_array_equal([found["masks"].any(axis=(0, 1)) for found in results], there)


def test_a_full_house():
    boxes = [(8 * i, 0, 8 * i + 8, 8) for i in range(SLOTS)]
    (found,) = detector(Answering(*boxes, static=True)).detect([grey(64, 64)])
    np.testing.assert_array_equal(
        found["masks"].any(axis=1),
        np.repeat(np.eye(SLOTS, dtype=bool), 8, axis=0).tolist() + [[False] * SLOTS] * (64 - 8 * SLOTS),
    )


def test_pixels_are_those_that_the_backbone_expects():
    model = Answering()
    image = np.stack([np.full((64, 64), value, np.uint8) for value in (10, 20, 30)], axis=-1)
    detector(model, PixelScaling((1.0, 2.0, 3.0), (1.0, 2.0, 3.0), bgr=True)).detect([image])
    np.testing.assert_allclose(model.asked[0]["image"][0, 5, 5], [9, 9, 9])
    detector(model, PixelScaling((0.0,) * 3, (1.0,) * 3, bgr=True)).detect([image])
    np.testing.assert_allclose(model.asked[1]["image"][0, 5, 5], [30, 20, 10])


def test_verbose_says_how_many_candidates_fell_at_each_step(capsys):
    runner = detector(Answering((0, 0, 9, 9)))
    runner.detect([grey(32, 128)])
    assert capsys.readouterr().out == ""
    runner.detect([grey(64, 64), grey(32, 128)], verbose=1)
    assert capsys.readouterr().out.splitlines() == [
        "image 0: 64 x 64 as 64 x 64: 30 proposals, 20 scores over the minimum, 10 left by NMS, 1 detections",
        "image 1: 32 x 128 as 32 x 64: 30 proposals, 20 scores over the minimum, 10 left by NMS, 1 detections",
    ]


@pytest.mark.parametrize(
    "bad, error, message",
    [
        ("missing.jpg", FileNotFoundError, "no image file at 'missing.jpg'"),
        (np.full((8, 8, 3), np.nan), ValueError, "holds NaN or infinite values"),
        (np.zeros((0, 8, 3), np.uint8), ValueError, "the image has no pixels"),
        (np.zeros((3, 8, 8), np.uint8), ValueError, r"channels last.*\(3, 8, 8\)"),
        (None, TypeError, "expected an image as a path or an array of numbers"),
        (np.full((8, 8, 3), 300.0), ValueError, "values from 300.0 to 300.0"),
    ],
)
def test_a_bad_image_names_its_place_and_nothing_is_lost_silently(bad, error, message):
    model = Answering((0, 0, 9, 9))
    with pytest.raises(error, match=rf"images\[1\] of 3: .*{message}.*. No results were returned; fix or remove"):
        detector(model).detect([grey(64, 64), bad, grey(64, 64)])
    assert model.asked == [], "it is found before the first detection"


def test_files_are_decoded_once_and_kept_for_a_batch_at_most(tmp_path, monkeypatch):
    """Their headers tell how to group them; arrays are converted once, before the first detection."""
    kept, most = weakref.WeakSet(), []

    class Pixels(np.ndarray):
        pass

    def read(source, channels, **options):
        if isinstance(source, np.ndarray):
            return source
        pixels = read_image(source, channels, **options).view(Pixels)
        kept.add(Held(pixels))
        most.append(sum(1 for _ in kept))
        return pixels

    class Held:
        """Weak references want a hashable; it lives as long as the pixels that hold it."""

        def __init__(self, pixels):
            pixels.held = self

    monkeypatch.setattr("mrcnn.inference.detector.read_image", read)
    paths = [str(tmp_path / f"{i}.png") for i in range(6)]
    for i, path in enumerate(paths):
        cv2.imwrite(path, grey(64, 64, value=10 * i))
    model = Answering((0, 0, 9, 9))
    results = detector(model, DETECTION_BATCH_SIZE=2).detect([*paths, grey(64, 64, value=200)])
    assert len(results) == 7 and len(most) == 6
    assert max(most) <= READERS, "one per thread that decodes: pixels go straight into the batch"
    assert [asked["image"][:, 0, 0, 0].tolist() for asked in model.asked] == [[0, 10], [20, 30], [40, 50], [200]]


def test_files_are_turned_upright_and_grouped_as_they_are_then(tmp_path):
    from PIL import Image

    tag = Image.Exif()
    tag[0x0112] = 6
    Image.new("RGB", (100, 40)).save(tmp_path / "turned.jpg", exif=tag)
    cv2.imwrite(str(tmp_path / "upright.png"), grey(100, 40))
    model = Answering((0, 0, 9, 9))
    paths = [tmp_path / "turned.jpg", tmp_path / "upright.png"]
    results = detector(model, DETECTION_BATCH_SIZE=2, IMAGE_MIN_DIM=16).detect(paths)
    assert [asked["image"].shape for asked in model.asked] == [(2, 64, 32, 3)]
    assert [result.size for result in results] == [(100, 40)] * 2


@pytest.mark.slow
def test_a_file_whose_header_is_right_and_its_pixels_missing_is_named(tmp_path):
    whole = cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))[1].tobytes()
    (tmp_path / "cut.png").write_bytes(whole[:2000])
    with pytest.raises(
        ValueError, match=r"images\[1\] of 2: .*cut.png' is truncated, damaged or not an image.*fix or remove"
    ):
        detector(Answering()).detect([grey(64, 64), tmp_path / "cut.png"])


def test_an_image_of_another_number_of_channels_names_the_setting():
    runner = detector(Answering(), PixelScaling((0,) * 4, (1,) * 4), IMAGE_CHANNEL_COUNT=4)
    with pytest.raises(
        ValueError,
        match=r"images\[0\] of 1: expected an image of shape \[H, W, 4\] "
        r"\(IMAGE_CHANNEL_COUNT is 4\)",
    ):
        runner.detect([grey(64, 64)])
    (found,) = runner.detect([np.zeros((40, 64, 4), np.uint8)])
    assert found["masks"].shape == (40, 64, 0)


def test_boxes_in_whole_pixels_by_their_last_ones():
    """matterport's: corners name the last pixel. 32 x 64 at row 16 of a square of 64, and 16 x 32 scaled up to it."""
    settings = {"IMAGE_RESIZE_MODE": "square", "IMAGE_MIN_DIM": 64, "DETECTION_ROUND_BOXES": True}
    model = Answering((16, 0, 48, 64), (20.4, 10.3, 40.6, 30.2))
    (found,) = detector(model, **settings).detect([grey(32, 64)])
    np.testing.assert_array_equal(found["rois"], [[0, 0, 32, 64], [4, 10, 25, 30]])
    assert found["rois"].dtype == np.int32 and found["masks"].shape == (32, 64, 2)
    y1, x1, y2, x2 = found["rois"][1]
    assert grey(32, 64)[y1:y2, x1:x2].shape == (21, 20, 3)
    # (y - 16) * 15 / 31, rounded: 4.4 -> 2, 23.6 (last 39.6 - 16) -> 11, so 12 is the end; x * 31 / 63: 5, 14, so 15
    (found,) = detector(model, **settings).detect([grey(16, 32)])
    np.testing.assert_array_equal(found["rois"], [[0, 0, 16, 32], [2, 5, 12, 15]])
    rows, columns = np.nonzero(found["masks"][..., 1])
    assert rows.min() >= 2 and rows.max() < 12 and columns.min() >= 5 and columns.max() < 15
    (found,) = detector(Answering(), **settings).detect([grey(16, 32)])
    assert found["rois"].shape == (0, 4) and found["rois"].dtype == np.int32


def test_padding_and_resizer_are_those_of_the_settings():
    image = np.random.default_rng(0).integers(0, 256, (32, 50, 3), dtype=np.uint8)
    scaling, asked = PixelScaling((100.0,) * 3, (1.0,) * 3), {}
    for name, settings in {
        "plain": {},
        "padded": {"IMAGE_PAD_PIXEL": (0, 50, 200)},
        "skimage": {"IMAGE_RESIZER": "skimage"},
    }.items():
        model = Answering()
        detector(model, scaling, IMAGE_RESIZE_MODE="square", **settings).detect([image])
        asked[name] = model.asked[0]["image"][0]
        window = model.asked[0]["window"][0].astype(int)
    assert window.tolist() == [11, 0, 52, 64]
    np.testing.assert_array_equal(asked["plain"][0, 0], [0, 0, 0])
    np.testing.assert_array_equal(asked["padded"][0, 0], [-100, -50, 100])
    np.testing.assert_array_equal(asked["padded"][11:52], asked["plain"][11:52])
    assert (asked["skimage"][20:40, 20:40] % 1 == 0).all() and (asked["plain"][20:40, 20:40] % 1 != 0).any()
    assert np.abs(asked["skimage"] - asked["plain"])[20:40, 20:40].max() <= 1 + 1e-3


@pytest.mark.parametrize("boxes", [((2, 8, 10, 40), (1.3, 2.7, 15.1, 63.9), (4, 4, 4, 9)), ()])
def test_masks_are_computed_when_they_are_used_or_ahead(boxes):
    masks = np.random.default_rng(0).random((1, len(boxes), 4, 4))
    runner = detector(Answering(*boxes, masks=masks))
    image = grey(32, 128)
    later, *ahead = (runner.detect([image], prepare=form)[0] for form in (None, "full", "rle", "crops"))
    assert later.soft is not None and later["masks"].shape == (32, 128, len(boxes))
    assert later["masks"].any() == bool(boxes)
    for result in ahead:
        assert result.soft is None
        np.testing.assert_array_equal(result["masks"], later["masks"])
        np.testing.assert_array_equal(result["rois"], later["rois"])


def test_an_unknown_form_of_masks_names_those_there_are():
    with pytest.raises(ValueError, match=r"prepare must be one of \('full', 'rle', 'crops'\) or None, got 'polygons'"):
        detector(Answering()).detect([grey(32, 64)], prepare="polygons")


def test_results_know_the_names_of_their_classes():
    (found,) = detector(Answering((0, 0, 9, 9))).detect([grey(64, 64)], class_names=["BG", "cat"])
    assert found.names == ["cat"]


@pytest.mark.parametrize(
    "settings, limits",
    [
        ({"IMAGE_RESIZE_MODE": "fit", "IMAGE_MIN_DIM": 800, "IMAGE_MAX_DIM": 1333}, InputLimits(800, 1344, 1)),
        (
            {"IMAGE_RESIZE_MODE": "square", "IMAGE_MIN_DIM": 800, "IMAGE_MAX_DIM": 960},
            InputLimits(960, 960, 1, one_size=True),
        ),
        (
            {"IMAGE_RESIZE_MODE": "crop", "IMAGE_MIN_DIM": 512, "IMAGE_MAX_DIM": None},
            InputLimits(512, 512, 1, one_size=True),
        ),
        ({"IMAGE_RESIZE_MODE": "none"}, InputLimits(batch=1)),
        ({"IMAGE_RESIZE_MODE": "pad64", "DETECTION_BATCH_SIZE": 3}, InputLimits(batch=3)),
    ],
)
def test_limits_are_those_of_network_inputs(settings, limits):
    runner = detector(Answering(), **settings)
    assert input_limits(runner.config) == limits
    if limits.long is not None:
        for size in ((300, 300), (200, 3000), (2000, 1000)):
            sides = sorted(runner.network_input(grey(*size)).image.shape[:2])
            assert sides[0] <= limits.short and sides[1] <= limits.long
            assert sides == [limits.short, limits.long] or not limits.one_size


def write_images(folder, count, damaged=()):
    """Paths of images of one value each, of three sizes in turn; damaged ones are cut off, or no image at all."""
    paths = []
    for i in range(count):
        paths.append(folder / f"{i:03d}.png")
        cv2.imwrite(str(paths[-1]), grey(64, (64, 48, 20)[i % 3], value=i + 1))
        if i in damaged:
            content = paths[-1].read_bytes()
            paths[-1].write_bytes(content[: len(content) - 20] if i % 2 else b"no image")
    return paths


@pytest.mark.parametrize("batch", [1, 3])
def test_a_stream_gives_what_detect_gives(tmp_path, batch):
    paths = write_images(tmp_path, 14)
    runner = detector(Answering((0, 0, 16, 16), (3, 4, 20, 30)), DETECTION_BATCH_SIZE=batch)
    expected = runner.detect(paths, prepare="rle")
    for found, result in zip(runner.stream(iter(paths), prepare="rle"), expected, strict=True):
        assert found.rle == result.rle and found.soft is None and found.size == result.size
        np.testing.assert_array_equal(found["rois"], result["rois"])


@pytest.mark.parametrize("batch", [1, 3])
def test_a_stream_goes_on_past_images_that_cannot_be_read(tmp_path, batch):
    damaged = {0, 1, 6, 11, 12, 13}
    paths = write_images(tmp_path, 14, damaged)
    model = Answering((0, 0, 16, 16))
    runner = detector(model, DETECTION_BATCH_SIZE=batch)
    outcomes = list(runner.stream([*paths, "missing.png", np.full((4, 4, 3), np.nan)], failures="yield"))
    failed = {i for i, outcome in enumerate(outcomes) if isinstance(outcome, Exception)}
    assert failed == damaged | {14, 15} and len(outcomes) == 16
    for i in damaged:
        assert f"{i:03d}.png" in str(outcomes[i]) and f"images[{i}]" in str(outcomes[i])
    assert isinstance(outcomes[14], FileNotFoundError) and "NaN" in str(outcomes[15])
    whole = sorted(set(range(14)) - damaged)
    seen = [value for asked in model.asked for value in asked["image"].max(axis=(1, 2, 3)).round().tolist()]
    assert sorted(seen) == [i + 1 for i in whole], "each whole image once, and nothing for the others"
    assert [outcomes[i].size for i in whole] == [(64, (64, 48, 20)[i % 3]) for i in whole]


def test_a_stream_raises_at_an_image_that_cannot_be_read(tmp_path):
    paths = write_images(tmp_path, 6, {3})
    found = []
    with pytest.raises(ValueError, match=r"images\[3\]: .*003.png"):
        for result in detector(Answering((0, 0, 9, 9))).stream(paths):
            found.append(result)
    assert len(found) <= 3
    with pytest.raises(ValueError, match='failures must be "raise" or "yield"'):
        next(detector(Answering()).stream(paths, failures="ignore"))


@pytest.mark.parametrize("batch", [1, 4])
def test_a_stream_reads_little_ahead(batch):
    """So that it takes constant memory, however many images there are, whole or not."""
    read = []

    def images():
        for i in range(500):
            read.append(i)
            yield np.zeros((3, 8, 8)) if i % 7 == 0 else grey(64, 32 + i % 5 * 8)

    runner = detector(Answering((0, 0, 9, 9)), DETECTION_BATCH_SIZE=batch)
    most = 0
    for i, _ in enumerate(runner.stream(images(), failures="yield")):
        most = max(most, len(read) - i)
    assert i == 499 and most <= 5 if batch == 1 else most <= 25 * batch


def test_the_memory_of_network_inputs_is_used_again():
    starts = set()

    class Watching(Answering):
        def __call__(self, image, window):
            starts.add(image.ctypes.data)
            return super().__call__(image, window)

    runner = detector(Watching((0, 0, 9, 9)))
    for _ in range(5):
        runner.detect([grey(64, 64), grey(64, 32), grey(64, 64)])
    assert len(starts) <= 6, "of 15 calls; the first ones make it"


def test_a_stream_hands_every_result_to_a_function_in_another_thread(tmp_path):
    paths = write_images(tmp_path, 5)
    threads = set()

    def each(result):
        threads.add(threading.current_thread())
        assert result.soft is None and result.image.shape == (*result.size, 3)
        return result.path, int(result.image.max())

    runner = detector(Answering((0, 0, 9, 9)), DETECTION_BATCH_SIZE=2)
    found = list(runner.stream([*paths, grey(64, 64, value=9)], prepare="crops", keep_images=True, each=each))
    assert found == [*((str(path), i + 1) for i, path in enumerate(paths)), (None, 9)]
    assert threading.current_thread() not in threads
    (plain,) = runner.stream([paths[0]])
    assert plain.image is None and plain.path == str(paths[0])
    with pytest.raises(ZeroDivisionError):
        list(runner.stream(paths, failures="yield", each=lambda result: 1 / 0))
