"""Figures of curves, confusion, mistakes and worst images, and figures with nothing to draw."""

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.colors import same_color

from mrcnn import visualize
from mrcnn.data import rle
from mrcnn.evaluation.analysis import ERRORS, confusion_matrix, error_breakdown, precision_recall, worst_images
from mrcnn.evaluation.coco_results import Records
from mrcnn.pictures.analysis import COLORS

HEIGHT, WIDTH = 60, 80
CAT, DOG = 1, 2


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


def annotation(image_id, x, size, class_id, **more):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10 : 10 + size, x : x + size] = True
    box = {"bbox": [x, 10, size, size], "segmentation": rle.encode(mask)}
    return {"image_id": image_id, "category_id": class_id, **box, **more}


def truth(*place, crowd=0):
    return annotation(*place, area=float(place[2] ** 2), iscrowd=crowd)


def made(names=("cat", "dog")):
    """Three images: one with a class mistake, one with a correct and a missed object, one all correct."""
    images = [{"id": i, "height": HEIGHT, "width": WIDTH} for i in range(3)]
    objects = [truth(0, 5, 20, CAT), truth(1, 5, 20, CAT), truth(1, 50, 20, DOG), truth(2, 5, 20, DOG)]
    found = [annotation(0, 5, 20, DOG, score=0.9), annotation(1, 5, 20, CAT, score=0.8)]
    found += [annotation(2, 5, 20, DOG, score=0.75), annotation(1, 30, 4, CAT, score=0.2)]
    return Records(images, dict(enumerate(names, start=1)), objects, found)


class Photographs:
    class_names = ["BG", "cat", "dog"]

    def load_image(self, image_id):
        return np.full((HEIGHT, WIDTH, 3), 100 + image_id, np.uint8)


def texts(axes):
    return [text.get_text() for text in axes.texts if text.get_text()]


def test_curves():
    curves = precision_recall(made())
    ax = visualize.plot_curves(curves)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == [
        f"cat  {curves.classes['cat'].ap:.3f}", f"dog  {curves.classes['dog'].ap:.3f}", f"mean of 2  {curves.ap:.3f}"
    ]  # fmt: skip
    np.testing.assert_array_equal(ax.lines[-1].get_ydata(), curves.precision)
    assert ax.get_title() == f"AP of masks at IoU 0.5: {curves.ap:.3f}"
    ax.figure.canvas.draw()


def test_curves_of_many_classes_name_the_most_frequent():
    curves = precision_recall(made())
    ax = visualize.plot_curves(curves, most=1)
    assert [line.get_color() for line in ax.lines][0] == "0.85"
    assert len(ax.lines) == 3 and len(ax.get_legend().get_texts()) == 2


def test_curves_on_given_axes():
    _, (left, right) = pyplot.subplots(1, 2)
    assert visualize.plot_curves(precision_recall(made(), "box", 0.75), ax=right) is right
    assert not left.lines and right.get_title().startswith("AP of boxes at IoU 0.75")


def test_confusion_matrix():
    ax = visualize.plot_confusion_matrix(confusion_matrix(made()))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cat", "dog", "(nothing there)"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["cat", "dog", "(missed)"]
    shares = ax.images[0].get_array()
    np.testing.assert_allclose(shares, [[0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 0]])
    assert sorted(texts(ax)) == ["1"] * 4
    ax.figure.canvas.draw()


def test_confusion_matrix_shows_only_what_occurs():
    several = made(names=["cat", "dog", *(f"other {i}" for i in range(78))])
    ax = visualize.plot_confusion_matrix(confusion_matrix(several))
    assert len(ax.get_yticklabels()) == 3


@pytest.mark.slow
def test_confusion_matrix_of_80_classes_fits_its_page():
    images = [{"id": 0, "height": HEIGHT, "width": WIDTH}]
    names = {i: f"a long class name {i}" for i in range(1, 81)}
    all_classes = Records(images, names, [truth(0, 5, 20, i) for i in names], [])
    ax = visualize.plot_confusion_matrix(confusion_matrix(all_classes))
    ax.figure.canvas.draw()
    labels = ax.get_yticklabels()
    assert len(labels) == 81
    extents = [label.get_window_extent() for label in labels]
    assert all(above.y0 >= below.y1 - 1 for above, below in zip(extents, extents[1:], strict=False))  # none overlap
    page = ax.figure.bbox
    for extent in (*extents, ax.yaxis.label.get_window_extent(), ax.xaxis.label.get_window_extent()):
        assert 0 <= extent.x0 and extent.x1 <= page.width and 0 <= extent.y0


