"""Loader: training batches, independent of the number of threads and of interruptions."""

import math
import os
import threading
import warnings
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from mrcnn.config import Config
from mrcnn.data.augmentation import augment
from mrcnn.data.dataset import Dataset, annotated_size
from mrcnn.data.images import read_image_size
from mrcnn.data.masks import crop_masks, whole_masks
from mrcnn.data.molding import InputTransform, round_up
from mrcnn.data.order import ImageOrder, Size, shape_groups, size_for_all
from mrcnn.data.prefetch import Prefetch
from mrcnn.data.sample import Sample, read_sample
from mrcnn.network.pixels import PixelScaling

GROUPING = 8  # network input sizes are grouped in steps of IMAGE_MIN_DIM / 8
Batch = dict[str, np.ndarray]


class Example(NamedTuple):
    """An image with its instances, ready to be placed in a batch.

    image: [H, W, C] uint8. scale: factor to resize it by; None: the resize mode's. input_size: of its network input on
    its own. boxes: [N, 4] in image pixels. inputs: the `Loader` inputs that do not depend on the placement. masks:
    [H, W, N] bool, only for whole masks. keypoints: [N, K, (y, x, visibility)] in image pixels, or None.
    """

    image: np.ndarray
    scale: float | None
    input_size: Size
    boxes: np.ndarray
    inputs: Batch
    masks: np.ndarray | None = None
    keypoints: np.ndarray | None = None


