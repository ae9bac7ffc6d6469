"""The comparison of mask heads: the same start and batches, nothing trained twice, and its table."""

import argparse
import csv
import json
from types import SimpleNamespace

import cv2
import keras
import numpy as np
import pytest

import heads
import mrcnn.experiments
from mrcnn.experiments import comparison, costs, plan, records, report
from mrcnn.model import MaskRCNN
from mrcnn.training import run_folder
from mrcnn.training.interruption import TrainingInterrupted
from samples.coco import coco, recipes
from tests.samples.tiny_coco import write_coco
from tests.tiny import TinyConfig, TinyDataset

pytestmark = pytest.mark.slow

HEADS = ("--head", "fcn:filters=8,convolutions=1", "--head", "unet:filters=8")
LABELS = ["fcn:filters=8,convolutions=1", "unet:filters=8"]


class TinyCocoConfig(TinyConfig):
    NAME = "coco"
    STEPS_PER_EPOCH = 1
    DETECTION_MIN_CONFIDENCE = 0.0


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(recipes.CONFIGS, "reference", TinyCocoConfig)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("coco") / "data")


def command(folder, logs, *flags, model="none"):
    return [
        "compare",
        "--dataset",
        str(folder),
        "--logs",
        str(logs),
        "--model",
        str(model),
        "--epochs",
        "1",
        "--verbose",
        "0",
        *flags,
    ]


def of(model, part):
    return [
        weights
        for key, layer in model.network.layers().items()
        if key.startswith(part)
        for weights in layer.get_weights()
    ]


def test_two_heads_are_trained_from_one_start_on_one_batch_and_compared(folder, tmp_path, capsys):
    """After one step, the losses before the mask head are those of the same weights, images and samples."""
    rows = coco.main(command(folder, tmp_path, *HEADS))
    assert [row["head"] for row in rows] == LABELS and [row["seeds"] for row in rows] == [[0], [0]]
    runs = [path.parent for path in sorted(tmp_path.glob("*/run.json"))]
    losses = [next(csv.DictReader((run / "log.csv").open())) for run in runs]
    for name in ("rpn_class_loss", "rpn_bbox_loss", "mrcnn_class_loss", "mrcnn_bbox_loss"):
        assert float(losses[0][name]) == pytest.approx(float(losses[1][name]), rel=1e-5) != 0, name
    assert losses[0]["mrcnn_mask_loss"] != losses[1]["mrcnn_mask_loss"]

    for row in rows:
        assert set(report.MEASURED) < set(row)
        assert all(row[name][0] is None or 0 <= row[name][0] <= 1 for name in report.AP_OF)
        assert row["ms_per_batch"] > 0 and row["ms_per_image"][0] > 0 and row["training_seconds"][0] > 0
        assert row["multiply_adds"] > row["parameters"] > 0
    output = tmp_path / "comparison"
    assert sorted(path.suffix for path in output.glob("comparison.*")) == [".json", ".md", ".png", ".txt"]
    assert (output / "comparison.txt").read_text().strip() in capsys.readouterr().out
    stored = json.loads((output / "comparison.json").read_text())
    about = stored["about"]["datasets"]["data"]
    assert stored["rows"] == rows and about["validation_images"] == 2
    assert sorted(run["head"] for run in stored["runs"].values()) == LABELS
    assert about["stages"] == [{"until": 1, "layers": "all", "learning_rate": 0.01}]


@pytest.fixture
def calls(monkeypatch):
    """Trainings and evaluations asked for, none of which are done."""
    calls = SimpleNamespace(trained=[], judged=[], starts=[])

    def train(self, training, validation, learning_rate, epochs, layers, **options):
        if self.epoch < epochs:
            calls.trained.append((self.config.MASK_HEAD["name"], self.config.SEED, self.epoch))
            calls.starts.append(self)
        self.epoch = epochs
        self.save_weights(self.checkpoint_path(epochs))

    def evaluate(model, dataset, boundary):
        calls.judged.append((model.config.MASK_HEAD["name"], model.config.SEED))
        number = 0.1 * len(calls.judged)
        numbers = dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl"), number)
        return SimpleNamespace(box=numbers, mask=numbers, boundary=numbers, ms_per_image=5.0)

    monkeypatch.setattr(MaskRCNN, "train", train)
    monkeypatch.setattr(comparison, "evaluate", evaluate)
    monkeypatch.setattr(costs, "milliseconds", lambda heads: dict.fromkeys(heads, 1.5))
    return calls


