import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.outlines import Polygons
from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.formats.yolo import read_yolo
from mrcnn.data.images import SUFFIXES

SQUARE = "0 0.1 0.25 0.5 0.25 0.5 0.75 0.1 0.75"  # in 20 x 40: rows 5 to 15, columns 4 to 20
CORNER = "2 0 0 0.25 0 0.25 0.5 0 0.5"  # rows 0 to 10, columns 0 to 10
NAMES = "names: [cat, dog, bird]\n"


def picture(path, size=(20, 40), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full([*size, 3], 90, np.uint8)).save(path, **options)


def write(folder, labels=None, yaml=NAMES, images="images", texts="labels"):
    """labels: the text of each image, None for no text file."""
    for name, text in (labels or {"a": f"{SQUARE}\n{CORNER}\n", "b": ""}).items():
        picture(folder / images / f"{name}.png")
        (folder / texts).mkdir(parents=True, exist_ok=True)
        if text is not None:
            (folder / texts / f"{name}.txt").write_text(text)
    if yaml is not None:
        (folder / "data.yaml").write_text(yaml)
    return folder


def area(top, left, bottom, right, height=20, width=40):
    mask = np.zeros([height, width], bool)
    mask[top:bottom, left:right] = True
    return mask


def assert_as_written(dataset, names=("cat", "dog", "bird")):
    """The dataset of `write`."""
    assert dataset.class_names == ["BG", *names] and not len(dataset.problems)
    assert [info["id"] for info in dataset.image_info] == ["a", "b"]
    masks, class_ids = dataset.load_mask(0)
    assert class_ids.tolist() == [names.index("cat") + 1, names.index("bird") + 1] and class_ids.dtype == np.int32
    np.testing.assert_array_equal(np.moveaxis(masks, 2, 0), [area(5, 4, 15, 20), area(0, 0, 10, 10)])
    masks, class_ids = dataset.load_mask(1)
    assert masks.shape == (20, 40, 0) and len(class_ids) == 0
    assert dataset.load_image(0).shape == (20, 40, 3)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_image_that_detection_reads(tmp_path, suffix):
    """Whether `mrcnn detect` and `mrcnn check` find the same images; what the file contains does not depend on it."""
    write(tmp_path)
    path = (tmp_path / "images" / "b.png").rename(tmp_path / "images" / f"b{suffix}")
    dataset = read_yolo(tmp_path)
    assert [info["path"] for info in dataset.image_info][1] == str(path) and not len(dataset.problems)


def test_images_and_labels(tmp_path):
    assert_as_written(read_yolo(write(tmp_path)))
    assert_as_written(read_yolo(tmp_path / "data.yaml"))
    assert_as_written(read_yolo(tmp_path, class_names=["bird", "dog", "cat"]), ("bird", "dog", "cat"))


@pytest.mark.parametrize(
    "images, texts, subset",
    [
        ("images/train", "labels/train", "train"),
        ("train/images", "train/labels", "train"),
        ("valid/images", "valid/labels", "val"),
        ("train", "train", "train"),
        ("images/x", "labels/x", "x"),
    ],
)
def test_folders_of_subsets_by_their_names(tmp_path, images, texts, subset):
    write(tmp_path, images=images, texts=texts)
    assert_as_written(read_yolo(tmp_path, subset))
    with pytest.raises(FileNotFoundError, match="no images in YOLO's layout for the subset 'test' in .* holds data"):
        read_yolo(tmp_path, "test")
    if "/images" in images:
        assert_as_written(read_yolo(tmp_path / images.split("/")[0]))  # its names are in the YAML file above
    with pytest.raises(FileNotFoundError, match="no images in YOLO's layout in"):
        read_yolo(tmp_path)


