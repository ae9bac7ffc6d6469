"""Pascal VOC's object maps and class maps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.formats.voc import (
    NUMBER_OF,
    TWO_CLASSES,
    UNLIKE,
    UNNAMED,
    VOC_CLASSES,
    VOID_COLOR,
    Header,
    color_of,
    most_of,
    read_labelmap,
    read_voc,
    voc_root,
)
from tests.data.mask_writers import (
    PALETTE,
    assert_same,
    box_mask,
    numbers_of,
    scenes,
    two_images,
    write_image,
    write_png,
    write_voc,
    write_xml,
)


def test_facts():
    assert len(VOC_CLASSES) == 20 and VOC_CLASSES[14] == "person" and VOC_CLASSES == tuple(sorted(VOC_CLASSES))
    # the palette as published: aeroplane, bicycle, ..., tvmonitor, void
    assert [color_of(i) for i in (0, 1, 2, 15, 20, 255)] == [
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (192, 128, 128),
        (0, 64, 128),
        (224, 224, 192),
    ]
    assert len(NUMBER_OF) == 256 and VOID_COLOR == (224, 224, 192)


@pytest.mark.parametrize("colors", [False, True])
@pytest.mark.parametrize("xml", [False, True])
def test_reads(tmp_path, colors, xml):
    write_voc(tmp_path, two_images(), colors, border=True, xml=xml)
    options = {} if xml else {"labels": VOC_CLASSES}  # the XML files show that the numbers are VOC's
    dataset = read_voc(tmp_path, "train", **options)
    assert dataset.class_names == ["BG", *VOC_CLASSES]
    assert_same(dataset, two_images())  # its masks exclude the border
    assert [info["id"] for info in dataset.image_info] == ["a", "b"] and not len(dataset.problems)
    chosen = read_voc(tmp_path, class_names=["dog", "cat"], **options)
    assert chosen.class_names == ["BG", "dog", "cat"] and chosen.load_mask(0)[1].tolist() == [1, 2, 1]
    with pytest.raises(
        AnnotationError,
        match=r"SegmentationClass/a.png, image 'a', object 2, field 'class': class 'cat' "
        r"is not among \['dog'\]; add it to class_names",
    ):
        read_voc(tmp_path, class_names=["dog"], **options)


def test_a_class_that_nothing_names_is_called_by_its_number(tmp_path):
    write_voc(tmp_path, two_images(), xml=False)
    dataset = read_voc(tmp_path)
    assert dataset.class_names == ["BG", "class 8", "class 12"] and dataset.load_mask(0)[1].tolist() == [2, 1, 2]
    (problem,) = dataset.problems
    assert problem.kind == UNNAMED and "classes [8, 12]" in problem.message
    write_xml(tmp_path / "Annotations" / "a.xml", 20, 30, [("wolf", False), ("lion", False), ("wolf", False)])
    dataset = read_voc(tmp_path)  # another dataset with its own numbers
    assert dataset.class_names == ["BG", "lion", "wolf"] and not len(dataset.problems)


CONVERTED = "_background_\ncat\ndog\n"


@pytest.mark.parametrize(
    "name, text",
    [
        ("class_names.txt", CONVERTED),
        ("class_names.txt", "\ufeff" + CONVERTED),
        ("labels.txt", "__ignore__\n" + CONVERTED),
        ("classes.txt", "cat\ndog"),
    ],
)
def test_names_a_line_each(tmp_path, name, text):
    """As written by labelme's converter, which numbers classes itself."""
    write_voc(tmp_path, two_images(), xml=False, names=["cat", "dog"])
    (tmp_path / name).write_text(text, encoding="utf-8")
    dataset = read_voc(tmp_path)
    assert dataset.class_names == ["BG", "cat", "dog"] and not len(dataset.problems)
    assert_same(dataset, two_images())
    (tmp_path / name).write_text("_background_\n")
    with pytest.raises(AnnotationError, match=f"{name}: it contains no class; expected one name per line"):
        read_voc(tmp_path)


def test_objects_that_are_to_be_ignored_are_left_out(tmp_path):
    write_voc(tmp_path, two_images(), xml=False, names=["cat", "dog"])
    (tmp_path / "class_names.txt").write_text("_background_\n__ignore__\ndog\n")
    with pytest.warns(UserWarning, match="left out 1 x label that is not a class"):
        dataset = read_voc(tmp_path)
    assert dataset.class_names == ["BG", "dog"] and dataset.load_mask(0)[1].tolist() == [1, 1]


