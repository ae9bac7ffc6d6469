"""Settings of a model, a training run and a detection run.

Subclass `Config` and override class attributes, as in the old package, or pass keywords: `Config(NUM_CLASSES=2)`.
A misspelled setting raises an error that names the closest valid one; any other new name is the user's own constant.
Settings are read where components are assembled (graph, trainer, model, loader). Below that level, every function
takes explicit keyword arguments.
"""

import argparse
import ast
import copy
import difflib
import html
import json
import math
import types
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from mrcnn.config_checks import round_sizes, validate
from mrcnn.files import write_atomically

LOSS_NAMES = ("rpn_class_loss", "rpn_bbox_loss", "mrcnn_class_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss")
KEYPOINT_LOSS = "mrcnn_keypoint_loss"  # with a keypoint head
COMPUTED = {
    "BATCH_SIZE": "it is IMAGES_PER_GPU * GPU_COUNT; set those",
    "IMAGE_SHAPE": "it follows from IMAGE_MAX_DIM, SIZE_DIVISOR and IMAGE_CHANNEL_COUNT; set those",
}
# Settings of the old package that no longer exist.
REMOVED = {
    "MASK_SHAPE": "the mask size is read from the mask head that MASK_HEAD names; drop it",
    "COMPUTE_BACKBONE_SHAPE": "the shapes of the levels are read from the backbone's outputs; drop it",
    "USE_RPN_ROIS": "the heads are always trained on the RPN's proposals; drop it",
    "IMAGE_META_SIZE": "the network no longer takes a vector of image metadata; drop it",
}


