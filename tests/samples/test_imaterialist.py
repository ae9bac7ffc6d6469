"""The iMaterialist sample from the command line, on a few generated photographs."""

import csv
import json

import cv2
import numpy as np
import pytest

from mrcnn.data.annotations.problems import AnnotationError
from mrcnn.data.rle import decode, pairs_to_rle
from samples.imaterialist import imaterialist
from samples.submission import encoded_pixels

pytestmark = pytest.mark.slow

TINY = {
    "BACKBONE_OPTIONS": {"alpha": 0.25},
    "IMAGE_MIN_DIM": 64,
    "IMAGE_MAX_DIM": 64,
    "TOP_DOWN_PYRAMID_SIZE": 8,
    "RPN_CHANNELS": 8,
    "FPN_CLASSIF_FC_LAYERS_SIZE": 16,
    "MASK_HEAD": {"name": "fcn", "filters": 8},
    "RPN_ANCHOR_SCALES": (8, 16, 32, 48, 64),
    "TRAIN_ROIS_PER_IMAGE": 16,
    "POST_NMS_ROIS_TRAINING": 32,
    "POST_NMS_ROIS_INFERENCE": 16,
    "DETECTION_MAX_INSTANCES": 16,
    "DETECTION_MIN_CONFIDENCE": 0.0,
    "LOADER_WORKERS": 1,
    "WARMUP_STEPS": 0,
    "SEED": 3,
}
NAMES = ["shirt, blouse", "shoe", "hat"]  # ids 0, 1, 2, as the competition counts; and its first name, commas and all
HEIGHT, WIDTH = 64, 48
PARTS = ("train", "val")


def write_part(root, part, count):
    """Photographs of a shirt with a shoe below; the csv is of 2019, with attributes behind one class."""
    (root / part).mkdir()
    rows = []
    for i in range(count):
        image = np.random.default_rng(i).integers(0, 40, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        for (y1, x1, y2, x2), class_id in (((8, 8, 36, 40), "0_2_5"), ((44, 10 + i, 60, 30), "1")):
            mask = np.zeros((HEIGHT, WIDTH), bool)
            mask[y1:y2, x1:x2] = True
            image[mask] += 160
            rows.append([f"{i}.png", encoded_pixels(mask), HEIGHT, WIDTH, class_id])
        cv2.imwrite(str(root / part / f"{i}.png"), image)
    with open(root / f"{part}.csv", "w", newline="") as file:
        csv.writer(file).writerows([["ImageId", "EncodedPixels", "Height", "Width", "ClassId"], *rows])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """train with 3 photographs, val with 2, and the names of three classes, one of which nobody wears."""
    root = tmp_path_factory.mktemp("fashion")
    write_part(root, "train", 3)
    write_part(root, "val", 2)
    categories = [{"id": i, "name": name, "supercategory": "all"} for i, name in enumerate(NAMES)]
    (root / "label_descriptions.json").write_text(json.dumps({"categories": categories}))
    imaterialist.FashionConfig(**TINY).save(root / "tiny.json")
    return root


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    logs = tmp_path_factory.mktemp("logs")
    imaterialist.main(
        [
            "train",
            "--dataset",
            str(folder),
            "--weights",
            "none",
            "--logs",
            str(logs),
            "--epochs",
            "1",
            "--config",
            str(folder / "tiny.json"),
            "--head-option",
            "convolutions=1",
            "--verbose",
            "0",
        ]
    )
    return logs


def test_classes_are_those_with_names_whatever_the_csv_holds(folder):
    dataset = imaterialist.load_fashion(folder, "val")
    assert dataset.class_names == ["BG", *NAMES]
    masks, class_ids = dataset.load_mask(1)
    assert class_ids.tolist() == [1, 2]
    assert masks[:, :, 0].sum() == 28 * 32 and masks[50, 12].tolist() == [False, True] and not masks[50, 10].any()


def test_train_writes_a_run_that_knows_the_classes_of_the_data(trained):
    (run,) = trained.iterdir()
    assert {"mask_rcnn_imaterialist_0001.h5", "config.json", "log.csv"} <= {path.name for path in run.iterdir()}
    settings = json.loads((run / "config.json").read_text())
    assert settings["NUM_CLASSES"] == 1 + len(NAMES) and settings["MASK_HEAD"]["convolutions"] == 1
    header, values = (run / "log.csv").read_text().splitlines()
    assert "val_mrcnn_mask_loss" in header.split(",") and "nan" not in values


def test_evaluate_prints_tables_and_draws(trained, folder, tmp_path, capsys):
    imaterialist.main(
        ["evaluate", "--dataset", str(folder), "--weights", "last", "--logs", str(trained), "--pictures", str(tmp_path)]
    )
    printed = capsys.readouterr().out
    assert "AP50" in printed and "2 images, 4 instances" in printed and "hat" in printed
    assert "shirt, blouse" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "1.png"]


