"""Classes and functions that programs of the old package import from its samples."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from mrcnn.config import Config
from mrcnn.inference.results import Result
from mrcnn.legacy.removed import RemovedNameError
from samples.balloon import balloon
from samples.coco import coco
from samples.nucleus import nucleus
from samples.shapes import shapes
from tests.old_programs import write_balloons, write_nuclei
from tests.samples.tiny_coco import write_coco

ROOT = Path(__file__).resolve().parents[2]


class Found:
    """A model that finds the ground truth of a dataset."""

    def __init__(self, dataset, score=0.9):
        self.dataset, self.score, self.images = dataset, score, 0

    def detect(self, images, verbose=0):
        assert len(images) == 1
        masks, class_ids = self.dataset.load_mask(self.images)
        self.images += 1
        return [perfect(masks, class_ids, self.score)]


def perfect(masks, class_ids, score=0.9):
    from mrcnn.utils import extract_bboxes

    boxes = extract_bboxes(masks).astype(np.float32)
    return Result(boxes, class_ids, np.full(len(boxes), score, np.float32), masks, masks.shape[:2])


def test_balloons_are_loaded_by_a_method(tmp_path):
    with pytest.warns(UserWarning, match="left out 1 x image without instances"):
        write_balloons(tmp_path / "train", 3, dict)
        dataset = balloon.BalloonDataset()
        dataset.load_balloon(str(tmp_path), "train")
        dataset.prepare()
    assert (dataset.class_names, dataset.num_images) == (["BG", "balloon"], 3)
    masks, class_ids = dataset.load_mask(1)
    assert masks.shape == (48, 64, 1) and class_ids.tolist() == [1] and masks[12:30, 15:25].all()
    assert dataset.image_reference(1) == str(tmp_path / "train" / "1.png")
    assert dataset.image_info[1]["source"] == "balloon" and dataset.load_image(0).shape == (48, 64, 3)


@pytest.mark.filterwarnings("ignore:.*left out 1 x image without instances")
def test_two_parts_and_another_source_in_one_dataset(tmp_path):
    class Both(balloon.BalloonDataset):
        def load_mask(self, image_id):
            if self.image_info[image_id]["source"] != "balloon":
                return np.ones((4, 4, 1), bool), np.array([self.map_source_class_id("other.5")])
            return super().load_mask(image_id)

    write_balloons(tmp_path / "train", 2, dict)
    write_balloons(tmp_path / "val", 1, list)
    dataset = Both()
    dataset.add_class("other", 5, "kite")
    dataset.add_image("other", image_id="kite", path=None)
    for subset in ("train", "val"):
        dataset.load_balloon(tmp_path, subset)
    dataset.prepare()
    assert dataset.class_names == ["BG", "kite", "balloon"] and dataset.num_images == 4
    assert [dataset.load_mask(i)[1].tolist() for i in range(4)] == [[1], [2], [2], [2]]


@pytest.mark.parametrize("kind", ["image", "video"])
def test_an_image_or_a_video_is_splashed(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    frames = [np.full((32, 48, 3), (200, 30, 30 + i), np.uint8) for i in range(3)]
    masks = np.zeros((32, 48, 1), bool)
    masks[8:24, 8:24] = True

    class Model:
        def detect(self, images, verbose=0):
            return [perfect(masks, np.array([1], np.int32)) for _ in images]

    if kind == "image":
        cv2.imwrite("sky.png", frames[0][..., ::-1])
        balloon.detect_and_color_splash(Model(), image_path="sky.png")
        written = cv2.imread("sky_splash.png")[..., ::-1]
    else:
        writer = cv2.VideoWriter("sky.avi", cv2.VideoWriter_fourcc(*"MJPG"), 5, (48, 32))
        for frame in frames:
            writer.write(frame[..., ::-1])
        writer.release()
        balloon.detect_and_color_splash(Model(), video_path="sky.avi")
        written = cv2.VideoCapture("sky_splash.mp4").read()[1][..., ::-1]
    inside, outside = written[16, 16].astype(int), written[2, 40].astype(int)
    assert inside[0] > inside[1] + 100 and np.ptp(outside) < 12
    with pytest.raises(ValueError, match="pass either image_path or video_path, got None and None"):
        balloon.detect_and_color_splash(Model())


def test_nuclei_are_loaded_by_a_method(tmp_path):
    write_nuclei(tmp_path / "stage1_train", 40)
    parts = {}
    for subset in ("train", "val", "stage1_train"):
        dataset = nucleus.NucleusDataset()
        dataset.load_nucleus(str(tmp_path), subset)
        dataset.prepare()
        parts[subset] = {dataset.image_reference(i) for i in dataset.image_ids}
    assert parts["train"] | parts["val"] == parts["stage1_train"] and len(parts["stage1_train"]) == 40
    assert 0 < len(parts["val"]) < 8 and not parts["train"] & parts["val"]
    masks, class_ids = dataset.load_mask(0)
    assert masks.shape[2] == len(class_ids) == 2 and dataset.class_names == ["BG", "nucleus"]
    write_nuclei(tmp_path / "val", 2)  # a folder of that name is taken as it is
    dataset = nucleus.NucleusDataset()
    dataset.load_nucleus(tmp_path, "val")
    assert len(dataset.image_info) == 2


def test_run_lengths_of_a_submission():
    mask = np.zeros((3, 4), bool)
    mask[1:, 1] = mask[0, 2] = True
    assert nucleus.rle_encode(mask) == "5 3"
    np.testing.assert_array_equal(nucleus.rle_decode("5 3", (3, 4)), mask)
    assert nucleus.rle_encode(np.zeros((3, 4))) == ""
    both = np.stack([mask, np.ones((3, 4), bool)], axis=-1)
    assert nucleus.mask_to_rle("a", both, np.array([0.9, 0.5])) == "a, 5 3\na, 1 4 8 5"
    assert nucleus.mask_to_rle("a", both, np.array([0.5, 0.9])) == "a, 1 12"  # nothing is left of the other
    assert nucleus.mask_to_rle("a", both[..., :0], np.zeros(0)) == "a,"


def test_nuclei_are_submitted_by_a_function(tmp_path):
    write_nuclei(tmp_path / "stage1_test", 2)
    dataset = nucleus.NucleusDataset()
    dataset.load_nucleus(tmp_path, "stage1_test")
    dataset.prepare()
    nucleus.detect(Found(dataset), str(tmp_path), "stage1_test", output=str(tmp_path / "out.csv"))
    rows = list(csv.reader(open(tmp_path / "out.csv")))
    assert rows[0] == ["ImageId", "EncodedPixels"] and [row[0] for row in rows[1:]] == ["n0", "n0", "n1", "n1"]


def test_nuclei_are_found_in_whole_images():
    config = nucleus.NucleusInferenceConfig()
    assert (config.IMAGE_RESIZE_MODE, config.BATCH_SIZE, config.NAME) == ("pad64", 1, "nucleus")
    with pytest.raises(RemovedNameError, match="held out by id"):
        len(nucleus.VAL_IMAGE_IDS)


def test_coco_is_loaded_by_a_method_and_evaluated(tmp_path, capsys):
    write_coco(tmp_path, year=2014)
    dataset = coco.CocoDataset()
    truth = dataset.load_coco(str(tmp_path), "val", year="2014", return_coco=True)
    dataset.prepare()
    assert dataset.class_names == ["BG", "disc", "box"] and dataset.get_source_class_id(2, "coco") == 7
    assert [info["id"] for info in dataset.image_info] == [500, 501]
    for kind in ("bbox", "segm"):
        coco.evaluate_coco(Found(dataset), dataset, truth, kind)
        assert printed_ap(capsys) > 0.9  # the file's boxes are those of the polygons
    coco.evaluate_coco(Found(dataset), dataset, truth, "segm", limit=1, image_ids=[0])
    assert printed_ap(capsys) > 0.9
    nothing = SimpleNamespace(detect=lambda images: [perfect(np.zeros((64, 80, 0), bool), np.zeros(0, np.int32))])
    coco.evaluate_coco(nothing, dataset, truth)
    assert capsys.readouterr().out == "No detections in 2 images.\n"


def printed_ap(capsys):
    (ap,) = re.findall(r"0.50:0.95 \| area=   all \| maxDets=100 \] = (.*)\n Average Prec", capsys.readouterr().out)
    return float(ap)


def test_some_of_cocos_classes(tmp_path):
    write_coco(tmp_path)
    dataset = coco.CocoDataset()
    assert dataset.load_coco(tmp_path, "train", year=2017, class_ids=[7]) is None
    dataset.prepare()
    assert dataset.class_names == ["BG", "box"] and dataset.get_source_class_id(1, "coco") == 7
    assert dataset.load_mask(0)[0].shape[2] == 1


def test_coco_results_by_hand(tmp_path):
    write_coco(tmp_path)
    dataset = coco.CocoDataset()
    dataset.load_coco(tmp_path, "val", year=2017)
    dataset.prepare()
    mask = np.zeros((4, 6, 1), bool)
    mask[1:3, 2:5] = True
    (result,) = coco.build_coco_results(
        dataset, [500], np.array([[1, 2, 3, 5]]), np.array([2]), np.array([0.5], np.float32), mask
    )
    assert (result["image_id"], result["category_id"], result["bbox"]) == (500, 7, [2, 1, 3, 2])
    assert result["score"] == 0.5 and result["segmentation"]["size"] == [4, 6]
    assert coco.build_coco_results(dataset, [500], None, np.array([]), np.array([]), mask) == []


def test_masks_of_cocos_annotations():
    dataset = coco.CocoDataset()
    square = {"segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]}
    expected = np.zeros((5, 6), np.uint8)
    expected[1:3, 1:4] = 1
    np.testing.assert_array_equal(dataset.annToMask(square, 5, 6), expected)
    uncompressed = {"segmentation": {"size": [5, 6], "counts": [6, 2, 3, 2, 3, 2, 12]}}
    np.testing.assert_array_equal(dataset.annToMask(uncompressed, 5, 6), expected)
    compressed = {"segmentation": dataset.annToRLE(square, 5, 6)}
    np.testing.assert_array_equal(dataset.annToMask(compressed, 5, 6), expected)


def test_shapes_are_loaded_by_a_method():
    dataset = shapes.ShapesDataset()
    dataset.load_shapes(2, 64, 64)
    dataset.prepare()
    assert dataset.load_image(1).shape == (64, 64, 3)
    with pytest.raises(RemovedNameError, match=r"samples\.shapes\.drawing\.paint"):
        dataset.draw_shape(None, "square", (1, 1, 1), (0, 0, 0))


def test_folders_are_those_of_the_checkout():
    for sample in (balloon, coco, nucleus):
        assert ROOT == Path(sample.ROOT_DIR) and sample.DEFAULT_LOGS_DIR == os.path.join(sample.ROOT_DIR, "logs")
    assert balloon.COCO_WEIGHTS_PATH == coco.COCO_MODEL_PATH == os.path.join(str(ROOT), "mask_rcnn_coco.h5")
    assert issubclass(coco.CocoConfig, Config)


def run(code, folder, *paths):
    """What a program prints that is run in a folder, with some folders on its path."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.mark.slow
def test_samples_are_found_as_old_notebooks_look_for_them(tmp_path):
    code = f"""import os, sys
ROOT_DIR = {str(ROOT)!r}
sys.path.append(ROOT_DIR)
sys.path.append(os.path.join(ROOT_DIR, "samples/balloon/"))
import balloon
print(balloon.BalloonDataset.__name__)"""
    assert run(code, tmp_path) == "BalloonDataset"


@pytest.mark.parametrize("package", [False, True])
def test_a_samples_folder_of_the_program_s_own_is_found(tmp_path, package):
    own = tmp_path / "samples" / "cats"
    own.mkdir(parents=True)
    (own / "cats.py").write_text("from mrcnn.utils import Dataset\nprint('own')\n")
    if package:
        for folder in (own, own.parent):
            (folder / "__init__.py").touch()
    code = f"import sys; sys.path.append({str(tmp_path)!r}); from samples.cats import cats"
    assert run(code, ROOT, ROOT) == "own"  # ours stand before it on the path
