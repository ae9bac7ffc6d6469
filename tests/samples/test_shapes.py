"""The shapes: pure functions of their seed, masks that are what is seen, pictures that are real photographs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samples.shapes import drawing
from samples.shapes.shapes import MIN_VISIBLE, TRAINING_BACKGROUNDS, VALIDATION_BACKGROUNDS, ShapesConfig, ShapesDataset


def shapes(count=6, height=96, width=128, **options) -> ShapesDataset:
    dataset = ShapesDataset()
    dataset.load_shapes(count, height, width, **options)
    dataset.prepare()
    return dataset


def test_dataset_as_in_the_old_sample():
    dataset = shapes(5)
    assert list(dataset.image_ids) == [0, 1, 2, 3, 4]
    assert dataset.class_names == ["BG", "square", "circle", "triangle"]
    assert dataset.num_classes == ShapesConfig().NUM_CLASSES
    image, (masks, class_ids) = dataset.load_image(2), dataset.load_mask(2)
    assert (image.shape, image.dtype) == ((96, 128, 3), np.uint8)
    assert masks.shape == (96, 128, len(class_ids)) and masks.dtype == bool and class_ids.dtype == np.int32


def test_an_image_depends_on_its_seed_and_number_alone():
    first, again, longer = shapes(4, seed=3), shapes(4, seed=3), shapes(9, seed=3)
    _ = [again.load_image(i) for i in (3, 1)]  # another order
    for i in range(4):
        np.testing.assert_array_equal(first.load_image(i), again.load_image(i))
        np.testing.assert_array_equal(first.load_image(i), longer.load_image(i))
        for a, b in zip(first.load_mask(i), longer.load_mask(i), strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first.load_image(0), first.load_image(1))
    assert not np.array_equal(first.load_image(0), shapes(1, seed=4).load_image(0))


@given(height=st.integers(32, 200), width=st.integers(32, 200), seed=st.integers(0, 1000), most=st.integers(1, 8))
def test_masks_are_the_visible_parts(height, width, seed, most):
    dataset = shapes(1, height, width, seed=seed, max_shapes=most, kinds=drawing.KINDS)
    masks, class_ids = dataset.load_mask(0)
    assert 1 <= len(class_ids) <= most
    assert set(class_ids) <= {1, 2, 3, 4}
    assert masks.sum(axis=-1).max() == 1  # no pixel belongs to two
    # The smallest shape has a radius of 5 pixels: a triangle of 50 pixels, of which the least share must show.
    assert masks.sum(axis=(0, 1)).min() >= MIN_VISIBLE * 48


def test_shapes_hide_parts_of_each_other():
    dataset = shapes(40, 128, 128)
    circle = 1 + dataset.image_info[0]["kinds"].index("circle")
    fill = []  # share of the bounding box: pi / 4 for a whole circle
    for i in dataset.image_ids:
        masks, class_ids = dataset.load_mask(i)
        for mask in masks[..., class_ids == circle].transpose(2, 0, 1):
            rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
            fill.append(mask.sum() / (np.ptp(rows) + 1) / (np.ptp(columns) + 1))
    assert np.isclose(fill, np.pi / 4, atol=0.03).any()
    assert (np.array(fill) < 0.7).any()


def test_all_kinds_and_counts_occur():
    dataset = shapes(60, 64, 64, max_shapes=3)
    found = [dataset.load_mask(i)[1] for i in dataset.image_ids]
    assert set(np.concatenate(found)) == {1, 2, 3}
    assert {len(class_ids) for class_ids in found} == {1, 2, 3}


def test_pixels_outside_the_masks_are_the_photograph():
    """The same scene on two photographs: alike where shapes are, different elsewhere."""
    one = shapes(1, 128, 128, backgrounds=("brick.png",))
    two = shapes(1, 128, 128, backgrounds=("astronaut.png",))
    masks, _ = one.load_mask(0)
    np.testing.assert_array_equal(masks, two.load_mask(0)[0])
    inside = masks.any(axis=-1)
    difference = np.abs(one.load_image(0).astype(int) - two.load_image(0)).max(axis=-1)
    assert (difference[inside] <= 128).mean() > 0.99  # antialiased edges see a little of what lies under them
    assert np.median(difference[inside]) == 0
    assert np.median(difference[~inside]) > 10


def test_training_and_validation_share_no_photograph():
    assert not set(TRAINING_BACKGROUNDS) & set(VALIDATION_BACKGROUNDS)
    for name in TRAINING_BACKGROUNDS + VALIDATION_BACKGROUNDS:
        assert shapes(1, 64, 64, backgrounds=(name,)).load_image(0).std() > 1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"count": 0}, "count and max_shapes must be at least 1, got 0"),
        ({"max_shapes": 0}, "must be at least 1, got 6 and 0"),
        ({"height": 31}, "at least 32 pixels per side, got 31 x 128"),
        ({"kinds": ("square", "cube")}, "kinds must be some of .*'star'.*, got .*'cube'"),
        ({"kinds": ()}, "kinds must be some of"),
    ],
)
def test_what_cannot_be_drawn(options, message):
    with pytest.raises(ValueError, match=message):
        shapes(**options)


def test_missing_photograph():
    with pytest.raises(FileNotFoundError, match="does not include nowhere.png"):
        shapes(1, backgrounds=("nowhere.png",)).load_image(0)


# Drawing


@pytest.mark.parametrize(
    "kind, area",
    [
        ("circle", np.pi * 20**2),
        ("square", 2 * (1.2 * 20) ** 2),
        ("triangle", 3 * np.sqrt(3) / 4 * (1.25 * 20) ** 2),
        ("star", 10 * 0.5 * (1.3 * 20) * (1.3 * 20 * 0.5) * np.sin(np.pi / 5)),
    ],
)
@pytest.mark.parametrize("angle", [0.0, 0.4])
def test_area_of_a_mask(kind, area, angle):
    shape = drawing.Shape(kind, (40.3, 50.7), 20, angle, ((255, 0, 0), (0, 0, 255)), 0.0)
    covered, whole = drawing.mask(shape, 80, 100)
    assert covered.sum() == whole == pytest.approx(area, rel=0.02)


def test_distance_to_a_square():
    """Corners at (0, +-12) and (+-12, 0) around the center of a pixel, so edges lie on |y| + |x| = 12."""
    shape = drawing.Shape("square", (20.5, 20.5), 10, 0.0, ((0, 0, 0), (0, 0, 0)), 0.0)
    found = drawing.distance(shape, slice(0, 41), slice(0, 41))
    assert found[20, 20] == pytest.approx(-12 / np.sqrt(2))
    assert found[20, 32] == pytest.approx(0, abs=1e-9)
    assert found[20, 40] == pytest.approx(8)  # beyond a corner: to the corner
    assert found[32, 32] == pytest.approx(12 / np.sqrt(2))  # beside an edge: to the edge


def test_edges_are_antialiased_and_masks_cut_them_in_half():
    white = drawing.Shape("circle", (32.2, 32.7), 15.3, 0.0, ((255, 255, 255), (255, 255, 255)), 0.0)
    image = np.zeros((64, 64, 3))

    class Silent:
        @staticmethod
        def normal(mean, deviation, size):
            return np.zeros(size)

    drawing.paint(image, white, Silent())
    covered, _ = drawing.mask(white, 64, 64)
    assert image[covered].min() >= 127.5 and image[~covered].max() <= 127.5
    assert ((image > 5) & (image < 250)).any()
    assert image[..., 0].sum() / 255 == pytest.approx(np.pi * 15.3**2, rel=0.005)


def test_a_shape_over_the_border_is_cut_there():
    shape = drawing.Shape("circle", (0.0, 30.0), 10, 0.0, ((255, 0, 0), (255, 0, 0)), 0.0)
    covered, whole = drawing.mask(shape, 40, 60)
    assert covered.sum() == whole / 2
    drawing.paint(np.zeros((40, 60, 3)), shape, np.random.default_rng(0))


def test_backbone_has_the_strides_of_a_pyramid():
    import keras

    from samples.shapes.backbone import compact

    model = keras.Model(image := keras.Input((64, 96, 3)), compact(image, width=8, blocks=2))
    assert [output.shape[1:] for output in model.outputs] == [(16, 24, 8), (8, 12, 16), (4, 6, 32), (2, 3, 32)]
