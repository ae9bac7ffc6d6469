"""The pictures: what stands on the axes, what their pixels are, and what wrong arguments say."""

import subprocess
import sys
import warnings
from pathlib import Path

import keras
import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle

from mrcnn import visualize
from mrcnn.pictures import canvas, colors, comparison

HEIGHT, WIDTH = 60, 80
NAMES = ["BG", "cat", "dog"]


@pytest.fixture(autouse=True)
def clean_figures():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # e.g. "FigureCanvasAgg is non-interactive" from a show() that nobody can see
        yield
    pyplot.close("all")


@pytest.fixture
def image():
    return np.full((HEIGHT, WIDTH, 3), 100, np.uint8)


def rectangles(*boxes):
    masks = np.zeros((HEIGHT, WIDTH, len(boxes)), bool)
    for i, (y1, x1, y2, x2) in enumerate(boxes):
        masks[y1:y2, x1:x2, i] = True
    return masks


BOXES = np.array([[5, 10, 25, 40], [30, 42, 55, 75]])


def texts(ax):
    return [text.get_text() for text in ax.texts]


def drawn_boxes(ax):
    """[(y1, x1, y2, x2)] of the rectangles on axes."""
    found = []
    for patch in ax.patches:
        if isinstance(patch, Rectangle):
            x, y = patch.get_xy()
            found.append([y, x, y + patch.get_height(), x + patch.get_width()])
    return np.array(found).reshape(-1, 4)


def outlines(ax):
    return [segments for c in ax.collections if isinstance(c, LineCollection) for segments in c.get_segments()]


def picture(ax):
    return np.asarray(ax.images[-1].get_array())


# Colors and pixels


def test_random_colors():
    assert visualize.random_colors(0) == []
    forty = np.array(visualize.random_colors(40))
    assert forty.shape == (40, 3) and forty.min() >= 0 and forty.max() <= 1
    np.testing.assert_array_equal(forty[:7], visualize.random_colors(7))
    distances = np.linalg.norm(forty[:10, None] - forty[None, :10], axis=-1) + 9 * np.eye(10)
    assert distances.min() > 0.15
    assert np.max(visualize.random_colors(9, bright=False)) <= 0.7
    with pytest.raises(ValueError, match="got -1"):
        visualize.random_colors(-1)


def test_text_is_readable_on_its_background():
    backgrounds = [(1.0, 1.0, 0.2), (0.2, 1.0, 0.4), (0.0, 0.0, 0.5), (0.5, 0.1, 0.1)]
    assert [colors.text_color(color) for color in backgrounds] == ["black", "black", "white", "white"]


def test_apply_mask_in_place():
    image = np.full((2, 2, 3), 100, np.uint8)
    mask = np.array([[1, 0], [0, 0]])
    assert visualize.apply_mask(image, mask, (1, 0.5, 0), alpha=0.25) is image
    assert image[0, 0].tolist() == [139, 107, 75]  # 75 + 255 / 4 and so on, rounded
    assert (image[mask == 0] == 100).all()
    with pytest.raises(ValueError, match=r"mask has shape \(3, 2\), the image \(2, 2, 3\)"):
        visualize.apply_mask(image, np.ones((3, 2)), (1, 0, 0))


def test_small_masks_lie_over_large_ones(image):
    masks = rectangles((20, 20, 30, 30), (0, 0, 60, 80))
    blended = colors.blend_masks(image, masks, [(1, 0, 0), (0, 0, 1)], alpha=1.0)
    assert blended[25, 25].tolist() == [255, 0, 0] and blended[0, 0].tolist() == [0, 0, 255]
    assert (image == 100).all()


def test_draw_box_is_three_pixels_wide(image):
    assert visualize.draw_box(image, [10.2, 20, 30, 39.8], [255, 0, 0]) is image
    red = (image == [255, 0, 0]).all(axis=-1)
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[10:30, 20:40] = True
    expected[13:27, 23:37] = False
    np.testing.assert_array_equal(red, expected)


