"""load_dataset detects formats from the contents."""

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mrcnn import utils
from mrcnn.data.annotations import text_files
from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.annotations.text_files import read_head
from mrcnn.data.formats import FORMATS, load_dataset, recognize
from mrcnn.data.formats.coco import is_coco
from mrcnn.data.formats.labelme import is_labelme
from mrcnn.data.formats.via import is_via
from tests.data import mask_writers
from tests.data.mask_writers import assert_same, two_images, write_image
from tests.data.scenes import FORMATS as WRITTEN
from tests.data.scenes import SCENE

ROOT = Path(__file__).resolve().parents[3]
SHARED = ROOT.parent / "shared" / "data"


@pytest.mark.parametrize("name", WRITTEN)
def test_every_format(tmp_path, name):
    WRITTEN[name][0](tmp_path)
    assert recognize(tmp_path) == name.split()[0]
    options = {"attribute": "kind"} if name.startswith("via") else {}  # not stored in VIA's files
    dataset = load_dataset(tmp_path, **options)
    assert dataset.class_names == ["BG", *SCENE.class_names]
    masks, _ = dataset.load_mask(0)
    np.testing.assert_array_equal(masks, SCENE.masks)


def test_every_format_of_the_table_has_a_reader_with_the_same_options():
    for name in FORMATS:
        module = importlib.import_module(f"mrcnn.data.formats.{name}")
        parameters = inspect.signature(getattr(module, f"read_{name}")).parameters
        assert {"class_names", "source", "strict"} <= set(parameters), name


def coco(folder, names, image_dirs=None, **more):
    """COCO's layout, or another one, with the same image and no annotations for each file."""
    content = {
        "info": {},
        "images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 3}],
        "annotations": [],
        "categories": [{"id": 1, "name": "x"}],
        **more,
    }
    for name, image_dir in zip(names, image_dirs or names, strict=True):
        write_image(folder / image_dir / "a.png", 4, 3)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "images", "subset"),
    [
        ("annotations/instances_train2017.json", "train2017", "train2017"),
        ("annotations/instances_train2017.json", "train2017", "train"),
        ("annotations/instances_train2017.json", "train2017", None),
        ("annotations/instances_default.json", "images/default", None),
        ("annotations/instances_val.json", "images/val", "val"),
        ("annotations/instances_val.json", "images", "val"),
        ("annotations/val.json", "val", "val"),
        ("train/_annotations.coco.json", "train", "train"),
        ("_annotations.coco.json", ".", None),
        ("val.json", "val", "val"),
        ("val.json", "images", None),
        ("labels.json", "data", None),
    ],
)
def test_layouts_of_coco(tmp_path, name, images, subset):
    coco(tmp_path, [name], [images])
    options = {"image_dir": tmp_path / "data"} if images == "data" else {}
    assert recognize(tmp_path, subset) == "coco"
    dataset = load_dataset(tmp_path, subset, **options)
    assert Path(dataset.image_info[0]["path"]) == tmp_path / images / "a.png"
    assert recognize(tmp_path / name) == "coco"
    assert load_dataset(tmp_path / name, **options).image_info[0]["path"] == dataset.image_info[0]["path"]


def test_which_of_several_files(tmp_path):
    names = [f"annotations/instances_{name}.json" for name in ("train2014", "train2017", "val2017", "val")]
    coco(tmp_path, names, ["train2014", "train2017", "val2017", "val"])
    (tmp_path / "annotations" / "captions_val.json").write_text('{"info": 1, "images": [], "annotations": []}')
    assert load_dataset(tmp_path, "train2017").file.endswith("instances_train2017.json")
    assert load_dataset(tmp_path, "val").file.endswith("instances_val.json")  # an exact name takes precedence
    with pytest.raises(
        ValueError,
        match="with subset 'train' holds 2 coco annotation files: .*train2014.*train2017.*; "
        "choose one by its path, or with subset=",
    ):
        load_dataset(tmp_path, "train")
    with pytest.raises(ValueError, match="holds 4 coco annotation files"):
        load_dataset(tmp_path)
    with pytest.raises(ValueError, match="no format matches '.*' with subset 'test'; found annotations/, train2014/"):
        load_dataset(tmp_path, "test")