class Loader(keras.utils.PyDataset):
    """Batches of a prepared Dataset for Keras `fit`.

    Position p = (epoch * steps + batch) * batch_size + k in an endless stream (`mrcnn.data.order`) determines image k
    of a batch and all its randomness, so a batch depends only on (seed, epoch, batch). Validation (training=False)
    uses the first images of the dataset, the same in every epoch, without augmentation.

    An image without instances to train on is replaced by another, unless ALLOW_EMPTY_IMAGES.

    A batch is `(inputs,)`, where inputs is a dict, B images, G = MAX_GT_INSTANCES, m = MINI_MASK_SHAPE:
        image [B, H, W, C] float32, normalized, zero-padded below and right (or around: IMAGE_RESIZE_MODE).
        window [B, (y1, x1, y2, x2)] float32: position of the image, in pixels of the network input.
        gt_class_ids [B, G] int32, zero-padded; negative: crowd.
        gt_boxes [B, G, (y1, x1, y2, x2)] float32, pixels of the network input, zero-padded.
        gt_masks [B, G, m, m] uint8 0..255, the mask inside each box, zero-padded; absent if MASK_HEAD is None.
        gt_keypoints [B, G, K, (y, x, visibility)] float32, pixels of the network input, zero-padded; only with a
            KEYPOINT_HEAD. Visibility 0: nothing to learn.
        active_classes [B, NUM_CLASSES] float32, 1 for background and the classes of the image's source.
        image_id [B] int32, in the dataset.
        seed [B] int32, for sampling inside the graph.

    In IMAGE_RESIZE_MODE "fit", without SCALE_JITTER, H and W fit the largest image of the batch; images of similar
    aspect ratio share batches. On JAX there are at most five sizes, because each is compiled separately. Otherwise
    H = W = IMAGE_MAX_DIM, rounded up.

    Pass `fit` what `mrcnn.distribution` makes of a loader. If all batches have one size, you can also pass the loader
    with shuffle=False; without it, Keras permutes the batches with Python's unseeded generator.

    Errors name the image; `failure` keeps the first one, because TensorFlow only passes on its text.

    Call `close` after `fit`, however it ended: it stops the threads and drops prefetched batches.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: Config,
        *,
        scaling: PixelScaling,
        steps: int | None = None,
        training: bool = True,
        augmentation: Any = None,
        no_augmentation_sources: Collection[str] = (),
        seed: int = 0,
        start_epoch: int = 0,
        share: tuple[int, int] = (0, 1),
        whole: bool = False,
    ) -> None:
        """
        Args:
            dataset: a prepared Dataset.
            config: the settings, read only in the constructor.
            scaling: the backbone's pixel scaling.
            steps: batches per epoch; None: one pass through the dataset, rounded up.
            augmentation: an imgaug augmenter for training images.
            no_augmentation_sources: sources whose images are never augmented.
            start_epoch: the first epoch, counted from 0, when training is resumed.
            share: (k, n): load only the k-th of n equal parts of each batch, when n processes train together.
            whole: return masks of the network input's size, one bit per pixel, instead of the mask inside each box:
                gt_masks [B, G, H, W / 8] uint8. For heads with `source_masks`.

        Raises:
            ValueError: the dataset is empty, not prepared, or does not match NUM_CLASSES.
        """
        super().__init__(workers=1, use_multiprocessing=False)  # no Keras threads: see Prefetch
        _check_dataset(dataset, config)
        self.dataset, self.config = dataset, config
        self.training, self.augmentation, self.seed = training, augmentation, seed
        self.no_augmentation_sources = frozenset(no_augmentation_sources or ())
        self.batch_size, self.share, self.whole = config.BATCH_SIZE, share, whole
        self.with_masks = config.MASK_HEAD is not None
        self.steps = math.ceil(len(dataset.image_ids) / self.batch_size) if steps is None else steps
        if self.steps < 1:
            raise ValueError(f"steps is {steps}; expected at least 1 batch per epoch")
        self.epoch, self.first = start_epoch, 0
        self.failure: Exception | None = None
        self.transform = InputTransform.from_config(config, scaling, training=True)
        self.sizes: list[Size | None] = [None] * len(dataset.image_ids)  # network input sizes, if they vary
        self.allowed: list[Size] | None = [self.transform.square]
        if config.IMAGE_RESIZE_MODE == "fit" and not (training and config.SCALE_JITTER):
            self.sizes = [self._input_size(int(i)) for i in dataset.image_ids]
            self.allowed = self.transform.few_sizes() if keras.backend.backend() == "jax" else None
        self._order = ImageOrder(
            dataset.image_ids,
            self._groups(),
            batch_size=self.batch_size,
            seed=seed,
            shuffled=training,
            length=self.steps * self.batch_size,
        )
        self._within_epoch = False
        self._lock = threading.Lock()
        self._warned = False
        self._ahead = 2 * max(1, config.LOADER_WORKERS)
        self._prefetch = Prefetch(self._guarded, max(1, config.LOADER_WORKERS))

    def __len__(self) -> int:
        return self.steps - self.first

    def seek(self, epoch: int, step: int) -> None:
        """Makes batch `step` of `epoch` the next one. Later epochs are complete."""
        self.epoch, self.first, self._within_epoch = epoch, step, False

    def on_epoch_begin(self) -> None:
        self._within_epoch = True

    def on_epoch_end(self) -> None:
        # Keras also calls this when it resets an unused iterator, and starts its threads before on_epoch_begin, so the
        # epoch only advances here, once for each epoch that began.
        if self._within_epoch:
            self._within_epoch = False
            self.epoch, self.first = self.epoch + 1, 0

    def __getitem__(self, index: int) -> tuple[Batch]:
        epoch, index = self.epoch, index + self.first
        following = range(index + 1, min(index + 1 + self._ahead, self.steps)) if self._within_epoch else ()
        return (self._prefetch.get((epoch, index), [(epoch, i) for i in following]),)

    def batches(self, epochs: int) -> Iterator[Batch]:
        """The inputs of every batch up to the end of epoch `epochs`, for callers that do not take a PyDataset."""
        order = range(self.epoch * self.steps + self.first, epochs * self.steps)
        for i, number in enumerate(order):
            following = order[i + 1 : i + 1 + self._ahead]
            yield self._prefetch.get(divmod(number, self.steps), [divmod(later, self.steps) for later in following])

    def signature(self) -> dict[str, tuple[tuple[int | None, ...], str]]:
        """Shape and type of each input by name; None for a height and width that vary between batches."""
        config, count, most = self.config, self.batch_size // self.share[1], self.config.MAX_GT_INSTANCES
        height, width = self.allowed[0] if self.allowed and len(self.allowed) == 1 else (None, None)
        keypoints = {"gt_keypoints": ((count, most, config.NUM_KEYPOINTS, 3), "float32")}
        return {
            "image": ((count, height, width, config.IMAGE_CHANNEL_COUNT), "float32"),
            "window": ((count, 4), "float32"),
            "gt_class_ids": ((count, most), "int32"),
            "gt_boxes": ((count, most, 4), "float32"),
            **({"gt_masks": ((count, most, *self._mask_shape()), "uint8")} if self.with_masks else {}),
            "active_classes": ((count, config.NUM_CLASSES), "float32"),
            "image_id": ((count,), "int32"),
            "seed": ((count,), "int32"),
            **(keypoints if config.KEYPOINT_HEAD is not None else {}),
        }

    def _mask_shape(self) -> tuple[int | None, ...]:
        return (None, None) if self.whole else tuple(self.config.MINI_MASK_SHAPE)

    def close(self) -> None:
        """Stops the threads and drops prefetched batches; requesting a batch afterwards raises RuntimeError."""
        self._prefetch.close()

    def _guarded(self, epoch: int, index: int) -> Batch:
        try:
            return self.assemble_batch(epoch, index)
        except Exception as error:
            with self._lock:
                if not self._prefetch.closed:
                    self.failure = self.failure or error
            raise

    def assemble_batch(self, epoch: int, index: int) -> Batch:
        """The inputs of batch `index` of `epoch`: a pure function of (seed, epoch, index)."""
        count = self.batch_size // self.share[1]
        first = ((epoch if self.training else 0) * self.steps + index) * self.batch_size
        agreed = self._agreed_size(first) if self.share[1] > 1 else None
        mine = range(first + self.share[0] * count, first + (self.share[0] + 1) * count)
        masks = np.zeros([count, self.config.MAX_GT_INSTANCES, *self.config.MINI_MASK_SHAPE], np.uint8)
        # Large arrays are written directly into the batch, without a copy
        examples = [self._example_at(position, agreed, masks[k]) for k, position in enumerate(mine)]
        size = agreed or size_for_all([example.input_size for example in examples], self.allowed)
        images = np.empty([count, *size, self.config.IMAGE_CHANNEL_COUNT], np.float32)
        rows = [self._placed(example, image) for example, image in zip(examples, images, strict=True)]
        small = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        return {"image": images, **({"gt_masks": masks} if self.with_masks else {}), **small}

    def _groups(self) -> np.ndarray:
        """Groups of images whose network inputs are of similar size."""
        if self.allowed is not None:
            return shape_groups([size and size_for_all([size], self.allowed) for size in self.sizes], 1)
        return shape_groups(self.sizes, round_up((self.transform.min_dim or 1) / GROUPING, self.transform.divisor))

    def _agreed_size(self, first: int) -> Size:
        """The batch size in pixels on which processes that train together agree without reading the images."""
        sizes = [self.sizes[self._order.place_at(first + k)] for k in range(self.batch_size)]
        known = [size for size in sizes if size is not None]
        return size_for_all(known, self.allowed) if len(known) == len(sizes) else self.transform.square

    def _input_size(self, image_id: int) -> Size | None:
        """The size of an image's network input, from its `image_info` or file header; None if unknown."""
        info = self.dataset.image_info[image_id]
        size = annotated_size(info)
        if size is None and type(self.dataset).load_image is Dataset.load_image and info["path"] is not None:
            try:
                size = read_image_size(os.fspath(info["path"]), self.dataset.upright is not False)
            except (OSError, ValueError):  # raised with the image's name when it is loaded
                size = None
        return None if size is None else self.transform.place(*size).input_size

    def _example_at(self, position: int, agreed: Size | None, masks: np.ndarray) -> Example:
        """The image at a position of the stream; if it has no instances, the next one that has some.

        Args:
            agreed: the size of the batch, if it is fixed.
            masks: [MAX_GT_INSTANCES, *MINI_MASK_SHAPE] uint8 zeros, filled here.
        """
        tried = 0
        for candidate in self._order.alternatives(position):
            if self._prefetch.closed:
                raise RuntimeError("the loader is closed")
            image_id, tried = self._order.image_at(candidate), tried + 1
            try:
                example = self._example(image_id, np.random.default_rng([self.seed, 1, candidate]), masks)
                if example is not None and self._fits(example.input_size, agreed, required=candidate == position):
                    return example
            except Exception as error:
                raise _named(error, self.dataset, image_id) from error
            masks[...] = 0
        raise ValueError(
            f"none of the {len(self._order)} images of the dataset has an instance to train on "
            f"({tried} tried); check load_mask, or set ALLOW_EMPTY_IMAGES = True"
        )

    @staticmethod
    def _fits(size: Size, agreed: Size | None, required: bool) -> bool:
        if agreed is None or (size[0] <= agreed[0] and size[1] <= agreed[1]):
            return True
        if required:
            raise ValueError(
                f"its network input is {size[0]} x {size[1]}, but the height and width in its image_info allow at most "
                f"{agreed[0]} x {agreed[1]}; set them to the size of what load_image returns"
            )
        return False

    def _example(self, image_id: int, rng: np.random.Generator, masks: np.ndarray) -> Example | None:
        """Like `_example_at`, for one image; None if it has nothing to train on."""
        config = self.config
        sample = read_sample(
            self.dataset,
            image_id,
            config.NUM_CLASSES,
            config.IMAGE_CHANNEL_COUNT,
            masks_needed=self.with_masks,
            keypoints=config.KEYPOINT_HEAD is not None,
        )
        if not self._learnable(sample):
            return None
        sample, scale = self._augmented(sample, image_id, rng)
        if not self._learnable(sample):
            return None
        sample = self._limited(sample, image_id, rng)
        height, width = sample.image.shape[:2]
        fixed = self.allowed[0] if self.allowed and len(self.allowed) == 1 else None
        place = self.transform.place(height, width, scale=scale, input_size=fixed)
        # Masks are resampled only once, here
        mask_height, mask_width = config.MINI_MASK_SHAPE
        if self.with_masks and not self.whole:
            masks[: len(sample.class_ids)] = crop_masks(sample.masks, sample.boxes, (mask_height, mask_width))
        source = self.dataset.image_info[image_id]["source"]
        inputs = {
            "gt_class_ids": _padded(sample.class_ids, config.MAX_GT_INSTANCES, np.int32),
            "active_classes": active_classes(self.dataset, source, config.NUM_CLASSES),
            "image_id": np.array(image_id, np.int32),
            "seed": np.array(rng.integers(2**31), np.int32),
        }
        kept = sample.masks if self.whole else None
        return Example(sample.image, scale, place.input_size, sample.boxes, inputs, kept, sample.keypoints)

    def _learnable(self, sample: Sample) -> bool:
        return bool(self.config.ALLOW_EMPTY_IMAGES) or bool((sample.class_ids > 0).any())

    def _augmented(self, sample: Sample, image_id: int, rng: np.random.Generator) -> tuple[Sample, float | None]:
        """The augmented sample, and the factor to resize it by; None: the resize mode's."""
        config = self.config
        source = self.dataset.image_info[image_id]["source"]
        active = self.training and source not in self.no_augmentation_sources
        jitter = config.SCALE_JITTER if active else None
        scale, view = None, None
        if jitter is not None or config.IMAGE_RESIZE_MODE == "crop":
            scale = self.transform.scale(*sample.image.shape[:2])
            view = self.transform.square[0] / scale, self.transform.square[1] / scale
        result = augment(
            sample.image,
            sample.masks,
            sample.boxes,
            rng,
            flip=config.HORIZONTAL_FLIP if active else 0,
            scale_jitter=jitter,
            photometric=config.PHOTOMETRIC_DISTORTION and active,
            imgaug=self.augmentation if active else None,
            view=view,
            show=() if config.ALLOW_EMPTY_IMAGES else np.flatnonzero(sample.class_ids > 0),
            keypoints=sample.keypoints,
            mirrored=self.dataset.skeleton.mirrored if sample.keypoints is not None and self.dataset.skeleton else None,
        )
        kept = Sample(result.image, result.masks, result.boxes, sample.class_ids[result.kept], result.keypoints)
        return kept, None if scale is None else scale * result.zoom

    def _limited(self, sample: Sample, image_id: int, rng: np.random.Generator) -> Sample:
        """At most MAX_GT_INSTANCES instances: a random choice, with crowds last."""
        limit, count = self.config.MAX_GT_INSTANCES, len(sample.class_ids)
        if count <= limit:
            return sample
        with self._lock:
            first, self._warned = not self._warned, True
        if first:
            warnings.warn(
                f"{describe(self.dataset, image_id)} has {count} instances, more than MAX_GT_INSTANCES = "
                f"{limit}; each time, a random choice of them is used (shown once)",
                stacklevel=2,
            )
        order = rng.permutation(count)
        chosen = np.sort(order[np.argsort(sample.class_ids[order] < 0, kind="stable")][:limit])
        return sample.chosen(chosen)

    def _placed(self, example: Example, out: np.ndarray) -> Batch:
        """Writes an example's image to `out` [H, W, C], its place in the batch; returns the other inputs."""
        height, width = example.image.shape[:2]
        place = self.transform.place(height, width, scale=example.scale, input_size=(out.shape[0], out.shape[1]))
        _, window, (scale_y, scale_x), _ = self.transform.apply(example.image, place, out)
        boxes = example.boxes * (scale_y, scale_x, scale_y, scale_x) + np.tile(window[:2], 2)
        boxes = _padded(boxes, self.config.MAX_GT_INSTANCES, np.float32)
        placed = {**example.inputs, "window": window, "gt_boxes": boxes}
        if example.masks is not None:
            masks = whole_masks(example.masks, window, (scale_y, scale_x), (out.shape[0], out.shape[1]))
            placed["gt_masks"] = _padded(masks, self.config.MAX_GT_INSTANCES, np.uint8)
        if example.keypoints is not None:
            points = example.keypoints * (scale_y, scale_x, 1) + (*window[:2], 0)
            points = np.where(example.keypoints[..., 2:] > 0, points, 0)
            placed["gt_keypoints"] = _padded(points, self.config.MAX_GT_INSTANCES, np.float32)
        return placed