def test_names_with_commas_come_back_whole_from_the_checkpoint(trained, folder):
    arguments = imaterialist.parse(["submit", "--dataset", str(folder), "--weights", "last", "--logs", str(trained)])
    config = imaterialist.competition.configuration(imaterialist.FashionConfig, arguments)
    names = imaterialist.competition.build(config, arguments).class_names
    assert names == ["BG", *NAMES] and imaterialist.class_ids(folder, names) == [0, 1, 2]


def test_submit_writes_what_detect_finds(trained, folder, tmp_path):
    csv_file = tmp_path / "submission.csv"
    imaterialist.main(
        [
            "submit",
            "--dataset",
            str(folder),
            "--weights",
            "last",
            "--logs",
            str(trained),
            "--min-score",
            "0",
            "--subset",
            "val",
            "--output",
            str(csv_file),
        ]
    )
    header, *rows = list(csv.reader(csv_file.open(newline="")))
    assert header == ["ImageId", "EncodedPixels", "ClassId"]
    assert list(dict.fromkeys(row[0] for row in rows)) == ["0.png", "1.png"]
    assert {row[2] for row in rows} <= {"0", "1", "2"}
    for image_id in ("0.png", "1.png"):
        masks = [decode(pairs_to_rle(pixels, HEIGHT, WIDTH)) for name, pixels, _ in rows if name == image_id]
        assert np.sum(masks, axis=0).max() <= 1


def test_rows_are_the_masks_without_overlap_the_smaller_first():
    masks = np.zeros((6, 5, 2), bool)
    masks[:, :4, 0] = masks[2:4, 2:5, 1] = True  # a pocket on a jacket, and over its edge
    found = {"masks": masks, "scores": np.array([0.9, 0.6]), "class_ids": np.array([1, 3])}
    (_, pocket, pocket_id), (image_id, jacket, jacket_id) = imaterialist.submission_rows([10, 20, 30], "a.jpg", found)
    assert (image_id, jacket_id, pocket_id) == ("a.jpg", 10, 30)
    np.testing.assert_array_equal(decode(pairs_to_rle(pocket, 6, 5)), masks[:, :, 1])
    np.testing.assert_array_equal(decode(pairs_to_rle(jacket, 6, 5)), masks[:, :, 0] & ~masks[:, :, 1])


def test_an_image_without_masks_is_not_missing():
    found = {"masks": np.zeros((6, 5, 0), bool), "scores": np.zeros(0), "class_ids": np.zeros(0, int)}
    assert list(imaterialist.submission_rows([10, 20], "a.jpg", found)) == [("a.jpg", "1 1", 10)]


def test_class_ids_are_the_competition_s(folder, tmp_path):
    assert imaterialist.class_ids(folder, ["BG", *NAMES]) == [0, 1, 2]
    assert imaterialist.class_ids(folder, ["BG", "hat", "shirt, blouse"]) == [2, 0]
    assert imaterialist.class_ids(tmp_path, ["BG", "4", "17"]) == [4, 17]  # classes without names


