import threading

import numpy as np
import pytest
from PIL import Image

from mrcnn.data.annotations import annotated, problems
from mrcnn.data.annotations.annotated import AnnotatedDataset, Instance
from mrcnn.data.annotations.classes import class_table
from mrcnn.data.annotations.outlines import Ellipse, MaskFile, Polygons, Rectangle
from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.annotations.segmentations import read_outline
from mrcnn.data.annotations.text_files import read_json
from mrcnn.data.check import check
from mrcnn.data.sample import read_sample


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(path)
    return path


def made(photograph, *instances, strict=True, **options):
    """A dataset of one image with these instances."""
    dataset = AnnotatedDataset("notes.json", strict)
    dataset.add_class("made", 7, "cat")
    dataset.add_class("made", 3, "dog")
    dataset.add_annotated("made", "a", photograph, instances, **options)
    dataset.prepare()
    return dataset


def polygon(*points):
    return Polygons((np.array(points, float),))


def test_masks_classes_boxes_and_crowds(photograph):
    dataset = made(photograph, Instance(3, Rectangle(2, 4, 8, 10)), Instance(7, Rectangle(0, 0, 20, 30), crowd=True))
    assert (dataset.image_info[0]["height"], dataset.image_info[0]["width"]) == (20, 30)  # from the header
    for _ in range(2):  # the second time from the cache
        masks, class_ids = dataset.load_mask(0)
        assert masks.shape == (20, 30, 2) and masks.dtype == bool and class_ids.tolist() == [2, -1]
        assert masks[2:8, 4:10, 0].all() and masks[..., 0].sum() == 36 and masks[..., 1].all()
    assert dataset.load_boxes(0) is None  # the file has none
    assert read_sample(dataset, 0, 3).boxes.tolist() == [[2, 4, 8, 10], [0, 0, 20, 30]]


def test_boxes_of_the_file_are_used_when_every_instance_has_one(photograph):
    with_box = Instance(3, Rectangle(2, 4, 8, 10), box=(1.5, 4, 8, 10.5))
    assert made(photograph, with_box).load_boxes(0).tolist() == [[1.5, 4, 8, 10.5]]
    assert made(photograph, with_box, Instance(3, Rectangle(2, 4, 8, 10))).load_boxes(0) is None
    empty = made(photograph)
    assert empty.load_boxes(0) is None and empty.load_mask(0)[0].shape == (20, 30, 0)
    assert empty.load_mask(0)[1].shape == (0,)


def test_what_encloses_nothing_is_left_out_and_counted(photograph):
    two_points, good = np.array([[1, 1], [5, 5]], float), np.array([[1, 1], [9, 1], [9, 9]], float)
    dataset = made(
        photograph,
        Instance(3, Polygons((two_points,)), record="region 0", field="points"),
        Instance(3, Polygons((two_points, good)), record="region 1", field="points"),
        Instance(3, polygon((40, 1), (50, 1), (50, 9)), record="region 2", field="points"),
        Instance(3, Ellipse(-9, 5, 3, 3), record="region 3"),
        Instance(3, polygon((25, 1), (50, 1), (50, 20)), record="region 4"),
    )
    assert [instance.record for instance in dataset.image_info[0]["instances"]] == ["region 1", "region 4"]
    np.testing.assert_array_equal(dataset.load_mask(0)[0][..., 0], Polygons((good,)).fill(20, 30))
    assert dataset.problems.counts() == {problems.DEGENERATE: 2, problems.OUTSIDE: 2}
    assert [(p.record, p.treatment) for p in dataset.problems] == [
        ("region 0", "left out"),
        ("region 1", "the other parts are used"),
        ("region 2", "left out"),
        ("region 3", "left out"),
    ]
    with pytest.warns(UserWarning, match="notes.json: left out 1 x polygon of fewer than three points, 2 x outl"):
        dataset.finish()


def test_an_instance_without_any_polygon_is_counted(photograph):
    dataset = made(photograph, Instance(3, Polygons(()), record="region 0", field="points"))
    assert not dataset.image_info[0]["instances"]
    ((kind, record, field, treatment),) = [(p.kind, p.record, p.field, p.treatment) for p in dataset.problems]
    assert (kind, record, field, treatment) == (problems.EMPTY, "region 0", "points", "left out")


def test_a_mask_without_pixels_is_counted_once_however_often_it_is_asked_for(photograph):
    dataset = made(
        photograph, Instance(3, Rectangle(2, 4.6, 8, 5.4), record="region 0"), Instance(7, Rectangle(2, 4, 8, 9))
    )
    for _ in range(3):
        masks, class_ids = dataset.load_mask(0)
        dataset._kept.clear()
    assert masks.sum(axis=(0, 1)).tolist() == [0, 30] and class_ids.tolist() == [2, 1]
    assert dataset.problems.counts() == {problems.EMPTY: 1}
    assert read_sample(dataset, 0, 3).class_ids.tolist() == [1]