@pytest.mark.parametrize(
    "keys, place",
    [
        ("train: photos/images", "photos"),
        ("path: photos\ntrain: images", "photos"),
        ("path: set\ntrain: photos/images", "photos"),  # relative to the folder of all datasets
        ("path: /another/machine/set\ntrain: photos/images", "photos"),
        ("train: ../photos/images", "photos"),  # as Roboflow writes it
        ("train:\n  - photos/images", "photos"),
        ("train: gone/images", "train"),
        ("val:\ntrain: photos/images", "photos"),
    ],
)
def test_folders_by_the_yaml(tmp_path, keys, place):
    folder = tmp_path / "set"
    write(folder, yaml=f"{keys}\n{NAMES}", images=f"{place}/images", texts=f"{place}/labels")
    assert_as_written(read_yolo(folder, "train"))
    if place == "photos":
        assert_as_written(read_yolo(folder / "data.yaml"))  # the only subset


def test_texts_that_list_images(tmp_path):
    labels = {"a": f"{SQUARE}\n{CORNER}\n", "b": "", "c": SQUARE}
    write(tmp_path, labels, f"train: train.txt\n{NAMES}")
    (tmp_path / "train.txt").write_text("./images/a.png\nimages/b.png\n")
    dataset = read_yolo(tmp_path, "train")  # c.txt belongs to an image outside this list
    assert [info["id"] for info in dataset.image_info] == ["images/a", "images/b"] and not len(dataset.problems)
    (tmp_path / "train.txt").write_text("images/a.png\nimages/gone.png")
    with pytest.raises(AnnotationError, match="image 'images/gone': image file .* is missing"):
        read_yolo(tmp_path, "train")
    (tmp_path / "train.txt").write_text("images/a.png\nimages/a.png")
    with pytest.raises(AnnotationError, match="image .*a.png', field 'name': it is listed twice"):
        read_yolo(tmp_path, "train")


def test_a_yaml_with_several_folders_and_with_several_subsets(tmp_path):
    for place in ("one", "two"):
        write(tmp_path, None, f"val: [one/images, two/images]\n{NAMES}", f"{place}/images", f"{place}/labels")
    assert [info["id"] for info in read_yolo(tmp_path, "val").image_info] == [
        "one/images/a",
        "one/images/b",
        "two/images/a",
        "two/images/b",
    ]
    (tmp_path / "data.yaml").write_text(f"train: one/images\nval: two/images\n{NAMES}")
    assert_as_written(read_yolo(tmp_path, "val"))
    with pytest.raises(ValueError, match="data.yaml' has the subsets train, val; choose one, such as subset='train'"):
        read_yolo(tmp_path)


@pytest.mark.parametrize("place", ["classes.txt", "labels/classes.txt"])
def test_names_in_a_text(tmp_path, place):
    write(tmp_path, yaml=None)
    with pytest.raises(FileNotFoundError, match="has no class names: no YAML file with names, no classes.txt"):
        read_yolo(tmp_path)
    assert_as_written(read_yolo(tmp_path, class_names=["cat", "dog", "bird"]))
    (tmp_path / place).write_text("cat\ndog\n\nbird\n")
    assert_as_written(read_yolo(tmp_path))


@pytest.mark.parametrize(
    "yaml",
    [
        "names: {2: bird, 0: cat, 1: dog}\nnc: 3\n",
        "names:\n  0: cat\n  1: dog\n  2: 'bird'\n# end\n",
        "nc: 3\nnames: ['cat', \"dog\", bird]\n",
        "names:\n- cat\n- dog\n- bird\n",
    ],
)
def test_names_in_every_form(tmp_path, yaml):
    assert_as_written(read_yolo(write(tmp_path, yaml=yaml)))


def test_names_that_are_numbers_and_a_count_alone(tmp_path):
    write(tmp_path, yaml="names: [0, 1.5, x]\n")
    assert read_yolo(tmp_path).class_names == ["BG", "0", "1.5", "x"]
    write(tmp_path, yaml="nc: 3\n")
    with pytest.raises(FileNotFoundError, match="has no class names"):
        read_yolo(tmp_path)
    assert_as_written(read_yolo(tmp_path, class_names=["cat", "dog", "bird"]))


