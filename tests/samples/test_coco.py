"""The COCO sample from the command line, on a generated folder of a few photographs."""

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from mrcnn.config import Config
from mrcnn.data.formats.coco import read_coco
from mrcnn.evaluation.coco_evaluation import evaluate_results
from mrcnn.experiments import plan
from mrcnn.inference.class_names import WithClassesOf, names_of
from mrcnn.inference.results import Result
from mrcnn.model import MaskRCNN
from samples.coco import coco, recipes
from samples.coco.recipes import CocoConfig, MatterportCocoConfig
from tests.samples.tiny_coco import write_coco
from tests.tiny import TinyConfig

pytestmark = pytest.mark.slow


class TinyCocoConfig(TinyConfig):
    NAME = "coco"
    STEPS_PER_EPOCH = None
    VALIDATION_STEPS = None
    LEARNING_RATE = 0.004
    DETECTION_MIN_CONFIDENCE = 0.0


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The real presets take minutes."""
    for name in ("reference", "matterport"):
        monkeypatch.setitem(recipes.CONFIGS, name, TinyCocoConfig)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("coco") / "data")


def command(name, folder, logs, *flags, model="none"):
    return [name, "--dataset", str(folder), "--logs", str(logs), "--model", str(model), *flags]


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A run of two epochs, its model, and what it printed of itself."""
    logs = tmp_path_factory.mktemp("logs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(recipes.CONFIGS, "reference", TinyCocoConfig)
        return coco.main(
            command(
                "train",
                folder,
                logs,
                "--epochs",
                "2",
                "--verbose",
                "0",
                "--seed",
                "3",
                "--batch",
                "4",
                "--metric",
                "box AP50",
            )
        )


def rows(run):
    return list(csv.DictReader((run / "log.csv").open()))


def test_train_writes_checkpoints_settings_and_aps(trained):
    run = trained.log_dir
    names = {path.name for path in run.iterdir()}
    assert {
        "mask_rcnn_coco_0001.h5",
        "mask_rcnn_coco_0002.h5",
        "mask_rcnn_coco_best.h5",
        "config.json",
        "run.json",
        "validation.json",
        "log.csv",
    } <= names
    stored = Config.load(run / "config.json")
    assert (stored.SEED, stored.BATCH_SIZE, stored.NUM_CLASSES) == (3, 4, 3)
    assert stored.LEARNING_RATE == pytest.approx(0.008), "grows with the batch"
    log = rows(run)
    validation = json.loads((run / "validation.json").read_text())
    for row in log:
        epoch = row["epoch"]
        for kind in ("box", "mask"):
            assert float(row[f"val_{kind}_AP"]) == pytest.approx(validation["epochs"][epoch][kind]["AP"])
        assert float(row["val_mrcnn_mask_loss"]) > 0
    assert validation["metric"] == "box AP50" and len(log) == 2


def test_tensorboard_shows_the_aps(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained.log_dir / "validation")).Reload()
    assert {"epoch_box_AP", "epoch_mask_AP", "epoch_loss"} <= set(events.Tags()["tensors"])


def test_a_resumed_training_takes_settings_schedule_and_start_from_its_run(trained, folder, tmp_path):
    logs = tmp_path / "logs"
    shutil.copytree(trained.model_dir, logs)
    model = coco.main(command("train", folder, logs, "--epochs", "3", "--verbose", "0", model="last"))
    (run,) = logs.iterdir()
    assert model.log_dir == run and model.epoch == 3
    assert model.config.SEED == 3 and model.config.BATCH_SIZE == 4
    assert model.config.LEARNING_RATE == pytest.approx(0.008), "not scaled once more"
    assert [row["epoch"] for row in rows(run)] == ["1", "2", "3"]
    before = json.loads((trained.log_dir / "run.json").read_text())
    after = json.loads((run / "run.json").read_text())
    assert (after["start"], after["data"]) == (before["start"], before["data"]) and after["stages"] == [
        [3, "all", pytest.approx(0.008)]
    ]
    assert [int(epoch) for epoch in json.loads((run / "validation.json").read_text())["epochs"]] == [1, 2, 3]


def test_a_finished_run_is_not_trained_again(trained, folder, capsys):
    model = coco.main(command("train", folder, trained.model_dir, "--verbose", "0", "--no-validation", model="last"))
    assert "Nothing to train: epoch 2 of 2 is done" in capsys.readouterr().out
    assert model.epoch == 2 and model.log_dir == trained.log_dir