def test_jsons_are_told_apart_by_their_keys(tmp_path):
    region = {"shape_attributes": {"name": "rect", "x": 1, "y": 1, "width": 2, "height": 2}, "region_attributes": {}}
    entry = {"filename": "a.png", "size": 5, "regions": [region]}
    contents = {
        "coco": [
            {"images": [], "annotations": [], "categories": []},
            {"categories": [{"id": 1, "name": "filename"}], "images": []},
        ],
        "via": [
            {"a.png5": entry},
            [entry],
            {"_via_settings": {}, "_via_img_metadata": {"a.png5": entry}},
            {"a.png5": entry | {"regions": {"0": region}}},
        ],
        "labelme": [
            {"version": "5", "flags": {}, "shapes": [], "imagePath": "a.png", "imageData": None},
            {"imageData": "x" * 200_000, "imagePath": "a.png", "shapes": []},
            {"shapes": []},
        ],
        None: [
            {},
            [],
            3,
            {"a": {"filename": 1}},
            {"imageData": 3},
            [[1]],
            {"type": "FeatureCollection"},
            {"info": {}, "categories": [], "attributes": []},
        ],
    }
    for name, made in contents.items():
        for content in made:
            path = tmp_path / "some.json"
            path.write_text(json.dumps(content))
            head = read_head(path)
            found = [k for k, fits in (("coco", is_coco), ("via", is_via), ("labelme", is_labelme)) if fits(head)]
            assert found == ([] if name is None else [name]), content


def test_head_of_a_json(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a\\"]}": [1, {"b": {"c": 2}}, "d:"], "e": {"f": "{", "g": {"h": 1}}, "i": null} ')
    assert read_head(path) == ({'a"]}', "e", "i"}, {"f", "g"})
    path.write_text('[{"a": 1, "b": {"c": 1}}, {"d": []}]')
    assert read_head(path) == (set(), {"a", "b", "d"})
    path.write_text('{"im\\u00e9ges": [{"file_name": "sub/1.png"}, {"file_name": "2.png"}')
    assert read_head(path) == ({"iméges"}, set())
    for text in ("", "{", '{"a', '{"a"', "3", "<xml>", "]]}}", '"a": 3', "\x00\xff"):
        path.write_text(text)
        assert read_head(path).second == set()
    assert read_head(tmp_path / "gone.json") == (set(), set())
    path.write_text('{"a": 1, "text": "' + "x" * text_files.HEADS[0] + '", "z": 1}')
    assert read_head(path, frozenset({"a"})).top == {"a", "text"}  # the start is enough
    assert read_head(path, frozenset({"z"})).top == {"a", "text", "z"}


def test_nothing_fits(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone' does not exist; check the path"):
        load_dataset(tmp_path / "gone")
    for name in ("train", "val"):
        mask_writers.write_mask_files(tmp_path / name, two_images())
    with pytest.raises(ValueError) as caught:
        load_dataset(tmp_path)
    text = str(caught.value)
    assert "found train/, val/; subset= set to one of ['train', 'val'] would" in text
    assert all(f"  {name}: {wants}" in text for name, wants in FORMATS.items())
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match="no format matches '.*notes.txt'; found a file of 5 bytes. Expected one"):
        recognize(tmp_path / "notes.txt")
    with pytest.raises(ValueError, match="with subset 'test'; found notes.txt, train/, val/; in test/, nothing"):
        recognize(tmp_path, "test")


def test_several_fit(tmp_path):
    mask_writers.write_rle_csv(tmp_path / "train.csv", two_images())
    coco(tmp_path, ["annotations/instances_train.json"], ["images"])
    with pytest.raises(
        ValueError, match="with subset 'train' matches several formats: coco, rle_csv; choose one with "
    ):
        load_dataset(tmp_path, "train")
    assert_same(load_dataset(tmp_path, "train", format="rle_csv", labels={0: "cat", 1: "dog"}), two_images())
    assert load_dataset(tmp_path, "train", format="coco").class_names == ["BG", "x"]
    assert recognize(tmp_path / "train.csv") == "rle_csv"


