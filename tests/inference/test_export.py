"""Exported files against `detect`, on a tiny network; broken requests."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

from mrcnn.data.keypoints import Skeleton
from mrcnn.inference.export import litert
from mrcnn.inference.extras import require
from mrcnn.inference.predictor import Predictor
from mrcnn.model import MaskRCNN
from mrcnn.presets import Matterport
from tests.network.test_necks import KINDS
from tests.tiny import TinyConfig, TinyKeypointConfig

pytestmark = pytest.mark.slow

NAMES = ["BG", "a", "b"]


def varied(model, seed=0):
    """Gives the outputs of a network the spread of a trained one, so that rounding decides nothing."""
    generator = np.random.default_rng(seed)
    spreads = {"rpn": 0.2, "mrcnn_class": 0.4, "mrcnn_bbox": 0.05}
    for layer in [*model.network.rpn.layers, *model.network.box_head.layers]:
        if weights := layer.get_weights():
            spread = next((value for name, value in spreads.items() if layer.name.startswith(name)), 0.1)
            layer.set_weights([generator.normal(0, spread, weights[0].shape), *weights[1:]])
    return model


def images():
    generator = np.random.default_rng(1)
    return [
        generator.integers(0, 256, (height, width, 3), np.uint8) for height, width in ((60, 90), (80, 64), (33, 97))
    ]


@pytest.fixture(scope="module")
def model():
    built = varied(MaskRCNN("inference", TinyConfig(NUM_CLASSES=3, IMAGE_MAX_DIM=128)))
    built.class_names = NAMES
    return built


@pytest.fixture(scope="module")
def onnx_file(model, tmp_path_factory):
    pytest.importorskip("tf2onnx")
    return model.export(tmp_path_factory.mktemp("export") / "tiny.onnx")


@pytest.fixture(scope="module")
def openvino_file(model, tmp_path_factory):
    pytest.importorskip("openvino")
    pytest.importorskip("tf2onnx")
    return model.export(tmp_path_factory.mktemp("export") / "tiny.xml")


@pytest.fixture(scope="module")
def litert_file(model, tmp_path_factory):
    return model.export(tmp_path_factory.mktemp("export") / "tiny.tflite")


def assert_same(found, expected):
    """Every detection has its partner, as close as the issue of exports asks."""
    assert sum(len(result.scores) for result in expected) > 5
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.class_ids.tolist() == theirs.class_ids.tolist()
        np.testing.assert_allclose(ours.rois, theirs.rois, atol=0.05)
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-3)
        np.testing.assert_allclose(ours.soft.probabilities, theirs.soft.probabilities, atol=1e-3)


def test_onnx_gives_what_detect_gives(model, onnx_file):
    predictor = Predictor(onnx_file, threads=1)
    assert predictor.class_names == NAMES
    assert_same(predictor.detect(images()), model.detect(images()))


def test_openvino_gives_what_detect_gives(model, openvino_file):
    assert {path.suffix for path in openvino_file.parent.iterdir()} == {".xml", ".bin", ".json"}
    assert_same(Predictor(openvino_file, threads=1).detect(images()), model.detect(images()))


def test_litert_gives_what_detect_gives(model, litert_file):
    pytest.importorskip("ai_edge_litert")
    described = json.loads(litert_file.with_suffix(".json").read_text())
    assert described["outputs"]["valid"].startswith("[n] bool")
    predictor = Predictor(litert_file, threads=1)
    assert_same(predictor.detect(images()), model.detect(images()))
    empty = predictor.run(np.zeros((1, 64, 64, 3), np.float32), np.zeros((1, 4), np.float32))
    assert [len(values) for values in empty.values()] == [0, 0, 0, 0]


def test_operations_that_litert_lacks_are_named(tmp_path):
    model = MaskRCNN("inference", TinyConfig(ROI_SAMPLING_RATIO=0))
    with pytest.raises(NotImplementedError, match="LiteRT has no CropAndResize, which ROI_SAMPLING_RATIO = 0 needs"):
        model.export(tmp_path / "a.tflite")
    assert not list(tmp_path.iterdir())
    message = "failed\nTF Select ops: EnsureShape, Unpack\nDetails:\n\ttf.EnsureShape(tensor<?xf32>)\n"
    assert litert._missing(message) == "EnsureShape, Unpack" and litert._missing("no\n memory") == "no memory"


def test_int8_finds_much_the_same(model, tmp_path):
    pytest.importorskip("nncf")
    pytest.importorskip("tf2onnx")
    path = model.export(tmp_path / "tiny.xml", precision="int8", calibration=images())
    assert json.loads(path.with_suffix(".json").read_text())["precision"] == "int8"
    assert b'"i8"' in path.read_bytes() or b'"u8"' in path.read_bytes()  # what is stored so
    found, expected = (sum(len(one.scores) for one in way.detect(images())) for way in (Predictor(path), model))
    assert 0 < found <= 10 * len(images()) and abs(found - expected) <= expected / 2


def test_int8_computes_the_sums_of_feature_maps_but_no_box_arithmetic(model, tmp_path):
    pytest.importorskip("nncf")
    pytest.importorskip("tf2onnx")
    openvino = pytest.importorskip("openvino")
    path = model.export(tmp_path / "tiny.xml", precision="int8", calibration=images()[:2])
    quantized: dict[bool, list[bool]] = {True: [], False: []}
    for op in openvino.Core().read_model(path).get_ordered_ops():
        name, kind = op.get_friendly_name(), op.get_type_name()
        if kind in ("Add", "Subtract", "Multiply", "Divide") and ("fpn" in name or not name.startswith("part")):
            given = [op.input_value(i).get_node().get_type_name() for i in range(op.get_input_size())]
            quantized["fpn" in name].append("FakeQuantize" in given)
    assert len(quantized[False]) > 50 and not any(quantized[False])
    assert any(quantized[True])


def test_nothing_found_is_an_empty_result(onnx_file, openvino_file):
    for file in (onnx_file, openvino_file):
        predictor = Predictor(file, threads=1)
        image = np.zeros((1, 64, 64, 3), np.float32)
        found = predictor.run(image, np.zeros((1, 4), np.float32))  # a window without area holds nothing
        assert [len(found[name]) for name in ("boxes", "class_ids", "scores", "masks")] == [0, 0, 0, 0]


def test_a_saved_model_gives_the_outputs_of_the_graph(model, tmp_path):
    import tensorflow as tf

    folder = model.export(tmp_path / "saved")
    (tmp_path / "saved" / "old").write_text("")
    assert model.export(folder) == folder and not (folder / "old").exists()
    assert json.loads((folder / "mask_rcnn.json").read_text())["class_names"] == NAMES
    given = model.detector.network_input(images()[0])
    served = tf.saved_model.load(str(folder)).signatures["serving_default"]
    found = served(image=tf.constant(given.image[None]), window=tf.constant(given.window[None], tf.float32))
    expected = model.detector.call(given.image[None], given.window[None])
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-4)  # pixels


def test_a_folder_of_something_else_is_left_alone(model, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="mine already exists and is not a SavedModel"):
        model.export(tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


def test_the_description_says_how_to_use_the_file(onnx_file):
    import onnx

    described = json.loads(onnx_file.with_suffix(".json").read_text())
    assert described["config"]["NUM_CLASSES"] == 3 and len(described["pixels"]["mean"]) == 3
    (stored,) = onnx.load(onnx_file).metadata_props
    assert json.loads(stored.value) == described


def test_a_pickled_predictor_finds_the_same(onnx_file):
    predictor = Predictor(onnx_file, threads=1)
    again = pickle.loads(pickle.dumps(predictor))
    assert_same(again.detect(images()), predictor.detect(images()))


def test_a_predictor_needs_no_keras(onnx_file):
    code = (
        f"import sys, numpy as np; from mrcnn.inference.predictor import Predictor; "
        f"p = Predictor({str(onnx_file)!r}, threads=1); p.detect([np.zeros((50, 60, 3), np.uint8)]); "
        f"print([name for name in ('keras', 'tensorflow', 'jax', 'scipy', 'skimage') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("a.pt", {}, r"a.pt: the extension must be one of .onnx \(ONNX\), .xml \(OpenVINO\), .*none .*, got '.pt'"),
        ("a.onnx", {"precision": "int4"}, "precision must be one of .*, got 'int4'"),
        ("a.onnx", {"precision": "int8"}, "precision 'int8' is for OpenVINO; name the file a.xml"),
        ("a.xml", {"precision": "int8"}, "int8 needs calibration=: 50 or more images"),
    ],
)
def test_requests_that_cannot_be_met(model, tmp_path, name, options, message):
    with pytest.raises(ValueError, match=message):
        model.export(tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("a.onnx", {"ROI_POOLING": "pool"}, "ROI_POOLING = 'pool', ROI_REDUCTION = 'average': ONNX has RoIAlign with"),
        (
            "a.tflite",
            {"ROI_REDUCTION": "max"},
            "ROI_REDUCTION = 'max': LiteRT has RoIAlign .* SavedModel folder instead",
        ),
        ("a.xml", KINDS["dc5"], "NECK = 'dc5': OpenVINO rejects its dilated convolutions. Export to ONNX or LiteRT"),
    ],
)
def test_networks_that_a_format_cannot_hold(name, settings, message, tmp_path):
    model = MaskRCNN("inference", TinyConfig(**settings))
    with pytest.raises(NotImplementedError, match=message):
        model.export(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


SMALL_POINTREND = {"fc_units": 32, "point_units": 16, "convolution_filters": 16, "steps": 3, "step_points": 50}
PARTS = {
    "boundary, scored": {"MASK_HEAD": {"name": "mask_scoring", "of": {"name": "boundary", "filters": 16}, "units": 32}},
    "pointrend": {"MASK_HEAD": {"name": "pointrend", **SMALL_POINTREND}},
    "dct": {"MASK_HEAD": {"name": "dct", "filters": 16, "units": 32, "mask_size": 32, "frequencies": 8}},
    "c4": {**KINDS["c4 of a function"], "DETECTION_MIN_CONFIDENCE": 0.3, "RPN_MIN_SIZE": 8},
    "boxes and keypoints": {"MASK_HEAD": None},
}
CASES = [(parts, ending) for parts in PARTS for ending in (".onnx", ".xml")]
CASES += [("boundary, scored", ".tflite"), ("pointrend", ".tflite"), ("boxes and keypoints", ".tflite")]


@pytest.fixture(scope="module")
def model_with():
    """Makes a model with certain parts; each once."""
    made = {}

    def make(parts):
        if parts not in made:
            kind = TinyKeypointConfig if "keypoints" in parts else TinyConfig
            model = made[parts] = varied(MaskRCNN("inference", kind(IMAGE_MAX_DIM=128, **PARTS[parts])))
            generator = np.random.default_rng(2)
            for head in filter(None, (model.network.head, model.network.keypoints)):
                for weight in head.model.weights:
                    if weight.path.endswith("kernel"):
                        weight.assign(generator.normal(0, 1.5 / np.prod(weight.shape[:-1]) ** 0.5, weight.shape))
            model.skeleton = Skeleton(["a", "left b", "right b"]) if "keypoints" in parts else None
        return made[parts]

    return make


@pytest.mark.parametrize("parts, ending", CASES)
def test_every_part_gives_what_it_gives_in_detect(model_with, parts, ending, tmp_path):
    pytest.importorskip({".onnx": "onnxruntime", ".xml": "openvino", ".tflite": "ai_edge_litert"}[ending])
    if ending != ".tflite":
        pytest.importorskip("tf2onnx")
    model = model_with(parts)
    path = model.export(tmp_path / f"a{ending}")
    predictor = Predictor(path, threads=1)
    found, expected = predictor.detect(images()), model.detect(images())
    assert_same(found, expected)
    more = {"boundary, scored": ["mask_scores"], "boxes and keypoints": ["keypoints"]}.get(parts, [])
    described = json.loads(path.with_suffix(".json").read_text())["outputs"]
    assert ("masks" in described) == (model.network.head is not None) and set(more) <= set(described)
    for one, other in zip(found, expected, strict=True):
        assert one.skeleton == other.skeleton == model.skeleton and set(one) == set(other) >= set(more)
        for name in more:
            np.testing.assert_allclose(one[name], other[name], atol=1e-3)
    # Engines that reject an empty batch in the head repeated the previous image's detections
    nothing = predictor.run(np.zeros((1, 64, 64, 3), np.float32), np.zeros((1, 4), np.float32))
    assert {len(rows) for rows in nothing.values()} == {0}


def test_the_conventions_of_matterport(tmp_path):
    """Its geometry of RoIAlign, one NMS over all levels, corners that name the last pixel, the best class alone."""
    pytest.importorskip("tf2onnx")
    tiny = {name: getattr(TinyConfig, name) for name in vars(TinyConfig) if name.isupper()}
    matterport = {name: value for name, value in vars(Matterport).items() if name.isupper() and name not in tiny}
    model = varied(MaskRCNN("inference", TinyConfig(**{**matterport, "DETECTION_MIN_CONFIDENCE": 0.05})), seed=3)
    predictor = Predictor(model.export(tmp_path / "a.onnx"), threads=1)
    given = [model.detector.network_input(image) for image in images()]
    for one in given:
        expected = model.detector.run(one.image[None], one.window[None])[0]
        found = predictor.detector.run(one.image[None], one.window[None])[0]
        assert found["class_ids"].tolist() == expected["class_ids"].tolist() != []
        np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=0.05)
        np.testing.assert_allclose(found["masks"], expected["masks"], atol=1e-3)


def test_a_missing_library_names_the_command():
    with pytest.raises(ImportError, match=r"run: pip install 'mask-rcnn-keras\[onnx\]'"):
        require("no_such_library.part", "onnx")


@pytest.mark.parametrize(
    "text, message",
    [("{", "is not a description by MaskRCNN.export"), ('{"format": 9}', "format 9; this version reads format 1")],
)
def test_a_broken_description(tmp_path, text, message):
    (tmp_path / "a.onnx").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="a.json is missing; MaskRCNN.export writes a.onnx and a.json"):
        Predictor(tmp_path / "a.onnx")
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        Predictor(tmp_path / "a.onnx")
    with pytest.raises(
        ValueError, match="expected a file of MaskRCNN.export that ends in .onnx, .xml or .tflite, got '.h5'"
    ):
        Predictor(tmp_path / "a.h5")


@pytest.mark.parametrize(
    "suffix, engine", [(".onnx", "onnxruntime"), (".xml", "openvino"), (".tflite", "ai_edge_litert.interpreter")]
)
def test_a_broken_model_is_one_error(tmp_path, suffix, engine):
    pytest.importorskip(engine)
    scaling = {"mean": [0] * 3, "std": [1] * 3, "bgr": False}
    described = {"format": 1, "class_names": ["BG", "cat"], "config": {"NUM_CLASSES": 2}, "pixels": scaling}
    (tmp_path / "a.json").write_text(json.dumps(described))
    (tmp_path / f"a{suffix}").write_text("no model")
    with pytest.raises(
        ValueError, match=rf"(?s)a\{suffix} cannot be loaded: .*; if the file is damaged, export it again"
    ):
        Predictor(tmp_path / f"a{suffix}")
