"""MaskRCNN as users hold it: train, resume, load, detect, and what it says when something is wrong."""

import csv
import dataclasses
import os
import re

import cv2
import keras
import numpy as np
import pytest

from mrcnn.config import LOSS_NAMES
from mrcnn.evaluation.coco_evaluation import evaluate
from mrcnn.model import MaskRCNN
from mrcnn.weights import checkpoint
from tests.tiny import SIDE, TinyConfig, TinyDataset, tiny_backbone

pytestmark = pytest.mark.slow


def weights_of(model):
    return {
        f"{key}/{weight.name}": np.array(weight)
        for key, layer in model.network.layers().items()
        for weight in layer.weights
    }


def assert_same(first, second, tolerance=0.0):
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_allclose(value, second[name], rtol=0, atol=tolerance, err_msg=name)


def same(first, second):
    return all(np.array_equal(value, second[name]) for name, value in first.items())


class LearningConfig(TinyConfig):
    """Learns four images by heart in 100 steps."""

    SEED = 1

    IMAGES_PER_GPU = 4
    STEPS_PER_EPOCH = 50
    TRAIN_BN = True
    TOP_DOWN_PYRAMID_SIZE = 32
    RPN_CHANNELS = 32
    FPN_CLASSIF_FC_LAYERS_SIZE = 64
    MASK_HEAD = {"name": "fcn", "filters": 32, "convolutions": 1}
    LEARNING_RATE = 0.02
    LR_SCHEDULE = "cosine"


@dataclasses.dataclass
class Run:
    """A model that learnt four images, what it found in one before and after, and what `train` returned."""

    model: MaskRCNN
    dataset: TinyDataset
    before: dict
    history: keras.callbacks.History


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    dataset = TinyDataset(4)
    model = MaskRCNN("training", LearningConfig(), tmp_path_factory.mktemp("logs"))
    before = model.detect([dataset.load_image(0)])[0]
    history = model.train(dataset, dataset, epochs=2, verbose=0, allow_shared_images=True)
    return Run(model, dataset, before, history)


@pytest.fixture(scope="module")
def found(run):
    """What the model finds in the first of the images that it knows."""
    return run.model.detect([run.dataset.load_image(0)])[0]


# What training does


def test_four_images_are_learnt_by_heart(run):
    results = evaluate(run.model, run.dataset, progress=False)
    assert results.mask["AP50"] == pytest.approx(1.0, abs=1e-6)
    assert results.box["AP50"] == pytest.approx(1.0, abs=1e-6)
    assert results.mask["AP"] > 0.8


def test_detection_is_that_of_the_object_just_trained(run, found):
    assert not np.array_equal(found["rois"], run.before["rois"])
    assert found["scores"].max() > 0.5 > run.before["scores"].max(initial=0)


def test_what_is_found_is_what_is_there(run, found):
    masks, class_ids = run.dataset.load_mask(0)
    best = found["scores"] > 0.5
    assert sorted(found["class_ids"][best]) == sorted(class_ids)
    assert (np.diff(found["scores"]) <= 0).all()
    for mask, class_id in zip(np.moveaxis(masks, -1, 0), class_ids, strict=True):
        theirs = [found["masks"][..., i] for i in np.flatnonzero(best & (found["class_ids"] == class_id))]
        assert max((mask & other).sum() / (mask | other).sum() for other in theirs) > 0.8


def test_history_has_every_loss_and_its_validation_twin(run):
    names = {"loss", *LOSS_NAMES}
    assert names | {f"val_{name}" for name in names} <= set(run.history.history)
    assert run.history.history["loss"][1] < run.history.history["loss"][0]
    assert run.history.epoch == [0, 1]


