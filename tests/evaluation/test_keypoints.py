"""AP of keypoints against pycocotools called by hand."""

import contextlib
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest

from mrcnn.data.annotations.keypoint_fields import coco_keypoints
from mrcnn.data.formats import load_dataset
from mrcnn.data.keypoints import SIGMA
from mrcnn.evaluation.coco_evaluation import evaluate, evaluate_results
from mrcnn.evaluation.coco_metrics import KEYPOINT_METRICS
from tests.tiny import SIDE, TinyDataset, TinyKeypoints


class Near:
    """A model that finds every object, keypoints off by up to `far` pixels, and one object that is not there."""

    def __init__(self, dataset, far, seed=0):
        self.dataset, self.far, self.rng, self.next = dataset, far, np.random.default_rng(seed), 0

    def detect(self, images):
        image_id, self.next = self.next, self.next + 1
        masks, class_ids = self.dataset.load_mask(image_id)
        boxes = np.array(
            [[*np.argwhere(m).min(axis=0), *(np.argwhere(m).max(axis=0) + 1)] for m in masks.T.swapaxes(1, 2)]
        )
        keypoints = self.dataset.load_keypoints(image_id)
        keypoints[..., :2] += self.rng.uniform(-self.far, self.far, keypoints[..., :2].shape)
        more = np.concatenate([keypoints, keypoints[:1] + (20, 3, 0)])
        found = {"rois": np.concatenate([boxes, boxes[:1]]), "class_ids": np.append(abs(class_ids), 1)}
        found |= {"masks": np.concatenate([masks, masks[..., :1]], axis=2), "keypoints": more}
        return [found | {"scores": self.rng.uniform(0.1, 1, len(more))}]


