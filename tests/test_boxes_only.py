"""Faster R-CNN: MASK_HEAD = None on data that has boxes only, from the reader to the numbers."""

import json

import numpy as np
import pytest

from mrcnn.data.formats import load_dataset
from mrcnn.data.loader import Loader
from mrcnn.data.masks import extract_bboxes
from mrcnn.data.sample import read_sample
from mrcnn.evaluation.callback import AveragePrecision
from mrcnn.evaluation.coco_evaluation import evaluate, evaluate_results
from mrcnn.evaluation.coco_metrics import coco_matches
from mrcnn.model import MaskRCNN
from mrcnn.network.pixels import PixelScaling
from tests.tiny import SIDE, TinyConfig, TinyDataset

PLAIN = PixelScaling((127.5,) * 3, (127.5,) * 3)


class BoxDataset(TinyDataset):
    """`TinyDataset` without its masks."""

    masks = False

    def load_image(self, image_id):
        return TinyDataset(len(self.image_info)).load_image(image_id)

    def load_mask(self, image_id):
        raise AssertionError("nobody asks for masks")

    def load_boxes(self, image_id):
        return extract_bboxes(TinyDataset.load_mask(self, image_id)[0]) + 0.25

    def load_class_ids(self, image_id):
        return TinyDataset.load_mask(self, image_id)[1]


def boxed(**settings):
    return TinyConfig(MASK_HEAD=None, **settings)


def test_a_sample_of_boxes():
    """Boxes stay as they are, to the fraction of a pixel; what lies inside stands for a mask."""
    dataset = BoxDataset(2)
    sample = read_sample(dataset, 0, 3, masks_needed=False)
    np.testing.assert_allclose(sample.boxes, dataset.load_boxes(0))
    y1, x1, y2, x2 = sample.boxes[0]
    expected = (np.ceil(y2) - np.floor(y1)) * (np.ceil(x2) - np.floor(x1))
    assert sample.masks.shape == (SIDE, SIDE, len(sample.boxes)) and sample.masks[..., 0].sum() == expected
    np.testing.assert_array_equal(sample.class_ids, dataset.load_class_ids(0))


def test_without_boxes_they_come_from_the_masks():
    sample = read_sample(TinyDataset(1), 0, 3, masks_needed=False)
    np.testing.assert_array_equal(sample.boxes, extract_bboxes(TinyDataset(1).load_mask(0)[0]))


@pytest.mark.parametrize("wrong", [[[0, 0, 1]], [[0, 0, np.nan, 1]]])
def test_wrong_boxes_are_named(wrong):
    dataset = BoxDataset(1)
    dataset.load_boxes = lambda image_id: np.array(wrong, float)
    dataset.load_class_ids = lambda image_id: np.array([1])
    with pytest.raises(ValueError, match="load_boxes returned"):
        read_sample(dataset, 0, 3, masks_needed=False)


@pytest.mark.parametrize("settings", [{}, {"HORIZONTAL_FLIP": 1.0}, {"SCALE_JITTER": (1.5, 2.0)}])
def test_batches_have_no_masks(settings):
    loader = Loader(BoxDataset(4), boxed(**settings), scaling=PLAIN, steps=1)
    (batch,) = loader[0]
    assert "gt_masks" not in batch and batch.keys() == loader.signature().keys()
    boxes = batch["gt_boxes"][batch["gt_class_ids"] != 0]
    assert len(boxes) and (boxes[:, 2:] > boxes[:, :2]).all() and boxes.min() >= 0 and boxes.max() <= SIDE
    loader.close()


def test_a_mask_head_needs_masks():
    message = "BoxDataset only has boxes, but MASK_HEAD is .*'fcn'.*; set MASK_HEAD = None to train without masks"
    with pytest.raises(ValueError, match=message):
        Loader(BoxDataset(2), TinyConfig(), scaling=PLAIN)


