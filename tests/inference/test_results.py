"""A result is the old package's dict, and offers its masks in every form without computing what nobody asked for."""

import copy
import pickle

import numpy as np
import pytest

from mrcnn.data import rle
from mrcnn.inference.results import Result, SoftMasks

SIZE = (20, 30)
BOXES = np.array([[2, 3, 12, 13], [5.5, 10.25, 18, 29.5], [4, 4, 4, 9]], np.float32)


def soft_result(boxes=BOXES, **changes):
    """Instances whose soft masks are random; the last one has no area."""
    count = len(boxes)
    values = {
        "rois": boxes,
        "class_ids": np.arange(1, count + 1, dtype=np.int32),
        "scores": np.linspace(0.9, 0.5, count, dtype=np.float32),
        "masks": SoftMasks(np.random.default_rng(0).random((count, 4, 4)).astype(np.float32), boxes),
        "size": SIZE,
        "class_names": ("BG", "cat", "dog"),
    }
    return Result(**values | changes)


def is_computed(result):
    return result._stored() is not None


def pasted(crops, size=SIZE):
    full = np.zeros((*size, len(crops)), bool)
    for i, crop in enumerate(crops):
        height, width = crop.mask.shape
        full[crop.top : crop.top + height, crop.left : crop.left + width, i] = crop.mask
    return full


@pytest.mark.parametrize("boxes", [BOXES, BOXES[:0]])
def test_every_form_holds_the_same_masks(boxes):
    full = soft_result(boxes)["masks"]
    assert full.shape == (*SIZE, len(boxes)) and full.dtype == bool and full.any() == bool(len(boxes))
    by_rle, by_crops = soft_result(boxes), soft_result(boxes)
    assert by_rle.rle == rle.encode_all(full)
    np.testing.assert_array_equal(pasted(by_crops.crops), full)
    np.testing.assert_array_equal(by_crops.areas, full.sum(axis=(0, 1)))
    np.testing.assert_array_equal(by_rle.areas, full.sum(axis=(0, 1)))
    assert not is_computed(by_rle) and not is_computed(by_crops)
    np.testing.assert_array_equal(by_rle.masks, full)
    np.testing.assert_array_equal(by_crops.masks, full)


@pytest.mark.parametrize("form", ["full", "rle", "crops"])
def test_a_prepared_form_gives_all_the_others_without_the_soft_masks(form):
    expected, result = soft_result(), soft_result()
    result.prepare(form)
    assert result.soft is None and is_computed(result) == (form == "full")
    np.testing.assert_array_equal(result["masks"], expected["masks"])
    assert result.rle == expected.rle
    np.testing.assert_array_equal(pasted(result.crops), expected["masks"])


def test_an_unknown_form_names_those_there_are():
    with pytest.raises(
        ValueError, match=r"the form of masks must be one of \('full', 'rle', 'crops'\), got 'polygons'"
    ):
        soft_result().prepare("polygons")