@pytest.mark.parametrize(
    "box, count", [([0, 0, 4, 5], 20), ([-9, -9, 2, 2], 4), ([50, 70, 99, 99], 84), ([9, 9, 9, 9], 0)]
)
def test_draw_box_at_the_edges(image, box, count):
    visualize.draw_box(image, box, [0, 255, 0])
    assert (image == [0, 255, 0]).all(axis=-1).sum() == count  # 10 x 10 less the 4 x 4 inside its frame


def test_draw_box_needs_four_numbers(image):
    with pytest.raises(ValueError, match=r"four numbers .* got \[1, 2, 3\]"):
        visualize.draw_box(image, [1, 2, 3], [0, 0, 0])


# Instances


def test_display_instances(image):
    masks = rectangles(*BOXES)
    ax = visualize.display_instances(image, BOXES + 0.5, masks, [1, 2], NAMES, [0.914, 0.5], title="two animals")
    np.testing.assert_allclose(drawn_boxes(ax), BOXES + 0.5)  # not rounded
    assert texts(ax) == ["cat 0.91", "dog 0.50"]
    assert ax.get_title() == "two animals" and not ax.axison
    first, second = visualize.random_colors(2)
    np.testing.assert_array_equal(picture(ax), colors.blend_masks(image, masks, [first, second]))
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, WIDTH), (HEIGHT, 0))
    # The outline of a mask runs along its edge in the coordinates of boxes
    low, high = outlines(ax)[1].min(axis=0), outlines(ax)[1].max(axis=0)
    np.testing.assert_allclose([*low[::-1], *high[::-1]], BOXES[1])
    assert (image == 100).all()


def test_figures_have_the_proportions_of_the_image(image):
    ax = visualize.display_instances(image, BOXES, None, [1, 2], NAMES, figsize=(16, 16))
    assert tuple(ax.figure.get_size_inches()) == (16, 12)
    ax = visualize.display_instances(image, BOXES, None, [1, 2], NAMES, figsize=(16, 6), title="a\nb")
    assert ax.figure.get_size_inches()[0] == pytest.approx(8)
    extent = ax.get_window_extent()
    assert extent.width / extent.height == pytest.approx(WIDTH / HEIGHT)
    assert extent.y1 < ax.figure.bbox.height  # room for the title


def test_what_to_show(image):
    masks = rectangles(*BOXES)
    ax = visualize.display_instances(image, BOXES, masks, [1, 2], NAMES, show_mask=False)
    assert len(drawn_boxes(ax)) == 2 and not outlines(ax) and (picture(ax) == 100).all()
    ax = visualize.display_instances(image, BOXES, masks, [1, 2], NAMES, show_bbox=False, captions=["", "Rex"])
    assert len(drawn_boxes(ax)) == 0 and len(outlines(ax)) == 2 and texts(ax) == ["Rex"]
    ax = visualize.display_instances(image, None, masks, [1, -2], NAMES, colors=[(1, 0, 0), (0, 1, 0)])
    np.testing.assert_array_equal(drawn_boxes(ax), BOXES)
    assert texts(ax) == ["cat", "dog (crowd)"]
    assert ax.patches[0].get_edgecolor()[:3] == (1, 0, 0)


def test_low_scores_are_not_drawn(image):
    masks = rectangles(*BOXES)
    ax = visualize.display_instances(image, BOXES, masks, [1, 2], NAMES, np.array([0.3, 0.5]))
    np.testing.assert_array_equal(drawn_boxes(ax), BOXES[1:])
    assert texts(ax) == ["dog 0.50", "1 with scores below 0.5 not drawn (min_score)"]
    color = visualize.random_colors(2)[1]  # the same as if both were drawn
    np.testing.assert_array_equal(picture(ax), colors.blend_masks(image, masks[..., 1:], [color]))
    ax = visualize.display_instances(image, BOXES, masks, [1, 2], NAMES, [0.3, 0.5], min_score=0)
    assert texts(ax) == ["cat 0.30", "dog 0.50"]
    ax = visualize.display_instances(image, BOXES, None, [1, 2], NAMES, [0.3, 0.5], min_score=0.9)
    assert len(drawn_boxes(ax)) == 0 and texts(ax) == ["2 with scores below 0.9 not drawn (min_score)"]