@pytest.mark.parametrize(
    "flags, seed, head",
    [
        ([], 3, {"name": "fcn", "filters": 16, "convolutions": 1}),
        (["--seed", "9", "--head", "unet:filters=8"], 9, {"name": "unet", "filters": 8}),
    ],
)
def test_config_json_of_a_run_is_accepted_back(trained, flags, seed, head):
    config_file = str(trained.log_dir / "config.json")
    arguments = coco.parse(command("train", ".", ".", "--config", config_file, *flags), "")
    config = recipes.training_config(arguments)
    assert (config.SEED, config.MASK_HEAD, config.NUM_CLASSES) == (seed, head, 3)
    assert config.LEARNING_RATE == pytest.approx(0.008)


def test_evaluate_prints_the_tables_and_writes_what_coco_s_server_takes(trained, folder, tmp_path, capsys):
    """The file scored by itself gives the same numbers."""
    path = tmp_path / "detections.json"
    results = coco.main(
        command("evaluate", folder, trained.model_dir, "--boundary", "--results", str(path), model="last")
    )
    printed = capsys.readouterr().out
    for word in ("AP50", "AR100", "box", "mask", "boundary", "disc", "boundary_ap", "2 images, 4 instances"):
        assert word in printed
    records = json.loads(path.read_text())
    assert {record["image_id"] for record in records} <= {500, 501}
    assert {record["category_id"] for record in records} <= {3, 7} and len(records) > 0
    annotations = folder / "annotations" / "instances_val2017.json"
    again = evaluate_results(path, read_coco(annotations, folder / "val2017"), boundary=True, progress=False)
    assert (again.box, again.mask, again.boundary) == (results.box, results.mask, results.boundary)


def test_evaluate_takes_a_few_images_and_the_training_ones(trained, folder, monkeypatch):
    monkeypatch.setattr(coco, "trained_model", lambda _: trained)
    few = coco.main(command("evaluate", folder, trained.model_dir, "--limit", "1", model="last"))
    seen = coco.main(command("evaluate", folder, trained.model_dir, "--split", "train", model="last"))
    assert (few.images, few.boundary, seen.images) == (1, None, 3)


def test_the_best_checkpoint_brings_its_settings_wherever_it_lies(trained, folder, tmp_path):
    copy = shutil.copy(trained.log_dir / "mask_rcnn_coco_best.h5", tmp_path / "elsewhere.h5")
    arguments = coco.parse(command("evaluate", folder, tmp_path, model=copy), "")
    assert coco.trained_model(arguments).config.SEED == 3


