"""The nucleus sample from the command line, on a few generated images."""

import csv
import json
import shlex
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from mrcnn.data.augmentation import apply_imgaug
from mrcnn.data.rle import decode, pairs_to_rle
from samples.nucleus import nucleus

pytestmark = pytest.mark.slow

TINY = {
    "BACKBONE_OPTIONS": {"alpha": 0.25},
    "IMAGE_MIN_DIM": 64,
    "IMAGE_MAX_DIM": 64,
    "TOP_DOWN_PYRAMID_SIZE": 8,
    "RPN_CHANNELS": 8,
    "FPN_CLASSIF_FC_LAYERS_SIZE": 16,
    "MASK_HEAD": {"name": "fcn", "filters": 8},
    "TRAIN_ROIS_PER_IMAGE": 16,
    "POST_NMS_ROIS_TRAINING": 32,
    "POST_NMS_ROIS_INFERENCE": 16,
    "IMAGES_PER_GPU": 2,
    "DETECTION_MAX_INSTANCES": 16,
    "MAX_GT_INSTANCES": 16,
    "LOADER_WORKERS": 1,
    "WARMUP_STEPS": 0,
    "SEED": 3,
}
DISCS = [(12, 14, 6), (12, 40, 5), (34, 26, 8)]  # y, x, radius


def write_image(folder, image_id, masks=True, size=(48, 56)):
    """<id>/images/<id>.png and, unless it is to be submitted, <id>/masks/*.png."""
    noise = np.random.default_rng(len(image_id)).integers(0, 40, (*size, 3), dtype=np.uint8)
    (folder / image_id / "images").mkdir(parents=True)
    if masks:
        (folder / image_id / "masks").mkdir()
    for i, (y, x, radius) in enumerate(DISCS):
        mask = np.zeros(size, np.uint8)
        cv2.circle(mask, (x, y), radius, 255, -1)
        noise[mask > 0] += 160
        if masks:
            cv2.imwrite(str(folder / image_id / "masks" / f"{i}.png"), mask)
    cv2.imwrite(str(folder / image_id / "images" / f"{image_id}.png"), noise)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """train/ with 3 images, val/ with 2, stage1_test/ with 2 without masks."""
    root = tmp_path_factory.mktemp("nuclei")
    for part, ids in (("train", ("aa", "bbb", "cccc")), ("val", ("d", "ee")), ("stage1_test", ("x", "yy"))):
        for image_id in ids:
            write_image(root / part, image_id, masks=part != "stage1_test")
    nucleus.NucleusConfig(**TINY).save(root / "tiny.json")
    return root


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    logs = tmp_path_factory.mktemp("logs")
    nucleus.main(
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
            "--augment",
            "--verbose",
            "0",
        ]
    )
    return logs


def test_dataset_is_one_mask_a_nucleus(folder):
    dataset = nucleus.load_nuclei(folder, "train")
    assert dataset.class_names == ["BG", "nucleus"]
    assert [info["id"] for info in dataset.image_info] == ["aa", "bbb", "cccc"]
    masks, class_ids = dataset.load_mask(1)
    assert class_ids.tolist() == [1, 1, 1] and masks.shape == (48, 56, 3)
    assert [masks[y, x].tolist() for y, x, _ in DISCS] == np.eye(3, dtype=bool).tolist()


def test_train_writes_a_run_with_its_settings(trained):
    (run,) = trained.iterdir()
    assert {"mask_rcnn_nucleus_0001.h5", "config.json", "log.csv"} <= {path.name for path in run.iterdir()}
    settings = json.loads((run / "config.json").read_text())
    assert settings["IMAGE_RESIZE_MODE"] == "crop" and settings["MASK_HEAD"]["convolutions"] == 1
    header, values = (run / "log.csv").read_text().splitlines()
    assert "val_mrcnn_mask_loss" in header.split(",") and "nan" not in values


def test_evaluate_prints_tables_and_draws(trained, folder, tmp_path, capsys):
    nucleus.main(
        ["evaluate", "--dataset", str(folder), "--weights", "last", "--logs", str(trained), "--pictures", str(tmp_path)]
    )
    printed = capsys.readouterr().out
    assert "AP50" in printed and "2 images, 6 instances" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.png", "ee.png"]


def test_a_share_of_the_training_images_is_held_out(folder):
    arguments = nucleus.parse(["train", "--dataset", str(folder), "--weights", "none", "--validation", "0.5"])
    load = partial(nucleus.load_nuclei, folder)
    training, validation = nucleus.competition.datasets(load, arguments)
    ids = [
        {info["id"]: len(part.load_mask(i)[1]) for i, info in enumerate(part.image_info)}
        for part in (training, validation)
    ]
    assert ids[0] and ids[1] and ids[0] | ids[1] == {"aa": 3, "bbb": 3, "cccc": 3} and not set(ids[0]) & set(ids[1])


