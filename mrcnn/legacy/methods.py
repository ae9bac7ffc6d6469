"""Methods and attributes of the old package's MaskRCNN that no new code uses."""

from __future__ import annotations

import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from mrcnn.config import Config
from mrcnn.data.images import read_image
from mrcnn.data.keypoints import Skeleton, decode_heatmaps
from mrcnn.data.masks import unmold_mask
from mrcnn.inference.results import Result, SoftMasks
from mrcnn.layers.anchors import pyramid_anchors
from mrcnn.legacy import names
from mrcnn.legacy.anchors import compute_backbone_shapes
from mrcnn.legacy.boxes import denorm_boxes, norm_boxes
from mrcnn.legacy.images import compose_image_meta, log, parse_image_meta
from mrcnn.legacy.removed import RemovedNameError
from mrcnn.training import run_folder
from mrcnn.training.model import set_trainable
from mrcnn.training.run_folder import Run, RunPath
from mrcnn.weights.checkpoint import is_checkpoint, load_checkpoint
from mrcnn.weights.importers import imagenet

if TYPE_CHECKING:
    from mrcnn.inference.detector import Detector
    from mrcnn.network.graph import Network

HOOKS = ("build", "compile", "set_trainable", "mold_inputs", "unmold_detections", "get_anchors", "detect_molded")
GRAPH = "keras_model."