def test_nothing_is_trained_or_judged_twice(folder, tmp_path, calls, capsys):
    first = coco.main(command(folder, tmp_path, *HEADS))
    assert comparison.NOT_REPRODUCIBLE in capsys.readouterr().out
    assert calls.trained == [("fcn", 0, 0), ("unet", 0, 0)]
    again = coco.main(command(folder, tmp_path, *HEADS))
    assert again == first and len(calls.trained) == 2 and len(calls.judged) == 2
    coco.main(command(folder, tmp_path, *HEADS, "--limit", "1"))
    assert len(calls.trained) == 2 and len(calls.judged) == 4, "other images to judge by, the same training"


def key(*flags, name="compare", data="data"):
    """Of the training that a command line asks for."""
    arguments = coco.parse([name, *command(".", ".", *flags)[1:]], "")
    head = arguments.head[0] if name == "compare" else arguments.head
    arguments = argparse.Namespace(**vars(arguments) | {"head": head, "exclude": []})
    config = recipes.training_config(arguments, 3)
    return recipes.planned(arguments, SimpleNamespace(config=config), data).key


@pytest.mark.parametrize(
    "flags",
    [
        ["--seed", "1"],
        ["--set", "LEARNING_RATE=0.5"],
        ["--set", "DETERMINISTIC=True"],
        ["--layers", "heads"],
        ["--head-option", "filters=4"],
        ["--epochs", "2"],
        ["--image-size", "96"],
    ],
)
def test_what_differs_is_another_training(flags):
    assert key(*HEADS[:2], *flags) != key(*HEADS[:2]) == key(*HEADS[:2])


def test_other_data_make_another_training():
    assert key(*HEADS[:2], data="other") != key(*HEADS[:2])


def test_how_it_is_loaded_and_written_makes_no_difference():
    assert key(
        "--head", "fcn", "--set", "LOADER_WORKERS=4", "--set", "KEEP_CHECKPOINTS=1", "--set", "VALIDATION_STEPS=3"
    ) == key("--head", "fcn")


def test_a_plain_training_of_the_same_is_the_same(monkeypatch):
    monkeypatch.setattr(TinyCocoConfig, "MASK_HEAD", "fcn")
    assert key("--head", "fcn") == key("--no-validation", name="train")


def test_weights_are_known_by_their_content_and_what_is_left_out(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"1")
    (tmp_path / "b.h5").write_bytes(b"1")
    assert plan.start_of(None, ["x"]) == "none"
    assert plan.start_of(tmp_path / "a.h5", ["x", "y"]) == plan.start_of(tmp_path / "b.h5", ["y", "x"])
    assert plan.start_of(tmp_path / "a.h5") != plan.start_of(tmp_path / "a.h5", ["x"])
    (tmp_path / "b.h5").write_bytes(b"2")
    assert plan.start_of(tmp_path / "a.h5") != plan.start_of(tmp_path / "b.h5")


def test_an_interrupted_run_goes_on(folder, tmp_path, calls):
    coco.main(command(folder, tmp_path, *HEADS[:2], "--epochs", "3"))
    (run,) = tmp_path.glob("coco*")
    (checkpoint,) = run_folder.checkpoints(run)
    model = MaskRCNN("training", TinyCocoConfig(MASK_HEAD={"name": "fcn", "filters": 8, "convolutions": 1}), tmp_path)
    model.epoch = 2
    model.save_weights(run / "mask_rcnn_coco_0002.h5")
    checkpoint.unlink()
    coco.main(command(folder, tmp_path, *HEADS[:2], "--epochs", "3"))
    assert calls.trained == [("fcn", 0, 0), ("fcn", 0, 2)]
    assert list(tmp_path.glob("coco*")) == [run]


