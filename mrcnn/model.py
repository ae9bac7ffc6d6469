"""MaskRCNN: the object that users hold, with the old package's names."""

import html
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mrcnn.config import Config, setting_names
from mrcnn.data.dataset import Dataset
from mrcnn.data.loader import Loader, describe
from mrcnn.distribution.start import start
from mrcnn.inference import export
from mrcnn.inference.compiled import compiled
from mrcnn.inference.detector import Detector
from mrcnn.inference.input_sizes import canvas_limits
from mrcnn.inference.results import Result
from mrcnn.legacy import names
from mrcnn.legacy.defaults import mention_defaults
from mrcnn.legacy.methods import OldMethods
from mrcnn.network.backbone import build_backbone
from mrcnn.network.graph import build_network, inference_graph
from mrcnn.network.pixels import PixelScaling, scaling_of
from mrcnn.training import run_folder
from mrcnn.training.callbacks import EpochLog, SaveCheckpoint, StopAtNonFiniteLoss, tensorboard
from mrcnn.training.model import TrainingModel, compile_model, set_trainable, warn_of_long_warm_up
from mrcnn.weights import conventions, pretrained, transfer
from mrcnn.weights.checkpoint import LoadReport, load_optimizer, read_metadata, save_checkpoint
from mrcnn.weights.importers import imagenet
from mrcnn.weights.recognise import read_source
from mrcnn.weights.source import Source

__all__ = ["MaskRCNN", *names.MODEL]  # as the old package's module

HTML_NAMES = 20  # class names that a notebook shows
DEFAULTS = {name: getattr(Config, name) for name in setting_names()}


def __getattr__(name: str) -> Any:
    return names.find(__name__, name)


