"""evaluate() against pycocotools called by hand, on perfect, imperfect and missing detections."""

import contextlib
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest

from mrcnn.data.dataset import Dataset
from mrcnn.evaluation.coco_evaluation import METRICS, evaluate

HEIGHT, WIDTH = 64, 80
EXACTLY_ONE = [pytest.approx(1.0, abs=1e-12)] * 6  # pycocotools adds the smallest float to a denominator


def disc(y, x, radius):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def boxes_of(masks):
    """[N, (y1, x1, y2, x2)], end-exclusive; written here so that the test shares no code with the package."""
    boxes = []
    for i in range(masks.shape[-1]):
        rows, columns = np.nonzero(masks[:, :, i])
        boxes.append([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])
    return np.array(boxes, np.float32).reshape(-1, 4)


def stack(*masks):
    return np.stack(masks, axis=-1) if masks else np.zeros((HEIGHT, WIDTH, 0), bool)


class Annotated(Dataset):
    """A dataset of (masks, class_ids) pairs; the grey value of an image is its id."""

    def __init__(self, annotations, class_names=("disc", "ring"), boxes=None, sources=("test", "test")):
        super().__init__()
        self.annotations, self.boxes = annotations, boxes
        for i, (source, name) in enumerate(zip(sources, class_names, strict=True), start=1):
            self.add_class(source, i, name)
        for i in range(len(annotations)):
            self.add_image(sources[0], image_id=i, path=None)
        self.prepare()

    def load_image(self, image_id):
        return np.full((HEIGHT, WIDTH, 3), image_id, np.uint8)

    def load_mask(self, image_id):
        masks, class_ids = self.annotations[image_id]
        return masks, np.array(class_ids, np.int32)

    def load_boxes(self, image_id):
        return None if self.boxes is None else self.boxes[image_id]


class Answering:
    """A model that gives prepared detections; it recognizes the image by its grey value."""

    def __init__(self, detections):
        self.detections = detections

    def detect(self, images, verbose=0):
        return [self.detections[int(image[0, 0, 0])] for image in images]


def detection(masks, class_ids, scores=None, boxes=None):
    return {
        "rois": boxes_of(masks) if boxes is None else boxes,
        "class_ids": np.array(class_ids, np.int32),
        "scores": np.ones(len(class_ids), np.float32) if scores is None else np.array(scores, np.float32),
        "masks": masks,
    }


def truth():
    return [
        (stack(disc(20, 20, 9), disc(40, 60, 18)), [1, 2]),
        (stack(), []),
        (stack(disc(30, 30, 25), disc(50, 70, 4), disc(10, 70, 6)), [1, 1, 2]),
    ]


def perfect():
    return [detection(masks, class_ids) for masks, class_ids in truth()]


def imperfect():
    """Shifted, doubled, wrongly classed and missing detections."""
    return [
        detection(stack(disc(21, 22, 9), disc(20, 20, 9), disc(40, 57, 18)), [1, 1, 2], [0.9, 0.6, 0.8]),
        detection(stack(disc(30, 40, 10)), [2], [0.7]),
        detection(stack(disc(33, 30, 22), disc(10, 70, 6)), [1, 1], [0.95, 0.4]),
    ]


def by_hand(dataset, detections, kind):
    """The 12 numbers of pycocotools through its own loadRes, from results in the form of its json files."""
    from pycocotools import mask as coco_mask
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def encoded(masks):
        return coco_mask.encode(np.asfortranarray(masks.astype(np.uint8))) if masks.shape[-1] else []

    def xywh(box):
        return [float(box[1]), float(box[0]), float(box[3] - box[1]), float(box[2] - box[0])]

    annotations, results = [], []
    for image_id in dataset.image_ids:
        masks, class_ids = dataset.load_mask(image_id)
        boxes = dataset.load_boxes(image_id)
        boxes = boxes_of(masks) if boxes is None else boxes
        for rle, class_id, box in zip(encoded(masks), class_ids, boxes, strict=True):
            annotation = {"id": len(annotations) + 1, "image_id": int(image_id), "category_id": int(abs(class_id))}
            shape = {"segmentation": rle, "bbox": xywh(box), "area": float(coco_mask.area(rle))}
            annotations.append(annotation | shape | {"iscrowd": int(class_id < 0)})
        found = detections[image_id]
        for i, rle in enumerate(encoded(found["masks"])):
            place = {"bbox": xywh(found["rois"][i]), "segmentation": rle}
            result = {"category_id": int(found["class_ids"][i]), "score": float(found["scores"][i])}
            results.append({"image_id": int(image_id)} | result | place)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": int(i), "height": HEIGHT, "width": WIDTH} for i in dataset.image_ids],
            "categories": [{"id": i, "name": str(i)} for i in range(1, dataset.num_classes)],
            "annotations": annotations,
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats)