def test_a_longer_run_is_not_taken_for_a_shorter_one_nor_one_of_other_data(folder, tmp_path, calls):
    train = ["train", *command(folder, tmp_path, *HEADS[:2], "--no-validation", model="last")[1:]]
    coco.main(command(folder, tmp_path, *HEADS[:2], "--epochs", "6"))
    with pytest.raises(ValueError, match="--epochs 3: the run continues from a checkpoint of epoch 6"):
        coco.main([*train, "--epochs", "3"])
    coco.main(command(folder, tmp_path, *HEADS[:2], "--epochs", "3"))
    assert calls.trained == [("fcn", 0, 0)] * 2 and len(list(tmp_path.glob("coco*"))) == 2
    coco.main([*train, "--epochs", "4", "--train-limit", "1"])
    coco.main(command(folder, tmp_path, *HEADS[:2], "--epochs", "4"))
    assert calls.trained == [("fcn", 0, 0), ("fcn", 0, 0), ("fcn", 0, 3), ("fcn", 0, 0)]


def test_a_run_killed_before_its_first_checkpoint_is_begun_anew(folder, tmp_path, calls):
    coco.main(command(folder, tmp_path, *HEADS[:2]))
    for path in tmp_path.glob("coco*/*.h5"):
        path.unlink()
    coco.main(command(folder, tmp_path, *HEADS[:2]))
    assert calls.trained == [("fcn", 0, 0)] * 2


@pytest.mark.parametrize("start", ["none", "checkpoint"])
def test_every_head_begins_with_the_same_trunk_rpn_and_box_head(folder, tmp_path, calls, start):
    model = "none"
    if start == "checkpoint":
        model = tmp_path / "start.h5"
        other = MaskRCNN("training", TinyCocoConfig(SEED=5, MASK_HEAD={"name": "unet", "filters": 8}), tmp_path)
        other.save_weights(model)
    coco.main(command(folder, tmp_path, *HEADS, model=model))
    fcn, unet = calls.starts
    for part in ("trunk", "rpn", "box_head"):
        for mine, theirs in zip(of(fcn, part), of(unet, part), strict=True):
            np.testing.assert_array_equal(mine, theirs)
        if start == "checkpoint":
            assert all((mine == stored).all() for mine, stored in zip(of(unet, part), of(other, part), strict=True))
    fresh = MaskRCNN("training", unet.config, tmp_path)
    for mine, initial in zip(of(unet, "mask_head"), of(fresh, "mask_head"), strict=True):
        np.testing.assert_array_equal(mine, initial, "the mask head of the start would favor its own kind")


def test_heads_begin_with_a_backbone_of_keras_applications(folder, tmp_path, calls):
    """Such a file has no mask head to leave out, and is loaded whole."""
    options = {"alpha": 0.25}
    backbone = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(64, 64, 3), **options)
    backbone.save_weights(tmp_path / "start.weights.h5")
    flags = ("--backbone", "mobilenet", "--backbone-option", "alpha=0.25")
    coco.main(command(folder, tmp_path, *HEADS, *flags, model=tmp_path / "start.weights.h5"))
    assert [name for name, *_ in calls.trained] == ["fcn", "unet"]
    for model in calls.starts:
        kernel = model.network.backbone.source.get_layer("conv1").kernel
        np.testing.assert_array_equal(kernel, backbone.get_layer("conv1").kernel)