def test_captions_and_colors_stay_with_their_instances_when_others_are_not_drawn(image):
    ax = visualize.display_instances(
        image, BOXES, None, [1, 2], NAMES, [0.3, 0.9], captions=["a", "b"], colors=[(1, 0, 0), (0, 1, 0)]
    )
    assert texts(ax)[0] == "b" and ax.patches[0].get_edgecolor()[:3] == (0, 1, 0)


@pytest.mark.parametrize("with_masks", [True, False])
def test_one_label_per_place(image, with_masks):
    boxes = np.array([[5, 10, 25, 40], [5, 10, 25, 36], [30, 42, 55, 75], [5, 10, 25, 24]])
    masks = rectangles(*boxes) if with_masks else None
    ids, scores = [1, 2, 2, 1], [0.6, 0.9, 0.7, 0.8]
    ax = visualize.display_instances(image, boxes, masks, ids, NAMES, scores, max_overlap=0.5)
    # The second covers 26 / 30 of the first, which goes; the last covers 14 / 26 of the second, which goes, too
    assert texts(ax) == ["dog 0.90", "dog 0.70"]
    ax = visualize.display_instances(image, boxes, masks, ids, NAMES, scores, max_overlap=0.6)
    assert texts(ax) == ["dog 0.90", "dog 0.70", "cat 0.80"]
    assert len(drawn_boxes(visualize.display_instances(image, boxes, masks, ids, NAMES, max_overlap=0.5))) == 4


def test_given_axes_are_used(image):
    figure, axes = pyplot.subplots(1, 2)
    assert visualize.display_instances(image, BOXES, None, [1, 2], NAMES, ax=axes[1]) is axes[1]
    assert not axes[0].texts and len(pyplot.get_fignums()) == 1


@pytest.mark.parametrize("masks", [None, np.zeros((HEIGHT, WIDTH, 0), bool), np.zeros((0, 0, 0))])
def test_nothing_found_says_so(image, masks):
    ax = visualize.display_instances(image, np.zeros((0, 4)), masks, [], NAMES, [])
    assert texts(ax) == ["no instances"] and (picture(ax) == 100).all()
    ax.figure.canvas.draw()


def test_padding_is_not_drawn(image):
    boxes, masks = np.pad(BOXES, ((0, 2), (0, 0))), np.pad(rectangles(*BOXES), ((0, 0), (0, 0), (0, 2)))
    ax = visualize.display_instances(image, boxes, masks, [1, 2, 0, 0], NAMES)
    assert len(drawn_boxes(ax)) == 2 and texts(ax) == ["cat", "dog"]


def test_masks_without_pixels_have_no_outline(image):
    ax = visualize.display_instances(image, BOXES, np.zeros((HEIGHT, WIDTH, 2), bool), [1, 2], NAMES)
    assert len(drawn_boxes(ax)) == 2 and not outlines(ax)


def test_gray_images_and_floats():
    for image in (np.full((HEIGHT, WIDTH), 0.5), np.full((HEIGHT, WIDTH, 4), 128, np.uint8)):
        ax = visualize.display_instances(image, BOXES, None, [1, 2], NAMES)
        assert picture(ax).shape == (HEIGHT, WIDTH, 3) and (picture(ax) == 128).all()


def label_areas(ax):
    """[N, (x0, y0, x1, y1)] of the labels with their frames, in pixels of the figure."""
    ax.figure.canvas.draw()
    return np.array([text.get_bbox_patch().get_window_extent().extents for text in ax.texts])


