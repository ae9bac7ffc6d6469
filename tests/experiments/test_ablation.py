"""The paper's ablations: their rows as settings, one training a row, the paper's figures beside one's own."""

import csv
import json

import numpy as np
import pytest

from mrcnn.config import Config, setting_names
from mrcnn.experiments import ablation, ablation_report, comparison, plan, tables
from mrcnn.model import MaskRCNN
from mrcnn.training.interruption import TrainingInterrupted
from tests.tiny import TinyConfig, TinyDataset

pytestmark = pytest.mark.slow

SMALL = {"STEPS_PER_EPOCH": 1, "DETECTION_MIN_CONFIDENCE": 0.0, "NAME": "ablation"}


def config(**settings):
    return TinyConfig(**{**SMALL, **settings})


def labels(table, base=None, **options):
    return [row.label for row in tables.rows_of(table, base or Config(NUM_CLASSES=2), **options)]


# Rows


@pytest.mark.parametrize("table", [name for name in tables.TABLES if name != "6"])
@pytest.mark.parametrize("backbone", [None, "mobilenet"])
def test_every_row_is_a_possible_configuration(table, backbone):
    base = Config(NUM_CLASSES=2)
    rows = tables.rows_of(table, base, backbone)
    configs = [ablation.config_of(row, base, 3) for row in rows]
    assert len({row.label for row in rows}) == len(rows) and all(each.SEED == 3 for each in configs)
    keys = {plan.key(each, [], "none", "data") for each in configs}
    assert len(keys) == len(rows), "each row is another training"
    assert backbone is None or all(each.BACKBONE == backbone for each in configs)
    assert base.explicit() == {"NUM_CLASSES"}, "the user's settings stay as they are"


def test_rows_that_differ_in_the_backbone_alone_are_one():
    assert labels("2a") == [
        "ResNet-50, C4", "ResNet-101, C4", "ResNet-50, FPN", "ResNet-101, FPN", "ResNeXt-101, FPN"
    ]  # fmt: skip
    assert labels("2a", backbone="mobilenet") == ["mobilenet, C4", "mobilenet, FPN"]
    assert labels("3", backbone="mobilenet") == ["Faster R-CNN, RoIAlign", "Mask R-CNN"]


def test_figures_are_the_paper_s():
    found = {row.label: row.paper["mask_ap"] for row in tables.rows_of("2c", Config(NUM_CLASSES=2))}
    assert found == {
        "RoIPool, max": 26.9,
        "RoIWarp, max": 27.2,
        "RoIWarp, average": 27.1,
        "RoIAlign, max": 30.2,
        "RoIAlign, average": 30.3,
    }
    (pool, align) = tables.rows_of("2d", Config(NUM_CLASSES=2))
    assert (pool.paper["mask_ap75"], align.paper["box_ap"]) == (21.6, 34.0)


def test_the_user_s_settings_go_before_the_recipe_and_after_the_row_s_own():
    row = tables.rows_of("2c", Config(NUM_CLASSES=2))[0]
    assert ablation.config_of(row, Config(NUM_CLASSES=2), 0).TRAIN_ROIS_PER_IMAGE == 64
    found = ablation.config_of(row, Config(NUM_CLASSES=2, TRAIN_ROIS_PER_IMAGE=7, ROI_POOLING="warp"), 0)
    assert found.TRAIN_ROIS_PER_IMAGE == 7 and found.ROI_POOLING == "pool" and found.BACKBONE == "resnet50"
    base = Config(NUM_CLASSES=2, BACKBONE="resnet101")
    assert ablation.config_of(tables.rows_of("2c", base)[0], base, 0).BACKBONE == "resnet101"


def test_each_cause_changes_one_thing_and_the_last_row_all():
    base = Config(NUM_CLASSES=2, IMAGE_MAX_DIM=300, IMAGE_MIN_DIM=200)
    reference, *causes, together = tables.rows_of("matterport", base)
    assert not reference.settings and len(causes) == 17
    names = [set(row.settings) for row in causes]
    assert not any(one & other for i, one in enumerate(names) for other in names[:i])
    assert set().union(*names) <= set(together.settings) and together.stages == "matterport"
    assert together.settings["IMAGE_MAX_DIM"] == 320 and together.settings["CHANNEL_ORDER"] == "bgr"