def test_seeds_are_trained_each_and_summed_up(folder, tmp_path, calls):
    rows = coco.main(command(folder, tmp_path, *HEADS, "--seeds", "3", "4"))
    assert calls.trained == [("fcn", 3, 0), ("unet", 3, 0), ("fcn", 4, 0), ("unet", 4, 0)]
    assert rows[0]["seeds"] == [3, 4] and rows[0]["mask_ap"] == pytest.approx([0.1, 0.3])
    assert rows[1]["mask_ap"] == pytest.approx([0.2, 0.4])
    text = (tmp_path / "comparison" / "comparison.txt").read_text()
    assert "0.200 ± 0.141" in text and "0.300 ± 0.141" in text
    summary = json.loads((tmp_path / "comparison" / "comparison.json").read_text())["summary"]
    assert summary[0]["mean"]["mask_ap"] == pytest.approx(0.2)
    assert summary[0]["spread"]["mask_ap"] == pytest.approx(0.2 / 2**0.5)


def test_the_table_stands_after_each_training(folder, tmp_path, calls, monkeypatch):
    judged = comparison.evaluate

    def killed(model, dataset, boundary):
        if model.config.MASK_HEAD["name"] == "unet":
            raise KeyboardInterrupt
        return judged(model, dataset, boundary)

    monkeypatch.setattr(comparison, "evaluate", killed)
    message = f"with 1 of 2 runs finished, in that of data, {LABELS[1]}, seed 0. Its checkpoints are kept. To continue"
    with pytest.raises(TrainingInterrupted, match=message):
        coco.main(command(folder, tmp_path, *HEADS, "--output", str(tmp_path / "out")))
    stored = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [row["head"] for row in stored["rows"]] == LABELS[:1]
    monkeypatch.setattr(comparison, "evaluate", judged)
    coco.main(command(folder, tmp_path, *HEADS, "--output", str(tmp_path / "out")))
    assert calls.trained == [("fcn", 0, 0), ("unet", 0, 0)] and calls.judged == [("fcn", 0), ("unet", 0)]


def test_an_interrupted_training_says_what_is_saved_and_how_to_continue(folder, tmp_path, calls, monkeypatch):
    def interrupted(*_, **__):
        raise TrainingInterrupted("in epoch 1, after 2 of 4 steps. Saved: x.h5.")

    monkeypatch.setattr(MaskRCNN, "train", interrupted)
    with pytest.raises(TrainingInterrupted) as raised:
        coco.main(command(folder, tmp_path, *HEADS))
    assert str(raised.value) == (
        f"Training was interrupted with 0 of 2 runs finished, in that of data, {LABELS[0]}, seed 0, in epoch 1, after "
        "2 of 4 steps. Saved: x.h5. To continue, compare again: finished runs are not repeated."
    )


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--head", "fcn", "--head", "fcn"], "the heads .'fcn', 'fcn'. repeat"),
        (["--seeds", "1", "1"], "the seeds .1, 1. repeat"),
        (["--head", "fcn", "--head", "unet:filtres=8"], "'unet' has no option 'filtres'"),
        (["--head", "fcn", "--head", "unet", "--head-option", "convolutions=2"], "'unet' has no option 'convolutions'"),
    ],
)
def test_wrong_heads_are_said_before_anything_is_trained(folder, tmp_path, calls, flags, message):
    with pytest.raises(ValueError, match=message):
        coco.main(command(folder, tmp_path, *flags))
    assert not calls.trained and not list(tmp_path.iterdir())


def test_without_names_all_registered_heads_are_compared(folder, tmp_path, calls):
    rows = coco.main(command(folder, tmp_path))  # options would have to suit every head
    assert [row["head"] for row in rows] == heads.names("mask")


def test_it_is_a_function_that_a_notebook_can_call(tmp_path, calls):
    """Two datasets of different classes, a seed each; settings and schedule follow the data."""
    pairs = {name: (TinyDataset(3, seed=i), TinyDataset(2, seed=9)) for i, name in enumerate(["first", "second"])}
    rows = mrcnn.experiments.compare(
        pairs, ["fcn", {"name": "unet", "filters": 8}], TinyConfig, epochs=1, logs=tmp_path, verbose=0
    )
    assert [(row["dataset"], row["head"], row["seeds"]) for row in rows] == [
        (dataset, head, [0]) for dataset in pairs for head in ("fcn", "unet:filters=8")
    ]
    assert "second, unet:filters=8" in (tmp_path / "comparison" / "comparison.txt").read_text()