@pytest.mark.parametrize(
    "yaml, message",
    [
        ("names: [cat, dog", "data.yaml, line [12]: invalid or truncated YAML: .*expected ',' or ']'"),
        ("names:\n", "field 'names': expected a list of names, or names by numbers, got None"),
        ("names: cat\n", "field 'names': expected a list of names, .*got 'cat'"),
        ("names: []\n", r"field 'names': .*got \[\]"),
        ("names: {a: cat}\n", "field 'names': expected numbers >= 0, got 'a'"),
        ("names: [cat, no, bird]\n", r"field 'names\[1\]': expected a string, got False; put it in quotes"),
        ("names: [cat, dog, cat]\n", "field 'names': duplicate names"),
        ("names: [cat, dog, bird]\nnc: 4\n", "field 'nc': it says 4, but there are 3 names"),
        ("names: [cat, dog, bird]\ntrain: 5\n", r"field 'train': expected a path, got \[5\]"),
        ("names: [cat, dog, bird]\ntrain: x\npath: [y]\n", "field 'path': expected a path"),
    ],
)
def test_a_wrong_yaml(tmp_path, yaml, message):
    write(tmp_path, yaml=yaml, images="train/images", texts="train/labels")
    with pytest.raises(AnnotationError, match=message) as raised:
        read_yolo(tmp_path, "train")
    assert raised.value.file == str(tmp_path / "data.yaml")


def test_a_yaml_of_something_else_and_several(tmp_path):
    write(tmp_path)
    (tmp_path / "hyper.yaml").write_text("lr0: 0.1\n")
    assert_as_written(read_yolo(tmp_path))
    with pytest.raises(AnnotationError, match="hyper.yaml, field 'names': expected a list of names"):
        read_yolo(tmp_path / "hyper.yaml")
    (tmp_path / "other.yml").write_text(NAMES)
    with pytest.raises(ValueError, match="several files have class names: .*pass the path of one of them"):
        read_yolo(tmp_path)
    (tmp_path / "other.yml").write_text("- names\n")
    with pytest.raises(AnnotationError, match="expected keys such as names, got"):
        read_yolo(tmp_path / "other.yml")
    with pytest.raises(FileNotFoundError, match="no folder or YAML file .*gone"):
        read_yolo(tmp_path / "gone")


