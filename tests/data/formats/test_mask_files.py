"""One file per mask."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.formats.mask_files import read_mask_files
from tests.data.mask_writers import assert_same, scenes, two_images, write_image, write_mask_files, write_png

NUCLEI = Path(__file__).resolve().parents[4] / "shared" / "data" / "nuclei_dsb2018"
LAYOUTS = ("one folder each", "beside")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reads_both_layouts(tmp_path, layout):
    scene = two_images()
    write_mask_files(tmp_path / "train", scene, layout)
    dataset = read_mask_files(tmp_path, "train", source="mine")
    assert dataset.class_names == ["BG", "cat", "dog"] and dataset.sources == ["", "mine"]
    assert_same(dataset, scene)
    assert [info["id"] for info in dataset.image_info] == ["a", "b"]
    assert (dataset.image_info[1]["height"], dataset.image_info[1]["width"]) == (16, 24)
    assert not len(dataset.problems)
    turned = read_mask_files(tmp_path / "train", class_names=["dog", "bird", "cat"])
    assert turned.load_mask(0)[1].tolist() == [1, 3, 1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_class(tmp_path, layout):
    scene = two_images()
    write_mask_files(tmp_path, scene, layout, classes=False)
    assert read_mask_files(tmp_path).class_names == ["BG", "object"]
    assert read_mask_files(tmp_path, class_name="cell").class_names == ["BG", "cell"]
    dataset = read_mask_files(tmp_path, class_names=["nucleus"])
    assert dataset.class_names == ["BG", "nucleus"] and dataset.load_mask(0)[1].tolist() == [1, 1, 1]
    assert_same(dataset, {n: (h, w, [(m, "nucleus") for m, _ in objects]) for n, (h, w, objects) in scene.items()})
    with pytest.raises(AnnotationError, match=r"field 'class': class 'object' is not among \['x', 'y'\]; add it"):
        read_mask_files(tmp_path, class_names=["x", "y"])


def test_subset_may_lie_innermost(tmp_path):
    write_mask_files(tmp_path / "made", two_images(), "beside")
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        (tmp_path / "made" / folder).rename(tmp_path / folder / "val")
    assert_same(read_mask_files(tmp_path, "val"), two_images())


@settings(max_examples=15, deadline=None)
@given(scenes(overlap=True), st.sampled_from(LAYOUTS))
def test_round_trip(tmp_path_factory, scene, layout):
    root = tmp_path_factory.mktemp("scene")
    write_mask_files(root, scene, layout)
    assert_same(read_mask_files(root), scene)


def test_any_value_but_zero_counts(tmp_path):
    write_mask_files(tmp_path, two_images(), classes=False)
    values = np.zeros((20, 30), np.uint8)
    values[3, 4:7] = 1, 128, 255
    folder = tmp_path / "a" / "masks"
    write_png(folder / "000.png", values)
    write_png(folder / "001.png", values, [0, 0, 0] * 256)
    Image.fromarray(values.astype(bool)).save(folder / "002.png")
    masks, _ = read_mask_files(tmp_path).load_mask(0)
    assert (masks == (values > 0)[:, :, None]).all()


@pytest.mark.parametrize(
    ("break_it", "message", "kind", "left"),
    [
        (
            lambda f: write_png(f / "masks/000.png", np.ones((30, 20), np.uint8)),
            r"a/masks/000.png, mask 'a/masks/000.png', field 'height/width': it is 30 x 20, "
            r"its image '.*a.png' is 20 x 30",
            problems.SIZE,
            2,
        ),
        (
            lambda f: (f / "masks/000.png").write_bytes(b"no png"),
            r"000.png, mask 'a/masks/000.png', field 'header': not an image",
            problems.UNREADABLE,
            2,
        ),
        (
            lambda f: (f / "masks/note.txt").write_text("x"),
            r"a/masks, note.txt, field 'name': expected a mask in a lossless format: .png",
            problems.BROKEN,
            3,
        ),
        (
            lambda f: write_image(f / "masks/3.jpg", 20, 30),
            r"a/masks, 3.jpg, field 'name': expected a mask",
            problems.BROKEN,
            3,
        ),
        (
            lambda f: (f / "images/a.png").unlink(),
            r", a, field 'images': expected one image in a/images, got 0",
            problems.MISSING,
            0,
        ),
        (
            lambda f: write_image(f / "images/a2.png", 20, 30),
            r", a, field 'images': expected one image in a/images, got 2",
            problems.BROKEN,
            0,
        ),
        (
            lambda f: (f / "masks").rename(f / "mask"),
            r", a, field 'masks': folder '.*' is missing; for an image "
            "without instances, create an empty one",
            problems.BROKEN,
            0,
        ),
        (
            lambda f: (f / "images/a.png").write_bytes(b""),
            r", image 'a': '.*a.png' is an empty file, not an image",
            problems.UNREADABLE,
            0,
        ),
    ],
    ids=["size", "damaged", "text", "jpeg", "no image", "two images", "no masks", "broken image"],
)
def test_broken(tmp_path, break_it, message, kind, left):
    write_mask_files(tmp_path, two_images(), classes=False)
    break_it(tmp_path / "a")
    with pytest.raises(AnnotationError, match=message):
        read_mask_files(tmp_path)
    with pytest.warns(UserWarning, match=f"left out 1 x {kind}"):
        dataset = read_mask_files(tmp_path, strict=False)
    assert dataset.problems.counts() == {kind: 1}
    assert sum(len(info["instances"]) for info in dataset.image_info) == left
    assert dataset.image_info[-1]["id"] == "b"


def test_broken_beside(tmp_path):
    write_mask_files(tmp_path, two_images(), "beside")
    write_image(tmp_path / "images" / "a.jpg", 20, 30)
    write_image(tmp_path / "images" / "alone.jpg", 20, 30)
    (tmp_path / "masks" / "gone").mkdir()
    (tmp_path / "masks" / "flat.png").write_bytes(b"")
    with pytest.raises(AnnotationError, match=r"images, a.png, field 'name': 'a.jpg' has the same name before the dot"):
        read_mask_files(tmp_path)
    with pytest.warns(UserWarning, match="left out"):
        dataset = read_mask_files(tmp_path, strict=False)
    assert [(p.kind, p.record, p.field) for p in dataset.problems] == [
        (problems.CLASH, "a.png", "name"),
        (problems.BROKEN, "flat.png", "name"),
        (problems.MISSING, "gone", "name"),
        (problems.BROKEN, "alone.jpg", "masks"),
    ]
    assert dataset.num_images == 2


def test_masks_that_show_to_be_damaged_or_empty_when_read(tmp_path):
    write_mask_files(tmp_path, two_images(), classes=False)
    folder = tmp_path / "a" / "masks"
    noise = np.random.default_rng(0).integers(0, 256, (20, 30)).astype(np.uint8)
    write_png(folder / "000.png", noise)
    whole = (folder / "000.png").read_bytes()
    (folder / "000.png").write_bytes(whole[: len(whole) // 2])
    write_png(folder / "001.png", np.zeros((20, 30), np.uint8))
    with pytest.raises(AnnotationError, match=r"mask 'a/masks/000.png', field 'header': not an image, or damaged"):
        read_mask_files(tmp_path).load_mask(0)
    dataset = read_mask_files(tmp_path, strict=False)
    masks, _ = dataset.load_mask(0)
    assert masks.sum(axis=(0, 1)).tolist() == [0, 9 * 15]  # the damaged one is skipped when the data are read
    assert dataset.problems.counts() == {problems.UNREADABLE: 1, problems.EMPTY: 1}


def test_folders_without_the_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder '.*gone' does not exist; check the path"):
        read_mask_files(tmp_path / "gone")
    (tmp_path / "train" / "a").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="folder '.*val' does not exist; '.*' holds train/"):
        read_mask_files(tmp_path, "val")
    with pytest.raises(
        FileNotFoundError, match=r"no masks in '.*': expected <id>/images/ .* it holds train/; do you need"
    ):
        read_mask_files(tmp_path)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    with pytest.raises(AnnotationError, match="field 'images': no image can be read"):
        read_mask_files(tmp_path)


def test_files_beside_the_folders(tmp_path):
    """Notes and tables are ignored silently; an image is skipped and recorded."""
    write_mask_files(tmp_path, two_images())
    for name in ("README.txt", "labels.csv", "0 LICENSE", "a.json"):
        (tmp_path / name).write_text("notes")
    dataset = read_mask_files(tmp_path)
    assert_same(dataset, two_images())
    assert not len(dataset.problems)
    write_image(tmp_path / "stray.JPG", 20, 30)
    with pytest.warns(
        UserWarning,
        match="left out 1 x broken record; the first: .*stray.JPG, field 'name': an image "
        "next to the folders, without masks; expected <id>/images/",
    ):
        dataset = read_mask_files(tmp_path)
    assert_same(dataset, two_images())
    (tmp_path / "other").mkdir()
    with pytest.raises(AnnotationError, match="other, field 'images': expected one image in other/images, got 0"):
        read_mask_files(tmp_path)


def test_files_of_file_managers_are_passed_over(tmp_path):
    write_mask_files(tmp_path, two_images(), classes=False)
    for name in (".DS_Store", "Thumbs.db", "a/masks/.DS_Store", "a/masks/Thumbs.db", "a/images/._a.png"):
        (tmp_path / name).write_bytes(b"")
    assert read_mask_files(tmp_path).load_mask(0)[0].shape[2] == 3


def test_nuclei():
    if not NUCLEI.is_dir():
        pytest.skip(f"the nuclei are not at {NUCLEI}")
    dataset = read_mask_files(NUCLEI, "val", class_names=["nucleus"])
    assert dataset.num_images == 21 and not len(dataset.problems)
    most = max(dataset.image_ids, key=lambda i: len(dataset.image_info[i]["instances"]))
    masks, class_ids = dataset.load_mask(most)
    files = sorted((NUCLEI / "val" / dataset.image_info[most]["id"] / "masks").iterdir())
    assert masks.shape[2] == len(files) == 126 and set(class_ids) == {1}
    for i in (0, 60, 125):
        np.testing.assert_array_equal(masks[:, :, i], np.asarray(Image.open(files[i])) > 0)