@pytest.mark.parametrize(
    "datasets, chosen, message",
    [
        ({}, ["fcn"], "no dataset to compare on"),
        ({"mine": (None, None)}, ["fcn"], "dataset 'mine' has no settings"),
        ({"mine": comparison.Task(None, None, TinyConfig(), [], fingerprints=("", ""))}, [], "no heads to compare"),
    ],
)
def test_calls_that_cannot_work_are_refused(datasets, chosen, message):
    with pytest.raises(ValueError, match=message):
        mrcnn.experiments.compare(datasets, chosen)


# Costs and tables


def dense(rois_features, units):
    import keras

    features = keras.Input((2, 2, rois_features))
    return keras.Model(features, keras.layers.Conv2D(units, 1, activation="relu")(features))


def test_flops_of_a_1x1_convolution_by_hand():
    """10 RoIs of 2 x 2 cells: 3 multiplications and additions for each of 5 outputs, and a bias; ReLU is not."""
    cells = 10 * 2 * 2
    assert costs.flops(dense(3, 5), rois=10) == cells * 5 * (2 * 3 + 1)
    assert costs.flops(dense(3, 5), rois=20) == 2 * costs.flops(dense(3, 5), rois=10)


def test_every_head_is_timed():
    times = costs.milliseconds({"small": dense(3, 5), "large": dense(64, 512)}, rois=50, rounds=3)
    assert set(times) == {"small", "large"} and all(value > 0 for value in times.values())


ROW = {
    "head": "fcn",
    "seeds": [0],
    "box_ap": [0.25],
    "mask_ap": [0.125],
    "mask_ap50": [0.5],
    "mask_ap75": [0.0],
    "boundary_ap": [0.0625],
    "parameters": 1234567,
    "mask_ap_small": [None],
    "mask_ap_medium": [0.125],
    "mask_ap_large": [0.25],
    "multiply_adds": 2.5e9,
    "ms_per_batch": 12.34,
    "ms_per_image": [56.7],
    "training_seconds": [1234.5],
}
SEVERAL = {**ROW, "head": "a head: of=two seeds", "seeds": [0, 1], "mask_ap": [0.1, 0.3], "ms_per_image": [50.0, 60.0]}


def test_cells_by_hand():
    aps = ["0.250", "0.125", "0.500", "0.000", "-", "0.125", "0.250", "0.062"]
    assert report.cells(ROW) == ["fcn", *aps, "1,234,567", "2.50", "12.3", "57", "1,234"]
    assert report.cells(SEVERAL)[2] == "0.200 ± 0.141" and report.cells(SEVERAL)[-2] == "55 ± 7"
    assert report.cells({key: value for key, value in ROW.items() if key != "ms_per_batch"})[-3] == "-"


def test_tables_are_aligned_and_of_github_s_form():
    lines = report.text_table([ROW, SEVERAL]).splitlines()
    assert len({len(line) for line in lines}) == 1 and len(lines) == 3
    markdown = report.markdown_table([ROW, SEVERAL]).splitlines()
    assert markdown[1].count("---:") == len(report.NUMBERS) and len({line.count("|") for line in markdown}) == 1


def test_the_plot_is_drawn_for_any_number_of_heads(tmp_path):
    for count in (1, 2, 5):
        report.plot([{**ROW, "head": f"h{i}"} for i in range(count)], tmp_path / "plot.png")
        picture = cv2.imread(str(tmp_path / "plot.png"))
        assert picture.shape[1] > picture.shape[0] > 300 and picture.std() > 10
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]


def with_values(name, seeds=(0, 1, 2), dataset="d", **numbers):
    return {**ROW, "dataset": dataset, "head": name, "seeds": list(seeds), **numbers}


