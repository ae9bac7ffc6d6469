"""COCO AP during training: for the logs, the best checkpoint, and early stopping."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from mrcnn.data.dataset import Dataset
from mrcnn.evaluation.coco_evaluation import METRICS, evaluate
from mrcnn.evaluation.coco_metrics import KEYPOINT_METRICS
from mrcnn.files import write_atomically

if TYPE_CHECKING:
    from mrcnn.model import MaskRCNN


class AveragePrecision(keras.callbacks.Callback):
    """Evaluates after epochs, keeps the best weights as `mask_rcnn_<name>_best.h5`, and can stop training early.

    `MaskRCNN.train(..., custom_callbacks=[AveragePrecision(model, dataset)])`. Adds val_box_AP and val_mask_AP (and
    val_keypoints_AP with a KEYPOINT_HEAD) to the logs, log.csv and TensorBoard; they are NaN for an epoch that is not
    evaluated. All numbers are kept in `validation.json` next to the checkpoints, so that a resumed run knows its best
    epoch, and an epoch whose evaluation was interrupted is evaluated when training resumes.

    Args:
        model: the `MaskRCNN` being trained.
        dataset: prepared; with the model's classes.
        every: evaluate after every `every` epochs, counted from the run's first, and after the last.
        limit: evaluate only the first `limit` images; None for all.
        metric: the metric that selects the best epoch: "box" or "mask" and one of
            `mrcnn.evaluation.coco_evaluation.METRICS`, such as "mask AP50"; with a KEYPOINT_HEAD also "keypoints" and
            one of `mrcnn.evaluation.coco_metrics.KEYPOINT_METRICS`.
            None: "mask AP", or "box AP" for a model without masks.
        patience: stop training after this many evaluations without improvement; None: never.
        verbose: 1 prints a line per evaluation.

    Raises ValueError for an unknown metric, counts below 1, or images without any instance.
    """

    def __init__(
        self,
        model: "MaskRCNN",
        dataset: Dataset,
        every: int = 1,
        limit: int | None = None,
        metric: str | None = None,
        patience: int | None = None,
        verbose: int = 1,
    ) -> None:
        super().__init__()
        masks = model.config.MASK_HEAD is not None
        metric = metric or ("mask AP" if masks else "box AP")
        kind, _, name = metric.partition(" ")
        known: dict[str, tuple[str, ...]] = {"box": METRICS, "mask": METRICS}
        known |= {"keypoints": KEYPOINT_METRICS} if model.config.KEYPOINT_HEAD is not None else {}
        if name not in known.get(kind, ()):
            choices = " or ".join(f'"{key}" and one of {names}' for key, names in known.items())
            raise ValueError(f'metric must be {choices}, such as "mask AP", got {metric!r}.')
        if kind == "mask" and not masks:
            raise ValueError(f'metric is {metric!r}, but MASK_HEAD is None; choose one of boxes, such as "box AP".')
        for key, value in (("every", every), ("limit", limit), ("patience", patience)):
            if value is not None and value < 1:
                raise ValueError(f"{key}={value}; pass at least 1" + ("." if key == "every" else ", or None."))
        _require_instances(dataset, limit)
        self.mask_rcnn, self.dataset = model, dataset
        self.every, self.limit, self.metric, self.patience, self.verbose = every, limit, metric, patience, verbose
        self.history: dict[int, dict[str, dict[str, float]]] = {}  # finished epochs -> "box", "mask" -> 12 numbers
        self.best: int | None = None  # epoch whose weights are kept

    @property
    def path(self) -> Path:
        """The weight file of the best epoch."""
        model = self.mask_rcnn
        return model.log_dir / f"mask_rcnn_{model.config.NAME.lower()}_best.h5"

    def value(self, epoch: int) -> float:
        """The metric after `epoch` epochs. Raises KeyError if it was not evaluated."""
        kind, name = self.metric.split(" ")
        return self.history[epoch][kind][name]

    def exhausted(self) -> bool:
        """Whether this run has stopped early: the last `patience` evaluations brought no improvement."""
        self._resume()
        return self._is_over()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._resume()
        epoch = self.mask_rcnn.epoch
        if epoch and epoch % self.every == 0 and epoch not in self.history:  # interrupted, or not requested then
            self._evaluate(epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        epoch += 1
        last = epoch == self.params.get("epochs")
        if epoch % self.every == 0 or last:
            self._evaluate(epoch)
            if self._is_over():
                self.model.stop_training = True
                self._say(f"Stopped: {self.metric} did not improve in {self.patience} evaluations.")
        if logs is not None:
            config = self.mask_rcnn.config
            kinds = ["box", *["mask"] * (config.MASK_HEAD is not None)]
            kinds += ["keypoints"] * (config.KEYPOINT_HEAD is not None)
            logs |= self.late_logs(epoch) or {f"val_{kind}_AP": float("nan") for kind in kinds}

    def late_logs(self, epoch: int) -> dict[str, float]:
        """What the evaluation adds to a finished epoch's logs; empty if it was not evaluated."""
        return {f"val_{kind}_AP": numbers["AP"] for kind, numbers in self.history.get(epoch, {}).items()}

    def _evaluate(self, epoch: int) -> None:
        results = evaluate(self.mask_rcnn, self.dataset, limit=self.limit, progress=False)
        kinds = {"box": results.box, "mask": results.mask, "keypoints": results.keypoints}
        self.history[epoch] = {kind: numbers for kind, numbers in kinds.items() if numbers is not None}
        if self.best is None or self.value(epoch) > self.value(self.best):
            self.best = epoch
            self.mask_rcnn.save_weights(self.path)
        write_atomically(self._file, json.dumps({"best": self.best, "metric": self.metric, "epochs": self.history}))
        aps = ", ".join(f"{kind} AP {numbers['AP']:.3f}" for kind, numbers in self.history[epoch].items())
        self._say(
            f"epoch {epoch}: {aps} of "
            f"{results.images} images; best {self.metric} {self.value(self.best):.3f} at epoch {self.best}"
        )

    def _is_over(self) -> bool:
        since = [] if self.best is None else [epoch for epoch in self.history if epoch > self.best]
        return self.patience is not None and len(since) >= self.patience

    @property
    def _file(self) -> Path:
        return self.mask_rcnn.log_dir / "validation.json"

    def _resume(self) -> None:
        """Reads the evaluations of this run up to the model's epoch."""
        self.history, self.best = {}, None
        if not (self.mask_rcnn.epoch and self._file.is_file()):
            return
        stored = json.loads(self._file.read_text())
        self.history = {
            int(epoch): numbers for epoch, numbers in stored["epochs"].items() if int(epoch) <= self.mask_rcnn.epoch
        }
        if stored["best"] in self.history and stored["metric"] == self.metric and self.path.is_file():
            self.best = stored["best"]  # else the file is of an epoch that no longer exists, or not the best by this

    def _say(self, text: str) -> None:
        if self.verbose:
            print(f"\n{text}")


def _require_instances(dataset: Dataset, limit: int | None) -> None:
    """Raises before training instead of after the first epoch."""
    ids = list(dataset.image_ids[:limit])
    if not any((dataset.load_class_ids(i) > 0).any() for i in ids):
        raise ValueError(
            f"none of the {len(ids)} validation images has an instance, so AP cannot be computed; "
            "choose others, or raise limit."
        )