def test_labels_keep_clear_of_each_other_and_of_the_edge(image):
    boxes = [[0, 0, 9, 9], [1, 1, 10, 10], [0, 72, 9, 80], [52, 70, 60, 80], [30, 30, 31, 31], [30, 30, 32, 32]]
    ax = visualize.display_instances(image, boxes, None, [1] * 6, NAMES, [0.5] * 6)
    labels, frame = label_areas(ax), ax.get_window_extent().extents
    assert (labels[:, :2] >= frame[:2] - 2).all() and (labels[:, 2:] <= frame[2:] + 2).all()
    for i in range(6):
        for j in range(i):
            shared = np.minimum(labels[i, 2:], labels[j, 2:]) - np.maximum(labels[i, :2], labels[j, :2])
            assert shared.min() < 2, (i, j)


def test_a_label_does_not_hide_a_small_box(image):
    ax = visualize.display_instances(image, [[0, 0, 3, 6], [4, 0, 7, 6]], None, [1, 1], NAMES, figsize=(2, 2))
    labels = label_areas(ax)
    boxes = np.array([patch.get_window_extent().extents for patch in ax.patches])
    shared = np.minimum(labels[:, None, 2:], boxes[:, 2:]) - np.maximum(labels[:, None, :2], boxes[:, :2])
    assert (shared.min(axis=-1) < 2).all()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"boxes": BOXES[:1]}, r"boxes have shape \(1, 4\); 2 class ids need \(2, 4\)"),
        ({"boxes": BOXES[:, :3]}, r"boxes have shape \(2, 3\)"),
        ({"boxes": None, "masks": None}, "neither boxes nor masks"),
        ({"masks": np.zeros((HEIGHT, WIDTH, 3))}, r"masks have shape \(60, 80, 3\); the image of 60 x 80 and 2 class"),
        ({"masks": np.zeros((9, WIDTH, 2))}, r"masks have shape \(9, 80, 2\)"),
        ({"class_ids": [1, 3]}, r"class ids \[3\] have no name: got 3 names"),
        ({"scores": [0.5]}, "got 1 scores for 2 instances"),
        ({"captions": ["a"] * 3}, "got 3 captions for 2 instances"),
        ({"colors": [(1, 0, 0)]}, "got 1 colors for 2 instances"),
        ({"image": np.zeros((0, 4, 3))}, "no pixels"),
    ],
)
def test_instances_that_do_not_fit(image, change, message):
    arguments = {"image": image, "boxes": BOXES, "masks": rectangles(*BOXES), "class_ids": [1, 2]} | change
    with pytest.raises(ValueError, match=message):
        visualize.display_instances(**arguments, class_names=NAMES)
    assert not pyplot.get_fignums()  # nothing half-drawn stays


def test_a_window_is_opened_where_there_is_one(image, monkeypatch):
    shown = []
    monkeypatch.setattr(pyplot, "show", lambda: shown.append(pyplot.gcf()))
    monkeypatch.setattr(matplotlib, "get_backend", lambda: "TkAgg")
    ax = visualize.display_instances(image, BOXES, None, [1, 2], NAMES)
    assert shown == [ax.figure]
    visualize.display_instances(image, BOXES, None, [1, 2], NAMES, ax=ax)
    assert len(shown) == 1  # the caller's figure is the caller's
    monkeypatch.setattr(matplotlib, "get_backend", lambda: "agg")
    visualize.display_instances(image, BOXES, None, [1, 2], NAMES)
    assert len(shown) == 1