def test_heads_are_compared_with_the_first_seed_by_seed():
    """The spread between the seeds is large, that of the differences small."""
    first = with_values("fcn", mask_ap=[0.30, 0.40, 0.50], boundary_ap=[0.2, 0.3, 0.4])
    better = with_values("new", mask_ap=[0.35, 0.451, 0.549], boundary_ap=[0.35, 0.25, 0.4])
    found = {each["number"]: each for each in report.differences([first, better])}
    assert found["mask_ap"]["mean"] == pytest.approx(0.05) and found["mask_ap"]["is_real"]
    assert found["mask_ap"]["p"] < 0.001 and found["mask_ap"]["low"] > 0.047
    assert found["boundary_ap"]["mean"] == pytest.approx(0.1 / 3) and not found["boundary_ap"]["is_real"]
    text = report.text_table([first, better])
    assert "new - fcn" in text and "+0.050 (p < 0.001, real)" in text and "+0.033 (p 0.635)" in text
    assert "paired t-test" in text and "paired t-test" in report.markdown_table([first, better])


@pytest.mark.parametrize(
    "row",
    [
        with_values("new", seeds=(0, 1, 3), mask_ap=[0.1] * 3),
        with_values("new", seeds=(0,), mask_ap=[0.1]),
        with_values("new", dataset="another", mask_ap=[0.1] * 3),
        with_values("new", mask_ap=[0.1, None, 0.1], box_ap=[], mask_ap75=[], boundary_ap=[]),
    ],
)
def test_what_is_no_pair_is_not_compared(row):
    first = with_values("fcn", row["seeds"] if len(row["seeds"]) == 1 else (0, 1, 2), mask_ap=[0.1] * len(row["seeds"]))
    assert not report.differences([first, row])


# Shared work, and results from elsewhere


def test_a_comparison_goes_on_where_only_its_table_is(folder, tmp_path, calls):
    """The runs in the table's file are not trained again on a machine that has nothing else."""
    first = coco.main(command(folder, tmp_path / "one", *HEADS[:2], "--output", str(tmp_path / "table")))
    rows = coco.main(command(folder, tmp_path / "two", *HEADS, "--output", str(tmp_path / "table")))
    assert calls.trained == [("fcn", 0, 0), ("unet", 0, 0)] and rows[0] == first[0]
    assert len(json.loads((tmp_path / "table" / "comparison.json").read_text())["runs"]) == 2
    text = (tmp_path / "table" / "comparison.json").read_text()
    assert str(tmp_path) not in text, "nothing of the machine is in it"


def test_a_file_of_something_else_is_not_overwritten(folder, tmp_path, calls):
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "comparison.json").write_text('{"mine": 1}')
    with pytest.raises(
        ValueError, match="comparison.json was not written by a comparison of this version; move it away"
    ):
        coco.main(command(folder, tmp_path / "one", *HEADS[:2], "--output", str(tmp_path / "table")))
    assert not calls.trained and (tmp_path / "table" / "comparison.json").read_text() == '{"mine": 1}'


def test_runs_of_another_process_are_left_to_it_and_waited_for(tmp_path, monkeypatch):
    jobs = [SimpleNamespace(record=name, dataset="d", label=name, config=SimpleNamespace(SEED=0)) for name in "abc"]
    other = comparison.locked(tmp_path / ".comparison" / "a")
    other.__enter__()
    waits = []
    monkeypatch.setattr(comparison.time, "sleep", lambda seconds: waits.append(other.__exit__(None, None, None)))
    done = [job.record for job in comparison.in_turn(jobs, tmp_path)]
    assert done == ["b", "c", "a"] and len(waits) == 1


def test_what_two_processes_measured_is_in_one_file(tmp_path):
    def report_of(name):
        return lambda runs: (tmp_path / "comparison.json").write_text(json.dumps({"runs": runs}))

    for name in ("one", "two"):
        records.write(tmp_path, {name: {"head": name, "numbers": {"mask_ap": 0.5}}}, report_of(name))
    assert sorted(records.read(tmp_path)) == ["one", "two"]
    assert not (tmp_path / ".lock").exists()