def test_errors():
    breakdown = error_breakdown(made())
    ax = visualize.plot_errors(breakdown)
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == [breakdown.gains[error] for error in ERRORS]
    assert texts(ax)[0].split() == [f"{breakdown.gains['class']:+.3f}", "1"]
    assert all(same_color(bar.get_facecolor()[:3], COLORS[e]) for bar, e in zip(ax.patches, ERRORS, strict=True))
    ax.figure.canvas.draw()


def test_errors_of_several_models():
    one, other = error_breakdown(made()), error_breakdown(made().confident(0.85))
    ax = visualize.plot_errors({"fcn": one, "unet": other})
    assert len(ax.patches) == 12
    assert sum(text.endswith("unet") for text in texts(ax)) == 6
    assert f"fcn {one.ap:.3f}, unet {other.ap:.3f}" in ax.get_title()
    with pytest.raises(ValueError, match="the same kind and IoU, got .*'box', 0.5"):
        visualize.plot_errors({"a": one, "b": error_breakdown(made(), "box")})
    with pytest.raises(ValueError, match="the same kind and IoU"):
        visualize.plot_errors({})


def test_worst():
    figure = visualize.show_worst(Photographs(), made())
    assert len(figure.axes) == 4  # one pair for each of the two images with mistakes
    titles = [text.get_text() for text in figure.texts]
    assert titles == ["image 0: 0% right; 1 class", "image 1: 50% right; 1 missed"]
    labels = [["cat: class"], ["dog 0.90: class"], ["cat", "dog: missed"], ["cat 0.80"]]
    assert [texts(ax) for ax in figure.axes] == labels
    assert figure.axes[0].images[0].get_array()[0, 0].tolist() == [100] * 3
    frame = figure.axes[1].patches[0]
    assert same_color(frame.get_edgecolor()[:3], COLORS["class"])
    assert frame.get_bbox().bounds == (5, 10, 20, 20)
    figure.canvas.draw()


def test_worst_from_reports_and_columns():
    reports = worst_images(made(), count=1)
    figure = visualize.show_worst(Photographs(), reports, pairs_per_row=1, width=2)
    assert len(figure.axes) == 2
    assert figure.get_figwidth() < 5
    with pytest.raises(ValueError, match="pairs_per_row=0"):
        visualize.show_worst(Photographs(), reports, pairs_per_row=0)


def test_worst_of_a_crowded_image_names_the_largest_mistakes():
    images = [{"id": 0, "height": HEIGHT, "width": WIDTH}]
    many = [truth(0, 2 * i, 3 + i, CAT) for i in range(20)]
    figure = visualize.show_worst(Photographs(), Records(images, {CAT: "cat"}, many, []))
    assert texts(figure.axes[0]) == ["cat: missed"] * 12
    assert len(figure.axes[0].patches) == 20
    assert texts(figure.axes[1]) == ["no instances"]


def test_worst_of_tall_and_wide_photographs_keep_their_proportions():
    class Tall(Photographs):
        def load_image(self, image_id):
            return np.zeros((HEIGHT, WIDTH, 3) if image_id else (4 * WIDTH, WIDTH, 3), np.uint8)

    records = made()
    mask = np.zeros((4 * WIDTH, WIDTH), bool)
    mask[:9, :9] = True
    records.truth[0] |= {"segmentation": rle.encode(mask)}
    figure = visualize.show_worst(Tall(), Records(records.images, records.names, records.truth, []), width=3)
    figure.canvas.draw()
    for ax in figure.axes:
        height, width = ax.images[0].get_array().shape[:2]
        extent = ax.get_window_extent()
        assert extent.height / extent.width == pytest.approx(height / width, rel=0.02)
        assert extent.height <= 0.86 * 3 * figure.dpi


def test_nothing_wrong():
    records = made()
    right = Records(records.images, records.names, records.truth[3:], records.found[2:3])
    figure = visualize.show_worst(Photographs(), right)
    assert [text.get_text() for text in figure.texts] == ["no image has a mistake"]