def test_display_differences(image):
    truth = BOXES, [1, 2], rectangles(*BOXES)
    found_boxes = np.array([[40, 0, 50, 9], [5, 10, 25, 37], [0, 0, 0, 0]])
    found = found_boxes, [2, 1, 0], [0.4, 0.9, 0.0], rectangles(*found_boxes)
    ax = visualize.display_differences(image, *truth, *found, NAMES)
    # The cat is found, with 27 of its 30 columns; the dog is missed; the other dog is none. Padding is left out.
    assert texts(ax) == ["missed dog", "cat 0.90 / IoU 0.90", "dog 0.40 / no match"]
    np.testing.assert_array_equal(drawn_boxes(ax), [*BOXES, found_boxes[1], found_boxes[0]])
    greens = [patch.get_edgecolor()[1] > patch.get_edgecolor()[0] for patch in ax.patches]
    assert greens == [True, True, False, False]
    assert "green" in ax.get_title()


def test_display_differences_of_nothing(image):
    nothing = np.zeros((0, 4)), [], np.zeros((HEIGHT, WIDTH, 0))
    ax = visualize.display_differences(image, *nothing, nothing[0], [], [], nothing[2], NAMES, title="none")
    assert texts(ax) == ["no instances"] and ax.get_title() == "none"


# Comparison


def test_save_comparison(image, tmp_path):
    masks = rectangles(*BOXES)
    found = {"rois": BOXES[::-1] + 0.25, "class_ids": np.array([2, 1]), "scores": np.array([0.9, 0.8]),
             "masks": masks[..., ::-1]}  # fmt: skip
    figure = visualize.save_comparison(image, (masks, [1, 2]), found, NAMES, tmp_path / "pair.png")
    left, right = figure.axes
    assert (left.get_title(), right.get_title()) == ("ground truth", "detections")
    assert (texts(left), texts(right)) == (["cat", "dog"], ["dog 0.90", "cat 0.80"])
    np.testing.assert_array_equal(drawn_boxes(left), BOXES)
    np.testing.assert_allclose(drawn_boxes(right), BOXES[::-1] + 0.25)
    edges = [[patch.get_edgecolor() for patch in axes.patches] for axes in (left, right)]
    assert edges[0] == edges[1][::-1]  # what matches has one color
    saved = pyplot.imread(tmp_path / "pair.png")
    assert saved[0, 0, :3].tolist() == [1, 1, 1] and saved.std() > 0.05
    assert not pyplot.get_fignums()


def test_comparison_of_several(image, tmp_path):
    masks = rectangles(*BOXES)
    one = {"rois": BOXES, "class_ids": [1, 2], "scores": [0.9, 0.1], "masks": masks}
    none = {"rois": np.zeros((0, 4)), "class_ids": [], "scores": [], "masks": np.zeros((40, 40, 0), bool)}
    images = [image, np.zeros((40, 40, 3), np.uint8), image]
    truths = [(masks, [1, 2]), (np.zeros((40, 40, 0), bool), []), one]
    figure = visualize.save_comparison(
        images, truths, [one, none, one], NAMES, tmp_path / "all.png", min_score=0.5, pairs_per_row=2
    )
    assert len(figure.axes) == 6
    assert [texts(axes) for axes in figure.axes[1::2]] == [["cat 0.90"], ["no instances"], ["cat 0.90"]]
    places = [axes.get_position() for axes in figure.axes]
    assert places[0].y1 == places[3].y1 > places[3].y0 > places[4].y1  # four in the first row, the last two below
    assert [bool(axes.get_title()) for axes in figure.axes] == [True] * 4 + [False] * 2
    for i in range(6):
        assert 0 <= places[i].x0 < places[i].x1 <= 1 and 0 <= places[i].y0 < places[i].y1 <= 1


def test_unmatched_instances_have_colors_of_their_own():
    truth = comparison.Instances(BOXES, rectangles(*BOXES), np.array([1, 2]), None)
    found = comparison.Instances(BOXES, rectangles(*BOXES), np.array([2, 2]), np.array([0.5, 0.6]))
    true_colors, found_colors = comparison.matching_colors(truth, found)
    assert found_colors[1] == true_colors[1]
    assert found_colors[0] not in true_colors and len(set(true_colors)) == 2