def test_coordinates_that_no_image_has_are_broken(photograph):
    wild = Instance(3, polygon((0, 0), (1e9, 0), (5, 5)), record="region 0", field="points")
    with pytest.raises(AnnotationError, match=r"notes.json, region 0, field 'points': coordinates span \(0.0, 0.0, "):
        made(photograph, wild)
    for value in (np.nan, np.inf):
        dataset = made(photograph, Instance(3, polygon((0, 0), (value, 0), (5, 5))), strict=False)
        assert dataset.problems.counts() == {problems.BROKEN: 1} and not dataset.image_info[0]["instances"]


def test_missing_and_unreadable_images(tmp_path, photograph):
    with pytest.raises(AnnotationError, match="notes.json, image 'a': image file .*gone.png' is missing"):
        made(tmp_path / "gone.png")
    photograph.write_text("no image")
    with pytest.raises(AnnotationError, match="image 'a': .*a.png' is not an image"):
        made(photograph)
    dataset = AnnotatedDataset("notes.json", strict=False)
    assert not dataset.add_annotated("made", "a", photograph, [])
    assert not dataset.add_annotated("made", "b", tmp_path / "gone.png", [])
    assert dataset.problems.counts() == {problems.UNREADABLE: 1, problems.MISSING: 1} and not dataset.image_info


def test_an_image_of_another_size_than_the_file_states(photograph):
    dataset = made(photograph, Instance(3, Rectangle(2, 4, 8, 10)), height=30, width=20, record="images[0]")
    with pytest.raises(
        AnnotationError,
        match=r"notes.json, images\[0\], field 'height/width': the annotations are for a "
        r"30 x 20 image, but '.*a.png' is 20 x 30",
    ):
        dataset.load_image(0)


class Unfillable:
    def bounds(self):
        return 0, 0, 5, 5

    def fill(self, height, width):
        raise ValueError("the file is damaged")


def test_an_outline_that_cannot_be_filled(photograph):
    broken = Instance(3, Unfillable(), record="region 0", field="mask")
    with pytest.raises(AnnotationError, match="notes.json, region 0, field 'mask': the file is damaged"):
        made(photograph, broken).load_mask(0)
    dataset = made(photograph, broken, Instance(3, Rectangle(0, 0, 5, 5)), strict=False)
    assert dataset.load_mask(0)[0].sum(axis=(0, 1)).tolist() == [0, 25]
    assert dataset.problems.counts() == {problems.BROKEN: 1}


def test_kept_masks_are_bounded(photograph, monkeypatch):
    dataset = AnnotatedDataset("notes.json")
    dataset.add_class("made", 1, "cat")
    for i in range(6):
        dataset.add_annotated("made", i, photograph, [Instance(1, Rectangle(0, 0, 20, 8 * (i % 3 + 1)))])
    dataset.prepare()
    monkeypatch.setattr(annotated, "KEPT_BYTES", 500)  # two images of 20 to 60 bytes, plus 200 for objects
    for i in [*range(6), 0]:
        assert dataset.load_mask(i)[0].sum() == 20 * 8 * (i % 3 + 1)
    assert list(dataset._kept) == [5, 0] and dataset._bytes == 20 + 60 + 400


def test_masks_kept_are_not_those_of_another_image_once_images_were_taken_away(photograph):
    dataset = AnnotatedDataset("notes.json")
    dataset.add_class("made", 1, "cat")
    for wide in (3, 5):
        dataset.add_annotated("made", wide, photograph, [Instance(1, Rectangle(0, 0, 20, wide))])
    dataset.prepare()
    assert [dataset.load_mask(i)[0].sum() for i in (0, 1)] == [60, 100]
    dataset.image_info = dataset.image_info[1:]
    dataset.prepare()
    assert dataset._bytes == 0 and dataset.load_mask(0)[0].sum() == 100


