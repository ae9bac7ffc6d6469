"""The old package's methods of MaskRCNN."""

import inspect

import numpy as np
import pytest

from mrcnn import inspection, utils
from mrcnn import model as modellib
from mrcnn.legacy.boxes import norm_boxes
from mrcnn.legacy.removed import RemovedNameError
from mrcnn.model import MaskRCNN
from tests import oracles
from tests.tiny import TinyConfig, TinyDataset


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config = TinyConfig(IMAGE_RESIZE_MODE="square", DETECTION_MIN_CONFIDENCE=0.2)
    return MaskRCNN("inference", config, tmp_path_factory.mktemp("logs"))


@pytest.fixture(scope="module")
def images():
    dataset = TinyDataset(2, sizes=((48, 64),))
    return [dataset.load_image(i) for i in dataset.image_ids]


@pytest.mark.slow
def test_molding_and_detecting_apart_is_detecting(model, images, capsys):
    molded, metas, windows = model.mold_inputs(images)
    assert molded.shape == (2, 64, 64, 3) and metas.shape == (2, 12 + 3)
    assert windows.tolist() == [[8, 0, 56, 64]] * 2
    parts = modellib.parse_image_meta(metas)
    assert parts["window"].tolist() == windows.tolist() and parts["original_image_shape"].tolist() == [[48, 64, 3]] * 2
    together, apart = model.detect(images), model.detect_molded(molded, metas, verbose=1)
    assert "molded_images" in capsys.readouterr().out
    for whole, inside in zip(together, apart, strict=True):
        assert len(inside["rois"]) > 0
        np.testing.assert_allclose(inside["rois"] - [8, 0, 8, 0], whole["rois"], atol=1e-3)
        np.testing.assert_array_equal(inside["class_ids"], whole["class_ids"])
        assert inside["masks"].shape == (64, 64, len(inside["rois"]))
        assert (inside["masks"][8:56] == whole["masks"]).mean() > 0.999
    with pytest.raises(ValueError, match="2 images and 1 image metas"):
        model.detect_molded(molded, metas[:1])


def test_images_of_several_sizes_cannot_be_molded_together(tmp_path, images):
    fit = MaskRCNN("inference", TinyConfig(IMAGE_MIN_DIM=32), tmp_path)
    with pytest.raises(ValueError, match=r"2 images give network inputs of sizes \[\(32, 32\), \(32, 64\)\]"):
        fit.mold_inputs([images[0], np.zeros((40, 40, 3), np.uint8)])


def test_detections_come_back_as_in_the_old_package(model):
    old = oracles.load("matterport/model_r50_b_compact.npz")
    rois, class_ids, scores, masks = model.unmold_detections(
        old["detections"][0], old["mrcnn_mask"][0], (150, 200, 3), (256, 256, 3), old["window"][0]
    )
    np.testing.assert_array_equal(rois, old["detect_rois"])
    np.testing.assert_array_equal(class_ids, old["detect_class_ids"])
    np.testing.assert_array_equal(scores, old["detect_scores"])
    expected = np.unpackbits(old["detect_masks"], count=masks.size).reshape(masks.shape)
    np.testing.assert_array_equal(masks, expected)
    assert rois.dtype == class_ids.dtype == np.int32


def test_detections_come_back_by_hand(model):
    window = (16, 0, 48, 64)  # of an image of 16 x 32 at twice its size
    boxes = norm_boxes(np.array([[16, 0, 32, 32], [20, 20, 20, 40], [0, 0, 1, 1]]), (64, 64))
    detections = np.concatenate([boxes, [[2, 0.9], [1, 0.8], [0, 0]]], axis=1)
    probabilities = np.zeros((3, 4, 4, 3))
    probabilities[0, :, :, 2] = 1
    rois, class_ids, scores, masks = model.unmold_detections(
        detections, probabilities, (16, 32, 3), (64, 64, 3), window
    )
    assert rois.tolist() == [[0, 0, 8, 16]] and class_ids.tolist() == [2] and scores.tolist() == [0.9]
    assert masks.shape == (16, 32, 1) and masks[:8, :16].mean() > 0.8 and not masks[8:].any()
    nothing = model.unmold_detections(np.zeros((2, 6)), probabilities, (16, 32, 3), (64, 64, 3), window)
    assert [array.shape[-1] for array in nothing[:1]] == [4] and nothing[3].shape == (16, 32, 0)


@pytest.mark.slow
def test_suppression_over_all_classes_as_the_documentation_of_detect_has_it(model, images):
    result = model.detect(images[:1])[0]
    kept = result.keep(utils.non_max_suppression(result.rois, result.scores, 0.1))
    overlaps = utils.compute_overlaps(kept.rois, kept.rois) - np.eye(kept.count)
    assert 0 < kept.count < result.count and overlaps.max() <= 0.1 and (np.diff(kept.scores) <= 0).all()


def test_anchors_are_the_networks_own(model, images):
    rpn = inspection.rpn_predictions(model, images[0])
    np.testing.assert_allclose(model.anchors, rpn.anchors)
    np.testing.assert_allclose(model.get_anchors((64, 64, 3)), norm_boxes(rpn.anchors, (64, 64)))
    assert len(model.get_anchors((32, 64, 3))) < len(rpn.anchors) and len(model.anchors) < len(rpn.anchors)
    with pytest.raises(ValueError, match=r"needs the size of the network input, got \(None, None, 3\)"):
        model.get_anchors((None, None, 3))