def active_classes(dataset: Dataset, source: str, num_classes: int) -> np.ndarray:
    """[num_classes] float32: 1 for background and the classes of `source`, else 0."""
    active = np.zeros([num_classes], np.float32)
    active[[0, *dataset.source_class_ids.get(source, [])]] = 1
    return active


def describe(dataset: Dataset, image_id: int) -> str:
    """Identifies an image in messages: its id in the dataset, its id in the source, and its path."""
    info = dataset.image_info[image_id]
    return f"image {image_id} ({info['source']} {info['id']!r}, {info['path']})"


def _named(error: Exception, dataset: Dataset, image_id: int) -> Exception:
    """The same error with the image's name; a ValueError if TensorFlow would misread or lose the type."""
    message = f"{describe(dataset, image_id)}: {error}"
    known = (ValueError, TypeError, FileNotFoundError, NotImplementedError)
    kind = next((kind for kind in known if type(error) is kind), None)
    return kind(message) if kind else ValueError(f"{describe(dataset, image_id)}: {type(error).__name__}: {error}")


def _padded(values: np.ndarray, size: int, dtype: Any) -> np.ndarray:
    padded = np.zeros([size, *values.shape[1:]], dtype)
    padded[: len(values)] = values
    return padded


def _check_dataset(dataset: Dataset, config: Config) -> None:
    if not dataset.image_info:
        raise ValueError(f"the {type(dataset).__name__} has no images; add some with add_image")
    if not len(dataset.image_ids):
        raise ValueError(
            f"the {type(dataset).__name__} of {len(dataset.image_info)} images is not prepared; "
            "call its prepare() first"
        )
    if dataset.num_classes != config.NUM_CLASSES:
        raise ValueError(
            f"the {type(dataset).__name__} has {dataset.num_classes} classes including background "
            f"({', '.join(dataset.class_names[:6])} ...), but NUM_CLASSES is {config.NUM_CLASSES}; set it "
            f"to {dataset.num_classes}"
        )
    if config.MASK_HEAD is not None and getattr(dataset, "masks", True) is False:
        raise ValueError(
            f"the {type(dataset).__name__} only has boxes, but MASK_HEAD is {config.MASK_HEAD!r}; set MASK_HEAD = None "
            "to train without masks, or read data that has them with masks=True"
        )
    skeleton = dataset.skeleton
    if config.KEYPOINT_HEAD is not None and skeleton is None:
        raise ValueError(
            f"KEYPOINT_HEAD is {config.KEYPOINT_HEAD!r}, but the {type(dataset).__name__} has no keypoints: set its "
            "skeleton and override load_keypoints (COCO's json has them in person_keypoints_*.json), or set "
            "KEYPOINT_HEAD = None"
        )
    if config.KEYPOINT_HEAD is not None and skeleton is not None and skeleton.count != config.NUM_KEYPOINTS:
        raise ValueError(
            f"the {type(dataset).__name__} has {skeleton.count} keypoints ({', '.join(skeleton.names[:6])} ...), but "
            f"NUM_KEYPOINTS is {config.NUM_KEYPOINTS}; set it to {skeleton.count}"
        )