def test_comparison_of_lists_that_do_not_fit(image, tmp_path):
    truth = rectangles(*BOXES), [1, 2]
    with pytest.raises(ValueError, match="2 images, 1 truths, 1 detections"):
        visualize.save_comparison([image] * 2, [truth], [truth], NAMES, tmp_path / "a.png")
    with pytest.raises(ValueError, match="0 images"):
        visualize.save_comparison([], [], [], NAMES, tmp_path / "a.png")
    with pytest.raises(ValueError, match="pairs_per_row=0"):
        visualize.save_comparison(image, truth, truth, NAMES, tmp_path / "a.png", pairs_per_row=0)


# Images


def test_display_images(image):
    figure = visualize.display_images([image, image[..., 0], image[:30]], ["a", "b", "c"], cols=2)
    assert [ax.get_title() for ax in figure.axes] == ["a", "b", "c", ""]
    assert [len(ax.images) for ax in figure.axes] == [1, 1, 1, 0] and not any(ax.axison for ax in figure.axes)
    assert figure.axes[1].images[0].get_cmap().name == "gray"
    figure = visualize.display_images([image[..., 0]], cmap="Blues", interpolation="none")
    assert figure.axes[0].images[0].get_cmap().name == "Blues" and len(figure.axes) == 1


def test_display_images_that_do_not_fit(image):
    with pytest.raises(ValueError, match="got 0 images and cols=4"):
        visualize.display_images([])
    with pytest.raises(ValueError, match="got 1 images and cols=0"):
        visualize.display_images([image], cols=0)
    with pytest.raises(ValueError, match="got 2 titles for 1 images"):
        visualize.display_images([image], ["a", "b"])


def test_display_top_masks(image):
    masks = rectangles((0, 0, 10, 10), (20, 20, 50, 50), (0, 20, 10, 30))
    figure = visualize.display_top_masks(image, masks, [1, 2, 1], NAMES)
    assert [ax.get_title() for ax in figure.axes] == ["H x W = 60 x 80", "dog: 1", "cat: 2"]
    cats = picture(figure.axes[2])
    assert (cats[55, 5] == 1).all() and len({tuple(cats[y, x]) for y, x in ((5, 5), (5, 25), (55, 5))}) == 3
    assert len(visualize.display_top_masks(image, masks, [1, 2, 1], NAMES, limit=1).axes) == 2
    nothing = visualize.display_top_masks(image, masks[..., :0], [], NAMES)
    assert nothing.axes[1].get_title() == "no instances"
    with pytest.raises(ValueError, match=r"class ids \[7\] have no name"):
        visualize.display_top_masks(image, masks, [1, 7, 1], NAMES)


# Boxes step by step


def test_draw_boxes(image):
    refined = BOXES + [[1.5, 2, 3, 4], [0, 0, 0, 0]]
    ax = visualize.draw_boxes(image, BOXES, refined, captions=["first", ""], visibilities=[2, 0], title="step 1")
    np.testing.assert_allclose(drawn_boxes(ax), [BOXES[0], refined[0], BOXES[1], refined[1]])
    assert [patch.get_linestyle() for patch in ax.patches] == ["solid", "solid", "dotted", "solid"]
    assert ax.patches[2].get_edgecolor()[:3] == colors.GRAY
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[10, 5], [12, 6.5]])
    assert texts(ax) == ["first"] and ax.get_title() == "step 1"