class MaskRCNN(OldMethods):
    """Mask R-CNN (He et al. 2017) on a feature pyramid, with a mask head chosen by name.

    Args:
        mode: "training" or "inference", as in the old package; both graphs are there either way, share one network,
            and are built when first used.
        config: the settings.
        model_dir: folder for logs and checkpoints, one folder in it a run.

    Raises ValueError for an unknown mode, backbone or head.
    """

    def __init__(self, mode: str, config: Config, model_dir: str | Path = "logs") -> None:
        if mode not in ("training", "inference"):
            raise ValueError(f'mode must be "training" or "inference", got {mode!r}.')
        mention_defaults(config)
        self.mode, self.config, self.model_dir = mode, config, Path(model_dir)
        self.distribution = start(config.DISTRIBUTION if mode == "training" else None, config.GPU_COUNT)
        with self.distribution.scope():
            self.network = build_network(config)
        self.epoch, self.class_names = 0, []
        self._process = os.getpid()
        self._log_dir: Path | None = None
        self._resume_from: Path | None = None

    def __repr__(self) -> str:
        config = self.config
        parameters = sum(layer.count_params() for layer in self.network.layers().values())
        head = config.MASK_HEAD if isinstance(config.MASK_HEAD, str) else config.MASK_HEAD["name"]
        backbone = config.to_dict()["BACKBONE"]
        return (
            f"<MaskRCNN {self.mode}: {backbone}, {head} masks, {config.NUM_CLASSES} classes, "
            f"{parameters / 1e6:.1f} million parameters, epoch {self.epoch}>"
        )

    def _repr_html_(self) -> str:
        """What the model is, and its changed settings, for notebooks."""
        names = f"<p>classes: {html.escape(', '.join(self.class_names[:HTML_NAMES]))}</p>" if self.class_names else ""
        return f"<p>{html.escape(repr(self)[1:-1])}</p>{names}{self.config._repr_html_()}"

    # The graphs

    @cached_property
    def training_model(self) -> TrainingModel:
        """The model that `fit` trains."""
        with self.distribution.scope():
            return TrainingModel(self.network, self.config)

    @cached_property
    def inference_model(self) -> keras.Model:
        """The model behind `detect`."""
        return inference_graph(self.network, self.config)

    @cached_property
    def detector(self) -> Detector:
        """From images to results."""
        graph = inference_graph(self.network, self.config, fast=True)
        return Detector(compiled(graph, canvas_limits(self.config)), self.config, self.scaling, self._process)

    @property
    def scaling(self) -> PixelScaling:
        """The pixels that the trunk expects: the backbone's, where the settings do not say otherwise."""
        return scaling_of(self.config, self.network.backbone.scaling)

    # Detection

    def detect(self, images: Sequence[Any], verbose: int = 0, *, prepare: str | None = None) -> list[Result]:
        """Finds the objects in any number of images of any sizes.

        Images whose network inputs have one size run together, up to DETECTION_BATCH_SIZE of them.

        Detections of all scores from DETECTION_MIN_CONFIDENCE on are returned. It is 0.05 unless set, because average
        precision needs them; `visualize.display_instances` draws those from 0.5 on, and
        `result.keep(result.scores >= 0.5)` leaves them in a program.

        One object may be found under several classes. DETECTION_BEST_CLASS_ONLY = True gives each RoI its best class
        only. `result.keep(utils.non_max_suppression(result.rois, result.scores, 0.5))` is NMS over all classes.

        Args:
            images: paths or arrays: grey, RGB or RGBA, uint8 or float.
            verbose: 1 prints for each image how many candidates each step left.
            prepare: "full", "rle" or "crops": compute the masks in this form now, and drop the probabilities behind
                them (about 3 kB an instance). None: each form is computed when it is first used.

        Returns:
            A `Result` per image: the old package's dict of rois, class_ids, scores and masks, whose attributes offer
            more. Boxes and masks are in pixels of the image as given; scores fall.

        Raises ValueError, TypeError or OSError for a bad image, with its index in the list.
        """
        if isinstance(images, (str, Path)) or (isinstance(images, np.ndarray) and images.ndim < 4):
            raise TypeError("detect takes a list of images; for a single one write model.detect([image])[0].")
        return self.detector.detect(list(images), verbose, prepare, self.class_names)

    def stream(
        self,
        images: Iterable[Any],
        *,
        prepare: str | None = "rle",
        failures: str = "raise",
        keep_images: bool = False,
        each: Callable[[Result], Any] | None = None,
    ) -> Iterator[Any]:
        """`detect` for more images than memory holds: yields the results in order, as they come.

        Files are read, and masks pasted, while the network runs. Memory does not grow with the number of images.

        Args:
            images: paths or arrays, as in `detect`; any iterable, read no further ahead than needed.
            prepare: as in `detect`; run lengths keep a result at about a kilobyte per instance.
            failures: "raise" for an image that cannot be read, or "yield" its exception in its place and go on.
            keep_images: leave the pixels in `result.image`.
            each: called with every result, in another thread, while the network runs; what it returns is yielded
                instead. For work such as drawing and writing files.
        """
        return self.detector.stream(
            images, prepare=prepare, class_names=self.class_names, failures=failures, keep_images=keep_images, each=each
        )

    def export(self, path: str | Path, *, precision: str = "float32", calibration: Sequence[Any] = ()) -> Path:
        """Writes the model for programs that run without this package's graph.

        `mrcnn.inference.predictor.Predictor(path).detect(images)` gives what `detect` gives, without TensorFlow.

        Args:
            path: its ending names the format: .onnx, .xml (OpenVINO), or none for a SavedModel folder. A JSON file
                beside it holds the class names and how images become network inputs.
            precision: "float32"; for OpenVINO also "float16" (smaller file) and "int8" (faster on a CPU).
            calibration: paths or arrays of some 50 images, for int8.

        Returns:
            `path`.

        Raises ValueError for another ending or precision, NotImplementedError for settings that the format cannot
        express, ImportError (with the command that installs it) for a missing library.
        """
        return export.export(
            self.network,
            self.inference_model,
            path,
            config=self.config,
            scaling=self.scaling,
            class_names=self.class_names,
            precision=precision,
            calibration=calibration,
        )

    # Training

    def train(
        self,
        train_dataset: Dataset,
        val_dataset: Dataset | None,
        learning_rate: float | None = None,
        epochs: int = 1,
        layers: str = "all",
        augmentation: Any = None,
        custom_callbacks: Sequence[keras.callbacks.Callback] | None = None,
        no_augmentation_sources: Sequence[str] | None = None,
        verbose: int | str = "auto",
    ) -> keras.callbacks.History:
        """Trains, and writes a checkpoint after each epoch; goes on where the object stands (`epoch`).

        Args:
            train_dataset, val_dataset: prepared datasets; without the second no val_ losses are taken.
            learning_rate: None for the configuration's.
            epochs: number of the last epoch, counted from the first of this run: training to 10, then to 20, makes 20.
                The learning-rate schedule spans them all; for stages with rates of one's own, as in old scripts, set
                LR_SCHEDULE = "constant".
            layers: what learns: "heads", "3+", "4+", "5+", "all", or a regular expression for layer names.
            augmentation: an imgaug augmenter for the training images, beside the configuration's own.
            custom_callbacks: further Keras callbacks. At the end of an epoch they come after its checkpoint and before
                log.csv and TensorBoard, which show what they add.
            no_augmentation_sources: sources of the dataset whose images stay as they are.
            verbose: as in `fit`: 0 silent, 1 a progress bar, 2 a line an epoch.

        Raises ValueError for datasets that do not fit, FloatingPointError (with the images) at a loss that is not
        finite; what was saved before stays.
        """
        config = self.config
        if config.DISTRIBUTION and self.mode != "training":
            raise ValueError(f'DISTRIBUTION = {config.DISTRIBUTION!r} needs MaskRCNN("training", ...).')
        if self.epoch >= epochs:
            print(f"Nothing to train: epoch {self.epoch} of {epochs} is done. Ask for more epochs.")
            return keras.callbacks.History()
        workers = self.distribution
        loaders = {
            "scaling": self.scaling,
            "seed": config.SEED,
            "share": (workers.worker, workers.workers),
            "whole": self.network.whole_masks,
        }
        train = Loader(
            train_dataset,
            config,
            steps=config.STEPS_PER_EPOCH,
            augmentation=augmentation,
            no_augmentation_sources=no_augmentation_sources or (),
            start_epoch=self.epoch,
            **loaders,
        )
        validation = (
            None
            if val_dataset is None
            else Loader(val_dataset, config, steps=config.VALIDATION_STEPS, training=False, **loaders)
        )
        self.class_names = list(train_dataset.class_names)
        set_trainable(self.network, layers, train_bn=config.TRAIN_BN)
        rate = config.LEARNING_RATE if learning_rate is None else learning_rate
        with workers.scope():
            compile_model(
                self.training_model,
                config,
                momentum=config.LEARNING_MOMENTUM,
                learning_rate=rate,
                total_steps=epochs * len(train),
                first_step=self.epoch * len(train),
            )
        self._meet(train)
        if self._resume_from is not None:
            load_optimizer(self._resume_from, self.training_model.optimizer)
            self.training_model.optimizer.iterations.assign(self.epoch * len(train))
            self._resume_from = None
        if workers.is_chief:
            print(
                f"Training to epoch {epochs} from {self.epoch}: {len(train)} steps an epoch, learning rate {rate} "
                f"({config.LR_SCHEDULE}, {config.WARMUP_STEPS} steps of warm-up), logs in {self.log_dir}"
            )
        warn_of_long_warm_up(config.WARMUP_STEPS, epochs * len(train))
        callbacks = self._callbacks(train, validation, custom_callbacks or ())
        return self._fit(
            train,
            validation,
            epochs=epochs,
            verbose=verbose if workers.is_chief else 0,
            callbacks=workers.callbacks(callbacks),
        )

    def _meet(self, train: Loader) -> None:
        """The workers of a training make sure that they hold the same, and write into the chief's folder."""
        facts = {
            **self.config.to_dict(),
            "epoch": self.epoch,
            "images": len(train.dataset.image_ids),
            "class_names": self.class_names,
        }
        if self.distribution.workers > 1:
            name = self.log_dir.name if self.distribution.is_chief else ""
            self._log_dir = self.model_dir / self.distribution.meet(facts, self.network.layers(), name)

    def _fit(self, train: Loader, validation: Loader | None, **options: Any) -> keras.callbacks.History:
        try:
            data = self.distribution.data(train, validation, options["epochs"])
            with self.distribution.scope():  # the loader shuffles, by its seed
                return self.training_model.fit(**data, initial_epoch=self.epoch, shuffle=False, **options)
        except Exception as error:
            failure = train.failure or (validation and validation.failure)
            if failure in (None, error):
                raise
            raise failure from error  # what the loader raised, not TensorFlow's wrapping of it
        finally:
            for loader in filter(None, (train, validation)):
                loader.close()

    def _callbacks(
        self, train: Loader, validation: Loader | None, custom: Sequence[keras.callbacks.Callback]
    ) -> list[keras.callbacks.Callback]:
        chief = self.distribution.is_chief
        if chief:
            self.config.save(self.log_dir / "config.json")
        return [
            StopAtNonFiniteLoss(partial(describe, train.dataset), validation and partial(describe, validation.dataset)),
            SaveCheckpoint(
                self._save_epoch,
                self.config.KEEP_CHECKPOINTS if chief else None,
                written=[path for path in map(self.checkpoint_path, range(1, self.epoch + 1)) if path.exists()],
            ),
            *custom,
            EpochLog(self.log_dir / "log.csv", self.epoch),
            tensorboard(self.log_dir),
        ]

    def _save_epoch(self, epoch: int) -> Path:
        self.epoch = epoch
        path = self.checkpoint_path(epoch)
        if self.distribution.is_chief:
            self.save_weights(path, optimizer=self.training_model.optimizer)
        self._resume_from = path  # so that another call of train goes on with this momentum
        return path

    # Files

    @property
    def log_dir(self) -> Path:
        """Folder of this run, made when first asked for: NAME and the time at which it began."""
        if self._log_dir is None:
            if not self.config.NAME:
                raise ValueError("Config.NAME is None; a configuration that trains or saves by itself needs a name.")
            self._log_dir = run_folder.new_run_folder(self.model_dir, self.config.NAME)
        return self._log_dir

    def checkpoint_path(self, epoch: int) -> Path:
        """Where the checkpoint after so many epochs goes."""
        return self.log_dir / f"mask_rcnn_{self.config.NAME.lower()}_{epoch:04d}.h5"

    def save_weights(self, path: str | Path, optimizer: keras.optimizers.Optimizer | None = None) -> None:
        """Writes weights, settings and class names to one h5 file, whole or not at all."""
        metadata = {"config": self.config.to_dict(), "class_names": self.class_names, "epoch": self.epoch}
        save_checkpoint(path, self.network.layers(), metadata, optimizer)

    def find_last(self) -> Path:
        """The newest checkpoint of the newest run of this NAME. Raises FileNotFoundError when there is none."""
        return run_folder.find_last(self.model_dir, self.config.NAME)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        mode: str | None = None,
        model_dir: str | Path = "logs",
        config: Config | type[Config] | None = None,
        *,
        classes: Sequence[str] | None = None,
        exclude: Sequence[str] | str | None = None,
        keep_classes: bool | Sequence[str] = False,
        class_names: Sequence[str] | None = None,
        bn_epsilon: float | None = None,
        **overrides: Any,
    ) -> "MaskRCNN":
        """A model with published weights, or with those of a file, built as they need it.

        Args:
            path: a name of `mrcnn.weights.published.PUBLISHED`, fetched once; or any file that `load_weights` takes,
                except keras.applications weights of other than ResNets.
            mode: None: "training" with `classes`, else "inference".
            config: what it sets goes before the settings of the file. Needed for a BACKBONE that is a function, which
                no file holds.
            classes: names of your own classes, without background: the model is ready to be trained on them. Layers
                that depend on the classes keep what the file has for those of the same name; the rest of them is new.
            exclude, keep_classes, class_names, bn_epsilon: as in `load_weights`.
            overrides: settings that go before all others: `from_pretrained(path, DETECTION_MIN_CONFIDENCE=0.5)`.

        Raises as `load_weights`; ValueError for an unknown setting or name, and for a file that leaves a part of the
        model untrained that is not excluded, unless other classes are asked for; DownloadError if it cannot be fetched.
        """
        path = pretrained.locate(path)
        source = read_source(path, bn_epsilon)
        if classes is not None:
            if class_names or "NUM_CLASSES" in overrides:
                raise ValueError("classes says which and how many there are; leave out class_names and NUM_CLASSES.")
            class_names = pretrained.with_background(classes)
            overrides["NUM_CLASSES"] = len(class_names)
            keep_classes = keep_classes or bool(source.class_names)
        config = conventions.pretrained_config(source, path, config, DEFAULTS, overrides)
        if classes is not None and config.NAME is None:
            config = config.adopt({"NAME": "finetuned"})
        asked = classes is not None or "NUM_CLASSES" in overrides
        own_classes = asked or config.NUM_CLASSES != source.settings.get("NUM_CLASSES", Config.NUM_CLASSES)
        if not own_classes:
            pretrained.require_parts(path, source, config, exclude)
        mode = mode or ("inference" if classes is None else "training")
        agreement = conventions.agreed(config, source, source.parts, DEFAULTS, path)
        model = cls(mode, agreement.config, model_dir)
        exclude = transfer.our_names(exclude, model.network.layers())
        report = model._load(
            path, agreement, exclude=exclude, keep_classes=keep_classes, class_names=class_names, fresh=True
        )
        if not own_classes:
            pretrained.require_trained(path, source, model.network.layers(), report, exclude)
        return model

    def load_weights(
        self,
        filepath: str | Path,
        by_name: bool = False,
        exclude: Sequence[str] | str | None = None,
        keep_classes: bool | Sequence[str] = False,
        strict: bool = False,
        class_names: Sequence[str] | None = None,
        bn_epsilon: float | None = None,
    ) -> LoadReport:
        """Loads weights of this package, of matterport, torchvision, Detectron2, or of ImageNet into the backbone.

        The content tells what the file is. Settings that its weights are bound to (strides, pixels, anchors ...) are
        taken over and printed; `self.config` is another object than was given then. All others stay as they are, also
        where the original program has them otherwise (RPN_PER_LEVEL, DETECTION_NMS_THRESHOLD, IMAGE_RESIZE_MODE ...):
        only `from_pretrained` gives that program's numbers.

        Args:
            filepath: a file of `save_weights`; "last" for `find_last`; matterport's h5; torchvision's or Detectron2's
                `.pth` or `.pkl`; an ImageNet trunk of Detectron2 or keras.applications.
            by_name: skip layers whose shapes differ and layers that only one side has, and print which.
            exclude: layers to leave as they are: names or regular expressions. The old package's names of the
                class-shaped layers work: "mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask".
            keep_classes: where the classes differ, copy the rows of those that both sides have, by their names. A list:
                the names of the file's classes, background first, where the file does not say them.
            strict: raise, instead of printing a table, where the number of classes differs or the file lacks a part.
            class_names: of this model's classes, background first, as `dataset.class_names`.
            bn_epsilon: of the BatchNorm of a torch trunk, for files made with another than their program's own.

        Returns:
            What was loaded, skipped and missing; `print` shows a table.

        Raises ValueError when layers are missing or differ and are not excluded, the backbone is another, the file is
        damaged or of no known program, or an argument cannot be followed (weights of a keras.applications backbone are
        loaded whole); the model is unchanged then. A whole checkpoint from the folder of a run of this NAME is resumed,
        with its epoch and optimizer, and its folder if it is the newest there. Other files begin a run of their own.
        """
        path = self.find_last() if str(filepath) == "last" else pretrained.locate(filepath)
        if self.network.backbone.source is not None and imagenet.is_keras_weights(path):
            return self._load_application(path, exclude=exclude, keep_classes=keep_classes, strict=strict)
        source = read_source(path, bn_epsilon)
        exclude = transfer.our_names(exclude, self.network.layers())
        parts = transfer.loaded_parts(source, exclude)
        agreement = conventions.agreed(self.config, source, parts, DEFAULTS, path)
        return self._load(
            path,
            agreement,
            by_name=by_name,
            exclude=exclude,
            keep_classes=keep_classes,
            strict=strict,
            class_names=class_names,
        )

    def _load_application(self, path: Path, **arguments: Any) -> LoadReport:
        """Loads ImageNet weights into a backbone that is a model of keras.applications."""
        report = imagenet.load(
            path,
            self.network.backbone,
            partial(build_backbone, self.config.BACKBONE, options=self.config.BACKBONE_OPTIONS),
            **arguments,
        )
        if report.notes:
            print(f"{path}: {report}")
        self.epoch, self._log_dir, self._resume_from = 0, None, None
        return report

    def _load(
        self,
        path: Path,
        agreement: conventions.Agreement,
        *,
        exclude: Sequence[str] | None,
        keep_classes: bool | Sequence[str],
        class_names: Sequence[str] | None,
        by_name: bool = False,
        strict: bool = False,
        fresh: bool = False,
    ) -> LoadReport:
        """Loads a source into a network of `config`, and makes both this object's once that has succeeded."""
        config, source = agreement.config, agreement.source
        names = list(class_names or (keep_classes and self.class_names) or ())
        if names and len(names) != config.NUM_CLASSES:
            raise ValueError(f"class_names has {len(names)} names with background; NUM_CLASSES: {config.NUM_CLASSES}.")
        if {"trunk", "backbone"} & set(transfer.loaded_parts(source, exclude)):
            conventions.check_backbone(source, path, config.BACKBONE, config.BACKBONE_OPTIONS)
        network = self.network
        if any(getattr(config, name) != getattr(self.config, name) for name in conventions.STRUCTURAL):
            with self.distribution.scope():
                network = build_network(config)
            transfer.carry_over(self.network.layers(), network.layers())
        report = transfer.load_source(
            path,
            network.layers(),
            source,
            exclude=exclude,
            by_name=by_name,
            strict=strict,
            keep_classes=keep_classes,
            class_names=names,
            reverse_channels=scaling_of(config, network.backbone.scaling).bgr,
            fresh=fresh or network is not self.network,
            hint=agreement.mismatch,
        )
        if config is not self.config:
            self.config, self.network = config, network
            for built in ("training_model", "inference_model", "detector"):
                self.__dict__.pop(built, None)
        if report.notes or (by_name and report.skipped + report.missing + report.unexpected):
            print(f"{path} (weights of {source.program}): {report}")
        if agreement.text:
            print(f"{path} (weights of {source.program}) {agreement.text}")
        self._take_up(path, source, report, names)
        return report

    def _take_up(self, path: Path, source: Source, report: LoadReport, names: list[str]) -> None:
        """Goes on with the run that a checkpoint comes from, if it is all of one and of this NAME, or begins anew."""
        logits = any(tensor.name.startswith("box_head/mrcnn_class_logits/") for tensor in report.loaded)
        if logits and not names and len(source.class_names) == self.config.NUM_CLASSES:
            names = source.class_names
        if names or (logits and source.is_own):
            self.class_names = names
        self.epoch, self._log_dir, self._resume_from = 0, None, None
        whole = source.is_own and not (report.skipped or report.missing or report.notes)
        same_name = str(source.settings.get("NAME")).lower() == str(self.config.NAME).lower()
        if whole and same_name and path.resolve().parent.parent == self.model_dir.resolve():
            self.epoch, self._resume_from = int(read_metadata(path).get("epoch", 0)), path
            if [path.name] == [newest.name for newest in run_folder.checkpoints(path.parent)[-1:]]:
                self._log_dir = path.parent

    def get_imagenet_weights(self) -> Path:
        """Path of the backbone's ImageNet weights, downloaded as keras.applications does when they are not here yet."""
        return imagenet.download(self.config.BACKBONE, self.config.BACKBONE_OPTIONS)
