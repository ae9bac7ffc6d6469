"""MaskRCNN: the class that users work with."""

import gc
import html
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mrcnn.config import Config
from mrcnn.data.dataset import Dataset
from mrcnn.data.keypoints import Skeleton
from mrcnn.distribution.start import start
from mrcnn.inference import export
from mrcnn.inference.augmentation import Augmentation, augmented
from mrcnn.inference.compiled import compiled, compiled_masks
from mrcnn.inference.detector import Detector, Finder
from mrcnn.inference.input_sizes import input_limits
from mrcnn.inference.results import Result
from mrcnn.inference.tiling import tiled
from mrcnn.legacy import names
from mrcnn.legacy.defaults import mention_defaults
from mrcnn.legacy.methods import OldMethods
from mrcnn.network.graph import Network, build_network, inference_graph, mask_graph
from mrcnn.network.pixels import PixelScaling, scaling_of
from mrcnn.training import run_folder
from mrcnn.training.determinism import make_deterministic
from mrcnn.training.model import TrainingModel
from mrcnn.training.run_folder import Run, RunPath
from mrcnn.training.shared_images import refuse_shared_images
from mrcnn.training.trainer import Trainer
from mrcnn.weights import conventions, loading, pretrained, transfer
from mrcnn.weights.checkpoint import LoadReport, read_state, save_checkpoint
from mrcnn.weights.importers import imagenet
from mrcnn.weights.recognize import read_source

__all__ = ["MaskRCNN", *names.MODEL]  # as the old package's module

GRAPHS = ("training_model", "inference_model")
HTML_NAMES = 20  # class names that a notebook shows


def __getattr__(name: str) -> Any:
    return names.find(__name__, name)