READERS = {
    "dict": dict,
    "unpacking": lambda r: {**r},
    "keyword arguments": lambda r: (lambda **given: given)(**r),
    "items": lambda r: dict(r.items()),
    "values": lambda r: dict(zip(r, r.values(), strict=True)),
    "get": lambda r: {name: r.get(name) for name in r},
    "comprehension": lambda r: {name: r[name] for name in r.keys()},
    "or": lambda r: r | {},
    "or from the right": lambda r: {} | r,
    "update": lambda r: (lambda plain: plain.update(r) or plain)({}),
    "pop": lambda r: {name: r.pop(name) for name in list(r)},
    "popitem": lambda r: dict(r.popitem() for _ in range(len(r))),
    "setdefault": lambda r: {name: r.setdefault(name, None) for name in r},
    "copy": lambda r: dict(r.copy()),
    "copy.copy": lambda r: dict(copy.copy(r)),
    "deepcopy": lambda r: dict(copy.deepcopy(r)),
    "pickle": lambda r: dict(pickle.loads(pickle.dumps(r))),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_whatever_reads_a_dict_gets_the_masks(read):
    """None of them may see what stands for masks that have not been computed."""
    expected = soft_result()["masks"]
    values = read(soft_result())
    assert sorted(values) == ["class_ids", "masks", "rois", "scores"]
    np.testing.assert_array_equal(values["masks"], expected)


def test_it_is_a_dict():
    result = soft_result()
    assert isinstance(result, dict) and len(result) == 4 and "masks" in result and not is_computed(result)
    with pytest.raises(KeyError, match="boxes"):
        result["boxes"]
    assert result.get("boxes", 7) == 7


def test_masks_are_computed_once():
    result = soft_result()
    assert result["masks"] is result["masks"] is result.masks and result.rle is result.rle


def test_copies_and_pickles_carry_the_soft_masks_and_not_the_full_ones():
    result = soft_result()
    small = len(pickle.dumps(soft_result(size=(4000, 3000))))
    assert small < 5000
    other = pickle.loads(pickle.dumps(result))
    assert not is_computed(result) and not is_computed(other) and other.names == result.names
    other.keep([0])["masks"]
    assert not is_computed(result)


def test_assigned_masks_replace_every_form():
    result = soft_result()
    assert len(result.rle) == 3
    mask = np.zeros((*SIZE, 3), bool)
    mask[1:3, 2:5, 0] = True
    result["masks"] = mask
    assert result.soft is None and result.rle == rle.encode_all(mask) and result.areas.tolist() == [6, 0, 0]
    result["masks"][0, 0, 1] = True
    result["masks"] = result["masks"]
    assert result.areas.tolist() == [6, 1, 0]
    result.update({"masks": mask[..., :0]})
    assert result.rle == []


@pytest.mark.parametrize("form", [None, "full", "rle", "crops"])
@pytest.mark.parametrize(
    "which", [[True, False, True], np.array([True, False, True]), [2, 0], slice(1, None), [], np.zeros(3, bool)]
)
def test_keep_takes_the_same_instances_of_everything(form, which):
    result = soft_result()
    if form:
        result.prepare(form)
    places = np.arange(3)[which]
    kept = result.keep(which)
    assert kept.count == len(places) and kept.size == SIZE and kept.class_names == result.class_names
    for name in ("rois", "class_ids", "scores"):
        np.testing.assert_array_equal(kept[name], result[name][places])
    assert kept.rle == [result.rle[i] for i in places]
    np.testing.assert_array_equal(kept["masks"], result["masks"][..., places])
    assert result.count == 3


def test_pixel_rois_are_the_whole_pixels_that_a_box_touches():
    boxes = np.array([[2.0, 3.0, 12.0, 13.0], [5.5, 10.25, 17.1, 29.5], [0, 0, 20, 30], [-1, -2, 25, 31]], np.float32)
    found = soft_result(boxes).pixel_rois
    assert found.dtype == np.int32
    assert found.tolist() == [[2, 3, 12, 13], [5, 10, 18, 30], [0, 0, 20, 30], [0, 0, 20, 30]]
    y1, x1, y2, x2 = found[1]
    assert np.zeros(SIZE)[y1:y2, x1:x2].shape == (13, 20)
    assert soft_result(BOXES[:0]).pixel_rois.shape == (0, 4)


def test_names_where_the_model_knows_them_and_where_not():
    assert soft_result().names == ["cat", "dog", "class 3"]
    assert soft_result(class_names=()).names == ["class 1", "class 2", "class 3"]


def test_other_forms_of_masks_are_taken_as_they_are():
    full = soft_result()["masks"]
    by_full, by_rle = soft_result(masks=full), soft_result(masks=rle.encode_all(full))
    assert by_full["masks"] is full and by_full.soft is None
    np.testing.assert_array_equal(by_rle["masks"], full)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"scores": np.zeros(2)}, "each instance needs one box, class id, score and mask, got .*'scores': 2"),
        ({"masks": []}, "'masks': 0"),
        ({"masks": np.zeros((*SIZE, 1), bool)}, "'masks': 1"),
        ({"masks": np.zeros((30, 20, 3), bool)}, r"expected masks \[20, 30, N\], got shape \(30, 20, 3\)"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        soft_result(**changes)


def test_what_people_see_is_short_and_computes_nothing():
    boxes = np.tile(BOXES[:2], (60, 1))
    result = soft_result(boxes, class_names=("BG", "<b>cat</b>"))
    page = result._repr_html_()
    assert page.count("<tr>") == 11 and "120 instances in 20 x 30 pixels" in page and "and 110 more" in page
    assert "&lt;b&gt;cat&lt;/b&gt;" in page and "<b>" not in page and "2, 3, 12, 13" in page and "0.900" in page
    assert repr(result) == "<Result: 120 instances in 20 x 30 pixels>" and len(page) < 2000
    assert not is_computed(result)
    assert soft_result(BOXES[:0])._repr_html_() == "<p>0 instances in 20 x 30 pixels</p>"