def test_ground_truth_fed_back_is_perfect():
    results = evaluate(Answering(perfect()), Annotated(truth()), progress=False)
    for numbers in (results.box, results.mask):
        assert tuple(numbers) == METRICS
        whole = [numbers[name] for name in ("AP", "AP50", "AP75", "APs", "APm", "AR100")]
        assert whole == EXACTLY_ONE
        assert numbers["AR1"] == pytest.approx((2 / 3 + 1) / 2)  # one image holds two discs
        assert numbers["APl"] == -1.0  # nothing is that large
    assert (results.images, results.instances) == (3, 5)
    for numbers in results.per_class.values():
        assert list(numbers) == ["box_ap", "box_ap50", "mask_ap", "mask_ap50"]
        assert list(numbers.values()) == EXACTLY_ONE[:4]
    assert list(results.per_class) == ["disc", "ring"]


@pytest.mark.parametrize("boxes", [None, "annotated"])
def test_numbers_are_those_of_pycocotools(boxes):
    if boxes:  # boxes of an annotator, a pixel or two wider than the masks
        boxes = [boxes_of(masks) + np.array([-1.5, -0.5, 0.75, 2], np.float32) for masks, _ in truth()]
    dataset = Annotated(truth(), boxes=boxes)
    results = evaluate(Answering(imperfect()), dataset, progress=False)
    assert list(results.box.values()) == by_hand(dataset, imperfect(), "bbox")
    assert list(results.mask.values()) == by_hand(dataset, imperfect(), "segm")
    assert 0.05 < results.mask["AP"] < 0.9  # a case that tells right from wrong


def test_crowds_are_ignored_not_missed():
    annotations, detections = truth(), imperfect()
    detections[1]["scores"][:] = 0.99
    without = evaluate(Answering(detections), Annotated(annotations), progress=False)
    annotations[1] = (stack(disc(30, 40, 28)), [-2])  # around the detection that was a false positive
    dataset = Annotated(annotations)
    results = evaluate(Answering(detections), dataset, progress=False)
    assert list(results.mask.values()) == by_hand(dataset, detections, "segm")
    assert list(results.box.values()) == by_hand(dataset, detections, "bbox")
    assert results.instances == without.instances == 5
    assert results.per_class["ring"]["mask_ap"] > without.per_class["ring"]["mask_ap"]


def test_nothing_found_is_zero():
    nothing = detection(stack(), [])
    results = evaluate(Answering([nothing] * 3), Annotated(truth()), progress=False)
    assert results.box["AP"] == results.mask["AP"] == results.mask["AR100"] == 0.0
    assert results.mask["APl"] == -1.0 and "-" in str(results)


def test_classes_that_a_source_does_not_annotate_do_not_count():
    annotations = [(stack(disc(20, 20, 9)), [1])]
    extra = detection(stack(disc(20, 20, 9), disc(40, 60, 9)), [1, 2], [0.5, 0.9])
    results = evaluate(Answering([extra]), Annotated(annotations, sources=("test", "other")), progress=False)
    assert results.mask["AP"] == EXACTLY_ONE[0]
    assert results.per_class["ring"]["mask_ap"] == -1.0


def test_chosen_images():
    model, dataset = Answering(imperfect()), Annotated(truth())
    assert evaluate(model, dataset, image_ids=[2, 0], limit=1, progress=False).instances == 3
    assert evaluate(model, dataset, limit=1, progress=False).instances == 2
    one = evaluate(model, dataset, image_ids=[0], progress=False)
    part = Annotated(truth()[:1])
    assert list(one.mask.values()) == by_hand(part, imperfect(), "segm")


def test_the_size_of_a_mask_is_that_of_its_box():
    """As pycocotools has it with results that hold boxes: a wrong ring of 32 x 32 is not small."""
    ring = disc(30, 30, 17) & ~disc(30, 30, 10)
    dataset = Annotated([(stack(disc(50, 70, 4)), [1])])
    found = [detection(stack(ring, disc(50, 70, 4)), [1, 1], [0.9, 0.8])]
    assert ring.sum() < 32**2 < 35**2
    results = evaluate(Answering(found), dataset, progress=False)
    assert list(results.mask.values()) == by_hand(dataset, found, "segm")
    assert (results.mask["AP"], results.mask["APs"]) == (pytest.approx(0.5), EXACTLY_ONE[0])