def test_subsets(tmp_path):
    mask_writers.write_voc(tmp_path / "voc", two_images(), lists=("train", "val"))
    mask_writers.write_instance_ids(tmp_path / "ids" / "val", two_images(), depth="16")
    assert_same(load_dataset(tmp_path / "voc", "val"), two_images())
    assert_same(load_dataset(tmp_path / "ids", "val"), two_images())
    with pytest.raises(FileNotFoundError, match="no list '.*test.txt'"):
        load_dataset(tmp_path / "voc", "test")


def test_paths_without_a_folder(tmp_path, monkeypatch):
    coco(tmp_path, ["a.json"], ["."])
    mask_writers.write_rle_csv(tmp_path / "t.csv", two_images())
    monkeypatch.chdir(tmp_path)
    assert load_dataset("a.json").num_images == 1 and load_dataset("t.csv").num_images == 2


def test_options_reach_the_reader(tmp_path):
    mask_writers.write_mask_files(tmp_path, two_images(), classes=False)
    dataset = load_dataset(tmp_path, class_name="cell", source="mine")
    assert dataset.class_names == ["BG", "cell"] and dataset.sources[1] == "mine"
    with pytest.raises(
        TypeError,
        match="read_mask_files takes no option divisor, image_dir; it takes "
        "class_name, class_names, source, masks, upright, strict",
    ):
        load_dataset(tmp_path, divisor=1000, image_dir="x", strict=False)
    with pytest.raises(
        ValueError, match="unknown format 'voc2012'; known formats: coco, via, labelme, voc, yolo, mask_fil"
    ):
        load_dataset(tmp_path, format="voc2012")
    (tmp_path / "a" / "masks" / "x.txt").write_text("")
    with pytest.raises(AnnotationError):
        load_dataset(tmp_path)
    with pytest.warns(UserWarning, match="left out 1 x broken record"):
        assert load_dataset(tmp_path, strict=False).num_images == 2


def test_with_a_format_its_reader_says_what_is_wrong(tmp_path):
    path = tmp_path / "instances.json"
    path.write_text('{"imagez": []}')
    with pytest.raises(AnnotationError, match="instances.json, field 'images': expected a list of images"):
        load_dataset(path, format="coco")
    path.write_text('{"images": [')
    with pytest.raises(AnnotationError, match="instances.json, line 1: invalid or truncated JSON"):
        load_dataset(path)  # detected from the part that exists
    with pytest.raises(FileNotFoundError, match="no instance maps in"):
        load_dataset(tmp_path, format="instance_ids")
    with pytest.raises(FileNotFoundError, match="does not match rle_csv: expected a CSV file .*; found inst"):
        load_dataset(tmp_path, format="rle_csv")
    table = tmp_path / "t.csv"
    table.write_text("ImageId,Pixels\n")
    with pytest.raises(AnnotationError, match="t.csv, line 1, field 'EncodedPixels'"):
        load_dataset(table, format="rle_csv")


def test_data_at_hand():
    if not SHARED.is_dir():
        pytest.skip(f"no data at {SHARED}")
    expected = {
        ("coco_mini", "val2017"): "coco",
        ("balloon", "val"): "via",
        ("nuclei_dsb2018", "val"): "mask_files",
        ("fashion_ccp/val.csv", None): "rle_csv",
    }
    assert {key: recognize(SHARED / key[0], key[1]) for key in expected} == expected


def test_public_and_light():
    assert utils.load_dataset is load_dataset
    code = (
        "import sys, mrcnn.data.formats; print([n for n in sys.modules if n.split('.')[0] in "
        "('keras', 'tensorflow', 'matplotlib', 'skimage', 'scipy', 'pycocotools', 'PIL', 'yaml')])"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_no_reader_looks_far_into_a_large_coco_file(tmp_path, monkeypatch):
    """The keys at its start say what it is. Reading on would take seconds for hundreds of megabytes."""
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "height": 8, "width": 8} for i in range(1, 3001)]
    content = {"info": {}, "licenses": [], "images": images, "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "images").mkdir()
    for image in images:
        (tmp_path / "images" / str(image["file_name"])).touch()
    path = tmp_path / "large.json"
    path.write_text(json.dumps(content))
    looked_at = []
    keys = text_files._keys
    monkeypatch.setattr(text_files, "_keys", lambda text: looked_at.append(len(text)) or keys(text))
    assert load_dataset(path).num_images == 3000
    assert path.stat().st_size > 3 * max(looked_at) and max(looked_at) == text_files.HEADS[0]