@pytest.mark.parametrize("command, mode", [("train", "crop"), ("evaluate", "pad64"), ("submit", "pad64")])
def test_training_sees_crops_and_detection_whole_images(command, mode, folder, trained, monkeypatch):
    seen = []
    monkeypatch.setattr(nucleus.competition, "MaskRCNN", lambda _mode, config, _logs: seen.append(config) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        nucleus.main(
            [
                command,
                "--dataset",
                str(folder),
                "--logs",
                str(trained),
                "--subset",
                "train",
                "--weights",
                "none" if command == "train" else "last",
            ]
        )
    assert seen[0].IMAGE_RESIZE_MODE == mode and seen[0].IMAGE_MIN_SCALE == 2


def test_submit_writes_what_detect_finds(trained, folder, tmp_path):
    csv_file = tmp_path / "submission.csv"
    nucleus.main(
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
            "stage1_test",
            "--output",
            str(csv_file),
        ]
    )
    header, *rows = list(csv.reader(csv_file.open(newline="")))
    assert header == ["ImageId", "EncodedPixels"]
    assert list(dict.fromkeys(image_id for image_id, _ in rows)) == ["x", "yy"]
    for image_id in ("x", "yy"):
        masks = [decode(pairs_to_rle(pixels, 48, 56)) for name, pixels in rows if name == image_id]
        assert np.sum(masks, axis=0).max() <= 1


def test_rows_are_the_masks_without_overlap_the_surer_first():
    masks = np.zeros((6, 5, 3), bool)
    masks[1:4, 1:3, 0] = masks[2:6, 2:5, 1] = True
    masks[2:4, 2:3, 2] = True  # inside the first
    found = {"masks": masks, "scores": np.array([0.7, 0.9, 0.8])}
    rows = list(nucleus.submission_rows("im", found))
    decoded = [decode(pairs_to_rle(pixels, 6, 5)) for _, pixels in rows]
    assert [image_id for image_id, _ in rows] == ["im", "im"]  # nothing is left of the third
    np.testing.assert_array_equal(decoded[0], masks[:, :, 1])
    np.testing.assert_array_equal(decoded[1], masks[:, :, 0] & ~masks[:, :, 1])


def test_an_image_without_nuclei_has_an_empty_row():
    found = {"masks": np.zeros((6, 5, 0), bool), "scores": np.zeros(0)}
    assert list(nucleus.submission_rows("im", found)) == [("im", "")]


def test_images_of_a_part_need_no_masks(folder):
    assert nucleus.image_files(folder, "stage1_test") == [
        (name, folder / "stage1_test" / name / "images" / f"{name}.png") for name in ("x", "yy")
    ]


def test_a_part_that_is_not_there_names_those_that_are(folder, trained):
    with pytest.raises(
        FileNotFoundError, match="folder .*test' does not exist; .* holds stage1_test/, tiny.json, train/, val/"
    ):
        nucleus.main(["submit", "--dataset", str(folder), "--weights", "none", "--logs", str(trained)])
    with pytest.raises(FileNotFoundError, match="stage1_train"):
        nucleus.load_nuclei(folder, "stage1_train")


def test_readme_has_the_trial_that_the_sample_speaks_of_and_its_commands_are_accepted():
    readme = (Path(nucleus.__file__).parent / "README.md").read_text(encoding="utf-8")
    assert "results of a short trial" in nucleus.__doc__ and "## A short trial" in readme
    commands = [shlex.split(line)[2:] for line in readme.splitlines() if line.startswith("python samples/nucleus/")]
    trial = [nucleus.parse(command) for command in commands if "--precision" in command]
    assert len(commands) == 5 and [arguments.epochs for arguments in trial] == [2]
    assert nucleus.competition.configuration(nucleus.NucleusConfig, trial[0]).WARMUP_STEPS == 30
    for command in commands:
        assert nucleus.parse(command).command == command[0]


@pytest.mark.parametrize("names, message", [((), r"id.images holds \[\]"), (("1.png", "2.png"), "'1.png', '2.png'")])
def test_an_id_has_one_image(names, message, tmp_path):
    (tmp_path / "id" / "images").mkdir(parents=True)
    for name in names:
        (tmp_path / "id" / "images" / name).write_bytes(b"")
    with pytest.raises(ValueError, match=f"{message}.*expected one image"):
        nucleus.image_files(tmp_path.parent, tmp_path.name)


def test_a_folder_without_images_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no <id>/images/<id>.png"):
        nucleus.image_files(tmp_path.parent, tmp_path.name)


@pytest.mark.parametrize("size", [(48, 56), (40, 40)])
@pytest.mark.parametrize("copies", [1, 50])  # OpenCV has no pictures of so many channels
def test_augmentation_moves_masks_with_their_image(size, copies):
    masks = np.zeros((*size, len(DISCS) * copies), bool)
    for i, (y, x, radius) in enumerate(DISCS * copies):
        masks[max(0, y - radius) : y + radius, max(0, x - radius) : x + radius, i] = True
    image = np.where(masks.any(axis=2), 250, 0).astype(np.uint8)[..., None].repeat(3, axis=2)
    augmenter, places = nucleus.augmenter(), set()
    for seed in range(12):
        boxes = np.zeros((masks.shape[2], 4))
        shown, moved, _ = apply_imgaug(image, masks, boxes, augmenter, np.random.default_rng(seed))
        assert shown.shape == image.shape and moved.shape == masks.shape
        assert ((shown[..., 0] > 100) == moved.any(axis=2)).mean() > 0.95  # blurred edges aside
        places.add(moved.tobytes())
    assert len(places) >= (4 if size[0] == size[1] else 2)  # of 8, and of 2 where nothing is turned
