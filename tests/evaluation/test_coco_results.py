"""Results json: COCO's form, there and back, and numbers equal to pycocotools by hand on the written file."""

import contextlib
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn.data import rle
from mrcnn.data.dataset import Dataset
from mrcnn.data.formats.coco import read_coco
from mrcnn.evaluation.coco_evaluation import evaluate, evaluate_results
from mrcnn.evaluation.coco_results import detection_annotations, ground_truth_annotations, read_results, results_file
from mrcnn.inference.results import Result

MINI = Path(__file__).resolve().parents[3] / "shared" / "data" / "coco_mini"
HEIGHT, WIDTH = 60, 90


class Detector:
    """A model that makes detections from the ground truth; `evaluate` asks for the images in the order of their ids."""

    def __init__(self, dataset, make, image_ids=None):
        self.dataset, self.make = dataset, make
        self.image_ids = iter(dataset.image_ids if image_ids is None else image_ids)

    def detect(self, images, verbose=0):
        image_id = int(next(self.image_ids))
        masks, class_ids = self.dataset.load_mask(image_id)
        boxes, wanted = self.dataset.load_boxes(image_id), class_ids > 0
        boxes = np.zeros((len(class_ids), 4)) if boxes is None else boxes
        return [self.make(masks[:, :, wanted], class_ids[wanted], boxes[wanted], np.random.default_rng(image_id))]


def perfect(masks, class_ids, boxes, rng):
    scores = np.ones(len(class_ids), np.float32)
    return {"masks": masks, "class_ids": class_ids, "rois": boxes.astype(np.float32), "scores": scores}


def noisy(masks, class_ids, boxes, rng):
    """Left out, doubled, grown, shrunk, shifted, of a wrong class; many equal scores."""
    chosen = np.repeat(np.arange(len(class_ids)), rng.integers(0, 3, len(class_ids)))
    changed = [np.zeros((0, *masks.shape[:2]), bool)]
    for i in chosen:
        size = int(rng.integers(1, 7))
        change = cv2.erode if rng.random() < 0.5 else cv2.dilate
        mask = change(np.ascontiguousarray(masks[:, :, i]).view(np.uint8), np.ones((size, size), np.uint8))
        changed.append(np.roll(mask, rng.integers(-3, 4, 2), (0, 1)).astype(bool)[None])
    moved = boxes[chosen] + rng.normal(0, 3, (len(chosen), 4))
    moved = np.concatenate([np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:])], axis=1)
    others = rng.integers(1, class_ids.max(initial=1) + 1, len(chosen))
    return {
        "masks": np.moveaxis(np.concatenate(changed), 0, 2),
        "class_ids": np.where(rng.random(len(chosen)) < 0.8, class_ids[chosen], others),
        "rois": moved.astype(np.float32),
        "scores": rng.random(len(chosen)).round(1).astype(np.float32),
    }


def write_dataset(folder, images=8, seed=0):
    """A folder of pictures with COCO's json; ids have gaps, and the file's order is not theirs."""
    rng = np.random.default_rng(seed)
    content = {"images": [], "annotations": [], "categories": [{"id": i, "name": f"class {i}"} for i in (17, 3, 44)]}
    for image_id in rng.permutation(np.arange(images) * 7 + 5).tolist():
        name = f"{image_id:05d}.png"
        cv2.imwrite(str(folder / name), rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8))
        content["images"].append({"id": image_id, "file_name": name, "height": HEIGHT, "width": WIDTH})
        for _ in range(rng.integers(0, 7)):
            content["annotations"].append(annotation(rng, len(content["annotations"]) + 100, image_id))
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path


def annotation(rng, annotation_id, image_id):
    angles = np.sort(rng.random(9)) * 2 * np.pi
    y, x, radius = rng.uniform(15, 45), rng.uniform(20, 70), rng.uniform(5, 40)
    points = np.stack([x + radius * np.cos(angles), y + 0.6 * radius * np.sin(angles)], axis=1)
    points = np.clip(points, 0, [WIDTH, HEIGHT])
    crowd = int(rng.random() < 0.15)
    size = points.max(axis=0) - points.min(axis=0)
    outline = [points.ravel().round(2).tolist()]
    if crowd:  # COCO's crowds are plain run lengths
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[int(y) - 9 : int(y) + 9, int(x) - 15 : int(x) + 15] = True
        outline = {"size": [HEIGHT, WIDTH], "counts": rle.counts_of(rle.encode(mask)).tolist()}
        points, size = np.array([[int(x) - 15.0, int(y) - 9.0]]), np.array([30.0, 18.0])
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": int(rng.choice([3, 17, 44])),
        "segmentation": outline,
        "bbox": [*points.min(axis=0).round(2).tolist(), *size.round(2).tolist()],
        "area": round(float(size.prod()) * 0.6, 3),  # not the mask's: the file's counts
        "iscrowd": crowd,
    }