def test_boundary_is_given_when_asked_for():
    dataset = Annotated(truth())
    plain = evaluate(Answering(imperfect()), dataset, progress=False)
    results = evaluate(Answering(imperfect()), dataset, progress=False, boundary=True)
    assert plain.boundary is None and "boundary" not in str(plain)
    assert tuple(results.boundary) == METRICS and results.mask == plain.mask
    assert 0 < results.boundary["AP"] < results.mask["AP"]
    assert str(results).splitlines()[4].startswith("boundary ")
    for name, numbers in results.per_class.items():
        assert list(numbers) == ["box_ap", "box_ap50", "mask_ap", "mask_ap50", "boundary_ap"]
        assert numbers["boundary_ap"] <= plain.per_class[name]["mask_ap"]


def test_records_are_kept_but_not_in_reports():
    results = evaluate(Answering(imperfect()), Annotated(truth()), progress=False)
    assert len(results.records.truth) == 5 and len(results.records.found) == 6
    assert results.records.images[2] == {"id": 2, "height": HEIGHT, "width": WIDTH}
    assert results.records.names == {1: "disc", 2: "ring"}
    kinds = {"box", "mask", "boundary", "keypoints"}
    assert set(results.as_dict()) == kinds | {"per_class", "images", "instances", "ms_per_image"}
    assert "records" not in repr(results)


def test_report(capsys):
    results = evaluate(Answering(imperfect()), Annotated(truth(), ["disc", "disc"]))
    printed = capsys.readouterr()
    assert printed.out == "" and "3/3" in printed.err  # pycocotools is silent, the bar is not
    text = str(results)
    assert "3 images, 5 instances" in text and "AP75" in text and "disc (2)" in text
    assert f"{results.mask['AP50']:.3f}" in text
    assert json.loads(json.dumps(results.as_dict()))["mask"]["AP"] == results.mask["AP"]


def test_an_object_without_pixels_counts_only_with_a_box():
    annotations = [(stack(disc(20, 20, 9), np.zeros((HEIGHT, WIDTH), bool)), [1, 1])]
    model = Answering([detection(stack(disc(20, 20, 9)), [1])])
    assert evaluate(model, Annotated(annotations), progress=False).instances == 1
    boxes = [np.array([[11, 11, 30, 30], [40, 40, 41, 41]], np.float32)]
    assert evaluate(model, Annotated(annotations, boxes=boxes), progress=False).instances == 2


@pytest.mark.parametrize(
    "annotations, detections, arguments, message",
    [
        ([], [], {}, "no images to evaluate.*0 were chosen"),
        (truth(), perfect(), {"image_ids": []}, "dataset has 3 and 0 were chosen"),
        (truth(), perfect(), {"image_ids": [1]}, "1 evaluated images contain no instance"),
        (truth(), perfect(), {"image_ids": [0, 7]}, r"image ids \[7\] are not in the dataset, which has 3"),
        (truth(), perfect(), {"image_ids": [0, 0]}, r"image ids \[0\] are repeated"),
        (truth(), perfect(), {"limit": 0}, "limit=0"),
        ([(stack(disc(9, 9, 5)), [1, 2])], perfect(), {}, r"truth of image 0.*\(64, 80, 1\).*\(64, 80, 2\)"),
        ([(stack(disc(9, 9, 5))[:9], [1])], perfect(), {}, r"masks have shape \(9, 80, 1\)"),
        ([(stack(disc(9, 9, 5)), [3])], perfect(), {}, r"truth of image 0: class ids \[3\].*1 to 2"),
        (truth(), [detection(stack(disc(9, 9, 5)), [5])], {}, r"detections in image 0: class ids \[5\].*1 to 2"),
        (truth(), [detection(stack(disc(9, 9, 5))[:, :9], [1])], {}, r"detections in image 0.*\(64, 9, 1\)"),
    ],
)
def test_bad_input(annotations, detections, arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate(Answering(detections), Annotated(annotations), progress=False, **arguments)


def test_boxes_that_do_not_fit_the_masks():
    dataset = Annotated(truth(), boxes=[np.zeros((3, 4))] * 3)
    with pytest.raises(ValueError, match=r"\(3, 4\) for image 0, whose load_mask returns 2"):
        evaluate(Answering(perfect()), dataset, progress=False)


@pytest.mark.slow
def test_masks_are_not_kept():
    """Only run lengths of what was found stay: the arrays of an image are gone when the next one comes."""
    import gc
    import weakref

    alive = []

    def detect(images, verbose=0):
        gc.collect()
        assert sum(reference() is not None for reference in alive) <= 1
        found = perfect()[int(images[0][0, 0, 0])]
        alive.append(weakref.ref(found["masks"]))
        return [found]

    evaluate(SimpleNamespace(detect=detect), Annotated(truth()), progress=False)
    assert len(alive) == 3
