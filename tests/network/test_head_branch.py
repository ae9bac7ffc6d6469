"""A head that uses the whole protocol, inside the network: trained, logged, saved, loaded, and run."""

import csv

import keras
import numpy as np
import pytest

import heads
from mrcnn.evaluation import evaluate
from mrcnn.model import MaskRCNN
from tests.heads.example import Everything
from tests.tiny import TinyConfig, TinyDataset

pytestmark = pytest.mark.slow

LOSSES = ("mrcnn_mask_loss", "edge_loss", "quality_loss")


@pytest.fixture(autouse=True, scope="module")
def registered():
    before = dict(heads.registry._heads)
    heads.register("everything")(Everything)
    yield
    heads.registry._heads.clear()
    heads.registry._heads.update(before)


def config(**settings):
    return TinyConfig(MASK_HEAD="everything", DETECTION_MIN_CONFIDENCE=0.0, **settings)


@pytest.fixture(scope="module")
def trained(registered, tmp_path_factory):
    model = MaskRCNN("training", config(), tmp_path_factory.mktemp("logs"))
    model.train(TinyDataset(4), TinyDataset(2, seed=1), epochs=1, verbose=0)
    return model


def test_its_losses_are_logged_by_their_names(trained):
    row = next(csv.DictReader((trained.log_dir / "log.csv").open()))
    for name in LOSSES:
        assert float(row[name]) > 0 and float(row[f"val_{name}"]) > 0


def test_its_losses_are_part_of_the_total(trained):
    row = {name: float(value) for name, value in next(csv.DictReader((trained.log_dir / "log.csv").open())).items()}
    others = ("rpn_class_loss", "rpn_bbox_loss", "mrcnn_class_loss", "mrcnn_bbox_loss")
    assert row["loss"] == pytest.approx(sum(row[name] for name in (*others, *LOSSES)), rel=1e-4)


def test_all_of_its_weights_learn(trained):
    fresh = MaskRCNN("training", config(), trained.model_dir)
    for new, old in zip(trained.network.mask_head.weights, fresh.network.mask_head.weights, strict=True):
        assert np.abs(np.array(new) - np.array(old)).max() > 0, new.path


def test_masks_have_scores_of_their_own(trained):
    (found,) = trained.detect([TinyDataset(1).load_image(0)])
    assert found.count and found["mask_scores"].shape == found["scores"].shape
    assert not np.allclose(found["mask_scores"], found["scores"])
    assert found.keep(slice(1)).mask_scores.shape == (1,) and found.soft.probabilities.shape[1:] == (16, 16)


def test_evaluation_ranks_masks_by_the_scores_of_masks_and_boxes_by_those_of_boxes(trained):
    dataset = TinyDataset(2, seed=1)

    class Reversed:
        """The masks' scores in reverse."""

        def detect(self, images, **options):
            results = trained.detect(images)
            for found in results:
                found["mask_scores"] = found["scores"][::-1].copy()
            return results

    plain, turned = (evaluate(model, dataset, progress=False) for model in (trained, Reversed()))
    assert plain.box == turned.box
    scores = [annotation["mask_score"] for annotation in turned.records.found]
    assert scores != [annotation["score"] for annotation in turned.records.found]


def test_a_checkpoint_gives_the_same_detections(trained, tmp_path):
    trained.save_weights(tmp_path / "all.h5")
    other = MaskRCNN("inference", config(SEED=5), tmp_path)
    other.load_weights(tmp_path / "all.h5")
    image = TinyDataset(1).load_image(0)
    (one,), (two,) = trained.detect([image]), other.detect([image])
    np.testing.assert_allclose(one["mask_scores"], two["mask_scores"], atol=1e-5)
    np.testing.assert_allclose(one.soft.probabilities, two.soft.probabilities, atol=1e-5)


def test_images_without_objects_and_without_detections_are_no_trouble(tmp_path):
    model = MaskRCNN("training", config(ALLOW_EMPTY_IMAGES=True), tmp_path)
    history = model.train(TinyDataset(2, empty=[0, 1]), None, epochs=1, verbose=0)
    assert all(history.history[name] == [0.0] for name in LOSSES)
    model.config.DETECTION_MIN_CONFIDENCE = 0.9999
    (found,) = model.detect([np.zeros((64, 64, 3), np.uint8)])
    assert found.count == 0 and found["mask_scores"].shape == (0,)


def test_it_trains_in_bfloat16(tmp_path):
    model = MaskRCNN("training", config(PRECISION="bfloat16"), tmp_path)
    history = model.train(TinyDataset(2), None, epochs=1, verbose=0).history
    assert all(np.isfinite(history[name]).all() for name in LOSSES)
    assert {keras.backend.standardize_dtype(weight.dtype) for weight in model.network.mask_head.weights} == {"float32"}