def by_hand(annotation_file, results, kind, image_ids=None):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotation_file))
        evaluation = COCOeval(truth, truth.loadRes(results if isinstance(results, list) else str(results)), kind)
        if image_ids is not None:
            evaluation.params.imgIds = image_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated")
    path = write_dataset(folder)
    return path, read_coco(path, folder)


@pytest.fixture(scope="module")
def mini():
    path = MINI / "annotations" / "instances_val2017.json"
    if not path.is_file():
        pytest.skip("../shared/data/coco_mini is not here")
    return path, read_coco(path, MINI / "val2017")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["generated", "mini"])
def test_numbers_are_those_of_pycocotools_on_the_written_file(where, request, tmp_path):
    annotation_file, dataset = request.getfixturevalue(where)
    path = tmp_path / "results.json"
    results = evaluate(Detector(dataset, noisy), dataset, progress=False, results=path)
    assert list(results.box.values()) == by_hand(annotation_file, path, "bbox")
    assert list(results.mask.values()) == by_hand(annotation_file, path, "segm")
    assert 0.05 < results.mask["AP"] < 0.9
    again = evaluate_results(path, dataset, progress=False, boundary=True)
    assert (again.box, again.mask, again.per_class.keys()) == (results.box, results.mask, results.per_class.keys())
    assert again.ms_per_image is None and 0 < again.boundary["AP"] < again.mask["AP"]
    # Without boxes the size of a detection is its mask's, in pycocotools and here
    unboxed = [{k: v for k, v in record.items() if k != "bbox"} for record in json.loads(path.read_text())]
    assert list(evaluate_results(unboxed, dataset, progress=False).mask.values()) == by_hand(
        annotation_file, unboxed, "segm"
    )


@pytest.mark.slow
@pytest.mark.parametrize("where", ["generated", "mini"])
def test_ground_truth_fed_back_is_perfect(where, request):
    _, dataset = request.getfixturevalue(where)
    results = evaluate(Detector(dataset, perfect), dataset, progress=False, boundary=True)
    for numbers in (results.box, results.mask, results.boundary):
        found = {name: value for name, value in numbers.items() if name.startswith("AP") and value != -1}
        assert {"AP", "AP50", "AP75"} <= found.keys()
        assert found == {name: pytest.approx(1, abs=1e-9) for name in found}
    annotated = [numbers for numbers in results.per_class.values() if numbers["box_ap"] != -1]
    assert annotated and all(value == pytest.approx(1, abs=1e-9) for n in annotated for value in n.values())
    assert "boundary_ap" in annotated[0] and "boundary" in str(results)


def test_a_part_of_the_images(generated, tmp_path):
    annotation_file, dataset = generated
    chosen, path = [6, 1, 4, 0], tmp_path / "results.json"
    results = evaluate(
        Detector(dataset, noisy, chosen), dataset, image_ids=chosen, limit=3, progress=False, results=path
    )
    source_ids = [dataset.image_info[i]["id"] for i in chosen[:3]]
    assert {record["image_id"] for record in json.loads(path.read_text())} <= set(source_ids)
    assert list(results.mask.values()) == by_hand(annotation_file, path, "segm", source_ids)
    other = evaluate_results(path, dataset, image_ids=[1], progress=False)
    assert list(other.box.values()) == by_hand(annotation_file, path, "bbox", [source_ids[1]])


def test_classes_in_another_order(generated, tmp_path):
    """The mean over classes is rounded as in pycocotools, which goes by the ids of the source."""
    annotation_file, _ = generated
    dataset = read_coco(annotation_file, class_names=["class 44", "class 3", "class 17"])
    results = evaluate(Detector(dataset, noisy), dataset, progress=False, results=tmp_path / "results.json")
    assert list(results.box.values()) == by_hand(annotation_file, tmp_path / "results.json", "bbox")
    assert list(results.per_class) == ["class 44", "class 3", "class 17"]