def test_a_head_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(tables, "registered_heads", lambda kind: ["fcn"] if kind == "mask" else [])
    with pytest.raises(ValueError, match="table 2e, row 'MLP, 2 hidden layers' needs the mask head 'mlp' .*: fcn$"):
        tables.rows_of("2e", Config(NUM_CLASSES=2))
    with pytest.raises(ValueError, match="table 6, row 'RoIPool' needs the keypoints head 'keypoints' .KEYPOINT_HEAD"):
        tables.rows_of("6", Config(NUM_CLASSES=2))
    with pytest.raises(ValueError, match="there is no table '7'; choose one of 2a, 2b"):
        tables.rows_of("7", Config(NUM_CLASSES=2))


@pytest.mark.skipif("KEYPOINT_HEAD" not in setting_names(), reason="there is no keypoint head yet")
def test_rows_of_keypoints():
    base = Config(NUM_CLASSES=2)
    pool, align = (ablation.config_of(row, base, 0) for row in tables.rows_of("6", base))
    assert (pool.ROI_POOLING, align.ROI_POOLING) == ("pool", "align") and pool.MASK_HEAD is None


def test_impossible_settings_name_the_row():
    base = Config(NUM_CLASSES=2, ROI_GEOMETRY="crop")
    with pytest.raises(ValueError, match="row 'RoIWarp, max': ROI_POOLING must be"):
        [ablation.config_of(row, base, 0) for row in tables.rows_of("2c", base)]


def plans(table, base, **options):
    rows, data = tables.rows_of(table, base), TinyDataset(2)
    seeds = options.get("seeds", [0])
    return rows, ablation.planned(table, rows, base, data, TinyDataset(2, seed=1), seeds, 4, "all", None)


def test_rows_that_differ_in_detection_share_a_training_and_no_evaluation():
    _, jobs = plans("matterport", config(NUM_CLASSES=3), seeds=[0, 1])
    by_label = {job.label: job for job in jobs if job.config.SEED == 0}
    reference, shared = by_label["reference"], by_label["NMS at 0.3, scores from 0.7 on"]
    assert shared.run.key == reference.run.key and shared.record != reference.record
    assert by_label["FPN level by round"].run.key != reference.run.key
    assert len({job.record for job in jobs}) == len(jobs)
    late = by_label["heads first, then 4+, then all; no warm-up"].run.stages
    assert [stage.layers for stage in late] == ["heads", "4+", "all"] and late[-1].learning_rate == 0.001


def test_seeds_that_repeat_are_refused():
    with pytest.raises(ValueError, match=r"seeds \[1, 1\] repeat"):
        plans("2d", config(), seeds=[1, 1])


# The report


ROWS = [
    tables.Row("RoIPool", {"ROI_POOLING": "pool"}, {"mask_ap": 23.6}),
    tables.Row("RoIAlign", {}, {"mask_ap": 30.9}),
]


def measured(pool, align):
    return [
        {"head": "RoIPool", "seeds": [0, 1], "mask_ap": pool},
        {"head": "RoIAlign", "seeds": [0, 1], "mask_ap": align},
    ]


def test_the_report_has_means_spreads_and_the_order(tmp_path):
    text = ablation_report.write("2d", ROWS, measured([0.1, 0.2], [0.3, 0.5]), tmp_path, {"model": "none"})
    assert "| RoIPool | 0, 1 | 23.6 | 15.0 ± 7.1 | +0.0 |" in text
    assert "| RoIAlign | 0, 1 | 30.9 | 40.0 ± 14.1 | +25.0 |" in text
    assert "By mask AP the rows stand in the paper's order: RoIAlign > RoIPool." in text and "one seed" not in text
    stored = json.loads((tmp_path / "ablation.json").read_text())
    assert stored["rows"][0]["mean"]["mask_ap"] == pytest.approx(15)
    assert stored["rows"][1]["values"]["mask_ap"] == pytest.approx([30, 50]) and (tmp_path / "ablation.md").exists()