class Config:
    """Defaults are the reference recipe (torchvision, Detectron2); `mrcnn.presets` has the old package's."""

    _ignored: ClassVar[dict[str, Any]] = {}  # computed settings that a class body assigns

    # Run
    NAME: Any = None  # names the log directory and the checkpoints; every configuration that trains needs one
    SEED = 0  # initial weights, shuffling, sampling and augmentation all follow from it
    # True: with TensorFlow on a CPU, equal runs give bit-identical weights, on the same CPU model with the same number
    # of threads and without DISTRIBUTION. It applies to the whole process and cannot be turned off again.
    DETERMINISTIC = False
    # "bfloat16": trunk and heads compute in bfloat16, boxes, scores and losses in float32; weights stay float32.
    # "auto": bfloat16 where it is known to be faster (CPUs with AMX, recent GPUs), else float32
    PRECISION = "float32"

    # Batch
    GPU_COUNT = 1  # BATCH_SIZE is GPU_COUNT * IMAGES_PER_GPU; without DISTRIBUTION, one device runs the whole batch
    IMAGES_PER_GPU = 2
    # Train on GPU_COUNT devices, IMAGES_PER_GPU images each, with the same losses as on one device. "mirrored": devices
    # of this machine; "multi_worker": all processes in TF_CONFIG, running the same program. Detection uses one device.
    DISTRIBUTION: Any = None
    STEPS_PER_EPOCH: Any = 1000  # None: one pass through the training set
    VALIDATION_STEPS: Any = 50  # validation batches per val_ loss; None: the whole validation set
    LOADER_WORKERS = 2  # threads that load images; their number does not change the batches

    # Backbone
    # "resnet50", "resnet101", "resnet152", any keras.applications name, or a callable. ImageNet weights can be
    # downloaded for all but a callable; a ResNet takes those of its own depth only.
    BACKBONE: Any = "resnet101"
    BACKBONE_OPTIONS: dict[str, Any] = {}  # passed to the backbone: {"alpha": 0.75} for a narrow MobileNet
    BACKBONE_STRIDE_IN_1X1 = False  # ResNet: True puts a bottleneck's stride in its first 1x1, as Caffe's weights need
    BACKBONE_STEM_PADDING = "torch"  # ResNet: "same" pads the stem's pool below and right only, as matterport does
    # Features for the RPN and the heads. "fpn": a feature pyramid; "c4": stage 4, with stage 5 in the heads; "c5":
    # stage 5 at stride 32; "dc5": dilated stage 5 at stride 16. See presets.Detectron2C4.
    NECK = "fpn"
    BACKBONE_STRIDES = [4, 8, 16, 32, 64]  # of the neck's feature maps, P2..P6; fixed by the architecture
    TRAIN_BN = False  # False: the trunk's BatchNorm is frozen, as small batches degrade it; True: it is trained
    TOP_DOWN_PYRAMID_SIZE = 256  # channels of P2..P6

    # Image
    IMAGE_RESIZE_MODE = "fit"  # "fit" (keep the aspect ratio, 800/1333), "square", "pad64", "crop" or "none"
    IMAGE_MIN_DIM: Any = 800  # pixels of the shortest side, unless the longest would exceed IMAGE_MAX_DIM
    IMAGE_MAX_DIM: Any = 1333  # pixels of the longest side
    IMAGE_MIN_SCALE = 0  # "square", "pad64" and "crop": scale up by at least this much
    IMAGE_ANTIALIAS = True  # shrink images as Detectron2 does; False: bilinear samples (torchvision, matterport)
    IMAGE_RESIZER = "opencv"  # "skimage", "pillow": slower, same pixels as matterport and Detectron2
    IMAGE_PAD_PIXEL: Any = None  # RGB of the padding, such as (0, 0, 0) for matterport; None: zero after normalization
    SIZE_DIVISOR = 32  # sides are padded to a multiple of this, the coarsest stride of the backbone
    IMAGE_MAX_PIXELS = 300_000_000  # of an image file; a larger one is rejected from its header, before it uses memory
    IMAGE_CHANNEL_COUNT = 3
    MEAN_PIXEL: Any = None  # RGB; None: what the backbone's ImageNet weights expect
    PIXEL_STD: Any = None  # RGB; None: what the backbone's ImageNet weights expect
    CHANNEL_ORDER: Any = None  # "rgb" or "bgr", the trunk's input; None: what the backbone's ImageNet weights expect

    # Region proposal network
    RPN_ANCHOR_SCALES: Any = (32, 64, 128, 256, 512)  # pixels, one per pyramid level; without a pyramid, of all cells
    RPN_ANCHOR_RATIOS = [0.5, 1, 2]
    RPN_ANCHOR_RATIO_MEANING = "height/width"  # or "width/height" (matterport): the order of a location's anchors
    RPN_ANCHOR_STRIDE = 1  # cells of the feature map between anchors
    RPN_ANCHOR_ROUNDED = False  # True: corners of the cell anchors are whole pixels (torchvision)
    RPN_ANCHOR_STEP_FROM_SIZE = False  # True: P6's anchors are closer where its size was rounded up (torchvision)
    RPN_CHANNELS = 256  # of the shared 3x3 convolution
    RPN_CONVOLUTIONS = 1  # 3x3 convolutions before the logits and deltas; 2 in torchvision's v2
    RPN_BBOX_STD_DEV = [1.0, 1.0, 1.0, 1.0]  # divides the box deltas (dy, dx, log dh, log dw)
    RPN_TRAIN_ANCHORS_PER_IMAGE = 256  # anchors sampled per image
    RPN_POSITIVE_RATIO = 0.5  # maximum fraction of positives among them
    RPN_POSITIVE_OVERLAP = 0.7  # an anchor with at least this IoU is positive
    RPN_NEGATIVE_OVERLAP = 0.3  # an anchor with less IoU is background; those in between are ignored
    RPN_NMS_THRESHOLD = 0.7
    BOXES_INCLUSIVE = False  # True: corners name a box's last pixel, as matterport's weights expect
    RPN_PER_LEVEL = True  # top-k and NMS for each level; False: over all levels at once (matterport)
    PRE_NMS_LIMIT_TRAINING = 2000  # best anchors kept before NMS, per level with RPN_PER_LEVEL
    PRE_NMS_LIMIT = 1000  # the same in detection
    POST_NMS_ROIS_TRAINING = 2000
    POST_NMS_ROIS_INFERENCE = 1000
    RPN_CLIP_TO_PHOTOGRAPH = True  # False: proposals are clipped to the padded input (matterport)
    RPN_MIN_SIZE = 1e-3  # pixels; proposals with a shorter side are dropped. 0 keeps all (matterport)

    # RoIs that train the heads
    TRAIN_ROIS_PER_IMAGE = 512
    ROI_POSITIVE_RATIO = 0.25
    ROI_POSITIVE_OVERLAP = 0.5  # a RoI with at least this IoU is positive
    ROI_ADD_GROUND_TRUTH = True  # add ground-truth boxes to the proposals; early training starves without them
    MAX_GT_INSTANCES = 100  # per image; a seeded random subset where there are more
    USE_MINI_MASK = True  # kept from the old package; masks are always stored cropped to their box
    MINI_MASK_SHAPE = (112, 112)  # resolution of a ground-truth mask inside its box
    ALLOW_EMPTY_IMAGES = False  # True: images with no instances are trained on, as background

    # RoI features and heads
    # "align": RoIAlign; "warp": RoIWarp, which rounds a RoI to whole cells; "pool": RoIPool, which also rounds its
    # bins and takes their maximum (table 2c of the paper)
    ROI_POOLING = "align"
    ROI_REDUCTION = "average"  # of a bin's samples, or "max"; "pool" always takes the maximum
    POOL_SIZE = 7
    MASK_POOL_SIZE = 14  # half of POOL_SIZE with NECK = "c4", whatever is set
    ROI_SAMPLING_RATIO = 2  # samples per bin and axis; 0: one per cell in the bin, box by box (Detectron2, slower)
    ROI_ALIGNED = True  # half-pixel shift (Detectron2); False: torchvision's published weights
    ROI_GEOMETRY = "aligned"  # "crop": matterport's, one sample per bin, corner to corner
    ROI_LEVEL_ROUNDING = "floor"  # "round": matterport's choice of the pyramid level
    BOX_HEAD_CONVOLUTIONS = 0  # 3x3, TOP_DOWN_PYRAMID_SIZE channels, before the FC layers; 4 in torchvision's v2
    BOX_HEAD_FC_LAYERS = 2  # 1 in torchvision's v2
    FPN_CLASSIF_FC_LAYERS_SIZE = 1024  # units of each fully connected layer
    MASK_HEAD: Any = "fcn"  # a name of heads.names(), or a dict of "name" and options; None: no masks (Faster R-CNN)
    # "keypoints", or a dict of a name and options: keypoints of each instance, with or without masks. The dataset must
    # have keypoints: see Dataset.load_keypoints.
    KEYPOINT_HEAD: Any = None
    NUM_KEYPOINTS = 17  # per instance; COCO's people have 17
    KEYPOINT_POOL_SIZE = 14
    NUM_CLASSES = 1  # including background
    BBOX_STD_DEV = [0.1, 0.1, 0.2, 0.2]

    # Detections
    DETECTION_MAX_INSTANCES = 100
    DETECTION_MIN_CONFIDENCE = 0.05
    DETECTION_NMS_THRESHOLD = 0.5  # per class
    DETECTION_MIN_SIZE = 1e-2  # pixels; detections with a shorter side are dropped
    DETECTION_ROUND_BOXES = False  # True: whole pixels, and masks pasted into them (matterport)
    DETECTION_BEST_CLASS_ONLY = False  # True: one label per RoI (matterport)
    DETECTION_BATCH_SIZE = 1  # images of the same padded size that `detect` runs together

    # Losses
    LOSS_WEIGHTS = dict.fromkeys(LOSS_NAMES, 1.0)  # "mrcnn_keypoint_loss" may be added; it is 1 unless set
    RPN_BBOX_LOSS_BETA = 1 / 9  # where smooth L1 becomes linear; 0: plain L1
    BBOX_LOSS_BETA = 1 / 9
    BBOX_LOSS_AVERAGE = "sampled"  # average box losses over all sampled boxes; "positives": over positive coordinates

    # Optimizer
    LEARNING_RATE = 0.0025  # 0.02 per 16 images, scaled linearly to a batch of 2
    LEARNING_MOMENTUM = 0.9
    WEIGHT_DECAY = 1e-4  # L2 on kernels and biases, added to the gradient; not on normalization layers
    GRADIENT_CLIP_NORM: Any = (
        5.0  # global norm of all gradients; at 35, training on the balloon data diverged. None: no clipping
    )
    WARMUP_STEPS = 1000  # steps over which the learning rate rises linearly
    WARMUP_FACTOR = 0.001  # fraction of the learning rate at the first step
    LR_SCHEDULE = "step"  # "step", "cosine" or "constant"
    LR_STEPS = (0.67, 0.89)  # "step": divide by ten after each of these fractions of training
    CHECKPOINT_STEPS: Any = None  # steps between checkpoints within an epoch; only the newest is kept. None: off
    KEEP_CHECKPOINTS: Any = None  # number of newest checkpoints to keep per run; None: all

    # Augmentation
    HORIZONTAL_FLIP = 0.5  # probability
    SCALE_JITTER: tuple[float, float] | None = None  # (0.1, 2.0): large-scale jitter
    PHOTOMETRIC_DISTORTION = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        names = [name for name in vars(cls) if name.isupper()]
        _check_names(set(names) - set(COMPUTED), f"class {cls.__name__}", accept_new=True)
        computed = {name: getattr(cls, name) for name in names if name in COMPUTED}
        cls._ignored = {**cls._ignored, **computed}
        for name in computed:
            delattr(cls, name)  # it would hide the property
        mixins = [base for base in cls.__mro__ if not issubclass(base, Config)]
        for name, value in [item for base in (cls, *mixins) for item in vars(base).copy().items()]:
            if name.isupper() and isinstance(value, types.FunctionType) and getattr(cls, name) is value:
                setattr(cls, name, staticmethod(value))  # BACKBONE = my_function is a setting, not a method

    def __init__(self, **overrides: Any) -> None:
        """Raises ValueError for an unknown, impossible or contradictory setting."""
        _check_names(overrides, f"{type(self).__name__}(...)")
        if callable(self.BACKBONE) and overrides.get("BACKBONE") == _name_of(self.BACKBONE):
            del overrides["BACKBONE"]  # json holds only the name of a callable; the class has the callable
        for name in set(setting_names()) - set(overrides):
            if isinstance(getattr(self, name), (dict, list)):  # so that in-place changes stay with this object
                super().__setattr__(name, copy.deepcopy(getattr(self, name)))
        for name, value in overrides.items():
            setattr(self, name, value)
        self.validate()
        for name, value in self._ignored.items():
            if _plain(value) != _plain(getattr(self, name)):
                warnings.warn(
                    f"{type(self).__name__}.{name} = {value!r} has no effect, as in the old package: {name} is "
                    f"{getattr(self, name)!r}; {COMPUTED[name]}.",
                    stacklevel=2,
                )

    def validate(self) -> None:
        """Checks all settings. Rounds sizes up to multiples of 32 where possible, and prints what it rounded.

        Raises ValueError for an impossible or contradictory setting. Call it again after assigning a setting.
        """
        for name, size in round_sizes(self).items():
            print(f"{name} = {getattr(self, name)} is rounded up to {size}, the next multiple of 32.")
            super().__setattr__(name, size)
        validate(self, {name: getattr(Config, name) for name in setting_names()}, LOSS_NAMES, KEYPOINT_LOSS)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in COMPUTED and _plain(value) == _plain(getattr(self, name)):
            return  # programs for the old package assign computed values too
        if not name.startswith("_"):
            _check_names([name], f"{type(self).__name__} instance", accept_new=True)
            self.__dict__.setdefault("_assigned", set()).add(name)
        super().__setattr__(name, value)

    if not TYPE_CHECKING:  # type checkers report misspelled names

        def __getattr__(self, name: str) -> Any:  # called for missing names only
            reason = f" {name} of the old package is gone: {REMOVED[name]}." if name in REMOVED else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}.{reason}")

    def explicit(self) -> set[str]:
        """Names of the settings that a class body, a keyword or an assignment sets, even to their default value.

        A preset that the class is based on counts as a class body. Settings from `adopt` do not count.
        """
        names = setting_names()
        bases = type(self).__mro__[: type(self).__mro__.index(Config)]
        found = {name for base in bases for name in vars(base)} | self.__dict__.get("_assigned", set())
        for name in set(names) - self.__dict__.get("_adopted", set()):
            if isinstance(getattr(Config, name), (dict, list)) and getattr(self, name) != getattr(type(self), name):
                found.add(name)  # changed in place
        return found & set(names)

    def adopt(self, values: Mapping[str, Any]) -> Self:
        """A copy with these settings, such as those of a weight file, which do not become `explicit`.

        Raises ValueError for an unknown, impossible or contradictory setting.
        """
        _check_names(values, f"{type(self).__name__}.adopt(...)")
        adopted = copy.copy(self)
        adopted.__dict__["_assigned"] = self.__dict__.get("_assigned", set()) - set(values)
        adopted.__dict__["_adopted"] = self.__dict__.get("_adopted", set()) | set(values)
        adopted.__dict__.update(values)
        adopted.validate()
        return adopted

    @property
    def BATCH_SIZE(self) -> int:
        """Images per step."""
        return self.IMAGES_PER_GPU * self.GPU_COUNT

    @property
    def IMAGE_SHAPE(self) -> tuple[int | None, int | None, int]:
        """(height, width, channels) of a training image; None for a size that is not set."""
        side = self.IMAGE_MIN_DIM if self.IMAGE_RESIZE_MODE == "crop" else self.IMAGE_MAX_DIM
        side = math.ceil(side / self.SIZE_DIVISOR) * self.SIZE_DIVISOR if side else None
        return side, side, self.IMAGE_CHANNEL_COUNT

    def to_dict(self) -> dict[str, Any]:
        """Every setting by name, in types that json supports; a callable backbone becomes its name."""
        values = {name: getattr(self, name) for name in setting_names()}
        if callable(values["BACKBONE"]):
            values["BACKBONE"] = _name_of(values["BACKBONE"])
        return json.loads(json.dumps(values, default=lambda value: value.tolist()))  # numpy scalars and arrays

    def save(self, path: str | Path) -> None:
        """Writes the settings as json, completely or not at all."""
        write_atomically(path, json.dumps(self.to_dict(), indent=2))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """A configuration from the result of `to_dict`; values that equal the class's own do not become `explicit`.

        Raises ValueError for an unknown setting.
        """
        config = cls(**values)
        config._assigned = {name for name in values if _plain(values[name]) != _plain(getattr(cls, name))}
        return config

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """A configuration from a json file written by `save`. Raises ValueError for any other file."""
        try:
            values = json.loads(Path(path).read_text())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a json file of settings: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"{path} must contain a json object of settings, got a {type(values).__name__}.")
        return cls.from_dict(values)

    def __repr__(self) -> str:
        explicit = self.explicit()
        values = ", ".join(f"{n}={_plain(getattr(self, n))!r}" for n in setting_names() if n in explicit)
        return f"{type(self).__name__}({values})"

    def _repr_html_(self) -> str:
        """The settings that differ from the defaults, for notebooks; `display` prints all settings."""
        changed = [name for name in setting_names() if _plain(getattr(self, name)) != _plain(getattr(Config, name))]
        rows = "".join(
            f"<tr><td>{name}</td><td>{html.escape(str(_plain(getattr(self, name))))}</td>"
            f"<td>{html.escape(str(_plain(getattr(Config, name))))}</td></tr>"
            for name in changed
        )
        head = "<tr><th>setting</th><th>here</th><th>default</th></tr>"
        table = f"<table>{head}{rows}</table>" if rows else ""
        return f"<p>{type(self).__name__}, {len(changed)} settings changed</p>{table}"

    def display(self) -> None:
        """Prints every setting and the user's own upper-case constants, as in the old package."""
        print("\nConfigurations:")
        own = {name for name in dir(self) if name.isupper()} - set(setting_names()) - set(COMPUTED)
        for name in [*setting_names(), *COMPUTED, *sorted(own)]:
            print(f"{name:30} {getattr(self, name)}")