def test_form_of_the_file(generated, tmp_path):
    _, dataset = generated
    path = tmp_path / "new" / "results.json"
    evaluate(Detector(dataset, noisy), dataset, progress=False, results=path)
    records = json.loads(path.read_text())
    assert records
    for record in records:
        assert list(record) == ["image_id", "category_id", "bbox", "segmentation", "score"]
        assert (record["image_id"] - 5) % 7 == 0 and record["category_id"] in (3, 17, 44)
        assert record["segmentation"]["size"] == [HEIGHT, WIDTH] and isinstance(record["segmentation"]["counts"], str)
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]


def test_nothing_found_is_an_empty_list(generated, tmp_path):
    _, dataset = generated
    path = tmp_path / "results.json"
    nothing = {"masks": [], "class_ids": [], "rois": [], "scores": []}
    results = evaluate(Detector(dataset, lambda *_: nothing), dataset, progress=False, results=path, boundary=True)
    assert json.loads(path.read_text()) == []
    assert results.boundary["AP"] == results.mask["AP"] == 0
    assert evaluate_results(path, dataset, progress=False).mask == results.mask


def test_a_broken_off_evaluation_leaves_the_old_file(generated, tmp_path):
    _, dataset = generated
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(StopIteration):  # the third image
        evaluate(Detector(dataset, noisy, [0, 1]), dataset, progress=False, results=path)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_missing_image_is_not_a_file_that_cannot_be_written(generated, tmp_path):
    _, dataset = generated

    def missing(*_):
        raise FileNotFoundError("no image 7")

    with pytest.raises(FileNotFoundError, match="^no image 7$"):
        evaluate(Detector(dataset, missing), dataset, progress=False, results=tmp_path / "results.json")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written(generated, tmp_path):
    _, dataset = generated
    (tmp_path / "file").write_text("")
    asked = []
    with pytest.raises(OSError, match="file"):
        evaluate(Detector(dataset, lambda *_: asked.append(1)), dataset, progress=False,
                 results=tmp_path / "file" / "results.json")  # fmt: skip
    assert not asked  # before any work was done
    with pytest.raises(OSError, match="could not write .*results.json .*No space left"):
        with results_file(tmp_path / "results.json", Own()) as write:
            write.__self__.file = FullDisk()
            write([result(image_id=0)])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


class FullDisk:
    def write(self, text):
        raise OSError(28, "No space left on device")


class Own(Dataset):
    """A user's own dataset: ids are names, there are no boxes and no sizes."""

    def __init__(self):
        super().__init__()
        self.add_class("own", 1, "square")
        for name in ("b.png", "a.png"):
            self.add_image("own", image_id=name, path=None)
        self.prepare()

    def load_image(self, image_id):
        return np.zeros((HEIGHT, WIDTH, 3), np.uint8)

    def load_mask(self, image_id):
        mask = np.zeros((HEIGHT, WIDTH, 1), bool)
        mask[10:30, 20 + 10 * image_id : 50] = True
        return mask, np.ones(1, np.int32)


def test_any_dataset_goes_there_and_back(tmp_path):
    dataset, path = Own(), tmp_path / "results.json"

    def make(masks, class_ids, boxes, rng):
        return perfect(masks, class_ids, np.array([[10.25, 20, 30, 50.1]]), rng)

    results = evaluate(Detector(dataset, make), dataset, progress=False, results=path)
    assert [record["image_id"] for record in json.loads(path.read_text())] == ["b.png", "a.png"]
    assert json.loads(path.read_text())[0]["bbox"] == [20, 10.25, float(np.float32(50.1)) - 20, 19.75]
    assert evaluate_results(path, dataset, progress=False).as_dict() == results.as_dict() | {"ms_per_image": None}


def test_annotations_by_hand():
    dataset = Own()
    (truth,) = ground_truth_annotations(dataset, 1, (HEIGHT, WIDTH))
    masks, _ = dataset.load_mask(1)
    expected = {"image_id": 1, "category_id": 1, "bbox": [30, 10, 20, 20], "segmentation": rle.encode(masks[:, :, 0])}
    assert truth == expected | {"area": 400, "iscrowd": 0}
    detection = perfect(masks, np.array([1]), np.array([[9.5, 30, 31, 50]]), None)
    (found,) = detection_annotations(detection, dataset, 1, (HEIGHT, WIDTH))
    assert found == expected | {"bbox": [30, 9.5, 20, 21.5], "score": 1}


def result(**changes):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:30, 20:50] = True
    whole = {"image_id": "a.png", "category_id": 1, "segmentation": rle.encode(mask), "score": 0.5}
    return {k: v for k, v in (whole | {"bbox": [20, 10, 30, 20]} | changes).items() if v is not ...}