def test_maps_of_classes_in_place_of_objects_are_found(tmp_path):
    """The class maps were copied over the object maps: three boxes of two classes become two objects."""
    write_voc(tmp_path, two_images(), xml=False)
    for name in ("a", "b"):
        (tmp_path / "SegmentationObject" / f"{name}.png").write_bytes(
            (tmp_path / "SegmentationClass" / f"{name}.png").read_bytes()
        )
    with pytest.raises(AnnotationError, match="value 12, field 'pixels': it has several pieces in 1 of 1 images"):
        read_voc(tmp_path, labels=VOC_CLASSES)
    assert read_voc(tmp_path, labels=VOC_CLASSES, separate=False).load_mask(0)[1].tolist() == [8, 12]
    assert_same(read_voc(tmp_path, labels=VOC_CLASSES, separate=True), two_images(), order=False)


@settings(max_examples=25, deadline=None)
@given(scenes(names=("person", "tvmonitor", "aeroplane")), st.booleans(), st.booleans())
def test_round_trip(tmp_path_factory, scene, colors, border):
    root = tmp_path_factory.mktemp("scene")
    write_voc(root, scene, colors, border)
    assert_same(read_voc(root, "train"), scene)
    assert_same(read_voc(root), scene)


@pytest.mark.parametrize("place", ["VOC2012", "VOCdevkit/VOC2012", "train"])
def test_folders_above(tmp_path, place):
    write_voc(tmp_path / place, two_images())
    assert_same(read_voc(tmp_path, "train"), two_images())


def test_lists(tmp_path):
    write_voc(tmp_path, two_images())
    lists = tmp_path / "ImageSets" / "Segmentation"
    (lists / "val.txt").write_text("b\n\n a \n")
    assert [info["id"] for info in read_voc(tmp_path, "val").image_info] == ["b", "a"]
    with pytest.raises(FileNotFoundError, match=r"no list '.*test.txt' of the images of 'test'; .* holds train.txt"):
        read_voc(tmp_path, "test")
    (lists / "val.txt").write_text("a\na\nb\ngone\n")
    with pytest.raises(AnnotationError, match=r"val.txt, image 'a', field 'name': it is listed 2 times"):
        read_voc(tmp_path, "val")
    with pytest.warns(UserWarning, match="left out 1 x clashing id, 3 x missing image file"):
        dataset = read_voc(tmp_path, "val", strict=False)
    assert dataset.num_images == 2 and {p.field for p in list(dataset.problems)[1:]} == {
        "JPEGImages",
        "SegmentationObject",
        "SegmentationClass",
    }
    (lists / "val.txt").write_text("")
    with pytest.raises(AnnotationError, match="field 'JPEGImages': no image can be read"):
        read_voc(tmp_path, "val")


def test_the_class_is_that_of_most_pixels(tmp_path):
    write_voc(tmp_path, two_images(), xml=False)
    classes = np.zeros((20, 30), np.uint8)
    classes[10:18, 1:12], classes[2:4, 3:9], classes[4:7, 3:9], classes[4:19, 20:29] = 8, 8, 12, 255
    classes[4, 20:29] = 3
    write_png(tmp_path / "SegmentationClass" / "a.png", classes, PALETTE)
    dataset = read_voc(tmp_path, labels=VOC_CLASSES)
    names = [dataset.class_names[i] for i in dataset.load_mask(0)[1]]
    assert names == ["dog", "cat", "bird"]  # void and background do not count
    assert [(p.kind, p.record, p.message) for p in dataset.problems] == [
        (TWO_CLASSES, "image 'a', object 1", "some of its pixels are ['cat']")
    ]


def test_most_of():
    objects, classes = np.array([[1, 1, 1, 4], [0, 4, 4, 9]]), np.array([[7, 7, 5, 0], [1, 2, 0, 3]])
    found = most_of(objects, classes)
    assert found == {0: {1: 1}, 1: {7: 2, 5: 1}, 4: {0: 2, 2: 1}, 9: {3: 1}}
    assert list(found[1]) == [7, 5] and list(found[4]) == [0, 2]
    assert most_of(objects * 10**6, classes)[4 * 10**6] == {0: 2, 2: 1}