def test_values_inside_the_graph(model, images, capsys):
    proposals = model.keras_model.get_layer("proposals").output
    found = model.run_graph(images, [("rois", proposals[0]), ("detections", "detections")])
    assert list(found) == ["rois", "detections"] and found["rois"].shape == (2, 30, 4)
    steps = inspection.proposal_steps(model, images[0])
    np.testing.assert_allclose(found["rois"][0][: len(steps.proposals)], steps.proposals, atol=1e-3)
    assert "rois" in capsys.readouterr().out
    molded, metas, _ = model.mold_inputs(images)
    again = model.run_graph(molded, [("rois", proposals[0])], image_metas=metas)
    np.testing.assert_allclose(again["rois"], found["rois"], atol=1e-4)


@pytest.mark.parametrize(
    "name, function",
    [
        ("ROI/rpn_non_max_suppression/NonMaxSuppressionV3:0", "proposal_steps"),
        ("ROI/pre_nms_anchors:0", "proposal_steps"),
        ("proposal_targets/target_mask:0", "training_targets"),
        ("mrcnn_detection/Reshape_1:0", "detection_steps"),
        ("rpn_class/concat:0", "rpn_predictions"),
        ("roi_align_classifier", "mask_predictions"),
        ("mrcnn_mask/Reshape_1", "mask_predictions"),
        ("mrcnn_class/Reshape_1", "detection_steps"),
        ("res2c_out", "activations"),
    ],
)
def test_operations_of_tensorflow_name_the_function_that_shows_them(model, name, function):
    with pytest.raises(RemovedNameError, match=rf"mrcnn\.inspection\.{function}\("):
        model.ancestor(None, name)


def test_layers_by_name(model):
    graph = model.keras_model
    assert model.ancestor(graph.output["boxes"], "detections") is not None
    with pytest.raises(ValueError, match="No such layer: nothing"):
        model.ancestor(None, "nothing")


def test_layers_that_hold_weights(model):
    layers = model.get_trainable_layers()
    assert [layer.name for layer in layers] == [name.rpartition("/")[2] for name in model.network.layers()]
    assert all(layer.get_weights() for layer in layers)
    assert model.find_trainable_layer(layers[0]) is layers[0]
    assert model.find_trainable_layer(model.network.rpn).weights
    assert model.find_trainable_layer(model.keras_model.get_layer("proposals")) is None


def test_layers_that_learn_are_chosen_by_a_regular_expression(model, capsys):
    model.set_trainable(r"fpn\_.*", keras_model=None, indent=2)
    learning = {layer.name for layer in model.get_trainable_layers() if layer.trainable}
    assert learning and all(name.startswith("fpn_") for name in learning)
    assert set(capsys.readouterr().out.split()[2:]) == learning
    model.set_trainable(".*", verbose=0)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["metrics_tensors", "_make_predict_function", "fit_generator", "predict_generator"])
def test_attributes_of_the_old_keras_model_say_what_replaces_them(model, name):
    with pytest.raises(RemovedNameError, match=f"keras_model.{name} of the old package no longer exists: "):
        getattr(model.keras_model, name)()
    with pytest.raises(RemovedNameError, match="no longer exists"):
        getattr(model.keras_model, name).append(1)


def test_both_modes_have_a_keras_model(tmp_path):
    training = MaskRCNN("training", TinyConfig(), tmp_path)
    assert training.keras_model is training.training_model
    training.mode = "inference"
    assert training.keras_model is training.inference_model


def test_building_and_compiling_say_what_replaces_them(model):
    with pytest.raises(RemovedNameError, match=r"MaskRCNN.build .*heads\.register"):
        model.build("inference", model.config)
    with pytest.raises(RemovedNameError, match=r"MaskRCNN.compile .*learning_rate"):
        model.compile(0.001, 0.9)


def test_a_subclass_that_changes_what_is_not_called_is_warned():
    with pytest.warns(
        UserWarning, match="Mine overrides build, mold_inputs, which this package, unlike the old one, does not call"
    ):

        class Mine(MaskRCNN):
            def build(self, mode, config):
                pass

            def mold_inputs(self, images):
                pass


def test_a_log_folder_is_chosen(tmp_path):
    model = MaskRCNN("training", TinyConfig(), tmp_path)
    folder = tmp_path / "tiny20200102T0304"
    folder.mkdir()
    model.set_log_dir(str(folder / "mask_rcnn_tiny_0017.h5"))
    assert model.epoch == 17 and str(model.log_dir) == str(folder)
    model.set_log_dir()
    assert model.epoch == 0 and str(model.log_dir) != str(folder)


def test_signatures_of_the_old_package():
    old = {
        "set_trainable": "layer_regex keras_model indent verbose",
        "set_log_dir": "model_path",
        "mold_inputs": "images",
        "unmold_detections": "detections mrcnn_mask original_image_shape image_shape window",
        "detect_molded": "molded_images image_metas verbose",
        "get_anchors": "image_shape",
        "ancestor": "tensor name checked",
        "find_trainable_layer": "layer",
        "get_trainable_layers": "",
        "run_graph": "images outputs image_metas",
    }
    for name, parameters in old.items():
        assert list(inspect.signature(getattr(MaskRCNN, name)).parameters)[1:] == parameters.split(), name