def test_draw_boxes_alone_refined_or_with_masks(image):
    ax = visualize.draw_boxes(image, BOXES, captions=["a", "b"])
    assert len(drawn_boxes(ax)) == 2 and texts(ax) == ["a", "b"]
    assert [patch.get_linestyle() for patch in ax.patches] == ["dotted"] * 2
    ax = visualize.draw_boxes(image, refined_boxes=BOXES * [[1], [0]], masks=rectangles(*BOXES))
    assert len(drawn_boxes(ax)) == 1 and len(outlines(ax)) == 2 and not ax.lines
    ax = visualize.draw_boxes(image, np.zeros((0, 4)))
    assert texts(ax) == ["no boxes"]
    ax = visualize.draw_boxes(image, BOXES - 20)
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, WIDTH), (HEIGHT, 0))  # boxes outside do not shrink the picture


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "nothing to draw: pass boxes or refined_boxes"),
        ({"boxes": BOXES, "refined_boxes": BOXES[:1]}, "2 boxes, 1 refined_boxes"),
        ({"boxes": BOXES, "captions": ["a"]}, "2 boxes, 1 captions"),
        ({"boxes": BOXES, "masks": rectangles(BOXES[0])}, "2 boxes, 1 masks"),
        ({"boxes": BOXES, "masks": np.zeros((9, 9, 2))}, r"masks have shape \(9, 9, 2\), the image \(60, 80, 3\)"),
        ({"boxes": BOXES, "visibilities": [1, 5]}, r"0, 1 or 2, got \[5\]"),
    ],
)
def test_boxes_that_do_not_fit(image, arguments, message):
    with pytest.raises(ValueError, match=message):
        visualize.draw_boxes(image, **arguments)


def test_draw_rois(image):
    rois = np.concatenate([BOXES, BOXES + 2.5, BOXES - 3])
    class_ids = np.array([0, 1, 0, 0, 0, 0])
    masks = np.ones((6, 7, 7), np.float32)
    ax = visualize.draw_rois(image, rois, rois + 1, masks, class_ids, NAMES)
    assert texts(ax) == ["cat"] and "6 of 6 RoIs, of which 1 are positive (17%)" in ax.get_title()
    assert len(drawn_boxes(ax)) == 7  # every RoI, and the cat's refined box
    np.testing.assert_allclose(
        [*outlines(ax)[0].min(axis=0)[::-1], *outlines(ax)[0].max(axis=0)[::-1]], BOXES[1], atol=1
    )
    few = [visualize.draw_rois(image, rois, rois, masks, class_ids, NAMES, limit=2, seed=3) for _ in range(2)]
    assert len(few[0].patches) in (2, 3)
    np.testing.assert_array_equal(drawn_boxes(few[0]), drawn_boxes(few[1]))
    with pytest.raises(ValueError, match="6 rois, 5 refined_rois, 6 masks, 6 class_ids"):
        visualize.draw_rois(image, rois, rois[:5], masks, class_ids, NAMES)


def test_draw_rois_of_nothing(image):
    ax = visualize.draw_rois(image, np.zeros((0, 4)), np.zeros((0, 4)), np.zeros((0, 7, 7)), [], NAMES)
    assert texts(ax) == ["no boxes"]


# Plots and tables


def test_plot_precision_recall():
    ax = visualize.plot_precision_recall(0.625, [1, 1, 0.5, 0], [0, 0.5, 1, 1])
    assert ax.get_title() == "AP@50 = 0.625" and (ax.get_xlabel(), ax.get_ylabel()) == ("recall", "precision")
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0, 1], [0.5, 1], [1, 0.5], [1, 0]])
    with pytest.raises(ValueError, match="got 2 and 3"):
        visualize.plot_precision_recall(0.5, [1, 1], [0, 0, 1])


def test_plot_overlaps():
    overlaps = [[0.9, 0.0], [0.3, 0.7]]
    ax = visualize.plot_overlaps([1, 2], [1, 1], [0.95, 0.6], overlaps, NAMES)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cat 0.95", "cat 0.60"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["cat", "dog"]
    assert texts(ax) == ["0.90\nmatch", "0.30", "0.70\nwrong"]
    ax = visualize.plot_overlaps([], [1], [0.5], np.zeros((1, 0)), NAMES)
    assert texts(ax) == ["1 detections, 0 objects"]
    with pytest.raises(ValueError, match=r"overlaps has shape \(2, 2\); 1 detections and 2 objects"):
        visualize.plot_overlaps([1, 2], [1], [0.5], overlaps, NAMES)