@pytest.mark.parametrize("colors", [False, True])
def test_difficult_objects_are_crowds(tmp_path, colors):
    write_voc(tmp_path, two_images(), colors)
    xml = tmp_path / "Annotations" / "a.xml"
    write_xml(xml, 20, 30, [("dog", False), ("cat", True), ("dog", True)])
    dataset = read_voc(tmp_path)
    assert dataset.load_mask(0)[1].tolist() == [12, -8, -12] and not len(dataset.problems)
    write_xml(xml, 20, 30, [("dog", False), ("cow", True)])
    dataset = read_voc(tmp_path, labels=VOC_CLASSES)
    assert dataset.load_mask(0)[1].tolist() == [12, 8, 12]
    assert [(p.kind, p.message) for p in dataset.problems] == [(UNLIKE, "the XML file has a 'cow' at this position")]


LABELMAP = """# label:color_rgb:parts:actions
background:0,0,0::
blue cell:0,0,255::
red:255,0,0::
void:224,224,192::
"""


@pytest.mark.parametrize("pictures", ["colors", "palette", "numbers"])
def test_labelmap(tmp_path, pictures):
    (tmp_path / "labelmap.txt").write_text(LABELMAP)
    mask = box_mask(20, 30, 2, 3, 9, 9)
    values = mask * 1 + box_mask(20, 30, 12, 3, 19, 9) * 2
    table = np.array([[0, 0, 0], [0, 0, 255], [255, 0, 0]], np.uint8)
    write_image(tmp_path / "JPEGImages" / "a.jpg", 20, 30)
    write_png(tmp_path / "SegmentationObject" / "a.png", np.array(PALETTE, np.uint8).reshape(256, 3)[values])
    made = {
        "colors": (table[values],),
        "palette": (values.astype(np.uint8), table.ravel().tolist()),
        "numbers": (values.astype(np.uint8),),
    }
    write_png(tmp_path / "SegmentationClass" / "a.png", *made[pictures])
    dataset = read_voc(tmp_path)
    assert dataset.class_names == ["BG", "blue cell", "red"]
    assert_same(dataset, {"a": (20, 30, [(values == 2, "red"), (mask, "blue cell")])}, order=False)
    write_png(tmp_path / "SegmentationClass" / "a.png", np.full((20, 30, 3), 77, np.uint8))
    with pytest.raises(
        AnnotationError, match=r"field 'class': its pixels have the value 5066061, which is not a class"
    ):
        read_voc(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("red:255,0\n", "labelmap.txt, line 1, field 'color_rgb': expected name:red,green,blue::, got 'red:255,0'"),
        ("red:255,0,256::\n", "line 1, field 'color_rgb': expected"),
        ("\nred\n", "line 2, field 'color_rgb': expected"),
        ("a:1,2,3::\nb:1,2,3::\n", "line 2, field 'color_rgb': 'a' already has this color"),
        ("background:0,0,0::\n", "labelmap.txt: it contains no class"),
        ("", "labelmap.txt: it contains no class"),
    ],
)
def test_broken_labelmap(tmp_path, text, message):
    (tmp_path / "labelmap.txt").write_text(text)
    with pytest.raises(AnnotationError, match=message):
        read_labelmap(tmp_path / "labelmap.txt")


def test_labels_name_the_numbers(tmp_path):
    write_voc(tmp_path, two_images(), xml=False)
    dataset = read_voc(tmp_path, labels={8: "lion", 12: "wolf", 30: "bear"})
    assert dataset.class_names == ["BG", "lion", "wolf", "bear"] and dataset.load_mask(0)[1].tolist() == [2, 1, 2]
    with pytest.raises(
        AnnotationError,
        match=r"a.png, image 'a', object 1, field 'class': its pixels have the value 12, "
        r"which is not a class; known classes: \['lion'\]; name others with labels= or a labelmap.txt",
    ):
        read_voc(tmp_path, labels={8: "lion"})
    with pytest.raises(
        ValueError, match=r"none of the class_names \['wolf'\] is among .*; name the numbers .* with labels="
    ):
        read_voc(tmp_path, class_names=["wolf"])


def cut(path, share=0.5):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def noise(path):
    write_png(path, np.random.default_rng(0).integers(0, 256, (20, 30)).astype(np.uint8))
    return path