def by_hand(truth, results, sigmas=None):
    """pycocotools' numbers of two json files."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth))
        evaluation = COCOeval(coco, coco.loadRes(str(results)), "keypoints")
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(KEYPOINT_METRICS, evaluation.stats.tolist(), strict=True))


def written(dataset, path):
    """A json of a dataset with keypoints."""
    annotations = []
    for i in range(len(dataset.image_ids)):
        masks, class_ids = dataset.load_mask(i)
        for k, points in enumerate(dataset.load_keypoints(i)):
            y, x = np.nonzero(masks[..., k])
            box = [int(x.min()), int(y.min()), int(x.max() + 1 - x.min()), int(y.max() + 1 - y.min())]
            annotation = {"id": len(annotations) + 1, "image_id": i, "category_id": int(abs(class_ids[k])), "bbox": box}
            annotation |= {"area": float(masks[..., k].sum()), "iscrowd": int(class_ids[k] < 0)}
            annotations.append(annotation | coco_keypoints(points))
    images = [{"id": i, "height": SIDE, "width": SIDE} for i in range(len(dataset.image_ids))]
    categories = [{"id": 1, "name": "box"}, {"id": 2, "name": "disc"}]
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations}))
    return path


@pytest.mark.parametrize("far", [0, 1, 4])
def test_numbers_are_those_of_pycocotools(far, tmp_path):
    dataset = TinyKeypoints(12, crowds=(3,))
    results = evaluate(Near(dataset, far), dataset, progress=False, results=tmp_path / "results.json")
    expected = by_hand(written(dataset, tmp_path / "truth.json"), tmp_path / "results.json", [SIGMA] * 3)
    assert results.keypoints == pytest.approx(expected, abs=1e-12)
    assert 0 < results.keypoints["AP"] < 1
    assert results.per_class["disc"]["keypoint_ap"] > 0
    assert "keypoints" in str(results) and results.as_dict()["keypoints"] == results.keypoints
    again = evaluate_results(tmp_path / "results.json", dataset, progress=False)
    assert again.keypoints == pytest.approx(results.keypoints, abs=1e-9)


def test_sigmas_of_the_dataset_decide():
    dataset = TinyKeypoints(8)
    strict = evaluate(Near(dataset, 3), dataset, progress=False).keypoints["AP"]
    dataset.skeleton = type(dataset.skeleton)(dataset.skeleton.names, sigmas=[0.5] * 3)
    assert evaluate(Near(dataset, 3), dataset, progress=False).keypoints["AP"] > strict + 0.2


def test_no_block_without_keypoints_on_either_side():
    dataset = TinyKeypoints(3)

    class Without(Near):
        def detect(self, images):
            return [{key: value for key, value in super().detect(images)[0].items() if key != "keypoints"}]

    results = evaluate(Without(dataset, 0), dataset, progress=False)
    assert results.keypoints is None and "keypoint_ap" not in results.per_class["box"]
    plain = TinyDataset(3)
    plain.load_keypoints = dataset.load_keypoints
    assert evaluate(Near(plain, 0), plain, progress=False).keypoints is None


def test_coco_s_own_file_is_the_ground_truth(tmp_path):
    """Coordinates go through the reader and back without a change; the image id and category are the file's."""
    from mrcnn.data.keypoints import COCO_PERSON

    rng = np.random.default_rng(0)
    people = []
    for i, (image, crowd, seen) in enumerate([(7, 0, 17), (7, 0, 0), (7, 1, 0), (9, 0, 9)], 1):
        points = np.zeros((17, 3))
        points[:seen] = np.column_stack([rng.integers(5, 60, (seen, 2)), rng.integers(1, 3, seen)])
        outline = [[4, 4, 4, 61, 61, 61, 61, 4]]
        person = {
            "id": i,
            "image_id": image,
            "category_id": 1,
            "bbox": [4, 4, 57, 57],
            "area": 1800.5,
            "iscrowd": crowd,
        }
        person |= {"keypoints": points.ravel().astype(int).tolist(), "num_keypoints": seen, "segmentation": outline}
        people.append(person)
    from PIL import Image

    (tmp_path / "images").mkdir()
    images = []
    for image in (7, 9):
        Image.new("RGB", (64, 64)).save(tmp_path / "images" / f"{image}.png")
        images.append({"id": image, "file_name": f"{image}.png", "height": 64, "width": 64})
    edges = [[a + 1, b + 1] for a, b in COCO_PERSON.edges]
    category = {"id": 1, "name": "person", "keypoints": list(COCO_PERSON.names), "skeleton": edges}
    content = {"images": images, "categories": [category], "annotations": people}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    dataset = load_dataset(tmp_path / "truth.json", image_dir=tmp_path / "images")
    assert dataset.skeleton == COCO_PERSON
    given = [annotation["keypoints"] for i in dataset.image_ids for annotation in dataset.annotations(int(i))]
    assert given == [person["keypoints"] for person in people]
    found = []
    for person in (people[0], people[3], people[1]):
        points = np.array(person["keypoints"], float).reshape(-1, 3)
        points = points + np.column_stack([rng.normal(size=(17, 2)) * 2, np.zeros(17)])
        record = {"image_id": person["image_id"], "category_id": 1, "keypoints": points.ravel().tolist()}
        runs = {"size": [64, 64], "counts": [0, 4096]}
        found.append(record | {"segmentation": runs, "bbox": [4, 4, 50, 50], "score": float(rng.uniform())})
    (tmp_path / "results.json").write_text(json.dumps(found))
    expected = by_hand(tmp_path / "truth.json", tmp_path / "results.json")
    results = evaluate_results(tmp_path / "results.json", dataset, progress=False)
    assert results.keypoints == pytest.approx(expected, abs=1e-12) and 0 < expected["AP"] < 1


@pytest.mark.parametrize(
    ("keypoints", "message"),
    [
        ([1, 2, 3], "expected 9 numbers, x, y and a score"),
        ([float("nan")] * 9, "expected 9 numbers"),
        ("abc", "got 'abc'"),
    ],
)
def test_broken_keypoints_of_results_are_named(keypoints, message):
    record = {
        "image_id": 0,
        "category_id": 1,
        "score": 1.0,
        "segmentation": {"size": [SIDE, SIDE], "counts": [0, 4096]},
    }
    with pytest.raises(ValueError, match=f"result 0: field 'keypoints': .*{message}"):
        evaluate_results([record | {"keypoints": keypoints}], TinyKeypoints(2), progress=False)


def test_keypoints_of_detections_are_checked():
    dataset = TinyKeypoints(2)

    class Broken(Near):
        def detect(self, images):
            (found,) = super().detect(images)
            return [found | {"keypoints": found["keypoints"][:1]}]

    with pytest.raises(ValueError, match=r"keypoints of shape \(1, 3, 3\) for"):
        evaluate(Broken(dataset, 0), dataset, progress=False)


def test_a_model_without_masks_has_keypoints():
    dataset = TinyKeypoints(4)

    class Boxes(Near):
        config = SimpleNamespace(MASK_HEAD=None)

        def detect(self, images):
            (found,) = super().detect(images)
            return [{key: value for key, value in found.items() if key != "masks"}]

    results = evaluate(Boxes(dataset, 1), dataset, progress=False)
    assert results.mask is None and results.keypoints["AP"] > 0