def test_a_run_leaves_its_settings_logs_and_a_checkpoint_an_epoch(run):
    folder = run.model.log_dir
    assert re.fullmatch(r"tiny\d{8}T\d{6}", folder.name)
    files = {path.name for path in folder.iterdir()}
    assert {"config.json", "log.csv", "mask_rcnn_tiny_0001.h5", "mask_rcnn_tiny_0002.h5"} <= files
    assert any(folder.rglob("events.out.tfevents*")), "TensorBoard"
    assert TinyConfig.load(folder / "config.json").NUM_CLASSES == 3
    rows = list(csv.DictReader((folder / "log.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"mrcnn_mask_loss", "val_mrcnn_mask_loss"} <= set(rows[0])
    assert run.model.find_last() == folder / "mask_rcnn_tiny_0002.h5"


def test_what_is_done_is_not_done_again(run, capsys):
    before = weights_of(run.model)
    run.model.train(run.dataset, None, epochs=2, verbose=0)
    assert "Nothing to train: epoch 2 of 2 is done. Set a higher `epochs`." in capsys.readouterr().out
    assert_same(before, weights_of(run.model))


def test_names_of_the_classes_are_kept(run):
    assert run.model.class_names == ["BG", "box", "disc"]
    other = MaskRCNN("inference", LearningConfig(), run.model.model_dir)
    assert other.class_names == []
    other.load_weights(run.model.find_last())
    assert other.class_names == ["BG", "box", "disc"]


def test_another_object_with_the_weights_finds_the_same(run, found):
    other = MaskRCNN("inference", LearningConfig(SEED=5), run.model.model_dir)
    report = other.load_weights("last")
    assert not report.skipped and not report.missing and not report.unexpected
    assert len(report.loaded) == len(weights_of(other))
    assert_same(weights_of(run.model), weights_of(other))
    again = other.detect([run.dataset.load_image(0)])[0]
    for name, value in found.items():
        np.testing.assert_allclose(again[name].astype(float), value.astype(float), atol=1e-3, err_msg=name)
    assert other.epoch == 2


# Resuming

TOLERANCE = 1e-5  # threads add up sums in any order: two equal runs were seen to differ by 3.2e-6


class Settings(TinyConfig):
    STEPS_PER_EPOCH = 3
    LR_SCHEDULE = "cosine"
    HORIZONTAL_FLIP = 0.5


def optimizer_of(model):
    return {name: np.array(value) for name, value in model.run.state.items()}


def test_a_run_killed_while_it_saves_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch):
    """Weights and momentum after 2 epochs equal those of a run that went through: the same shuffle, flips, samples and
    learning rates. The kill comes while the second checkpoint is written."""
    dataset = TinyDataset(5)
    whole = MaskRCNN("training", Settings(LOADER_WORKERS=2), tmp_path / "whole")
    whole.train(dataset, None, epochs=2, verbose=0)

    killed = MaskRCNN("training", Settings(), tmp_path / "killed")
    compare, saved = checkpoint._compare, []

    def kill_the_second(path, datasets):
        saved.append(path)
        if len(saved) == 2:
            raise KeyboardInterrupt
        compare(path, datasets)

    monkeypatch.setattr(checkpoint, "_compare", kill_the_second)
    with pytest.raises(KeyboardInterrupt):
        killed.train(dataset, None, epochs=2, verbose=0)
    monkeypatch.undo()
    assert [path.name for path in killed.log_dir.glob("mask_rcnn*")] == ["mask_rcnn_tiny_0001.h5"]

    resumed = MaskRCNN("training", Settings(SEED=0), tmp_path / "killed")
    resumed.load_weights("last")
    assert (resumed.epoch, resumed.log_dir) == (1, killed.log_dir)
    history = resumed.train(dataset, None, epochs=2, verbose=0)
    assert history.epoch == [1]
    assert_same(weights_of(whole), weights_of(resumed), TOLERANCE)
    assert_same(optimizer_of(whole), optimizer_of(resumed), TOLERANCE)
    assert any(np.abs(value).max() > 0 for name, value in optimizer_of(resumed).items() if "momentum" in name)
    rows = [row["epoch"] for row in csv.DictReader((resumed.log_dir / "log.csv").open())]
    assert rows == ["1", "2"]
    assert resumed.find_last().name == "mask_rcnn_tiny_0002.h5"


def test_runs_that_begin_in_the_same_second_have_a_folder_each(tmp_path):
    folders = {MaskRCNN("inference", TinyConfig(), tmp_path).log_dir for _ in range(3)}
    assert len(folders) == 3
    assert all(folder.is_dir() for folder in folders)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    return MaskRCNN("inference", TinyConfig(), tmp_path_factory.mktemp("logs"))


def make_runs(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.touch()


def test_find_last_takes_the_newest_run_that_saved_something(untrained, monkeypatch, tmp_path):
    monkeypatch.setattr(untrained, "model_dir", tmp_path)
    make_runs(
        tmp_path,
        "tiny20250101T000000/mask_rcnn_tiny_0009.h5",
        "tiny20260101T0000/mask_rcnn_tiny_0001.h5",
        "tiny20260101T0000/mask_rcnn_tiny_0010.h5",
        "tiny20260101T0000/.mask_rcnn_tiny_0011.h5.tmp",
        "tiny20260101T0000/mask_rcnn_tiny_best.h5",
        "tiny20260101T0000/zzz.h5",
        "tiny20270101T000000/log.csv",
        "tiny220280101T000000/mask_rcnn_tiny2_0001.h5",
        "other20280101T000000/mask_rcnn_other_0001.h5",
        "tiny/mask_rcnn_tiny_0099.h5",
    )
    assert untrained.find_last() == tmp_path / "tiny20260101T0000/mask_rcnn_tiny_0010.h5"


def test_nothing_to_find_names_the_folder_and_the_runs(untrained, monkeypatch, tmp_path):
    monkeypatch.setattr(untrained, "model_dir", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"No checkpoint of a run named 'tiny' in .*nowhere; runs: \[\]. Check"):
        untrained.find_last()
    monkeypatch.setattr(untrained, "model_dir", tmp_path)
    make_runs(tmp_path, "tiny20270101T000000/log.csv")
    with pytest.raises(FileNotFoundError, match=r"runs: \['tiny20270101T000000'\]"):
        untrained.load_weights("last")


def test_a_configuration_without_a_name_cannot_make_a_folder(tmp_path):
    model = MaskRCNN("training", TinyConfig(NAME=None), tmp_path)
    with pytest.raises(ValueError, match="Config.NAME is None. Set a name"):
        model.train(TinyDataset(2), None, epochs=1, verbose=0)


def test_weights_of_another_run_are_no_resumption(run, tmp_path):
    """Same shape, another NAME, or a copy outside of the runs: the weights are a start, not a run to go on with."""
    path = run.model.find_last()
    other = MaskRCNN("training", LearningConfig(NAME="second"), run.model.model_dir)
    other.load_weights(path)
    assert (other.epoch, other.run.saved) == (0, None)
    assert_same(weights_of(other), weights_of(run.model))
    copy = tmp_path / "weights.h5"
    copy.write_bytes(path.read_bytes())
    third = MaskRCNN("training", LearningConfig(), run.model.model_dir)
    third.load_weights(copy)
    assert third.epoch == 0


# Weights that do not fit


@pytest.fixture(scope="module")
def stored(untrained, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.h5"
    untrained.class_names = ["BG", "box", "disc"]
    untrained.save_weights(path)
    return path


@pytest.fixture
def wider(tmp_path):
    """The same network for two more classes."""
    return MaskRCNN("training", TinyConfig(NUM_CLASSES=5, SEED=1), tmp_path)


CLASS_SHAPED = ["box_head/mrcnn_class_logits", "box_head/mrcnn_bbox_fc", "mask_head/masks"]


def test_another_number_of_classes_names_the_layers_and_changes_nothing(wider, stored):
    before = weights_of(wider)
    with pytest.raises(ValueError, match="number of classes") as caught:
        wider.load_weights(stored, strict=True)
    text = str(caught.value)
    assert "box_head/mrcnn_class_logits/kernel" in text and "(32, 5)" in text and "(32, 3)" in text
    assert f"exclude={sorted(CLASS_SHAPED)}" in text
    assert_same(before, weights_of(wider))


def test_another_number_of_classes_loads_all_else_and_prints_a_table(wider, stored, untrained, capsys):
    before = weights_of(wider)
    report = wider.load_weights(stored)
    printed = capsys.readouterr().out
    assert str(report) in printed and "the file has 3 classes and the model 5" in printed
    assert {tensor.name.rsplit("/", 1)[0] for tensor in report.skipped} == set(CLASS_SHAPED)
    for name, value in weights_of(wider).items():
        source = before if name.rsplit("/", 1)[0] in CLASS_SHAPED else weights_of(untrained)
        np.testing.assert_array_equal(value, source[name], err_msg=name)
    assert wider.class_names == [] and wider.epoch == 0


@pytest.mark.parametrize("known", [False, True])
def test_classes_of_the_same_name_are_kept(wider, stored, untrained, capsys, known):
    """Whether the model knows the names already or is told them."""
    names = ["BG", "star", "disc", "cross", "box"]
    before = weights_of(wider)
    wider.class_names = names if known else []
    report = wider.load_weights(stored, keep_classes=True, class_names=None if known else names)
    assert "classes kept by name: disc, box; unchanged: star, cross" in capsys.readouterr().out
    assert wider.class_names == names and len(report.loaded) == len(before)
    logits, theirs = (weights_of(model)["box_head/mrcnn_class_logits/bias"] for model in (wider, untrained))
    np.testing.assert_array_equal(logits[[0, 2, 4]], theirs[[0, 2, 1]])
    np.testing.assert_array_equal(logits[[1, 3]], before["box_head/mrcnn_class_logits/bias"][[1, 3]])
    with pytest.raises(ValueError, match="class_names has 4 names with background; NUM_CLASSES is 5"):
        wider.load_weights(stored, class_names=names[:4])


class Bound(TinyConfig):
    """Conventions of another kind than the defaults, some of which the layers are built from."""

    ROI_ALIGNED = False
    RPN_CHANNELS = 12
    RPN_CONVOLUTIONS = 2
    MEAN_PIXEL = (100.0, 110.0, 120.0)
    CHANNEL_ORDER = "bgr"
    DETECTION_MIN_CONFIDENCE = 0.0


def test_conventions_come_with_the_weights_and_are_printed(tmp_path, capsys):
    """What nobody set follows the file; the user's own settings stay, and the configuration that was given too."""
    saver = MaskRCNN("inference", Bound(SEED=3, RPN_CHANNELS=16), tmp_path)
    saver.save_weights(tmp_path / "bound.h5")
    config = TinyConfig(RPN_ANCHOR_SCALES=(8, 16, 32, 48, 60), DETECTION_MIN_CONFIDENCE=0.0)
    model = MaskRCNN("inference", config, tmp_path)
    assert model.keras_model is model.inference_model
    model.load_weights(tmp_path / "bound.h5")
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and "(weights of this package) sets " in line
    for text in (
        "ROI_ALIGNED True -> False",
        "CHANNEL_ORDER None -> 'bgr'",
        "MEAN_PIXEL None -> [100.0, 110.0, 120.0]",
        "RPN_CONVOLUTIONS 1 -> 2",
    ):
        assert text in line
    kept = "keeps your Config's values: RPN_ANCHOR_SCALES (8, 16, 32, 48, 60) (the file: [8, 16, 32, 48, 64])"
    assert kept in line and line.count("SCALES") == 1 and "SEED" not in line
    assert model.config.RPN_ANCHOR_SCALES == (8, 16, 32, 48, 60)
    assert (config.ROI_ALIGNED, config.RPN_CHANNELS, config.MEAN_PIXEL) == (True, 16, None)
    assert_same(weights_of(model), weights_of(saver))
    model.config.RPN_ANCHOR_SCALES = saver.config.RPN_ANCHOR_SCALES
    image = TinyDataset(1).load_image(0)
    found = model.detect([image])[0]
    for name, value in saver.detect([image])[0].items():
        np.testing.assert_array_equal(found[name], value)
    model.load_weights(tmp_path / "bound.h5")
    assert not capsys.readouterr().out, "nothing differs any more"


def test_settings_of_the_users_class_go_before_those_of_a_file(tmp_path):
    """A program for nuclei had its MEAN_PIXEL replaced by the file's, in training and in detection."""

    class Nuclei(TinyConfig):
        MEAN_PIXEL = [43.53, 39.56, 48.22]
        RPN_BBOX_STD_DEV = [0.1, 0.1, 0.2, 0.2]

    MaskRCNN("inference", Bound(RPN_CHANNELS=16), tmp_path).save_weights(tmp_path / "bound.h5")
    loaded = MaskRCNN("inference", Nuclei(), tmp_path)
    loaded.load_weights(tmp_path / "bound.h5")
    built = MaskRCNN.from_pretrained(tmp_path / "bound.h5", config=Nuclei)
    for model in (loaded, built):
        assert tuple(model.scaling.mean) == (43.53, 39.56, 48.22)
        assert model.config.RPN_BBOX_STD_DEV == [0.1, 0.1, 0.2, 0.2] and model.config.CHANNEL_ORDER == "bgr"
    assert_same(weights_of(loaded), weights_of(built))
    for way in (
        lambda: MaskRCNN("inference", TinyConfig(BACKBONE_STRIDE_IN_1X1=True)).load_weights(tmp_path / "bound.h5"),
        lambda: MaskRCNN.from_pretrained(tmp_path / "bound.h5", config=TinyConfig, BACKBONE_STRIDE_IN_1X1=True),
    ):
        with pytest.raises(ValueError, match="made with BACKBONE_STRIDE_IN_1X1 = False, but your .* sets True"):
            way()


def test_layers_of_another_size_than_the_files_are_told_by_the_setting(tmp_path):
    MaskRCNN("inference", Bound(), tmp_path).save_weights(tmp_path / "bound.h5")
    model = MaskRCNN("inference", TinyConfig(), tmp_path)
    before = weights_of(model)
    with pytest.raises(ValueError, match="Your Config sets RPN_CHANNELS = 16; the file has 12"):
        model.load_weights(tmp_path / "bound.h5")
    assert_same(before, weights_of(model))


def test_weights_that_do_not_fit_bring_no_conventions(tmp_path):
    MaskRCNN("inference", Bound(TOP_DOWN_PYRAMID_SIZE=8), tmp_path).save_weights(tmp_path / "bound.h5")
    model = MaskRCNN("inference", TinyConfig(), tmp_path)
    config, network, before = model.config, model.network, weights_of(model)
    with pytest.raises(ValueError, match="does not fit the model"):
        model.load_weights(tmp_path / "bound.h5")
    assert model.config is config and model.network is network
    assert_same(before, weights_of(model))
    model.load_weights(tmp_path / "bound.h5", exclude=["trunk/fpn_.*", "rpn", "box_head", "mask_head"])
    assert model.config.RPN_CHANNELS == 16 and model.config.CHANNEL_ORDER == "bgr"


@pytest.mark.parametrize("exclude", [["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"], CLASS_SHAPED])
def test_the_old_package_s_names_of_class_shaped_layers_are_excluded(wider, stored, untrained, exclude):
    before = weights_of(wider)
    report = wider.load_weights(stored, exclude=exclude)
    after = weights_of(wider)
    assert {tensor.name.rsplit("/", 1)[0] for tensor in report.skipped} == set(CLASS_SHAPED)
    for name, value in after.items():
        source = before if name.rsplit("/", 1)[0] in CLASS_SHAPED else weights_of(untrained)
        np.testing.assert_array_equal(value, source[name], err_msg=name)
    assert wider.class_names == [], "those of the file are not the model's"


def test_by_name_skips_what_does_not_fit_and_says_so(wider, stored):
    report = wider.load_weights(stored, by_name=True)
    assert {tensor.name.rsplit("/", 1)[0] for tensor in report.skipped} == set(CLASS_SHAPED)
    assert "6 skipped" in str(report) and "box_head/mrcnn_bbox_fc/kernel" in str(report)
    assert len(report.loaded) + 6 == len(weights_of(wider))


def test_a_part_by_another_name_is_no_resumption(untrained, stored, tmp_path):
    """Another head: its layers are missing from the file, which by_name allows."""
    folder = tmp_path / "tiny20260101T000000"
    folder.mkdir()
    (folder / "mask_rcnn_tiny_0007.h5").write_bytes(stored.read_bytes())
    head = {"name": "fcn", "filters": 16, "convolutions": 2}
    model = MaskRCNN("training", TinyConfig(MASK_HEAD=head), tmp_path)
    report = model.load_weights("last", by_name=True)
    assert [tensor.name for tensor in report.missing] == ["mask_head/conv2/kernel", "mask_head/conv2/bias"]
    assert model.epoch == 0


def test_weights_of_another_architecture_are_refused(stored, tmp_path):
    for settings in ({"TOP_DOWN_PYRAMID_SIZE": 8}, {"BACKBONE": lambda image: tiny_backbone(image, width=4)}):
        model = MaskRCNN("inference", TinyConfig(**settings), tmp_path)
        before = weights_of(model)
        with pytest.raises(ValueError, match="tiny.h5 does not fit the model: a different architecture"):
            model.load_weights(stored)
        assert_same(before, weights_of(model))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_named_and_changes_nothing(untrained, stored, tmp_path, share):
    content = stored.read_bytes()
    path = tmp_path / "cut.h5"
    path.write_bytes(content[: int(share * len(content))])
    before = weights_of(untrained)
    with pytest.raises(ValueError, match=r"cut.h5 is (not an HDF5 file|truncated or damaged)"):
        untrained.load_weights(path)
    assert_same(before, weights_of(untrained))


def test_a_missing_file_is_named(untrained):
    with pytest.raises(FileNotFoundError, match="no checkpoint file at .*nowhere.h5"):
        untrained.load_weights("nowhere.h5")


def test_imagenet_weights_need_a_backbone_that_has_them(untrained, tmp_path):
    path = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save_weights(path)
    with pytest.raises(
        ValueError, match="not a weights file of a known.* another keras.applications model, set BACKBONE to"
    ):
        untrained.load_weights(path)
    with pytest.raises(ValueError, match="no downloadable ImageNet weights for BACKBONE=<function tiny_backbone"):
        untrained.get_imagenet_weights()


# When something is wrong


@pytest.mark.parametrize("mode", ["train", "Training", None])
def test_an_unknown_mode_is_named(mode):
    with pytest.raises(ValueError, match=f'mode must be "training" or "inference", got {mode!r}'):
        MaskRCNN(mode, TinyConfig())


def test_unknown_parts_are_named():
    with pytest.raises(ValueError, match="unknown backbone 'resnet99'"):
        MaskRCNN("inference", TinyConfig(BACKBONE="resnet99"))
    with pytest.raises(ValueError, match="unknown mask head 'fnc'.*did you mean 'fcn'"):
        MaskRCNN("inference", TinyConfig(MASK_HEAD="fnc"))


def test_the_number_of_classes_must_be_the_dataset_s(tmp_path):
    model = MaskRCNN("training", TinyConfig(NUM_CLASSES=5), tmp_path)
    with pytest.raises(
        ValueError,
        match=r"the TinyDataset has 3 classes including background \(BG, box, disc ...\), "
        "but NUM_CLASSES is 5; set it to 3",
    ):
        model.train(TinyDataset(2), None, epochs=1)
    assert not list(tmp_path.iterdir())


class Breaking(TinyDataset):
    """Its second image cannot be read."""

    def load_image(self, image_id):
        if image_id == 1:
            raise ValueError("the scanner was off")
        return super().load_image(image_id)


def test_an_image_that_cannot_be_loaded_ends_training_by_its_name_and_a_nan_by_its_images(tmp_path):
    """And what was learnt before is still there."""
    model = MaskRCNN("training", TinyConfig(), tmp_path)
    with pytest.raises(ValueError, match=r"image 1 \(tiny 1, tiny/1.png\): the scanner was off"):
        model.train(Breaking(2), None, epochs=1, verbose=0)
    model.train(TinyDataset(2), None, epochs=1, verbose=0)
    model.training_model.loss_weights["mrcnn_mask_loss"] = float("inf")
    with pytest.raises(
        FloatingPointError,
        match=r"not finite at step 1 of the epoch \(.*mrcnn_mask_loss.*in a batch "
        r"of: image 0 \(tiny .?0.?, tiny/0.png\), image 1 \(tiny .?1.?, "
        r"tiny/1.png\). Check these",
    ):
        model.train(TinyDataset(2), None, epochs=2, verbose=0)
    assert model.find_last().name == "mask_rcnn_tiny_0001.h5"
    again = MaskRCNN("inference", TinyConfig(), tmp_path)
    again.load_weights("last")
    assert all(np.isfinite(value).all() for value in weights_of(again).values())


def test_callbacks_of_the_user_and_few_checkpoints_and_a_warm_up_that_never_ends(tmp_path):
    class Seen(keras.callbacks.Callback):
        epochs = []

        def on_epoch_end(self, epoch, logs=None):
            self.epochs.append((epoch, [path.name for path in model.log_dir.glob("*.h5")]))

    settings = {"KEEP_CHECKPOINTS": 1, "STEPS_PER_EPOCH": 1, "WARMUP_STEPS": 4, "WARMUP_FACTOR": 0.0}
    model = MaskRCNN("training", TinyConfig(**settings), tmp_path)
    with pytest.warns(UserWarning, match="WARMUP_STEPS = 4 is more than the 2 steps of this training"):
        model.train(
            TinyDataset(2), None, learning_rate=0.5, epochs=2, layers="heads", verbose=0, custom_callbacks=[Seen()]
        )
    assert Seen.epochs == [(0, ["mask_rcnn_tiny_0001.h5"]), (1, ["mask_rcnn_tiny_0002.h5"])]
    assert float(np.asarray(model.training_model.optimizer.learning_rate)) == 0.25, "half of the warm-up"
    untouched = MaskRCNN("training", TinyConfig(), tmp_path)
    assert same(
        {name: value for name, value in weights_of(untouched).items() if name.startswith("trunk/res")},
        weights_of(model),
    ), 'layers="heads" leaves the backbone alone'


# Detection


def test_photographs_of_any_size_and_kind(run, found, tmp_path):
    """Grey, RGBA, floats, PNG and path objects; the same picture gives the same objects."""
    image = run.dataset.load_image(0)
    path = tmp_path / "photograph.png"
    cv2.imwrite(str(path), image[..., ::-1])
    alpha = np.concatenate([image, np.full((SIDE, SIDE, 1), 7, np.uint8)], axis=-1)
    for kind in (str(path), path, alpha, image / 255, image.astype(np.float32), image.astype(np.uint16) * 257):
        again = run.model.detect([kind])[0]
        np.testing.assert_allclose(again["rois"], found["rois"], atol=0.1)
        np.testing.assert_array_equal(again["class_ids"], found["class_ids"])
    grey = run.model.detect([image[..., 0]])[0]
    assert grey["masks"].shape[:2] == (SIDE, SIDE)


def test_many_photographs_of_many_sizes_in_their_order(run):
    sizes = [(64, 64), (40, 90), (130, 70), (64, 64), (17, 200), (9, 9), (40, 90)]
    dataset = TinyDataset(len(sizes), sizes=sizes)
    results = run.model.detect([dataset.load_image(i) for i in range(len(sizes))])
    for size, result in zip(sizes, results, strict=True):
        count = len(result["scores"])
        assert result["masks"].shape == (*size, count) and result["masks"].dtype == bool
        assert result["rois"].shape == (count, 4) and result["class_ids"].shape == (count,)
        assert result["rois"].min(initial=0) >= 0
        assert (result["rois"] <= np.array([*size, *size]) + 1e-4).all()
        assert (result["rois"][:, 2:] > result["rois"][:, :2]).all()


def test_a_larger_photograph_has_the_same_objects_at_its_own_scale(run, found):
    large = cv2.resize(run.dataset.load_image(0), (4 * SIDE, 4 * SIDE), interpolation=cv2.INTER_NEAREST)
    again = run.model.detect([large])[0]
    assert again["masks"].shape[:2] == (4 * SIDE, 4 * SIDE)
    best = found["scores"] > 0.5
    np.testing.assert_array_equal(again["class_ids"][: best.sum()], found["class_ids"][best])
    np.testing.assert_allclose(again["rois"][: best.sum()] / 4, found["rois"][best], atol=2)


def test_a_batch_of_two_equals_two_singles(run):
    images = [run.dataset.load_image(i) for i in range(2)]
    singles = run.model.detect(images)
    run.model.config.DETECTION_BATCH_SIZE = 2
    together = run.model.detect(images)
    run.model.config.DETECTION_BATCH_SIZE = 1
    for one, two in zip(singles, together, strict=True):
        np.testing.assert_array_equal(one["class_ids"], two["class_ids"])
        np.testing.assert_allclose(one["rois"], two["rois"], atol=1e-2)
        np.testing.assert_allclose(one["scores"], two["scores"], atol=1e-4)
        assert (one["masks"] != two["masks"]).mean() < 1e-3


def test_no_photographs(run):
    assert run.model.detect([]) == []


def test_a_single_photograph_is_told_from_a_list(run, tmp_path):
    for single in (run.dataset.load_image(0), "photograph.jpg", tmp_path / "photograph.jpg"):
        with pytest.raises(TypeError, match=r"detect takes a list of images; for a single image, write model.detect\("):
            run.model.detect(single)
    batch = np.stack([run.dataset.load_image(i) for i in range(2)])
    assert len(run.model.detect(batch)) == 2


def test_a_bad_photograph_names_its_place(run, tmp_path):
    image = run.dataset.load_image(0)
    path = tmp_path / "cut.png"
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes()[:200])
    with pytest.raises(ValueError, match=r"images\[2\] of 3: .*cut.png' is truncated.*No results were"):
        run.model.detect([image, image, path])


def test_detect_in_a_forked_process_raises_at_once(run):
    """TensorFlow's threads are not there after a fork; without a check the child would wait for them forever."""
    image = run.dataset.load_image(0)
    run.model.detect([image])
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            run.model.detect([image])
            message = "it returned"
        except BaseException as error:
            message = f"{type(error).__name__}: {error}"
        os.write(writer, message.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with open(reader) as answer:
        message = answer.read()
    assert message.startswith("RuntimeError: ") and "'spawn'" in message


def test_verbose_counts_what_fell_at_each_step(run, capsys):
    run.model.detect([run.dataset.load_image(0)], verbose=1)
    line = re.fullmatch(
        r"image 0: 64 x 64 as 64 x 64: (\d+) proposals, (\d+) scores over the minimum, "
        r"(\d+) left by NMS, (\d+) detections\n",
        capsys.readouterr().out,
    )
    proposals, scores, left, detections = map(int, line.groups())
    assert 30 >= proposals > 0 and scores >= left >= detections > 0


# The object


def test_keras_model_is_the_graph_of_the_mode(run, untrained):
    assert run.model.keras_model is run.model.training_model
    assert untrained.keras_model is untrained.inference_model
    assert run.model.inference_model.name == "mask_rcnn"


def test_settings_win_over_the_backbone_s_pixel_scaling(tmp_path):
    def scaling(**settings):
        return tuple(MaskRCNN("inference", TinyConfig(**settings), tmp_path).scaling)

    assert scaling() == ((127.5,) * 3, (127.5,) * 3, False)
    assert scaling(MEAN_PIXEL=[1, 2, 3], PIXEL_STD=(4, 5, 6), CHANNEL_ORDER="bgr") == ((1, 2, 3), (4, 5, 6), True)
    assert scaling(CHANNEL_ORDER="rgb", MEAN_PIXEL=np.zeros(3)) == ((0, 0, 0), (127.5,) * 3, False)


def test_bfloat16_trains_and_detects_with_float32_boxes_and_masks_of_bool(tmp_path):
    model = MaskRCNN(
        "training", TinyConfig(PRECISION="bfloat16", STEPS_PER_EPOCH=1, DETECTION_MIN_CONFIDENCE=0.0), tmp_path
    )
    before = weights_of(model)
    dataset = TinyDataset(2)
    history = model.train(dataset, None, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert not same(before, weights_of(model))
    found = model.detect([dataset.load_image(0)])[0]
    assert {name: value.dtype.name for name, value in found.items()} == {
        "rois": "float32",
        "class_ids": "int32",
        "scores": "float32",
        "masks": "bool",
    }
    assert len(found["scores"]) > 0
    model.save_weights(tmp_path / "half.h5")
    full = MaskRCNN("inference", TinyConfig(), tmp_path)
    full.load_weights(tmp_path / "half.h5")
    assert_same(weights_of(model), weights_of(full))


def test_images_of_more_channels(tmp_path):
    model = MaskRCNN("inference", TinyConfig(IMAGE_CHANNEL_COUNT=4, DETECTION_MIN_CONFIDENCE=0.0), tmp_path)
    found = model.detect([np.random.default_rng(0).integers(0, 256, (50, 64, 4)).astype(np.uint8)])[0]
    assert found["masks"].shape[:2] == (50, 64)
    assert len(found["scores"]) > 0
