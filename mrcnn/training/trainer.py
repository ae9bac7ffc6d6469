"""Trains a network in the folder of a run: from datasets to checkpoints."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mrcnn.config import Config
from mrcnn.data.dataset import Dataset
from mrcnn.data.loader import Loader, describe
from mrcnn.distribution.strategy import Distribution
from mrcnn.files import locked
from mrcnn.network.graph import Network
from mrcnn.network.pixels import PixelScaling
from mrcnn.network.precision import chosen
from mrcnn.training.callbacks import (
    AnnounceTracing,
    EpochLog,
    ResumedEpoch,
    SaveCheckpoint,
    StopAtNonFiniteLoss,
    tensorboard,
)
from mrcnn.training.interruption import AGAIN, TrainingInterrupted
from mrcnn.training.model import TrainingModel, compile_model, set_trainable
from mrcnn.training.run_folder import Run, RunPath, checkpoint_name, checkpoints, position
from mrcnn.training.state import metric_variables, restore, state_variables, values_of

Callbacks = Sequence[keras.callbacks.Callback]


class Trainer:
    """Trains a model in the folder of a run, and keeps the run's position up to date.

    Args:
        model: the training graph of `network`.
        network: the parts with weights.
        config: the settings.
        distribution: the devices.
        scaling: the pixel scaling that the backbone expects.
        run: the current position in training.
        model_dir: parent folder of new runs.
        save: writes the weights, the position of the run and the given training state to a path.
    """

    def __init__(
        self,
        model: TrainingModel,
        network: Network,
        config: Config,
        *,
        distribution: Distribution,
        scaling: PixelScaling,
        run: Run,
        model_dir: Path,
        save: Callable[[Path, Mapping[str, Any]], None],
    ) -> None:
        self.model, self.network, self.config = model, network, config
        self.distribution, self.scaling, self.run = distribution, scaling, run
        self.model_dir, self.save = model_dir, save
        self.metrics: dict[str, np.ndarray] = {}  # training metrics of the epoch, kept during its validation

    def train(
        self,
        training: Dataset,
        validation: Dataset | None,
        *,
        epochs: int,
        learning_rate: float | None = None,
        layers: str = "all",
        augmentation: Any = None,
        no_augmentation_sources: Sequence[str] = (),
        callbacks: Callbacks = (),
        verbose: int | str = "auto",
    ) -> keras.callbacks.History:
        """Trains to the end of epoch `epochs` of the run; see `MaskRCNN.train`."""
        options = {"augmentation": augmentation, "no_augmentation_sources": no_augmentation_sources}
        train = self._loader(training, steps=self.config.STEPS_PER_EPOCH, **options)
        validate = None
        if validation is not None:
            validate = self._loader(validation, steps=self.config.VALIDATION_STEPS, training=False)
        try:
            self._prepare(train, epochs, learning_rate, layers)
            with self._locked():
                verbose = verbose if self.distribution.is_chief else 0
                ours = self._callbacks(training, validation, callbacks, announce=verbose != 0)
                return self._fit(train, validate, epochs, ours, verbose)
        except Exception as error:
            failure = train.failure or (validate.failure if validate is not None else None)
            if failure is None or failure is error:
                raise
            raise failure from error  # the loader's own error instead of TensorFlow's wrapper
        finally:
            for loader in filter(None, (train, validate)):
                loader.close()

    def _loader(self, dataset: Dataset, **options: Any) -> Loader:
        return Loader(
            dataset,
            self.config,
            scaling=self.scaling,
            seed=self.config.SEED,
            share=(self.distribution.worker, self.distribution.workers),
            whole=self.network.whole_masks,
            **options,
        )

    # Before the first step

    def _prepare(self, train: Loader, epochs: int, learning_rate: float | None, layers: str) -> None:
        """Compiles the model, restores the run's state, and checks that all workers agree."""
        run, steps = self.run, train.steps
        run.step = min(run.step, steps)  # STEPS_PER_EPOCH may have changed
        train.seek(run.epoch, run.step)
        set_trainable(self.network, layers, train_bn=self.config.TRAIN_BN)
        with self.distribution.scope():
            schedule = compile_model(self.model, self.config, learning_rate=learning_rate, total_steps=epochs * steps)
        self._meet(train)
        old, same = dict(run.state), np.array_equal(run.state.get("schedule", ()), schedule.as_array())
        if not same:
            old.pop("learning_rate", None)  # it replaced a different schedule
        variables = state_variables(self.model, self.network)
        restore(variables, old)
        self.model.optimizer.iterations.assign(run.epoch * steps + run.step)
        self.metrics = {name: value for name, value in old.items() if name.startswith("metric/")} if run.step else {}
        run.state = {**variables, "schedule": schedule.as_array()}
        if self.distribution.is_chief:
            print(
                f"Training to epoch {epochs} from {run.epoch}{f' and {run.step} steps' if run.step else ''}: "
                f"{steps} steps per epoch, learning rate {schedule}, logs in {run.folder}"
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Locks the run's folder against other processes.

        Raises FolderInUseError if another process has locked it, RuntimeError if one has trained in it since the run's
        checkpoint was loaded.
        """
        if not self.distribution.is_chief:
            yield
            return
        run = self.run
        folder = run.open(self.model_dir, self.config.NAME)
        with locked(folder):
            newest = max(map(position, checkpoints(folder)), default=(0, 0))
            if newest > (run.epoch, run.step):
                raise RuntimeError(
                    f"another process has continued the run in {folder} to {checkpoints(folder)[-1].name} since it was "
                    'loaded here. Load it again with load_weights("last").'
                )
            yield

    def _meet(self, train: Loader) -> None:
        """Opens the run's folder. Several workers check that they agree, and use the chief's folder."""
        workers, run = self.distribution, self.run
        folder = run.open(self.model_dir, self.config.NAME).name if workers.is_chief else ""
        facts = {
            **self.config.to_dict(),
            "PRECISION": chosen(self.config.PRECISION),
            "epoch": run.epoch,
            "step": run.step,
            "images": len(train.dataset.image_ids),
            "class_names": list(train.dataset.class_names),
        }
        if workers.workers > 1:
            run.folder = RunPath(self.model_dir / workers.meet(facts, self.network.layers(), folder))

    def _callbacks(
        self, training: Dataset, validation: Dataset | None, custom: Callbacks, *, announce: bool
    ) -> list[Any]:
        folder, chief = self.run.open(self.model_dir, self.config.NAME), self.distribution.is_chief
        if chief:
            self.config.save(folder / "config.json")
        late = [callback.late_logs for callback in custom if hasattr(callback, "late_logs")]
        log = EpochLog(folder / "log.csv", self.run.epoch, late)
        save = SaveCheckpoint(
            self._save,
            self.config.KEEP_CHECKPOINTS if chief else None,
            written=checkpoints(folder) if chief else (),
            every=self.config.CHECKPOINT_STEPS,
        )
        finite = StopAtNonFiniteLoss(
            partial(describe, training), None if validation is None else partial(describe, validation)
        )
        first = [AnnounceTracing()] if announce else []
        return self.distribution.callbacks(
            [*first, finite, _KeepMetrics(self), log, save, *custom, log, tensorboard(folder)]
        )

    # The steps

    def _fit(
        self, train: Loader, validate: Loader | None, epochs: int, callbacks: list[Any], verbose: int | str
    ) -> keras.callbacks.History:
        fit = partial(self._fit_epochs, train, validate, verbose=verbose)
        try:
            with self.distribution.scope():
                if self.run.step:
                    return self._resume(fit, train, validate, epochs, callbacks, verbose)
                return fit(self.run.epoch, epochs, callbacks)
        except KeyboardInterrupt:
            self._note_position(train.steps)
            raise self._interruption(train.steps) from None
        except Exception as error:
            try:
                self._note_position(train.steps)
            except Exception as lost:  # on JAX a failed step may leave no variables
                error.add_note(f"The current training state is lost ({lost}); continue from a checkpoint.")
            raise

    def _fit_epochs(
        self, train: Loader, validate: Loader | None, first: int, epochs: int, callbacks: Any, *, verbose: int | str
    ) -> keras.callbacks.History:
        return self.model.fit(
            **self.distribution.data(train, validate, epochs),
            initial_epoch=first,
            epochs=epochs,
            shuffle=False,  # the loader shuffles, from its seed
            callbacks=callbacks,
            verbose=verbose,
        )

    def _resume(
        self,
        fit: Callable[[int, int, Any], keras.callbacks.History],
        train: Loader,
        validate: Loader | None,
        epochs: int,
        callbacks: list[Any],
        verbose: int | str,
    ) -> keras.callbacks.History:
        """Trains the rest of an epoch, then the remaining epochs."""
        epoch, metrics = self.run.epoch, self.metrics
        everything = ResumedEpoch(
            callbacks,
            self.run.step,
            lambda: restore(metric_variables(self.model), metrics),
            add_history=True,
            add_progbar=verbose != 0,
            verbose=verbose,
            epochs=epochs,
            steps=train.steps,
            model=self.model,
        )
        everything.begin()
        if self.run.step < train.steps:
            fit(epoch, epoch + 1, everything)
        else:
            self._validate(train, validate, everything)
        if epoch + 1 < epochs and not self.model.stop_training:
            train.seek(epoch + 1, 0)
            fit(epoch + 1, epochs, everything)
        everything.end()
        return self.model.history

    def _validate(self, train: Loader, validate: Loader | None, callbacks: ResumedEpoch) -> None:
        """Finishes an epoch after its last step."""
        self.model.reset_metrics()
        self.model.stop_training = False
        callbacks.on_epoch_begin(self.run.epoch)
        logs = {name: float(value) for name, value in self.model.get_metrics_result().items()}
        if validate is not None:
            data = self.distribution.data(train, validate, self.run.epoch + 1)
            values = self.model.evaluate(
                data["validation_data"],
                steps=data.get("validation_steps"),
                callbacks=callbacks,
                verbose=0,
                return_dict=True,
            )
            logs |= {f"val_{name}": value for name, value in values.items()}
        callbacks.on_epoch_end(self.run.epoch, logs)

    # What stays of them

    def _save(self, epoch: int, step: int) -> Path:
        """Moves the run to a position and writes its checkpoint."""
        run, config = self.run, self.config
        run.epoch, run.step = epoch, step
        path = run.open(self.model_dir, config.NAME) / checkpoint_name(str(config.NAME), epoch, step)
        # Reading metrics sums them over the workers, so all workers must take part
        metrics = (self.metrics or values_of(metric_variables(self.model))) if step else {}
        if self.distribution.is_chief:
            self.save(path, values_of(run.state) | metrics)
        return path

    def _note_position(self, steps: int) -> None:
        """After an interruption, sets the run's position from the optimizer; not with several workers."""
        if self.distribution.workers > 1:
            return
        run = self.run
        done = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        run.step = min(done - run.epoch * steps, steps)
        if run.step:
            run.state = {**run.state, **(self.metrics or values_of(metric_variables(self.model)))}

    def _interruption(self, steps: int) -> TrainingInterrupted:
        run = self.run
        where = f"after epoch {run.epoch}"
        if run.step:
            where = f"in epoch {run.epoch + 1}, after {run.step} of {steps} steps"
        with suppress(KeyboardInterrupt):  # Ctrl-C again while saving, which leaves earlier checkpoints
            if run.step:
                self._save(run.epoch, run.step)
        saved = checkpoints(run.folder) if run.folder is not None and run.folder.is_dir() else []
        if not saved:
            return TrainingInterrupted(f"{where}. Nothing was saved.", AGAIN, saved=False)
        return TrainingInterrupted(f"{where}. Saved: {saved[-1]}.")


class _KeepMetrics(keras.callbacks.Callback):
    """Keeps an epoch's training metrics while validation uses the same variables."""

    every_worker = True

    def __init__(self, trainer: Trainer) -> None:
        super().__init__()
        self.trainer = trainer

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.trainer.metrics = {}

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.trainer.metrics = values_of(metric_variables(self.trainer.model))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.trainer.metrics = {}