def test_read_results():
    assert read_results([], Own()) == []
    (found,) = read_results([result()], Own())
    assert (found["image_id"], found["category_id"], found["bbox"], found["score"]) == (1, 1, [20, 10, 30, 20], 0.5)
    assert "area" not in found
    plain = rle.counts_of(result()["segmentation"]).tolist()
    (found,) = read_results([result(bbox=..., segmentation={"size": [HEIGHT, WIDTH], "counts": plain})], Own())
    assert (found["bbox"], found["area"]) == ([20, 10, 30, 20], 600)
    assert found["segmentation"] == result()["segmentation"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"image_id": "c.png"}, "result 1: field 'image_id': 'c.png' is not among the dataset's 2"),
        ({"category_id": 2}, "result 1: field 'category_id': 2 is not a class of 'own'"),
        ({"score": ...}, "result 1: field 'score' is missing"),
        ({"segmentation": ...}, "result 1: field 'segmentation' is missing"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6]]}, "result 1: field 'segmentation': RLE must be a dict"),
        ({"segmentation": {"size": [3, 4], "counts": "434"}}, "result 1: field 'segmentation': .*covers 11 pixels"),
        ({"bbox": ...}, "result 1: field 'bbox': earlier results have one"),
        ({"bbox": [1, 2, 3]}, r"result 1: field 'bbox': expected \[x, y, width, height\], .* got \[1, 2, 3\]"),
        ({"bbox": [1, 2, -3, 4]}, r"result 1: field 'bbox': expected .* got \[1, 2, -3, 4\]"),
        ({"bbox": 5}, "result 1: field 'bbox': expected .* got 5"),
        ({"bbox": 0}, "result 1: field 'bbox': expected .* got 0"),
        ({"bbox": "1234"}, "result 1: field 'bbox': expected .* got '1234'"),
        ({"bbox": {"x": 1}}, "result 1: field 'bbox': expected .* got {'x': 1}"),
        ({"bbox": np.ones(4)}, "result 1: field 'bbox': expected .* got array"),
        ({"bbox": [1, 2, 3, True]}, r"result 1: field 'bbox': expected .* got \[1, 2, 3, True\]"),
        ({"bbox": [1, 2, [3], 4]}, r"result 1: field 'bbox': expected .* got \[1, 2, \[3\], 4\]"),
        ({"bbox": [1, 2, 3, 10**400]}, r"result 1: field 'bbox': expected .* got \[1, 2, 3, 1000"),
        ({"bbox": None}, "result 1: field 'bbox': earlier results have one"),
        ({"score": float("nan")}, "result 1: field 'score': expected a finite number, got nan"),
        ({"score": "high"}, "result 1: field 'score': expected a finite number, got 'high'"),
        ({"score": 10**400}, "result 1: field 'score': expected a finite number, got 1000"),
        ({"score": True}, "result 1: field 'score': expected a finite number, got True"),
        ({"score": [0.5]}, r"result 1: field 'score': expected a finite number, got \[0.5\]"),
        ({"score": None}, "result 1: field 'score': expected a finite number, got None"),
        ({"image_id": [1]}, r"result 1: field 'image_id': \[1\] is not among the dataset's 2"),
        ({"image_id": {}}, "result 1: field 'image_id': {} is not among"),
        ({"image_id": None}, "result 1: field 'image_id': None is not among"),
        ({"category_id": [1]}, r"result 1: field 'category_id': \[1\] is not a class of 'own'"),
        ({"category_id": True}, "result 1: field 'category_id': True is not a class of 'own'"),
        ({"category_id": "1"}, "result 1: field 'category_id': '1' is not a class of 'own'"),
        ({"segmentation": None}, "result 1: field 'segmentation': RLE must be a dict"),
        ({"segmentation": {"size": 5, "counts": "1"}}, "result 1: field 'segmentation': RLE needs 'size'"),
        ({"segmentation": {"size": [60, 90], "counts": 5}}, "result 1: field 'segmentation': RLE needs"),
        ({"segmentation": {"size": [60, 90], "counts": [10**400]}}, "result 1: field 'segmentation': run 0 of the RLE"),
        ({"segmentation": {"size": [10**400, 1], "counts": [1]}}, "result 1: field 'segmentation': "),
    ],
)
def test_broken_records(changes, message):
    with pytest.raises(ValueError, match=message):
        read_results([result(), result(**changes)], Own())