def setting_names() -> list[str]:
    """Names of all settings, in the order of their definition."""
    return [name for name in vars(Config) if name.isupper() and name not in COMPUTED]


def _name_of(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _plain(value: Any) -> Any:
    """The value in a form to compare: tuples, lists and arrays of equal numbers are equal."""
    if callable(value):
        return _name_of(value)
    return np.asarray(value).tolist() if isinstance(value, (tuple, list, np.ndarray, np.generic)) else value


def _check_names(names: Iterable[str], where: str, accept_new: bool = False) -> None:
    """Raises ValueError for unknown names; with `accept_new`, only for those that resemble a setting."""
    known = setting_names()
    for name in names:
        if name in known:
            continue
        if name in COMPUTED:
            raise ValueError(f"{where}: {name} cannot be set: {COMPUTED[name]}.")
        if name in REMOVED:
            raise ValueError(f"{where}: {name} of the old package is gone: {REMOVED[name]}.")
        near = _resembled(name, [*known, *COMPUTED])
        if accept_new and not near:
            continue
        near = near or difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else " Config in mrcnn/config.py lists them all."
        raise ValueError(f"{where}: there is no setting {name!r}.{hint}")


def _resembled(name: str, known: Iterable[str]) -> list[str]:
    """The three nearest known names, ignoring case, within an edit distance of a quarter of the length of `name`."""
    limit = max(1, len(name) // 4)
    distances = {other: _edit_distance(name.upper(), other, limit) for other in known}
    return sorted((other for other in distances if distances[other] <= limit), key=lambda other: distances[other])[:3]


def _edit_distance(a: str, b: str, limit: int) -> int:
    """Insertions, deletions and substitutions from `a` to `b`; any number above `limit` if there are more than that."""
    if abs(len(a) - len(b)) > limit:
        return limit + 1
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        above, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (x != y))
    return row[-1]


def key_value(text: str) -> tuple[str, Any]:
    """ "NAME=VALUE" as a pair; the value is a Python literal, else plain text. Raises ArgumentTypeError without "="."""
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value