def test_an_order_that_is_not_the_paper_s_is_said_and_rows_to_come_are_empty(tmp_path):
    text = ablation_report.write("2d", ROWS, measured([0.5, 0.6], [0.3, 0.5]), tmp_path, {"model": "none"})
    assert "By mask AP: RoIPool > RoIAlign; the paper's order: RoIAlign > RoIPool." in text
    text = ablation_report.write("2d", ROWS, measured([0.5, 0.5], [0.5, 0.5]), tmp_path, {"model": "none"})
    assert "By mask AP: RoIPool = RoIAlign; the paper's order: RoIAlign > RoIPool." in text
    text = ablation_report.write("2d", ROWS, measured([0.5, None], [0.3, 0.5])[:1], tmp_path, {"model": "none"})
    assert "| RoIAlign | - | 30.9 | - | - |" in text and "By mask AP" not in text


# From end to end


def test_a_table_is_trained_once_and_drawn(tmp_path, monkeypatch, capsys):
    training, validation = TinyDataset(2), TinyDataset(2, seed=1)
    options = {"epochs": 1, "logs": tmp_path, "verbose": 0}
    rows = ablation.ablate("2d", training, validation, config(), **options)
    assert [row["row"] for row in rows] == ["RoIPool", "RoIAlign"] and all(row["seeds"] == [0] for row in rows)
    assert all(row["mean"]["mask_ap"] is not None for row in rows)
    output = tmp_path / "ablation_2d"
    assert (output / "roi_pool_beside_roi_align.png").stat().st_size > 1000
    assert "| RoIPool | 0 | 23.6 |" in (output / "ablation.md").read_text()

    losses = [next(csv.DictReader(log.open())) for log in tmp_path.glob("*/log.csv")]
    assert len(losses) == 2 and losses[0]["mrcnn_class_loss"] != losses[1]["mrcnn_class_loss"]
    assert float(losses[0]["rpn_class_loss"]) == pytest.approx(float(losses[1]["rpn_class_loss"]), rel=1e-5)
    monkeypatch.setattr(MaskRCNN, "train", lambda *_, **__: None)  # nothing is left to do
    monkeypatch.setattr(comparison, "evaluate", None)
    again = ablation.ablate("2d", training, validation, config(), **options)
    assert again == rows

    capsys.readouterr()
    elsewhere = {**options, "logs": tmp_path / "elsewhere", "output": output}
    assert ablation.ablate("2d", training, validation, config(), **elsewhere) == rows, "from the records alone"
    assert "No masks to show side by side: the run of 'RoIPool' is not in" in capsys.readouterr().out


def test_faster_r_cnn_beside_mask_r_cnn(tmp_path):
    """Table 3: a row without masks has box AP alone."""
    data = TinyDataset(2), TinyDataset(2, seed=1)
    base = config()
    rows = ablation.ablate("3", *data, base, backbone=base.BACKBONE, epochs=1, logs=tmp_path, verbose=0)
    assert [row["row"] for row in rows] == ["Faster R-CNN, RoIAlign", "Mask R-CNN"]
    assert all(np.isfinite(row["mean"]["box_ap"]) for row in rows)


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    assert ablation.main(["--table", "2c", "--dataset", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err
    for flags in (["--table", "7"], ["--seeds", "a"], ["--set", "NAME"]):
        with pytest.raises(SystemExit):
            ablation.main(["--table", "2c", "--dataset", "x", *flags])


@pytest.mark.parametrize(
    "error, state", [(TrainingInterrupted("after epoch 1. Saved: x."), "after epoch 1. Saved: x."), (None, "early; ")]
)
def test_an_interrupted_command_says_how_to_continue(tmp_path, capsys, monkeypatch, error, state):
    def interrupted(*_, **__):
        raise error or KeyboardInterrupt

    monkeypatch.setattr(ablation, "ablate", interrupted)
    monkeypatch.setattr("mrcnn.data.formats.load_dataset", lambda *_, **__: TinyDataset(1))
    assert ablation.main(["--table", "2c", "--dataset", "x"]) == 130
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"Interrupted {state}") and line.endswith("Run the same command to continue.")