class MaskRCNN(OldMethods):
    """Mask R-CNN (He et al. 2017) on a feature pyramid, with a mask head chosen by name.

    Args:
        mode: "training" or "inference", as in the old package. Both graphs exist either way, share one network, and are
            built when first used.
        config: the settings. The model keeps its own copy, `model.config`, because weight files may change settings.
            Later assignments to `config` take effect at the next call of `train`.
        model_dir: folder for logs and checkpoints, with a subfolder per run.

    Raises ValueError for an unknown mode, backbone or head.
    """

    def __init__(self, mode: str, config: Config, model_dir: str | Path = "logs") -> None:
        if mode not in ("training", "inference"):
            raise ValueError(f'mode must be "training" or "inference", got {mode!r}.')
        mention_defaults(config)
        self.mode, self.config, self.model_dir = mode, config.adopt({}), Path(model_dir)
        self._given, self._seen = config, config.to_dict()
        if config.DETERMINISTIC:
            make_deterministic()
        self.distribution = start(config.DISTRIBUTION if mode == "training" else None, config.GPU_COUNT)
        with self.distribution.scope():
            self.network = build_network(self.config)
        self.run, self.class_names, self._process = Run(), [], os.getpid()
        self.skeleton: Skeleton | None = None  # of the keypoints, once weights or training data provide it

    def __repr__(self) -> str:
        config = self.config
        parameters = sum(layer.count_params() for layer in self.network.layers().values())
        head = config.MASK_HEAD["name"] if isinstance(config.MASK_HEAD, dict) else config.MASK_HEAD or "no"
        head += " masks" if config.KEYPOINT_HEAD is None else f" masks, {config.NUM_KEYPOINTS} keypoints"
        return (
            f"<MaskRCNN {self.mode}: {config.to_dict()['BACKBONE']}, {head}, {config.NUM_CLASSES} classes, "
            f"{parameters / 1e6:.1f} million parameters, epoch {self.epoch}>"
        )

    def _repr_html_(self) -> str:
        """A summary of the model and its changed settings, for notebooks."""
        names = f"<p>classes: {html.escape(', '.join(self.class_names[:HTML_NAMES]))}</p>" if self.class_names else ""
        return f"<p>{html.escape(repr(self)[1:-1])}</p>{names}{self.config._repr_html_()}"

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
        call = compiled(inference_graph(self.network, self.config, fast=True), input_limits(self.config))
        return Detector(call, self.config, self.scaling, self._process, lambda: self.skeleton)

    @cached_property
    def _masks_of_boxes(self) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
        return compiled_masks(mask_graph(self.network, self.config, fast=True))

    @property
    def scaling(self) -> PixelScaling:
        """Pixel scaling that the trunk expects."""
        return scaling_of(self.config, self.network.backbone.scaling)

    # Detection

    def detect(
        self,
        images: Sequence[Any],
        verbose: int = 0,
        *,
        prepare: str | None = None,
        tile: int | None = None,
        overlap: float = 0.2,
        augment: bool | Augmentation = False,
    ) -> list[Result]:
        """Finds the objects in any number of images of any sizes.

        Images whose network inputs have the same size run together, up to DETECTION_BATCH_SIZE at a time.

        Detections with a score of DETECTION_MIN_CONFIDENCE or more are returned: 0.05, because average precision needs
        the low scores. `result.keep(result.scores >= 0.5)` selects those that `visualize.display_instances` draws. One
        object may be detected under several classes. With DETECTION_BEST_CLASS_ONLY = True, each RoI gets its best one
        only; `result.keep(utils.non_max_suppression(result.rois, result.scores, 0.5))` is NMS over all classes.

        Args:
            images: paths or arrays: gray, RGB or RGBA, uint8 or float.
            verbose: 1 prints how many candidates each step leaves, per image.
            prepare: "full", "rle" or "crops": compute the masks in this form now and discard the mask probabilities
                (about 3 kB per instance). None: compute each form on first use.
            tile: for large images: also detect in tiles of this side in pixels. Each object is returned once, even
                across tiles (see `mrcnn.inference.tiling`). `verbose` has no effect then.
            overlap: minimum overlap of neighboring tiles, as a fraction of a tile's side.
            augment: test-time augmentation: True for Detectron2's views (9 sizes, each also mirrored: about 18 times
                the work), or an `mrcnn.inference.augmentation.Augmentation` for others. Not together with `tile`.

        Returns:
            A `Result` per image: the old package's dict of rois, class_ids, scores and masks, with further attributes,
            and `keypoints` with a keypoint head. Boxes, masks and keypoints are in pixels of the original image, sorted
            by descending score.

        Raises ValueError, TypeError or OSError for a bad image, with its index in the list; NotImplementedError for
        `tile` or `augment` with a keypoint head.
        """
        if isinstance(images, (str, Path)) or (isinstance(images, np.ndarray) and images.ndim < 4):
            raise TypeError("detect takes a list of images; for a single image, write model.detect([image])[0].")
        if alone := self._finder(tile, overlap, augment):
            return self.detector.detect_alone(list(images), alone, prepare)
        return self.detector.detect(list(images), verbose, prepare, self.class_names)

    def _finder(self, tile: int | None, overlap: float, augment: bool | Augmentation) -> Finder | None:
        """The function that detects with tiles or augmentation in a single image; None for a plain network pass."""
        if tile is not None and augment:
            raise ValueError(f"pass tile={tile} or augment, not both")
        if augment:
            masks_of = None if self.network.head is None else self._masks_of_boxes
            return augmented(self.detector, masks_of, augment, self.class_names)
        return None if tile is None else tiled(self.detector, tile, overlap, self.class_names)

    def stream(
        self,
        images: Iterable[Any],
        *,
        prepare: str | None = "rle",
        failures: str = "raise",
        keep_images: bool = False,
        each: Callable[[Result], Any] | None = None,
        tile: int | None = None,
        overlap: float = 0.2,
        augment: bool | Augmentation = False,
    ) -> Iterator[Any]:
        """`detect` for more images than fit in memory: yields each result, in order, as soon as it is ready.

        Files are read and masks pasted while the network runs. Memory does not grow with the number of images.

        Args:
            images: as in `detect`; any iterable, read no further ahead than needed.
            prepare: as in `detect`; with "rle", a result takes about a kilobyte per instance.
            failures: for an image that cannot be read: "raise" its exception, or "yield" it in place of a result.
            keep_images: keep the pixels in `result.image`.
            each: called with every result, in another thread, while the network runs; its return value is yielded
                instead of the result. For work such as drawing and writing files.
            tile, overlap, augment: as in `detect`; images then run one by one, and `each` in this thread.
        """
        options: dict[str, Any] = {"prepare": prepare, "failures": failures, "keep_images": keep_images, "each": each}
        if alone := self._finder(tile, overlap, augment):
            return self.detector.stream_alone(images, alone, **options)
        return self.detector.stream(images, class_names=self.class_names, **options)

    def export(self, path: str | Path, *, precision: str = "float32", calibration: Sequence[Any] = ()) -> Path:
        """Exports the model to ONNX, OpenVINO, LiteRT or a SavedModel.

        `mrcnn.inference.predictor.Predictor(path).detect(images)` gives the same results as `detect`, without
        TensorFlow.

        Args:
            path: its extension selects the format: .onnx, .xml (OpenVINO), .tflite (LiteRT), or none for a SavedModel
                folder. A JSON file next to it holds the class names and how images become network inputs.
            precision: "float32"; for OpenVINO also "float16" (smaller file) and "int8" (faster on a CPU).
            calibration: paths or arrays of about 50 images, for int8.

        Returns `path`. Raises ValueError for an unknown extension or precision, NotImplementedError for settings that
        the format cannot express, ImportError (with the command that installs it) for a missing library.
        """
        return export.export(
            self.network,
            self.inference_model,
            path,
            config=self.config,
            scaling=self.scaling,
            class_names=self.class_names,
            skeleton=self.skeleton,
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
        allow_shared_images: bool = False,
    ) -> keras.callbacks.History:
        """Trains from the current `epoch` of the run to the end of epoch `epochs`, with a checkpoint after each.

        Args:
            train_dataset, val_dataset: prepared datasets; with None as the second, no validation losses are computed.
            learning_rate: held constant after a warm-up of at most a tenth of the steps, unless the configuration sets
                LR_SCHEDULE, LR_STEPS or WARMUP_STEPS. None: the configuration's rate and schedule, which spans the
                whole run.
            epochs: number of the last epoch, counted from the start of the run: 10, then 20, makes 20 epochs.
            layers: layers to train: "heads", "3+", "4+", "5+", "all", or a regular expression for layer names.
            augmentation: an imgaug augmenter for the training images, in addition to the configuration's own.
            custom_callbacks: more Keras callbacks. At the end of an epoch they run after its checkpoint is saved;
                log.csv and TensorBoard include what they add to the logs. They may set the learning rate, which ends
                the schedule.
            no_augmentation_sources: dataset sources whose images are not augmented.
            verbose: as in `fit`: 0 silent, 1 a progress bar, 2 one line per epoch.
            allow_shared_images: allow images that are in both datasets.

        Raises ValueError for datasets that do not match the model or share images, FolderInUseError if another process
        trains in the run's folder, FloatingPointError (naming the images) for a loss that is not finite,
        and TrainingInterrupted, a KeyboardInterrupt, on Ctrl-C. Earlier checkpoints are kept.
        """
        self._follow()
        if self.config.DETERMINISTIC:  # it may have been set after construction
            make_deterministic()
        if self.config.DISTRIBUTION and self.mode != "training":
            raise ValueError(f'DISTRIBUTION = {self.config.DISTRIBUTION!r} needs MaskRCNN("training", ...).')
        if self.epoch >= epochs:
            print(f"Nothing to train: epoch {self.epoch} of {epochs} is done. Set a higher `epochs`.")
            return keras.callbacks.History()
        if val_dataset is not None and not allow_shared_images:
            refuse_shared_images(train_dataset, val_dataset)
        self.class_names = list(train_dataset.class_names)
        self.skeleton = train_dataset.skeleton if self.network.keypoints is not None else None
        if self.run.saved is not None:
            self.run.state, self.run.saved = read_state(self.run.saved), None
        trainer = Trainer(
            self.training_model,
            self.network,
            self.config,
            distribution=self.distribution,
            scaling=self.scaling,
            run=self.run,
            model_dir=self.model_dir,
            save=self._save,
        )
        return trainer.train(
            train_dataset,
            val_dataset,
            learning_rate=learning_rate,
            epochs=epochs,
            layers=layers,
            augmentation=augmentation,
            no_augmentation_sources=no_augmentation_sources or (),
            callbacks=custom_callbacks or (),
            verbose=verbose,
        )

    def _follow(self) -> None:
        """Applies what was assigned to the caller's configuration since the last call."""
        now = self._given.to_dict()
        for name in (name for name in now if now[name] != self._seen[name]):
            setattr(self.config, name, getattr(self._given, name))
        self._seen = now
        self.config.validate()

    # Files

    @property
    def epoch(self) -> int:
        """Number of finished epochs in this run."""
        return self.run.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self.run.epoch, self.run.step = epoch, 0

    @property
    def log_dir(self) -> RunPath:
        """The folder of this run, created on first use; named after NAME and the start time."""
        return self.run.open(self.model_dir, self.config.NAME)

    def checkpoint_path(self, epoch: int) -> RunPath:
        """The path of the checkpoint after `epoch` epochs."""
        return RunPath(self.log_dir / run_folder.checkpoint_name(str(self.config.NAME), epoch))

    def save_weights(self, path: str | Path) -> None:
        """Writes weights, settings and class names to one h5 file, completely or not at all."""
        self._save(Path(path))

    def _save(self, path: Path, state: Mapping[str, np.ndarray] | None = None) -> None:
        position = {"epoch": self.run.epoch, "step": self.run.step}
        metadata = {"config": self.config.to_dict(), "class_names": self.class_names, **position}
        if self.skeleton is not None:
            metadata["skeleton"] = self.skeleton.as_dict()
        save_checkpoint(path, self.network.layers(), metadata, state)

    def find_last(self) -> RunPath:
        """The newest checkpoint of the newest run with this NAME. Raises FileNotFoundError if there is none."""
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
        """A model with published weights, or the weights of a file, built with the settings that they need.

        Args:
            path: a name in `mrcnn.weights.published.PUBLISHED`, downloaded once; or any file that `load_weights` takes,
                except keras.applications weights other than a ResNet's.
            mode: None: "training" with `classes`, else "inference".
            config: its settings override those of the file. Needed if BACKBONE is a function, which no file contains.
            classes: names of your own classes, without background, to train the model on. Class-dependent layers keep
                the file's weights for classes of the same name; their other rows are new.
            exclude, keep_classes, class_names, bn_epsilon: as in `load_weights`.
            overrides: settings that override all others: `from_pretrained(path, DETECTION_MIN_CONFIDENCE=0.5)`.

        Raises the errors of `load_weights`; ValueError for an unknown setting or name, and for a file that leaves a
        part of the model untrained, unless it is excluded or the classes differ; DownloadError for a failed download.
        """
        path = pretrained.locate(path)
        source = read_source(path, bn_epsilon)
        if classes is not None:
            if class_names or "NUM_CLASSES" in overrides:
                raise ValueError("classes says which and how many there are; leave out class_names and NUM_CLASSES.")
            class_names = pretrained.with_background(classes)
            overrides["NUM_CLASSES"] = len(class_names)
            keep_classes = keep_classes or bool(source.class_names)
        config = conventions.pretrained_config(source, path, config, loading.DEFAULTS, overrides)
        if classes is not None and config.NAME is None:
            config = config.adopt({"NAME": "finetuned"})
        own_classes = classes is not None or pretrained.differs(config, source, "NUM_CLASSES")
        if not own_classes:
            pretrained.require_parts(path, source, config, exclude)
        mode = mode or ("inference" if classes is None else "training")
        agreement = conventions.agreed(config, source, source.parts, loading.DEFAULTS, path)
        model = cls(mode, agreement.config, model_dir)
        excluded = transfer.our_names(exclude, model.network.layers())
        report = model._load(
            path, agreement, exclude=excluded, keep_classes=keep_classes, class_names=class_names, fresh=True
        )
        if not own_classes:
            own_points = pretrained.differs(config, source, "NUM_KEYPOINTS") and "keypoint_head" in source.parts
            free = [*(excluded or []), *([pretrained.KEYPOINTS] if own_points else [])]
            pretrained.require_trained(path, source, model.network.layers(), report, free)
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
        """Loads weights of this package, matterport, torchvision or Detectron2, or ImageNet weights of the backbone.

        The file's content identifies its program. Settings that the weights depend on (strides, pixels, anchors ...)
        follow the file, in `self.config`, and are printed; those set by your Config, a keyword or an assignment stay.
        All other settings stay too, even where the original program differs (RPN_PER_LEVEL, DETECTION_NMS_THRESHOLD,
        IMAGE_RESIZE_MODE ...): only `from_pretrained` reproduces that program's results.

        A numbered checkpoint of a run with this NAME in `model_dir` resumes that run: its epoch and optimizer, and its
        folder if it has no newer checkpoint. Any other file starts a new run, including the best checkpoint that
        `AveragePrecision` keeps.

        Args:
            filepath: a file written by `save_weights`; "last" for `find_last`; matterport's h5; torchvision's or
                Detectron2's `.pth` or `.pkl`; an ImageNet trunk of Detectron2 or keras.applications.
            by_name: skip layers whose shapes differ or that only one side has, and print which.
            exclude: layers to leave unchanged: names or regular expressions. The old package's names of the
                class-dependent layers work: "mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask".
            keep_classes: where the classes differ, copy the rows of those that both sides have, by name. Pass a list of
                the file's class names, background first, if the file does not contain them.
            strict: raise, instead of printing a table, if the number of classes differs or the file lacks a part.
            class_names: this model's classes, background first, as in `dataset.class_names`.
            bn_epsilon: BatchNorm epsilon of a torch trunk, for files that do not use their program's default.

        Returns:
            A report of what was loaded, skipped and missing; `print` shows it as a table.

        Raises ValueError if layers are missing or differ and are not excluded, if the backbone differs, if the file
        is damaged or of an unknown program, if an argument does not apply (weights of a keras.applications backbone
        are loaded completely), or if the weights need other settings while `keras_model` is in use. The model then
        stays unchanged.
        """
        path = self.find_last() if str(filepath) == "last" else pretrained.locate(filepath)
        if self.network.backbone.source is not None and imagenet.is_keras_weights(path):
            report = loading.load_application(
                path, self.network, self.config, exclude=exclude, keep_classes=keep_classes, strict=strict
            )
            self.run = Run()
            return report
        agreement = loading.agreed(path, self.network, self.config, exclude, bn_epsilon)
        return self._load(
            path,
            agreement,
            by_name=by_name,
            exclude=exclude,
            keep_classes=keep_classes,
            strict=strict,
            class_names=class_names,
        )

    def _load(self, path: Path, agreement: conventions.Agreement, fresh: bool = False, **options: Any) -> LoadReport:
        network = self._rebuilt(agreement.config) if agreement.taken else self.network
        fresh = fresh or network is not self.network
        loaded = loading.load(path, network, agreement, fresh=fresh, known_names=self.class_names, **options)
        self.network = network
        self.config.__dict__.update(agreement.config.__dict__)  # the same object, as others may refer to it
        if loaded.class_names is not None:
            self.class_names = loaded.class_names
        if loaded.skeleton is not None:
            self.skeleton = loaded.skeleton
        self.run = run_folder.resumed(path, loaded.checkpoint or {}, self.model_dir, self.config.NAME)
        return loaded.report

    def _rebuilt(self, config: Config) -> Network:
        """The network for `config`: the current one unless its layers depend on what changed. Drops the graphs.

        Raises ValueError if the caller still holds a graph, which would no longer belong to this model.
        """
        graphs = {name: weakref.ref(self.__dict__.pop(name)) for name in GRAPHS if name in self.__dict__}
        for name in ("detector", "_masks_of_boxes"):
            self.__dict__.pop(name, None)
        gc.collect()  # graphs refer to themselves
        if held := {name: graph() for name, graph in graphs.items() if graph() is not None}:
            self.__dict__.update(held)
            ours, theirs = self.config.to_dict(), config.to_dict()
            changes = ", ".join(f"{name} = {theirs[name]!r}" for name in ours if ours[name] != theirs[name])
            raise ValueError(
                f"the weights need {changes}, but your program still holds the {' and the '.join(held)} built with "
                "other settings. Load the weights before using keras_model, build the model with "
                "MaskRCNN.from_pretrained, or set these in the Config; nothing was loaded."
            )
        if all(getattr(config, name) == getattr(self.config, name) for name in conventions.STRUCTURAL):
            return self.network
        with self.distribution.scope():
            network = build_network(config)
        transfer.carry_over(self.network.layers(), network.layers())
        return network