@pytest.mark.slow
def test_trains_evaluates_and_detects(tmp_path, capsys):
    data = BoxDataset(4)
    model = MaskRCNN("training", boxed(DETECTION_MIN_CONFIDENCE=0.0), tmp_path)
    judge = AveragePrecision(model, data, verbose=1)
    history = model.train(data, None, epochs=1, verbose=0, custom_callbacks=[judge]).history
    assert np.isfinite(history["loss"]).all() and "mrcnn_mask_loss" not in history
    assert judge.metric == "box AP" and set(judge.history[1]) == {"box"}
    assert "val_mask_AP" not in (model.log_dir / "log.csv").read_text()
    assert "mask AP" not in capsys.readouterr().out
    results = evaluate(model, data, progress=False, results=tmp_path / "found.json")
    assert results.mask is None and set(next(iter(results.per_class.values()))) == {"box_ap", "box_ap50"}
    assert "mask" not in str(results) and results.as_dict()["mask"] is None
    records = json.loads((tmp_path / "found.json").read_text())
    assert records and all(set(record) == {"image_id", "category_id", "bbox", "score"} for record in records)
    again = evaluate_results(tmp_path / "found.json", data, progress=False)
    assert again.box == results.box and again.mask is None
    with pytest.raises(ValueError, match="kind='mask' needs masks, and these records have boxes alone"):
        coco_matches(results.records)
    with pytest.raises(ValueError, match="boundary=True needs masks"):
        evaluate(model, data, progress=False, boundary=True)
    with pytest.raises(ValueError, match="metric is 'mask AP', but MASK_HEAD is None"):
        AveragePrecision(model, data, metric="mask AP")


def test_boxes_that_are_found_exactly_have_an_ap_of_one():
    class Oracle:
        def detect(self, images):
            count = len(data.load_boxes(self.image))
            found = {"rois": data.load_boxes(self.image), "class_ids": data.load_class_ids(self.image)}
            self.image += 1
            return [found | {"scores": np.linspace(0.9, 0.5, count), "masks": np.zeros((SIDE, SIDE, count), bool)}]

    data, oracle = BoxDataset(3), Oracle()
    oracle.image = 0
    results = evaluate(oracle, data, progress=False)
    assert results.box["AP"] == pytest.approx(1) and results.mask is None


@pytest.mark.slow
def test_a_model_without_masks_on_data_with_masks():
    """Sizes of objects are those of their masks then, as COCO has them."""
    model = MaskRCNN("inference", boxed(DETECTION_MIN_CONFIDENCE=0.0))
    results = evaluate(model, TinyDataset(2), progress=False)
    assert results.mask is None and all("segmentation" in annotation for annotation in results.records.truth)


def test_results_with_and_without_masks_do_not_mix():
    runs = {"size": [SIDE, SIDE], "counts": [SIDE * SIDE]}
    first = {"image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
    with pytest.raises(ValueError, match="result 1: field 'segmentation' is there; results before it have none"):
        evaluate_results([first, first | {"segmentation": runs}], TinyDataset(1), progress=False)
    with pytest.raises(ValueError, match="result 0: field 'segmentation' is missing"):
        evaluate_results([{name: first[name] for name in first if name != "bbox"}], TinyDataset(1), progress=False)


def coco_boxes(folder, **more):
    """A COCO json of boxes without masks, with an image."""
    import cv2

    cv2.imwrite(str(folder / "a.png"), np.zeros((SIDE, SIDE, 3), np.uint8))
    annotation = {"id": 7, "image_id": 3, "category_id": 5, "bbox": [4, 6, 20, 10], "iscrowd": 0, **more}
    content = {
        "images": [{"id": 3, "file_name": "a.png", "height": SIDE, "width": SIDE}],
        "categories": [{"id": 5, "name": "cat"}],
        "annotations": [annotation],
    }
    (folder / "boxes.json").write_text(json.dumps(content))
    return folder / "boxes.json"


@pytest.mark.parametrize("more, area", [({}, 200), ({"area": 123.0}, 123)])
def test_coco_annotations_of_boxes(tmp_path, more, area):
    dataset = load_dataset(coco_boxes(tmp_path, **more), masks=False)
    (annotation,) = dataset.annotations(0)
    assert annotation["bbox"] == [4, 6, 20, 10] and annotation["area"] == area and "segmentation" not in annotation
    np.testing.assert_array_equal(read_sample(dataset, 0, 2, masks_needed=False).boxes, [[6, 4, 16, 24]])
    results = evaluate_results([{"image_id": 3, "category_id": 5, "bbox": [4, 6, 20, 10], "score": 1.0}], dataset)
    assert results.box["AP"] == pytest.approx(1) and results.mask is None
