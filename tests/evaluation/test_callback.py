"""AP during training: what is logged, kept, stopped and taken up again; the evaluations are scripted."""

import json
import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from mrcnn.evaluation import callback as validation
from mrcnn.evaluation.callback import AveragePrecision
from mrcnn.evaluation.coco_metrics import METRICS
from mrcnn.training.callbacks import EpochLog
from tests.tiny import TinyDataset


class Model:
    """What the callback uses of a MaskRCNN; the weights are the number of the epoch."""

    config = SimpleNamespace(NAME="Tiny", MASK_HEAD="fcn", KEYPOINT_HEAD=None)

    def __init__(self, folder):
        self.log_dir, self.epoch = folder, 0

    def save_weights(self, path):
        path.write_text(str(self.epoch))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs epochs whose mask APs are given; returns callback, logs an epoch, and whether it was stopped."""
    asked = []

    def go(mask_aps, first=0, epochs=None, model=None, **options):
        model = model or Model(tmp_path)
        values = iter(mask_aps)

        def evaluate(evaluated, dataset, limit, progress):
            value = next(values)
            asked.append((evaluated.epoch, limit))
            numbers = dict.fromkeys(METRICS, value / 2)
            return SimpleNamespace(box={**numbers, "AP": 0.01}, mask={**numbers, "AP": value}, keypoints=None, images=2)

        monkeypatch.setattr(validation, "evaluate", evaluate)
        callback = AveragePrecision(model, TinyDataset(2), verbose=0, **options)
        keras_model = SimpleNamespace(stop_training=False)
        callback.set_model(keras_model)
        epochs = first + len(mask_aps) if epochs is None else epochs
        callback.set_params({"epochs": epochs})
        model.epoch = first
        callback.on_train_begin()
        seen = []
        for epoch in range(first, epochs):
            model.epoch, logs = epoch + 1, {"loss": 1.0}
            callback.on_epoch_end(epoch, logs)
            seen.append(logs)
            if keras_model.stop_training:
                break
        return SimpleNamespace(callback=callback, logs=seen, stopped=keras_model.stop_training, asked=asked)

    return go


def test_the_logs_get_both_aps_and_keep_what_they_had(run):
    assert run([0.25]).logs == [{"loss": 1.0, "val_box_AP": 0.01, "val_mask_AP": 0.25}]


def test_the_best_epoch_s_weights_are_kept(run, tmp_path):
    callback = run([0.1, 0.3, 0.2, 0.3]).callback
    assert callback.best == 2, "the first of equals"
    assert callback.path == tmp_path / "mask_rcnn_tiny_best.h5" and callback.path.read_text() == "2"
    stored = json.loads((tmp_path / "validation.json").read_text())
    assert stored["best"] == 2 and [stored["epochs"][str(i)]["mask"]["AP"] for i in (1, 2, 3, 4)] == [
        0.1,
        0.3,
        0.2,
        0.3,
    ]


def test_another_metric_may_choose(run):
    """The scripted box APs are all the same, AP50 is half the mask AP."""
    assert run([0.1, 0.3], metric="box AP").callback.best == 1
    callback = run([0.1, 0.3], metric="mask AP50").callback
    assert callback.best == 2 and callback.value(2) == 0.15


def test_epochs_between_are_not_evaluated_but_the_last_is(run):
    result = run([0.1, 0.2, 0.3], every=2, epochs=5, limit=1)
    assert result.asked == [(2, 1), (4, 1), (5, 1)]
    assert [math.isnan(logs["val_mask_AP"]) for logs in result.logs] == [True, False, True, False, False]


@pytest.mark.parametrize(
    "aps, ends", [([0.3, 0.2, 0.1, 0.4], 3), ([0.1, 0.3, 0.2, 0.4], None), ([0.1, 0.1, 0.1, 0.1], 3)]
)
def test_patience_counts_evaluations_without_a_better_one(run, aps, ends):
    result = run(aps, patience=2)
    assert result.stopped == (ends is not None) and len(result.logs) == (ends or 4)
    assert result.callback.exhausted() == result.stopped


def test_a_resumed_training_knows_its_best(run):
    run([0.1, 0.4])
    resumed = run([0.2, 0.3, 0.5], first=2)
    assert [epoch for epoch, _ in resumed.asked] == [1, 2, 3, 4, 5]
    assert resumed.callback.best == 5 and resumed.callback.path.read_text() == "5"
    run([0.3], first=5)
    assert resumed.callback.path.read_text() == "5"


def test_patience_goes_on_through_a_resumption(run):
    run([0.4, 0.1], patience=3)
    assert len(run([0.1, 0.2, 0.3], first=2, patience=3).logs) == 2


def test_a_run_that_stopped_early_is_known_as_such_and_a_larger_patience_goes_on(run, tmp_path):
    run([0.4, 0.1], patience=1)
    model = Model(tmp_path)
    model.epoch = 2
    assert AveragePrecision(model, TinyDataset(2), patience=1).exhausted()
    assert not AveragePrecision(model, TinyDataset(2), patience=2).exhausted()
    assert not AveragePrecision(model, TinyDataset(2)).exhausted()


def test_an_epoch_whose_evaluation_was_interrupted_is_evaluated_when_training_goes_on(run):
    run([0.1])
    resumed = run([0.9, 0.2], first=2, epochs=3)  # epoch 2 was saved but not evaluated
    assert [epoch for epoch, _ in resumed.asked] == [1, 2, 3]
    assert resumed.callback.best == 2 and resumed.callback.path.read_text() == "2"


def test_what_an_interrupted_evaluation_owes_the_log_is_paid_when_training_goes_on(run):
    run([0.1])
    callback = run([0.9], first=2, epochs=2).callback
    assert callback.late_logs(2) == {"val_box_AP": 0.01, "val_mask_AP": 0.9}
    assert callback.late_logs(3) == {}


def test_going_back_to_an_earlier_epoch_forgets_the_later(run):
    run([0.1, 0.2, 0.9])
    resumed = run([0.3, 0.1], first=2, epochs=4)
    assert resumed.callback.best == 3 and resumed.callback.path.read_text() == "3"
    assert sorted(resumed.callback.history) == [1, 2, 3, 4] and resumed.callback.value(3) == 0.3


def test_a_new_run_does_not_read_what_lies_there(run):
    run([0.9])
    assert run([0.1]).callback.value(1) == 0.1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"metric": "mask"}, "metric must be"),
        ({"metric": "mask F1"}, "got .mask F1."),
        ({"metric": "boundary AP"}, "metric must be"),
        ({"every": 0}, "every=0; pass at least 1"),
        ({"limit": 0}, "limit=0"),
        ({"patience": 0}, "patience=0"),
    ],
)
def test_wrong_arguments_are_named(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        AveragePrecision(Model(tmp_path), TinyDataset(1), **options)


def test_nothing_to_find_is_said_before_training(tmp_path):
    with pytest.raises(ValueError, match="none of the 2 validation images has an instance"):
        AveragePrecision(Model(tmp_path), TinyDataset(3, empty=(0, 1)), limit=2)


def test_keras_s_own_loop_hands_the_values_on_to_what_comes_after(tmp_path, monkeypatch):
    monkeypatch.setattr(
        validation,
        "evaluate",
        lambda *_, **__: SimpleNamespace(box={"AP": 0.5}, mask={"AP": 0.25}, keypoints=None, images=1),
    )
    owner = Model(tmp_path)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")

    class Count(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            owner.epoch = epoch + 1

    history = model.fit(
        np.ones((2, 1)),
        np.ones((2, 1)),
        epochs=4,
        verbose=0,
        callbacks=[
            Count(),
            AveragePrecision(owner, TinyDataset(1), patience=2, verbose=0),
            EpochLog(tmp_path / "log.csv"),
        ],
    )
    assert history.history["val_mask_AP"] == [0.25] * 3 and history.history["val_box_AP"] == [0.5] * 3
    header, first, *_ = (tmp_path / "log.csv").read_text().splitlines()
    assert header == "epoch,loss,val_box_AP,val_mask_AP" and first.startswith("1,") and first.endswith(",0.5,0.25")
