"""Keypoint heads of Detectron2 and torchvision: small ones against their arithmetic, and the stored numbers."""

import numpy as np
import pytest

from mrcnn.data.keypoints import COCO_PERSON
from mrcnn.model import MaskRCNN
from mrcnn.weights.importers.detectron2 import detectron2_source
from mrcnn.weights.importers.torchvision import torchvision_source
from mrcnn.weights.recognize import read_source
from tests import parity
from tests.parity import PYRAMID, assert_close, layer_shapes, relu
from tests.weights.importers import test_detectron2, test_torchvision
from tests.weights.torch_writer import save_zip

pytestmark = pytest.mark.slow

ROI, FILTERS = "roi_heads.", 12


def without_masks(shapes):
    return {name: shape for name, shape in shapes.items() if "mask" not in name}


def detectron2_head(count):
    head = f"{ROI}keypoint_head."
    found = layer_shapes(f"{head}conv_fcn1", FILTERS, PYRAMID, 3, 3)
    found |= layer_shapes(f"{head}conv_fcn2", FILTERS, FILTERS, 3, 3)
    return found | {f"{head}score_lowres.weight": (FILTERS, count, 4, 4), f"{head}score_lowres.bias": (count,)}


def torchvision_head(count):
    found = layer_shapes(f"{ROI}keypoint_head.0", FILTERS, PYRAMID, 3, 3)
    found |= layer_shapes(f"{ROI}keypoint_head.2", FILTERS, FILTERS, 3, 3)
    last = f"{ROI}keypoint_predictor.kps_score_lowres"
    return found | {f"{last}.weight": (FILTERS, count, 4, 4), f"{last}.bias": (count,)}


PROGRAMS = {
    "detectron2": (
        lambda count, classes=2: without_masks(test_detectron2.shapes(classes)) | detectron2_head(count),
        detectron2_source,
        [f"{ROI}keypoint_head.conv_fcn1", f"{ROI}keypoint_head.conv_fcn2"],
        f"{ROI}keypoint_head.score_lowres",
    ),
    "torchvision": (
        lambda count, classes=2: without_masks(test_torchvision.shapes(classes=classes)) | torchvision_head(count),
        torchvision_source,
        [f"{ROI}keypoint_head.0", f"{ROI}keypoint_head.2"],
        f"{ROI}keypoint_predictor.kps_score_lowres",
    ),
}


def enlarged(x, weight, bias):
    """torch's ConvTranspose2d(4, stride=2, padding=1) of [R, h, w, c], cell after cell."""
    rois, height, width, _ = x.shape
    y = np.zeros((rois, 2 * height + 2, 2 * width + 2, weight.shape[1]))
    for i in range(height):
        for j in range(width):
            y[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += np.einsum("rc,cohw->rhwo", x[:, i, j], weight)
    return y[:, 1:-1, 1:-1] + bias


def doubled(x):
    """torch's bilinear interpolation by two along axes 1 and 2: a quarter of the cell before or behind."""
    for axis in (1, 2):
        size = x.shape[axis]
        before = np.take(x, np.maximum(np.arange(size) - 1, 0), axis=axis)
        behind = np.take(x, np.minimum(np.arange(size) + 1, size - 1), axis=axis)
        pairs = np.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * behind], axis=axis + 1)
        x = pairs.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])
    return x


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_head_computes_what_the_original_computes(program):
    shapes, importer, convolutions, last = PROGRAMS[program]
    state = parity.values_of(shapes(5))
    source = importer(state, "a file")
    assert source.parts == ("trunk", "rpn", "box_head", "keypoint_head") and not source.unused
    assert source.settings["MASK_HEAD"] is None and source.settings["NUM_KEYPOINTS"] == 5
    assert source.settings["KEYPOINT_HEAD"] == {"name": "keypoints", "filters": FILTERS, "convolutions": 2}
    model, features, original = parity.build(source), parity.pooled(14), parity.Torch(state)
    x = features
    for name in convolutions:
        x = relu(original.convolution(x, name))
    expected = doubled(enlarged(x, state[f"{last}.weight"], state[f"{last}.bias"]))
    assert expected.shape == (4, 56, 56, 5)
    assert_close(model.network.keypoints.model({"features": features})["keypoints"], expected)


@pytest.mark.parametrize("program", PROGRAMS)
def test_masks_and_keypoints_together(program):
    shapes, importer, _, _ = PROGRAMS[program]
    masks = test_detectron2.shapes(2) if program == "detectron2" else test_torchvision.shapes(classes=2)
    source = importer(parity.values_of(masks | shapes(5)), "a file")
    assert source.parts == ("trunk", "rpn", "box_head", "mask_head", "keypoint_head") and not source.unused
    assert source.settings["MASK_HEAD"] == {"name": "fcn", "filters": PYRAMID, "convolutions": 4}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_file_is_recognized_and_loaded(program, tmp_path):
    """17 keypoints are those of COCO's people, which nothing in the file says."""
    shapes = PROGRAMS[program][0]
    path = tmp_path / "a.pth"
    save_zip(path, parity.values_of(shapes(17)))
    source = read_source(path)
    assert source.skeleton == COCO_PERSON and source.class_names == ["BG", "person"]
    assert "17 keypoints but no names" in source.notes[-1]
    model = MaskRCNN.from_pretrained(path, IMAGE_MIN_DIM=64, IMAGE_MAX_DIM=64)
    assert model.skeleton == COCO_PERSON and model.class_names == ["BG", "person"]
    found = model.detect([np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)])[0]
    assert found.skeleton == COCO_PERSON and found.keypoints.shape == (found.count, 17, 3)


def test_keypoints_of_ones_own(tmp_path):
    """The convolutions are kept, the last layer is new."""
    path = tmp_path / "a.pth"
    save_zip(path, parity.values_of(PROGRAMS["torchvision"][0](17)))
    own = MaskRCNN.from_pretrained(path, classes=["cat"], NUM_KEYPOINTS=4, IMAGE_MIN_DIM=64, IMAGE_MAX_DIM=64)
    layers = own.network.layers()
    np.testing.assert_array_equal(
        layers["keypoint_head/conv2"].kernel, read_source(path).tensors["keypoint_head/conv2/kernel"].read()
    )
    assert tuple(layers["keypoint_head/deconv"].kernel.shape) == (4, 4, 4, FILTERS) and own.skeleton is None


def test_a_model_without_a_keypoint_head_takes_the_rest(tmp_path):
    path = tmp_path / "a.pth"
    state = test_torchvision.shapes(classes=2) | PROGRAMS["torchvision"][0](17)
    save_zip(path, parity.values_of(state))
    model = MaskRCNN.from_pretrained(path, KEYPOINT_HEAD=None, IMAGE_MIN_DIM=64, IMAGE_MAX_DIM=64)
    assert model.network.keypoints is None and model.skeleton is None
    assert "keypoint" not in model.detect([np.zeros((64, 64, 3), np.uint8)])[0]


def test_detectron2_itself():
    """Every stage of `keypoint_rcnn_R_50_FPN_3x` on an image that is not square."""
    folder = parity.oracle_folder()
    import parity_keypoints

    assert parity.failed(parity_keypoints.detectron2(folder, ["b"])) == []