class OldMethods:
    """Base class of `MaskRCNN` with the methods that programs of the old package use."""

    mode: str
    config: Config
    network: Network
    epoch: int
    class_names: list[str]
    skeleton: Skeleton | None
    run: Run

    if TYPE_CHECKING:

        @property
        def training_model(self) -> keras.Model: ...
        @property
        def inference_model(self) -> keras.Model: ...
        @property
        def detector(self) -> Detector: ...
        def save_weights(self, path: str | Path) -> None: ...

    def get_imagenet_weights(self) -> Path:
        """Path of the backbone's ImageNet weights, downloaded by keras.applications if missing."""
        return imagenet.download(self.config.BACKBONE, self.config.BACKBONE_OPTIONS)

    build = names.find("mrcnn.model.MaskRCNN", "build")
    compile = names.find("mrcnn.model.MaskRCNN", "compile")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = [name for name in HOOKS if name in vars(cls)]
        if own:
            warnings.warn(
                f"{cls.__name__} overrides {', '.join(own)}, which this package, unlike the old one, does not call. "
                "Use mask heads (heads.register), BACKBONE functions and settings for such changes.",
                stacklevel=2,
            )

    @property
    def keras_model(self) -> keras.Model:
        """The graph for this object's mode. `inference_model` and `training_model` exist in either mode.

        Its `save_weights` writes a checkpoint of this package, with any file name, and its `load_weights` reads one:
        Keras's own methods only take names ending in ".weights.h5", and store neither settings nor class names.
        """
        graph = self.training_model if self.mode == "training" else self.inference_model
        for name in names.METHODS:
            if name.startswith(GRAPH) and name.removeprefix(GRAPH) not in vars(graph):
                setattr(graph, name.removeprefix(GRAPH), names.find("mrcnn.model.MaskRCNN", name))
        graph.save_weights, graph.load_weights = self._save_graph, partial(self._load_graph, graph)
        return graph

    def _save_graph(self, filepath: str | Path, overwrite: bool = True, **_: Any) -> None:
        if not overwrite and Path(filepath).exists():
            raise FileExistsError(f"{filepath} already exists, and overwrite is False.")
        self.save_weights(filepath)

    def _load_graph(
        self, graph: keras.Model, filepath: str | Path, skip_mismatch: bool = False, **options: Any
    ) -> None:
        """Loads a checkpoint into the network's layers; Keras's own files are loaded by Keras."""
        if is_checkpoint(filepath):
            load_checkpoint(filepath, self.network.layers(), skip_mismatch=skip_mismatch)
        else:
            type(graph).load_weights(graph, filepath, skip_mismatch=skip_mismatch, **options)

    # Images to network inputs and back

    def mold_inputs(self, images: Sequence[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Resizes, normalizes and pads images as `detect` does.

        Args:
            images: [H, W, C] uint8 each, of sizes that result in one size of network input.

        Returns:
            molded_images [images, height, width, C] float32, image_metas [images, length] (see `compose_image_meta`),
            and windows [images, (y1, x1, y2, x2)], the image's position in each network input.

        Raises ValueError for images that need network inputs of different sizes.
        """
        pixels = [read_image(image, self.config.IMAGE_CHANNEL_COUNT) for image in images]
        molded = [self.detector.network_input(image) for image in pixels]
        sizes = sorted({one.image.shape[:2] for one in molded})
        if len(sizes) != 1:
            raise ValueError(
                f"{len(images)} images give network inputs of sizes {sizes}; mold_inputs needs a single size. Pass "
                'them one by one, set IMAGE_RESIZE_MODE = "square", or use `detect`, which takes any sizes.'
            )
        active = np.zeros(self.config.NUM_CLASSES)
        metas = [
            compose_image_meta(0, image.shape, one.image.shape, one.window, one.scale[0], active)
            for image, one in zip(pixels, molded, strict=True)
        ]
        return np.stack([one.image for one in molded]), np.stack(metas), np.stack([one.window for one in molded])

    def detect_molded(self, molded_images: np.ndarray, image_metas: np.ndarray, verbose: int = 0) -> list[Result]:
        """Detects objects in network inputs, for inspection.

        Args:
            molded_images: [images, height, width, C], from `mold_inputs`.
            image_metas: [images, length], from `mold_inputs`.
            verbose: 1 prints the arrays.

        Returns:
            As for `detect`, but boxes and masks are in pixels of the network input.
        """
        if len(molded_images) != len(image_metas):
            raise ValueError(f"got {len(molded_images)} images and {len(image_metas)} image metas; pass one per image.")
        if verbose:
            log(f"Processing {len(molded_images)} images")
            for name, array in (("molded_images", molded_images), ("image_metas", image_metas)):
                log(name, array)
        windows = parse_image_meta(image_metas)["window"].astype(np.float32)
        raw = self.detector.run(np.asarray(molded_images, np.float32), windows)
        return [self._molded_result(one, molded_images.shape[1:3]) for one in raw]

    def _molded_result(self, raw: Mapping[str, np.ndarray], size: tuple[int, int]) -> Result:
        masks = SoftMasks(raw["masks"], raw["boxes"])
        result = Result(raw["boxes"], raw["class_ids"], raw["scores"], masks, size, self.class_names)
        if "mask_scores" in raw:
            result["mask_scores"] = raw["mask_scores"].astype(np.float32)
        if "keypoints" in raw:
            result["keypoints"], result.skeleton = decode_heatmaps(raw["keypoints"], raw["boxes"]), self.skeleton
        return result

    def unmold_detections(
        self,
        detections: np.ndarray,
        mrcnn_mask: np.ndarray,
        original_image_shape: Sequence[int],
        image_shape: Sequence[int],
        window: Sequence[float],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Maps detections in the old package's form back to the image. `detect` does this itself.

        Args:
            detections: [N, (y1, x1, y2, x2, class_id, score)], boxes normalized by `norm_boxes`, zero-padded.
            mrcnn_mask: [N, height, width, classes] in 0..1.
            original_image_shape: (height, width, ...) of the image.
            image_shape: (height, width, ...) of the network input.
            window: (y1, x1, y2, x2) of the image in the network input, in pixels.

        Returns:
            boxes [n, (y1, x1, y2, x2)] int32, class_ids [n] int32, scores [n], masks [height, width, n] bool; without
            boxes that have no area.
        """
        count = int(np.append(np.flatnonzero(detections[:, 4] == 0), len(detections))[0])
        detections = detections[:count]
        class_ids = detections[:, 4].astype(np.int32)
        y1, x1, y2, x2 = norm_boxes(np.asarray(window)[None], image_shape[:2])[0]
        boxes = (detections[:, :4] - (y1, x1, y1, x1)) / (y2 - y1, x2 - x1, y2 - y1, x2 - x1)
        boxes = denorm_boxes(boxes, original_image_shape[:2])
        kept = np.flatnonzero(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) > 0)
        masks = [unmold_mask(mrcnn_mask[i, :, :, class_ids[i]], boxes[i], original_image_shape) for i in kept]
        full = np.stack(masks, axis=-1) if masks else np.zeros((*original_image_shape[:2], 0), bool)
        return boxes[kept], class_ids[kept], detections[kept, 5], full

    # Anchors

    _anchors: np.ndarray | None = None

    @property
    def anchors(self) -> np.ndarray:
        """[anchors, (y1, x1, y2, x2)] float32 in pixels, from the last `get_anchors`, or for a training image."""
        if self._anchors is None:
            self.get_anchors(self.config.IMAGE_SHAPE)
        assert self._anchors is not None
        return self._anchors

    def get_anchors(self, image_shape: Sequence[int | None]) -> np.ndarray:
        """The network's anchors [anchors, (y1, x1, y2, x2)] float32, normalized, fine levels first.

        Args:
            image_shape: (height, width, ...) of the network input.
        """
        config = self.config
        height, width = image_shape[:2]
        if not height or not width:
            raise ValueError(f"get_anchors needs the size of the network input, got {tuple(image_shape)}.")
        levels = pyramid_anchors(
            config.RPN_ANCHOR_SCALES,
            config.RPN_ANCHOR_RATIOS,
            [(int(h), int(w)) for h, w in compute_backbone_shapes(config, (height, width))],
            config.BACKBONE_STRIDES,
            config.RPN_ANCHOR_STRIDE,
            rounded=config.RPN_ANCHOR_ROUNDED,
            ratio_meaning=config.RPN_ANCHOR_RATIO_MEANING,
        )
        self._anchors = np.concatenate(levels)
        return norm_boxes(self._anchors, (height, width))

    # Inspection

    def run_graph(
        self, images: Sequence[Any], outputs: Sequence[tuple[str, Any]], image_metas: np.ndarray | None = None
    ) -> OrderedDict[str, np.ndarray]:
        """Values of tensors of `inference_model` for images. `mrcnn.inspection` has ready-made functions for the steps.

        Args:
            images: as for `mold_inputs`; with `image_metas`, the result of `mold_inputs`.
            outputs: (name, tensor) pairs; a layer's name may replace its output.
            image_metas: of images that are already molded.

        Returns:
            Arrays by name, which are also printed.
        """
        tensors = {name: self.ancestor(None, at) if isinstance(at, str) else at for name, at in outputs}
        if image_metas is None:
            molded, image_metas, _ = self.mold_inputs(images)
        else:
            molded = np.asarray(images, np.float32)
        inputs = {"image": molded, "window": parse_image_meta(image_metas)["window"].astype(np.float32)}
        values = keras.Model(self.inference_model.input, tensors)(inputs, training=False)
        found = OrderedDict((name, keras.tree.map_structure(ops.convert_to_numpy, values[name])) for name in tensors)
        for name, value in found.items():
            for array in keras.tree.flatten(value):
                log(name, array)
        return found

    def ancestor(self, tensor: Any, name: str, checked: Any = None) -> Any:
        """The output of the layer `name` of `inference_model`.

        Raises `RemovedNameError` for the name of a TensorFlow operation, with the `mrcnn.inspection` function that
        replaces it. Raises ValueError for an unknown layer.
        """
        del tensor, checked
        scope = re.sub(r"[\^$\\].*|:\d+$", "", name).split("/")[0]
        if name not in (layer.name for layer in self.inference_model.layers):
            for stage, instead in STAGES.items():
                if scope.startswith(stage):
                    raise RemovedNameError(f"Layers have no operations named {name!r}: {instead}.")
        return self.inference_model.get_layer(name).output

    def find_trainable_layer(self, layer: keras.layers.Layer) -> keras.layers.Layer | None:
        """The layer that holds the weights: `layer` itself, or the first one inside it; None if there are none."""
        inside = [own for own in getattr(layer, "layers", [layer]) if own.weights]
        return inside[0] if inside else None

    def get_trainable_layers(self) -> list[keras.layers.Layer]:
        """All layers with weights. `network.layers()` has them by name."""
        return list(self.network.layers().values())

    def set_trainable(self, layer_regex: str, keras_model: Any = None, indent: int = 0, verbose: int = 1) -> None:
        """Selects the layers to train by regular expression; `train(layers=...)` replaces the selection.

        Args:
            layer_regex: see `mrcnn.training.model.set_trainable`.
            keras_model, indent: not used.
            verbose: 1 prints the names of the selected layers.
        """
        del keras_model, indent
        chosen = set_trainable(self.network, layer_regex, train_bn=self.config.TRAIN_BN)
        if verbose:
            print("Trainable layers:", *chosen, sep="\n    ")

    # Runs

    def set_log_dir(self, model_path: str | Path | None = None) -> None:
        """Starts a new run, or continues in a checkpoint's folder from its epoch.

        `load_weights` does this itself for a checkpoint of this package.
        """
        self.run = Run()
        if model_path and run_folder.CHECKPOINT.fullmatch(Path(model_path).name):
            epoch, _ = run_folder.position(Path(model_path))
            self.run = Run(RunPath(Path(model_path).parent), epoch)


STAGES = {
    "ROI": "mrcnn.inspection.proposal_steps(model, image) has the anchors, their scores and the boxes before and after "
    "clipping and NMS",
    "proposal_targets": "mrcnn.inspection.training_targets(model, batch) has the sampled RoIs and their targets",
    "mrcnn_detection": "mrcnn.inspection.detection_steps(model, image) has the candidates and which of them NMS kept",
    "rpn": "mrcnn.inspection.rpn_predictions(model, image) has anchors, scores and deltas",
    "roi_align": "mrcnn.inspection.mask_predictions(model, image) has the features that RoIAlign returns",
    "mrcnn_mask": "mrcnn.inspection.mask_predictions(model, image) has the masks of all classes",
    "mrcnn_": "mrcnn.inspection.detection_steps(model, image) has the probabilities and boxes",
    "res": "mrcnn.inspection.activations(model, image, [name]) has the feature maps of the backbone",
    "fpn": "mrcnn.inspection.activations(model, image, [name]) has the feature maps of the pyramid",
}