def test_detect_draws_files_and_folders(trained, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(coco, "trained_model", lambda _: trained)
    photographs = tmp_path / "photographs"
    shutil.copytree(folder / "val2017", photographs)
    flags = ["detect", "--model", "last", "--logs", str(trained.model_dir), "--min-score", "0"]
    written = coco.main([*flags, "--image", str(photographs)])
    assert [path.name for path in written] == ["000000000500_detected.png", "000000000501_detected.png"]
    assert written[0].parent == photographs and str(written[1]) in capsys.readouterr().out
    photograph = cv2.imread(str(photographs / "000000000500.png"))
    picture = cv2.imread(str(written[0]))
    assert picture.shape == photograph.shape and (picture != photograph).any()
    again = coco.main([*flags, "--image", str(photographs), "--output", str(tmp_path / "out")])
    assert [path.parent for path in again] == [tmp_path / "out"] * 2, "pictures are no photographs"


def test_detect_says_what_is_wrong_before_it_loads_anything(tmp_path):
    image = np.zeros((8, 8, 3), np.uint8)
    for name in ("a/x.png", "b/x.png"):
        (tmp_path / name).parent.mkdir()
        cv2.imwrite(str(tmp_path / name), image)
    (tmp_path / "empty").mkdir()
    flags = ["detect", "--model", "no such weights", "--output", str(tmp_path), "--image"]
    for images, error, message in (
        (["gone.jpg"], FileNotFoundError, f"{tmp_path / 'gone.jpg'} does not exist"),
        (["empty"], FileNotFoundError, "holds no images"),
        (["a", "b"], ValueError, "several images would be drawn to ['x_det"),
    ):
        with pytest.raises(error, match=re.escape(message)):
            coco.main([*flags, *(str(tmp_path / name) for name in images)])
    assert not list(tmp_path.glob("*.png"))


@pytest.fixture
def calls(monkeypatch):
    """What `MaskRCNN.train` is asked for; it learns nothing and writes the last checkpoint."""
    calls = []

    def train(self, training, validation, learning_rate, epochs, layers, **options):
        calls.append((self.epoch, epochs, layers, learning_rate))
        self.epoch = epochs
        self.save_weights(self.checkpoint_path(epochs))
        self.config.save(self.log_dir / "config.json")

    monkeypatch.setattr(MaskRCNN, "train", train)
    return calls


def test_the_old_package_s_stages_under_its_preset_and_their_resumption(folder, tmp_path, calls):
    flags = ("--no-validation", "--train-limit", "1")
    model = coco.main(command("train", folder, tmp_path, "--preset", "matterport", "--epochs", "4", *flags))
    assert calls == [(0, 1, "heads", 0.004), (1, 3, "4+", 0.004), (3, 4, "all", 0.0004)]
    for path in model.log_dir.glob("*_000[34].h5"):
        path.unlink()  # killed in the second stage
    del calls[:]
    resumed = coco.main(command("train", folder, tmp_path, *flags, model="last"))
    assert calls == [(1, 3, "4+", 0.004), (3, 4, "all", 0.0004)]
    assert resumed.log_dir == model.log_dir
    assert json.loads((resumed.log_dir / "run.json").read_text())["preset"] == "matterport"
    del calls[:]
    coco.main(command("train", folder, tmp_path, *flags, "--epochs", "8", model="last"))
    assert calls == [(4, 6, "4+", 0.004), (6, 8, "all", 0.0004)]


def first_run(folder, logs, *flags):
    """run.json of three epochs, with its model."""
    model = coco.main(command("train", folder, logs, "--epochs", "3", "--no-validation", *flags))
    return plan.Run.load(model.log_dir), model


@pytest.mark.parametrize("flags", [["--train-limit", "1"], ["--learning-rate", "0.5"], ["--batch", "4"], []])
def test_a_run_that_goes_on_otherwise_is_not_what_it_would_be_had_it_begun_so(folder, tmp_path, calls, flags):
    """Neither the training that was begun, nor one of the new settings or data from the start."""
    begun, _ = first_run(folder, tmp_path / "logs")
    model = coco.main(
        command("train", folder, tmp_path / "logs", "--epochs", "6", "--no-validation", *flags, model="last")
    )
    after = plan.Run.load(model.log_dir)
    fresh = coco.main(command("train", folder, tmp_path / "fresh", "--epochs", "6", "--no-validation", *flags))
    begun_so = plan.Run.load(fresh.log_dir)
    assert (after.data, after.stages) == (begun_so.data, begun_so.stages), "it says what it learns now"
    assert len({begun.key, after.key, begun_so.key}) == 3
    for key in (begun.key, begun_so.key):
        assert plan.find(tmp_path / "logs", key) is None
    assert (after.data == begun.data) == ("--train-limit" not in flags)
    again = coco.main(
        command(
            "train",
            folder,
            tmp_path / "logs",
            "--no-validation",
            *flags,
            "--set",
            "LOADER_WORKERS=2",
            "--epochs",
            "6",
            model=model.log_dir / "mask_rcnn_coco_0006.h5",
        )
    )
    assert plan.Run.load(again.log_dir) == after


def test_a_killed_run_that_goes_on_as_begun_keeps_its_key(folder, tmp_path, calls):
    begun, model = first_run(folder, tmp_path)
    model.checkpoint_path(3).unlink()
    model.epoch = 2
    model.save_weights(model.checkpoint_path(2))
    resumed = coco.main(
        command("train", folder, tmp_path, "--no-validation", "--set", "KEEP_CHECKPOINTS=2", model="last")
    )
    assert calls == [(0, 3, "all", 0.004), (2, 3, "all", 0.004)] and plan.Run.load(resumed.log_dir) == begun


def test_fewer_epochs_than_a_run_has_are_refused_and_leave_it_as_it_is(folder, tmp_path, calls):
    begun, model = first_run(folder, tmp_path)
    with pytest.raises(ValueError, match="--epochs 2: the run continues from a checkpoint of epoch 3, so pass at lea"):
        coco.main(command("train", folder, tmp_path, "--epochs", "2", "--no-validation", model="last"))
    coco.main(command("train", folder, tmp_path, "--no-validation", "--learning-rate", "0.5", model="last"))
    assert plan.Run.load(model.log_dir) == begun, "nothing was left to train"
    assert list(tmp_path.iterdir()) == [model.log_dir]


def test_what_is_left_of_a_checkpoint_begins_a_training_of_its_own(folder, tmp_path, calls):
    begun, model = first_run(folder, tmp_path)
    other = coco.main(command("train", folder, tmp_path, "--no-validation", "--exclude", "mrcnn_mask", model="last"))
    run = plan.Run.load(other.log_dir)
    assert other.log_dir != model.log_dir and calls[1] == (0, 3, "all", 0.004)
    assert run.start == plan.start_of(model.checkpoint_path(3), ["mrcnn_mask"]) and run.key != begun.key


def test_a_run_that_goes_on_scales_its_learning_rate_as_its_preset_does(folder, tmp_path, calls):
    for preset, factor in (("matterport", 1), ("reference", 2)):
        logs = tmp_path / preset
        first_run(folder, logs, "--preset", preset, "--batch", "2", "--layers", "heads", "--learning-rate", "0.01")
        del calls[:]
        coco.main(
            command(
                "train",
                folder,
                logs,
                "--no-validation",
                "--batch",
                "4",
                "--layers",
                "heads",
                "--epochs",
                "4",
                model="last",
            )
        )
        assert calls == [(3, 4, "heads", pytest.approx(0.01 * factor))], preset


def test_a_run_that_stopped_early_stays_so(folder, tmp_path, calls, monkeypatch, capsys):
    monkeypatch.setattr(coco.AveragePrecision, "exhausted", lambda self: self.patience == 1)
    coco.main(command("train", folder, tmp_path, "--patience", "1", "--metric", "box AP"))
    assert not calls and "Stopped early at epoch 0: 1 evaluations did not improve box AP" in capsys.readouterr().out
    coco.main(command("train", folder, tmp_path, "--patience", "2", "--epochs", "7"))
    assert calls == [(0, 7, "all", 0.004)]


@pytest.mark.parametrize(
    "epochs, stages",
    [
        (160, [(40, "heads", 1), (120, "4+", 1), (160, "all", 0.1)]),
        (8, [(2, "heads", 1), (6, "4+", 1), (8, "all", 0.1)]),
        (2, [(2, "4+", 1)]),
        (1, [(1, "4+", 1)]),
    ],
)
def test_stages_keep_their_shares(epochs, stages):
    assert plan.matterport(epochs, 1.0) == stages


@pytest.mark.parametrize(
    "flags, model, layers",
    [([], "none", "all"), ([], "imagenet", "3+"), ([], "x.h5", "3+"), (["--layers", "heads"], "none", "heads")],
)
def test_a_frozen_stem_is_for_weights_that_know_something(flags, model, layers, monkeypatch):
    monkeypatch.setattr(recipes, "path_of", lambda *_: None)
    arguments = coco.parse(command("train", ".", ".", *flags, model=model), "")
    run = recipes.planned(arguments, type("Model", (), {"config": CocoConfig()}), "data")
    assert run.stages == [(12, layers, 0.0025)]


def test_configurations():
    reference, old = CocoConfig(), MatterportCocoConfig()
    assert (reference.BACKBONE, reference.NUM_CLASSES, reference.IMAGE_MIN_DIM, reference.IMAGE_MAX_DIM) == (
        "resnet101",
        81,
        800,
        1333,
    )
    assert reference.STEPS_PER_EPOCH is None and old.STEPS_PER_EPOCH == 1000
    assert (old.NAME, old.NUM_CLASSES, old.IMAGE_RESIZE_MODE, old.LEARNING_RATE) == ("coco", 81, "square", 0.001)


@pytest.mark.parametrize(
    "flags, rate",
    [
        (["--batch", "16"], 0.02),
        ([], 0.0025),
        (["--batch", "16", "--learning-rate", "0.1"], 0.1),
        (["--batch", "16", "--set", "LEARNING_RATE=0.2"], 0.2),
        (["--batch", "16", "--preset", "matterport"], 0.001),
    ],
)
def test_the_learning_rate_grows_with_the_batch_in_the_reference_recipe(flags, rate, monkeypatch):
    monkeypatch.setitem(recipes.CONFIGS, "reference", CocoConfig)
    monkeypatch.setitem(recipes.CONFIGS, "matterport", MatterportCocoConfig)
    assert recipes.training_config(coco.parse(command("train", ".", ".", *flags), "")).LEARNING_RATE == pytest.approx(
        rate
    )


@pytest.mark.parametrize("name", ["train", "evaluate", "compare"])
def test_a_folder_without_data_says_which_files_to_put_where(name, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        coco.main(command(name, tmp_path / "gone", tmp_path))
    text = str(caught.value)
    assert f"{tmp_path / 'gone'} does not hold COCO 2017 (it does not exist)" in text
    assert str(tmp_path / "gone" / "annotations" / "instances_val2017.json") in text
    assert f"http://images.cocodataset.org/zips/val2017.zip  ->  {tmp_path / 'gone' / 'val2017'}" in text
    assert not (tmp_path / "gone").exists()


def test_a_missing_checkpoint_and_no_run_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="No checkpoint of a run named 'coco'"):
        coco.main(command("train", folder, tmp_path, model="last"))
    with pytest.raises(FileNotFoundError, match="no checkpoint file at .*gone.h5"):
        coco.main(command("evaluate", folder, tmp_path, model=tmp_path / "gone.h5"))
    with pytest.raises(FileNotFoundError, match="no weights at .*gone.h5"):
        coco.main(command("train", folder, tmp_path, model=tmp_path / "gone.h5"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "the following arguments are required"),
        (["train", "--model", "none"], "required: --dataset"),
        (["train", "--dataset", "."], "required: --model"),
        (["train", "--dataset", ".", "--model", "none", "--year", "2015"], "invalid choice: 2015"),
        (["train", "--dataset", ".", "--model", "none", "--limit", "0"], "integer >= 1, got '0'"),
        (["train", "--dataset", ".", "--model", "none", "--head", "fnc"], "invalid choice: 'fnc'"),
        (["train", "--dataset", ".", "--model", "none", "--download", "False"], "unrecognized arguments: False"),
        (["compare", "--dataset", ".", "--model", "last"], "starts each head from the same weights"),
        (["detect", "--model", "last"], "required: --image"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(arguments, message, capsys):
    with pytest.raises(SystemExit):
        coco.main(arguments)
    assert message in capsys.readouterr().err


def test_names_for_weights_that_come_without():
    assert names_of(["BG", "a"], 2) == ["BG", "a"]
    assert names_of([], 81)[:2] == ["BG", "person"] and names_of([], 3) == ["BG", "class 1", "class 2"]


def test_a_model_of_other_classes_is_judged_by_the_names_that_it_shares():
    found = Result(
        rois=np.arange(12).reshape(3, 4),
        class_ids=np.array([1, 2, 3]),
        scores=np.array([0.9, 0.8, 0.7]),
        masks=np.arange(3)[None, None].repeat(2, 0) > 0,
        size=(2, 1),
        class_names=["BG", "cat", "dog", "car"],
    )

    class Model:
        def detect(self, images):
            return [found] * len(images)

    model = WithClassesOf(Model(), ["BG", "cat", "dog", "car"], ["BG", "car", "bird", "cat"])
    (mapped,) = model.detect(["image"])
    assert (
        list(mapped["class_ids"]) == [3, 1] and mapped.names == ["cat", "car"] and list(mapped["scores"]) == [0.9, 0.7]
    )
    assert mapped["rois"].tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]] and mapped["masks"][0, 0].tolist() == [False, True]
    with pytest.raises(ValueError, match="no class in common"):
        WithClassesOf(Model(), ["BG", "cat"], ["BG", "dog"])


def test_the_commands_of_the_readme_are_understood():
    text = (Path(coco.__file__).parent / "README.md").read_text()
    shared = re.search(r'^S="(.*)"$', text, flags=re.MULTILINE)
    text = text.replace("$S", shared[1]) if shared else text
    commands = [shlex.split(line)[2:] for line in text.splitlines() if line.startswith("python samples/coco/coco.py")]
    assert {arguments[0] for arguments in commands} == set(coco.COMMANDS)
    for arguments in commands:
        coco.parse(arguments, "")