@pytest.mark.parametrize(
    "names, message",
    [
        (["BG", "shirt, blouse", "scarf"], r"has classes \['scarf'\], which .*label_descriptions.json does not; set"),
        (["BG", "shirt"], r"has classes \['shirt'\], which .*label_descriptions.json does not"),
        ([], "submit needs a checkpoint made by `train`"),
    ],
)
def test_classes_of_other_data_are_an_error(names, message, folder):
    with pytest.raises(ValueError, match=message):
        imaterialist.class_ids(folder, names)


@pytest.mark.parametrize(
    "content, message",
    [
        ("{}", "field 'categories': expected a list of id and"),
        ('{"categories": 3}', "field 'categories': expected a list of id and name, got 3"),
        ("[]", "field 'categories': expected a list of id and"),
        ('{"categories": [{"name": "hat"}]}', r"categories\[0\], field 'id': expected an integer id and a name"),
        ('{"categories": [{"id": true, "name": "hat"}]}', r"categories\[0\], field 'id': expected an integer id"),
        ('{"categories": [{"id": "3", "name": "hat"}]}', r"categories\[0\], field 'id': expected an integer id"),
        ('{"categories": [{"id": 3, "name": ["hat"]}]}', r"categories\[0\], field 'name': expected an integer id"),
    ],
)
def test_a_broken_file_of_names_is_named(content, message, tmp_path):
    (tmp_path / "label_descriptions.json").write_text(content)
    with pytest.raises(AnnotationError, match=f"label_descriptions.json, {message}"):
        imaterialist.class_ids(tmp_path, ["BG", "hat"])


def test_without_names_classes_are_called_by_their_ids(folder, tmp_path):
    write_part(tmp_path, "train", 1)
    assert imaterialist.load_fashion(tmp_path, "train").class_names == ["BG", "0", "1"]
    with pytest.raises(
        AnnotationError, match=r"train.csv, line 3, field 'ClassId'.*class 1 is '1', which is not among \['0'\]"
    ):
        imaterialist.load_fashion(tmp_path, "train", class_names=["0"])


def test_without_names_the_training_part_says_the_classes_of_all(tmp_path, monkeypatch):
    write_part(tmp_path, "train", 1)
    write_part(tmp_path, "val", 1)
    (tmp_path / "val.csv").write_text("\n".join((tmp_path / "val.csv").read_text().splitlines()[:2]) + "\n")
    seen = []
    monkeypatch.setattr(imaterialist.competition, "datasets", lambda load, _: seen.extend(map(load, PARTS)) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        imaterialist.main(["train", "--dataset", str(tmp_path), "--weights", "none"])
    assert [dataset.class_names for dataset in seen] == [["BG", "0", "1"]] * 2


def test_what_is_not_there_is_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="folder .*test' does not exist; .* holds .*train/, train.csv, val/"):
        imaterialist.main(["submit", "--dataset", str(folder), "--weights", "none"])
    (tmp_path / "test").mkdir()
    with pytest.raises(FileNotFoundError, match=r"test holds no images \(.jpg"):
        imaterialist.image_files(tmp_path, "test")
    (tmp_path / "val").mkdir()
    with pytest.raises(FileNotFoundError, match="val.csv"):
        imaterialist.load_fashion(tmp_path, "val")


def test_broken_runs_name_their_line(tmp_path):
    write_part(tmp_path, "train", 1)
    with open(tmp_path / "train.csv", "a") as file:
        file.write(f"0.png,5 3 4,{HEIGHT},{WIDTH},1\n")
    with pytest.raises(AnnotationError, match="train.csv, line 4, field 'EncodedPixels'.*3 numbers; expected pairs"):
        imaterialist.load_fashion(tmp_path, "train")