@pytest.mark.parametrize(
    ("break_it", "message", "kind", "images"),
    [
        (
            lambda f: write_png(f / "SegmentationObject/a.png", np.ones((30, 20), np.uint8)),
            r"SegmentationObject/a.png, image 'a', field 'height/width': it is 30 x 20, its image .* 20 x 30",
            problems.SIZE,
            "b",
        ),
        (
            lambda f: write_png(f / "SegmentationClass/a.png", np.ones((30, 20), np.uint8)),
            r"SegmentationClass/a.png, image 'a', field 'height/width': it is 30 x 20, its image .* 20 x 30",
            problems.SIZE,
            "b",
        ),
        (
            lambda f: (f / "SegmentationObject/a.png").write_bytes(b"x"),
            r"SegmentationObject/a.png, image 'a', field 'header': not an image",
            problems.UNREADABLE,
            "b",
        ),
        (
            lambda f: cut(noise(f / "SegmentationClass/a.png")),
            r"SegmentationClass/a.png, image 'a', field 'header': not an image, or damaged",
            problems.UNREADABLE,
            "b",
        ),
        (
            lambda f: cut(f / "JPEGImages/a.jpg", 0.05),
            r"image 'a': .*a.jpg' is truncated, damaged or not an image",
            problems.UNREADABLE,
            "b",
        ),
        (
            lambda f: (f / "SegmentationClass/a.png").unlink(),
            r"image 'a', field 'SegmentationClass': there is no file",
            problems.MISSING,
            "b",
        ),
        (
            lambda f: (f / "JPEGImages/a.jpg").unlink(),
            r"image 'a', field 'JPEGImages': there is no file",
            problems.MISSING,
            "b",
        ),
        (
            lambda f: cut(f / "Annotations/a.xml"),
            r"Annotations/a.xml, line 1: invalid XML: .*; is the file truncated",
            problems.BROKEN,
            "ab",
        ),
        (
            lambda f: write_xml(f / "Annotations/a.xml", 30, 20, []),
            r"Annotations/a.xml, size, field 'height/width': it says"
            " 30 x 20, the image is 20 x 30",
            problems.SIZE,
            "ab",
        ),
        (
            lambda f: write_png(f / "SegmentationClass/a.png", np.zeros((20, 30), np.uint8)),
            r"image 'a', object 1, field 'class': none of its pixels has a class",
            problems.BROKEN,
            "ab",
        ),
    ],
    ids=[
        "size of objects",
        "size of classes",
        "no picture",
        "cut off",
        "image",
        "no classes",
        "no image",
        "xml",
        "size in xml",
        "no class",
    ],
)
def test_broken(tmp_path, break_it, message, kind, images):
    write_voc(tmp_path, two_images())
    break_it(tmp_path)
    with pytest.raises(AnnotationError, match=message):
        read_voc(tmp_path)
    with pytest.warns(UserWarning, match="left out"):
        dataset = read_voc(tmp_path, strict=False)
    assert kind in dataset.problems.counts()
    assert [info["id"] for info in dataset.image_info] == list(images)


def test_the_header_of_what_is_no_picture(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_text("no picture")
    with pytest.raises(ValueError, match="a.png' is not an image, or damaged: cannot identify"):
        Header(str(path))
    write_png(path, np.zeros([3, 5], np.uint8))
    assert Header(str(path)).numbers
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7)
    with pytest.raises(ValueError, match="a.png' is too large: .*15 pixels.*; cut it into tiles"):
        Header(str(path))


def test_folders_without_the_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder SegmentationObject in '.*', which holds nothing"):
        read_voc(tmp_path)
    assert voc_root(str(tmp_path)) is None
    for year in ("VOC2007", "VOC2012"):
        write_voc(tmp_path / year, two_images())
    with pytest.raises(ValueError, match="holds several VOC folders: .*VOC2007.*VOC2012.*; pass the path of one"):
        read_voc(tmp_path, "train")


def test_with_16_bits_255_is_a_number_as_any_other(tmp_path):
    write_voc(tmp_path, two_images(), xml=False)
    values = numbers_of(two_images(), "a").astype(np.uint16)
    values[values == 3] = 255
    write_png(tmp_path / "SegmentationObject" / "a.png", values)
    assert_same(read_voc(tmp_path, labels=VOC_CLASSES), two_images())