def test_display_table(capsys):
    text = visualize.display_table([["name", "count"], ["cat", 3], ["elephant"]])
    assert text.splitlines() == ["name      count", "cat       3", "elephant"]
    assert capsys.readouterr().out == text + "\n"
    assert visualize.display_table([]) == ""


def test_display_table_in_a_notebook(monkeypatch):
    class Shell:
        kernel = object()

    shown = []
    ipython = type(sys)("IPython")
    ipython.get_ipython = Shell
    ipython.display = type(sys)("IPython.display")
    ipython.display.HTML, ipython.display.display = str, shown.append
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    page = visualize.display_table([["a < b", 1]])
    assert shown == [page] == ["<table><tr><td>a &lt; b</td><td>1</td></tr></table>"]


def test_display_weight_stats(capsys):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2, name="last")(keras.layers.Dense(4, name="first")(inputs)))
    first, last = model.get_layer("first"), model.get_layer("last")
    first.set_weights([np.full((3, 4), 0.5), np.array([1, 2, 3, 4])])
    last.set_weights([np.array([[1, 2], [3, 4], [5, 6], [7, 2000]]), np.zeros(2)])
    rows = visualize.display_weight_stats(model)
    assert rows[0] == ["weight", "shape", "min", "max", "std", ""]
    assert [row[0] for row in rows[1:]] == ["first/kernel", "first/bias", "last/kernel", "last/bias"]
    assert [row[5] for row in rows[1:]] == ["dead?", "", "overflow?", ""]
    assert [float(number) for number in rows[2][2:5]] == [1, 4, pytest.approx(np.std([1, 2, 3, 4]), abs=1e-4)]
    assert rows[3][1] == "(4, 2)" and "first/kernel" in capsys.readouterr().out


def test_weights_of_a_network_are_named_by_part():
    layer = keras.layers.Dense(2)
    layer.build((None, 3))

    class Holder:
        class network:
            @staticmethod
            def layers():
                return {"mask_head/conv": layer}

    assert [row[0] for row in visualize.display_weight_stats(Holder)[1:]] == [
        "mask_head/conv/kernel",
        "mask_head/conv/bias",
    ]


def test_importing_is_light():
    code = "import sys, mrcnn.visualize; print([m for m in ('matplotlib', 'keras', 'skimage') if m in sys.modules])"
    root = Path(__file__).parents[1]
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_outlines_have_holes():
    mask = np.zeros((9, 9), bool)
    mask[1:8, 1:8], mask[3:6, 3:6] = True, False
    outer, hole = sorted(canvas.mask_outline(mask), key=lambda line: -np.ptp(line))
    assert (outer.min(), outer.max(), hole.min(), hole.max()) == (1, 8, 3, 6)
    assert canvas.mask_outline(np.zeros((3, 3), bool)) == []


def test_keypoints_are_drawn_with_their_skeleton(image):
    from mrcnn.data.keypoints import Skeleton

    keypoints = [[[5, 6, 0.9], [15, 16, 0.5], [10, 10, 0.01]]]
    skeleton = Skeleton(["a", "b", "c"], [(0, 1), (1, 2)])
    _, ax = pyplot.subplots()
    options = {"keypoints": keypoints, "skeleton": skeleton}
    visualize.display_instances(image, [[2, 2, 18, 18]], None, [1], ["BG", "cat"], ax=ax, **options)
    (line,) = ax.lines
    assert line.get_xydata().tolist() == [[6, 5], [16, 15]]
    assert ax.collections[-1].get_offsets().tolist() == [[6, 5], [16, 15]]
    with pytest.raises(ValueError, match="got 2 keypoints for 1 instances"):
        visualize.display_instances(image, [[2, 2, 18, 18]], None, [1], ["BG", "cat"], keypoints=keypoints * 2)