def test_threads_see_the_same_masks(photograph):
    dataset = made(photograph, *[Instance(3, Ellipse(10, 15, r, r)) for r in range(1, 9)])
    expected, found = made(photograph, *dataset.image_info[0]["instances"]).load_mask(0)[0], []
    threads = [threading.Thread(target=lambda: found.append(dataset.load_mask(0)[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and all(np.array_equal(masks, expected) for masks in found)


def test_a_large_image_is_named_by_its_header(photograph):
    dataset = AnnotatedDataset("notes.json", strict=False)
    dataset.max_pixels = 599
    assert not dataset.add_annotated("made", "a", photograph, [])
    assert not dataset.add_annotated("made", "b", photograph, [], height=20, width=30)
    first, second = dataset.problems
    assert first.kind == problems.UNREADABLE and "20 x 30" in first.message and "limit of 599" in first.message
    assert second.kind == problems.SIZE and "the size 20 x 30 exceeds the limit of 599 pixels" in second.message


def test_json_files(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(FileNotFoundError, match="no COCO annotations at .*a.json"):
        read_json(path, "COCO annotations")
    path.write_text('{"images": [1,\n2')
    with pytest.raises(AnnotationError, match=r"a.json, line 2: invalid or truncated JSON \(.*\); export"):
        read_json(path, "COCO annotations")
    path.write_bytes(b'{"name": "\xff"}')
    with pytest.raises(AnnotationError, match="a.json, byte 10: not valid UTF-8 text"):
        read_json(path, "COCO annotations")
    for written, message in (("[" * 100_000, "recursion"), ("[" + "1" * 5000 + "]", "4300 digits")):
        path.write_text(written)
        with pytest.raises(AnnotationError, match=f"a.json: it cannot be read .*{message}.* export COCO annotations"):
            read_json(path, "COCO annotations")
    path.write_text('{"images": []}')
    assert read_json(path, "COCO annotations") == {"images": []}


def test_class_names_are_those_given_or_those_found_sorted():
    assert class_table(["dog", "cat", "dog"], None) == ["cat", "dog"]
    assert class_table(["dog"], ["dog", "cat"]) == ["dog", "cat"]
    with pytest.raises(ValueError, match=r"duplicate class names in \['a', 'a'\]"):
        class_table([], ["a", "a"])


def boxes_of(photograph, *instances, **options):
    dataset = AnnotatedDataset("notes.json", masks=False, **options)
    dataset.add_class("made", 7, "cat")
    dataset.add_annotated("made", "a", photograph, instances)
    return dataset.finish()


def test_boxes_without_masks(photograph):
    box, other = (
        Instance(7, None, box=(1.5, 2, 8, 9)),
        Instance(7, Rectangle(2, 4, 8, 10), crowd=True, record="region 1"),
    )
    dataset = boxes_of(photograph, box, other, Instance(7, None, box=(30, 2, 38, 9), record="region 2"))
    assert dataset.load_boxes(0).tolist() == [[1.5, 2, 8, 9], [2, 4, 8, 10]]
    assert dataset.load_class_ids(0).tolist() == [1, -1] and dataset.problems.counts() == {problems.OUTSIDE: 1}
    with pytest.raises(ValueError, match="image 'a': the dataset was read with masks=False and only has boxes"):
        dataset.load_mask(0)
    with pytest.raises(
        AnnotationError, match="a box without a mask; add masks, or use masks=False and a model with MASK_HEAD"
    ):
        made(photograph, box)
    assert made(photograph, other, strict=False).load_class_ids(0).tolist() == [-1]
    found = check(dataset)
    assert found.statistics.instances == 1 and found.statistics.crowds == 1


def test_boxes_of_masks_that_lie_in_files(photograph, tmp_path):
    mask = np.zeros((20, 30), np.uint8)
    mask[3:7, 4:9] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    dataset = boxes_of(
        photograph, Instance(7, MaskFile(str(tmp_path / "mask.png"))), Instance(7, None, box=(0, 0, 2, 2))
    )
    assert dataset.load_boxes(0).tolist() == [[3, 4, 7, 9], [0, 0, 2, 2]]


def test_images_that_are_given_or_fetched(photograph):
    """The five lines needed for any other kind of data, such as FiftyOne's or Hugging Face's datasets."""
    rows = [
        {"id": 4, "image": Image.open(photograph), "segmentation": [[1, 1, 9, 1, 9, 9]], "label": 0},
        {"id": 5, "image": lambda: np.zeros((6, 7, 3), np.uint8), "segmentation": [[1, 1, 5, 1, 5, 5]], "label": 0},
    ]
    dataset = AnnotatedDataset()
    dataset.add_class("mine", 1, "cat")
    for row in rows:
        outline = read_outline(row["segmentation"], None, None)
        dataset.add_annotated("mine", row["id"], None, [Instance(row["label"] + 1, outline)], image=row["image"])
    dataset.finish()
    assert dataset.load_image(0).shape == (20, 30, 3) and dataset.load_mask(0)[0].shape == (20, 30, 1)
    assert dataset.load_image(1).shape == (6, 7, 3) and dataset.load_mask(1)[0].sum() == 6
    assert not check(dataset, images=True).broken