BROKEN = {
    "a box": ("1 0.5 0.5 0.2 0.2", "coordinates", "a box without a mask; .*; this line is a box .class"),
    "two points": ("1 0.5 0.5 0.2", "coordinates", "at least three points, got 3 numbers; is the line"),
    "an odd number": (SQUARE + " 0.5", "coordinates", "expected x and y of at least three points, got 9 numbers"),
    "a class alone": ("1", "coordinates", "expected x and y of at least three points, got 0 numbers"),
    "text": (SQUARE + " 0.5 x", "coordinates", "expected numbers, got 'x'"),
    "a name": ("cat 0.1 0.1 0.2 0.2 0.3 0.1", "class", "expected numbers, got 'cat'"),
    "commas": ("1,0.1,0.1,0.2,0.2,0.3,0.1", "class", "expected numbers, got '1,0.1"),
    "half a class": ("0.5 0.1 0.1 0.2 0.2 0.3 0.1", "class", "expected an integer >= 0, got '0.5'"),
    "a negative class": ("-1 0.1 0.1 0.2 0.2 0.3 0.1", "class", "expected an integer >= 0, got '-1'"),
    "no number as class": ("nan 0.1 0.1 0.2 0.2 0.3 0.1", "class", "expected an integer >= 0, got 'nan'"),
    "an unknown class": ("3 0.1 0.1 0.2 0.2 0.3 0.1", "class", "class 3 is not among {0: 'cat', 1: 'dog'"),
    "pixels": ("1 4 5 20 5 20 15", "coordinates", "expected fractions .* from 4 to 20; are they pixels?"),
    "no numbers": ("1 0.1 0.1 nan 0.2 0.3 0.1", "coordinates", "expected fractions of the width and height"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_line_is_named_or_counted(tmp_path, name):
    line, field, message = BROKEN[name]
    write(tmp_path, {"a": f"{CORNER}\n\n{line}\n"})
    with pytest.raises(AnnotationError, match=f"line 3, field '{field}': .*{message}") as raised:
        read_yolo(tmp_path)
    assert (raised.value.file, raised.value.field) == (str(tmp_path / "labels" / "a.txt"), field)
    kind = problems.BOXES_ONLY if name == "a box" else problems.BROKEN
    with pytest.warns(UserWarning, match=f"left out 1 x {kind}"):
        dataset = read_yolo(tmp_path, strict=False)
    assert dataset.load_mask(0)[0].shape[2] == 1 and dataset.problems.counts() == {kind: 1}


def test_a_class_that_is_not_wanted_and_one_as_a_decimal(tmp_path):
    write(tmp_path, {"a": SQUARE.replace("0 ", "0.0 ", 1) + "\n" + CORNER})
    with pytest.raises(AnnotationError, match="line 2, field 'class': class 'bird' is not among"):
        read_yolo(tmp_path, class_names=["cat", "dog"])
    assert read_yolo(tmp_path).load_mask(0)[1].tolist() == [1, 3]


def test_polygons_that_leave_the_image_are_cut_off_or_left_out(tmp_path):
    write(tmp_path, {"a": "0 -0.1 0.5 0.25 0.5 0.25 1.5 -0.1 1.5\n1 1.2 0 1.4 0 1.4 0.5 1.2 0.5\n"})
    with pytest.warns(UserWarning, match="1 x outline outside the image; the first: .*a.txt, line 2"):
        dataset = read_yolo(tmp_path)
    np.testing.assert_array_equal(dataset.load_mask(0)[0][..., 0], area(10, 0, 20, 10))


def test_an_image_without_a_text_has_no_instances_and_is_noted(tmp_path):
    write(tmp_path, {"a": SQUARE, "b": None})
    dataset = read_yolo(tmp_path)
    assert dataset.load_mask(1)[0].shape == (20, 40, 0)
    (problem,) = dataset.problems
    assert problem.kind == problems.UNANNOTATED and problem.treatment == "an image without instances"
    (tmp_path / "labels" / "a.txt").unlink()
    with pytest.raises(
        AnnotationError, match="field 'labels': none of the 2 images has labels; expected files such as .*a.txt'"
    ):
        read_yolo(tmp_path)


def orphan(folder):
    (folder / "labels" / "c.txt").write_text(SQUARE)
    return problems.MISSING, "labels/c.txt, image, field 'name': no image of this name"


def damaged(folder):
    (folder / "images" / "b.png").write_text("no picture")
    return problems.UNREADABLE, "image 'b': .*b.png' is not an image"


def same_name(folder):
    picture(folder / "images" / "a.jpg")
    return problems.CLASH, "image .*a.png', field 'name': .*a.jpg' has the same labels, .*a.txt'"


def no_text(folder):
    (folder / "labels" / "b.txt").write_bytes(b"\xff\xfe\x00")
    return problems.BROKEN, "b.txt, image .*b.png', field 'labels': not valid UTF-16"


def no_picture(folder):
    (folder / "images" / "notes.pdf").write_text("x")
    return problems.BROKEN, "image .*notes.pdf', field 'name': expected an image file: .jpg"


@pytest.mark.parametrize("change", [orphan, damaged, same_name, no_text, no_picture])
def test_a_broken_file_is_named_or_counted(tmp_path, change):
    write(tmp_path)
    kind, message = change(tmp_path)
    with pytest.raises(AnnotationError, match=message):
        read_yolo(tmp_path)
    with pytest.warns(UserWarning, match=f"left out 1 x {kind}"):
        dataset = read_yolo(tmp_path, strict=False)
    assert dataset.problems.counts() == {kind: 1} and 1 <= len(dataset.image_info) <= 2


def test_what_goes_with_a_file_is_counted(tmp_path):
    write(tmp_path, {"a": SQUARE, "b": f"{SQUARE}\n\n{CORNER}\n{SQUARE} 0.5\n"})
    damaged(tmp_path)
    orphan(tmp_path)
    with pytest.warns(UserWarning, match="left out"):
        dataset = read_yolo(tmp_path, strict=False)
    assert [(p.kind, p.images, p.instances) for p in dataset.problems] == [
        (problems.MISSING, 1, 1),
        (problems.BROKEN, 0, 1),
        (problems.UNREADABLE, 1, 2),
    ]
    no_text(tmp_path)
    with pytest.warns(UserWarning, match="left out"):
        dataset = read_yolo(tmp_path, strict=False)
    assert [(p.kind, p.images, p.instances) for p in dataset.problems] == [
        (problems.MISSING, 1, 1),
        (problems.BROKEN, 0, 1),
        (problems.UNREADABLE, 1, 0),
    ]


def test_no_images(tmp_path):
    write(tmp_path)
    for name in ("a", "b"):
        (tmp_path / "images" / f"{name}.png").unlink()
        (tmp_path / "labels" / f"{name}.txt").unlink()
    (tmp_path / "data.yaml").write_text(f"train: images\n{NAMES}")
    with pytest.raises(AnnotationError, match="field 'images': no image can be read in"):
        read_yolo(tmp_path, "train")


def test_photographs_stored_on_their_side_are_turned(tmp_path):
    """Labels have no image size; they are fractions of the upright image."""
    write(tmp_path, {"a": SQUARE})
    tags = Image.Exif()
    tags[0x0112] = 8
    (tmp_path / "images" / "a.png").unlink()
    picture(tmp_path / "images" / "a.jpg", (40, 20), exif=tags)
    dataset = read_yolo(tmp_path)
    assert dataset.load_image(0).shape == (20, 40, 3) and dataset.problems.counts() == {problems.TAGGED: 1}
    np.testing.assert_array_equal(dataset.load_mask(0)[0][..., 0], area(5, 4, 15, 20))


def test_an_image_that_is_changed_later_raises(tmp_path):
    dataset = read_yolo(write(tmp_path))
    picture(tmp_path / "images" / "a.png", (21, 40))
    with pytest.raises(AnnotationError, match="image 'a', field 'height/width': .* 20 x 40 image, but .* 21 x 40"):
        dataset.load_image(0)


def hundredths(least, most):
    return st.integers(100 * least, 100 * most).map(lambda value: value / 100)


points = st.lists(st.tuples(hundredths(0, 61), hundredths(1, 37)), min_size=3, max_size=8)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(points, st.integers(0, 2)), min_size=1, max_size=4))
def test_polygons_written_and_read_back(tmp_path_factory, drawn):
    """Polygons in hundredths of a pixel, like COCO's, survive six-digit fractions unchanged."""
    folder = tmp_path_factory.mktemp("yolo")
    lines = []
    for polygon, number in drawn:
        polygon[0] = (max(polygon[0][0], 1), polygon[0][1])  # so that none is left of the image
        lines.append(f"{number} " + " ".join(f"{x / 61:.6f} {y / 37:.6f}" for x, y in polygon))
    write(folder, {"a": "\n".join(lines)})
    picture(folder / "images" / "a.png", (37, 61))
    dataset = read_yolo(folder)
    for instance, (polygon, _) in zip(dataset.image_info[0]["instances"], drawn, strict=True):
        np.testing.assert_array_equal(instance.outline.parts[0], polygon)
    masks, class_ids = dataset.load_mask(0)
    assert class_ids.tolist() == [number + 1 for _, number in drawn]
    for mask, (polygon, _) in zip(np.moveaxis(masks, 2, 0), drawn, strict=True):
        np.testing.assert_array_equal(mask, Polygons((np.array(polygon, float),)).fill(37, 61))