def test_true_is_not_the_image_of_number_one():
    dataset = Own()
    dataset.image_info[0]["id"] = 1
    with pytest.raises(ValueError, match="result 0: field 'image_id': True is not among the dataset's 2"):
        read_results([result(image_id=True)], dataset)
    (found,) = read_results([result(image_id=1.0, score=np.float32(0.5))], dataset)  # json knows one kind of number
    assert (found["image_id"], found["score"]) == (0, 0.5)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["image_id", "category_id", "segmentation", "score", "bbox"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["size", "counts"]), inner),
    ),
)
def test_any_value_is_read_or_named(field, value):
    try:
        read_results([result(**{field: value})], Own())
    except ValueError as error:
        assert f"the results, result 0: field {field!r}: " in str(error)


def test_broken_files(tmp_path):
    path = tmp_path / "results.json"
    with pytest.raises(FileNotFoundError, match="no results json at.*results.json"):
        read_results(path, Own())
    path.write_text('[{"image_id": 1,')
    with pytest.raises(ValueError, match="results.json is not valid json"):
        read_results(str(path), Own())
    path.write_text('{"annotations": []}')
    with pytest.raises(ValueError, match="results.json: expected a list of results, got dict"):
        read_results(path, Own())
    with pytest.raises(ValueError, match="result 0: field 'image_id' is missing"):
        read_results([17], Own())


def test_results_of_other_images():
    other = rle.encode(np.ones((HEIGHT, WIDTH + 1), bool))
    with pytest.raises(ValueError, match=r"result 0: its mask has the size \[60, 91\], but image 1 has \[60, 90\]"):
        evaluate_results([result(segmentation=other)], Own(), progress=False)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"scores": np.array([np.nan])}, "detections in image 0: detection 0 has the box .* and the score nan"),
        ({"rois": np.array([[1, 2, np.inf, 4]])}, "detection 0 has the box"),
        ({"rois": np.array([[30, 20, 10, 50]])}, r"detection 0 has the box \[30.0, 20.0, 10.0, 50.0\]"),
        ({"scores": np.ones(2)}, "1 class ids, 1 rois and 2 scores"),
        ({"rois": np.ones((0, 4))}, "1 class ids, 0 rois and 1 scores"),
    ],
)
def test_broken_detections(changes, message):
    dataset = Own()
    detection = perfect(*dataset.load_mask(0), np.array([[10, 20, 30, 50]]), None) | changes
    with pytest.raises(ValueError, match=message):
        detection_annotations(detection, dataset, 0, (HEIGHT, WIDTH))


def test_annotations_that_do_not_fit():
    dataset = Own()
    dataset.annotations = lambda image_id: [result(category_id=3) | {"area": 1, "iscrowd": 0}]
    with pytest.raises(
        ValueError, match=r"image 0: an annotation has size \[60, 90\] and class id 3, but the image has \[60"
    ):
        ground_truth_annotations(dataset, 0, (HEIGHT, WIDTH))


def test_no_file_is_asked_for():
    with results_file(None, Own()) as write:
        assert write([result()]) is None


def test_detections_may_come_as_run_lengths(generated):
    """As a list in a plain dict, or as a `Result`, whose full masks are never computed."""
    _, dataset = generated

    class Running(Detector):
        def detect(self, images, verbose=0):
            (found,) = super().detect(images)
            return [found | {"masks": rle.encode_all(found["masks"])}]

    class Modern(Running):
        def detect(self, images, verbose=0):
            (found,) = super().detect(images)
            returned.append(Result(found["rois"], found["class_ids"], found["scores"], found["masks"], (HEIGHT, WIDTH)))
            return returned[-1:]

    returned = []
    kinds = (Detector, Running, Modern)
    whole, runs, modern = (evaluate(kind(dataset, noisy), dataset, progress=False) for kind in kinds)
    assert runs.box == modern.box == whole.box and runs.mask == modern.mask == whole.mask
    assert returned and all(result._stored() is None for result in returned)


def test_run_lengths_of_another_size_are_named(generated):
    _, dataset = generated

    class Other(Detector):
        def detect(self, images, verbose=0):
            (found,) = super().detect(images)
            return [found | {"masks": rle.encode_all(found["masks"][:-1])}]

    with pytest.raises(ValueError, match=r"run lengths of sizes .* class ids and an image of"):
        evaluate(Other(dataset, perfect), dataset, progress=False)
