"""Loader: fixed-shape training batches, the same for any number of threads and across a resumed training."""

import math
import threading
import warnings
from collections.abc import Iterator
from functools import lru_cache

import keras
import numpy as np

from mrcnn.config import Config
from mrcnn.data.augmentation import augment
from mrcnn.data.dataset import Dataset
from mrcnn.data.masks import crop_masks
from mrcnn.data.molding import base_scale, canvas_side, mold_for_network
from mrcnn.data.prefetch import Prefetch
from mrcnn.data.sample import Sample, load_sample
from mrcnn.network.pixels import PixelScaling


class Loader(keras.utils.PyDataset):
    """Batches of a prepared Dataset for Keras `fit`.

    Position p = (epoch * steps + batch) * batch_size + k of an endless stream of shuffled passes decides image k of a
    batch and everything random about it, so a batch depends on (seed, epoch, batch) alone. In validation
    (training=False) the images come in their order, every epoch from the first, and nothing is augmented.

    An image without instances to learn is replaced by the next of the stream, unless ALLOW_EMPTY_IMAGES.

    A batch is `(inputs,)`, where inputs is a dict, B images, G = MAX_GT_INSTANCES, m = MINI_MASK_SHAPE:
        image [B, H, W, C] float32, normalised, zero-padded below and right (or around: IMAGE_RESIZE_MODE).
        window [B, (y1, x1, y2, x2)] float32, the photograph in it, input pixels.
        gt_class_ids [B, G] int32, zero-padded; negative: crowd.
        gt_boxes [B, G, (y1, x1, y2, x2)] float32, input pixels, zero-padded.
        gt_masks [B, G, m, m] uint8 0..255, the content of each box, zero-padded.
        active_classes [B, NUM_CLASSES] float32, 1 for the classes that the image's source knows, and background.
        image_id [B] int32, of the dataset.
        seed [B] int32, for the sampling inside the graph.

    Call `fit` with shuffle=False: Keras otherwise permutes the batches of an epoch by Python's unseeded generator.

    Errors name the image; `failure` keeps the first, because TensorFlow passes on its text only.

    Call `close` when `fit` is over, however it ended: it ends the threads and drops the batches made ahead.
    """

    def __init__(
        self,
        dataset,
        config: Config,
        *,
        scaling: PixelScaling,
        steps: int | None = None,
        training: bool = True,
        augmentation=None,
        no_augmentation_sources=(),
        seed: int = 0,
        start_epoch: int = 0,
        share: tuple[int, int] = (0, 1),
    ):
        """
        Args:
            dataset: a prepared Dataset.
            config: settings; read here only.
            scaling: pixel scaling of the backbone.
            steps: batches an epoch; None: once through the dataset, rounded up.
            augmentation: an imgaug augmenter for training images.
            no_augmentation_sources: names of sources whose images are never augmented.
            start_epoch: the first epoch, counted from 0, when a training is resumed.
            share: (k, n): of each batch only the k-th of n equal parts is loaded, as each of n processes does that
                train together.

        Raises:
            ValueError: for a dataset that is empty, not prepared, or does not fit NUM_CLASSES.
        """
        super().__init__(workers=1, use_multiprocessing=False)  # Keras starts no threads: see Prefetch
        _check_dataset(dataset, config)
        self.dataset, self.config, self.scaling = dataset, config, scaling
        self.training, self.augmentation, self.seed = training, augmentation, seed
        self.no_augmentation_sources = frozenset(no_augmentation_sources or ())
        self.batch_size, self.share = config.BATCH_SIZE, share
        self.steps = math.ceil(len(dataset.image_ids) / self.batch_size) if steps is None else steps
        if self.steps < 1:
            raise ValueError(f"steps is {steps}; an epoch has at least one batch")
        self.epoch = start_epoch
        self.failure: Exception | None = None
        self._within_epoch = False
        self._lock = threading.Lock()
        self._warned = False
        self._ahead = 2 * max(1, config.LOADER_WORKERS)
        self._prefetch = Prefetch(self._load_batch, max(1, config.LOADER_WORKERS))
        self._permutation = lru_cache(maxsize=4)(self._shuffled)

    def __len__(self) -> int:
        return self.steps

    def on_epoch_begin(self) -> None:
        self._within_epoch = True

    def on_epoch_end(self) -> None:
        # Keras also calls this when it resets an iterator that has not begun, and starts its threads before
        # on_epoch_begin: so the epoch advances here, once for each epoch that began.
        if self._within_epoch:
            self._within_epoch = False
            self.epoch += 1

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray]]:
        epoch = self.epoch
        following = range(index + 1, min(index + 1 + self._ahead, self.steps)) if self._within_epoch else ()
        return (self._prefetch.get((epoch, index), [(epoch, i) for i in following]),)

    def batches(self, epochs: int) -> Iterator[dict[str, np.ndarray]]:
        """The inputs of every batch from here to the end of epoch `epochs`, for what does not take a PyDataset."""
        order = range(self.epoch * self.steps, epochs * self.steps)
        for i, number in enumerate(order):
            following = order[i + 1 : i + 1 + self._ahead]
            yield self._prefetch.get(divmod(number, self.steps), [divmod(later, self.steps) for later in following])

    def close(self) -> None:
        """Ends the threads and drops the batches made ahead; every batch asked for after it raises RuntimeError."""
        self._prefetch.close()

    def _load_batch(self, epoch: int, index: int) -> dict[str, np.ndarray]:
        try:
            return self.load_batch(epoch, index)
        except Exception as error:
            with self._lock:
                if not self._prefetch.closed:
                    self.failure = self.failure or error
            raise

    def load_batch(self, epoch: int, index: int) -> dict[str, np.ndarray]:
        """The inputs of batch `index` of `epoch`: a pure function of (seed, epoch, index)."""
        config, count = self.config, self.batch_size // self.share[1]
        first = ((epoch if self.training else 0) * self.steps + index) * self.batch_size + self.share[0] * count
        # What is large is written into its place in the batch, never copied there
        large = {
            "image": np.empty([count, self._side(), self._side(), config.IMAGE_CHANNEL_COUNT], np.float32),
            "gt_masks": np.zeros([count, config.MAX_GT_INSTANCES, *config.MINI_MASK_SHAPE], np.uint8),
        }
        samples = [self._load_position(first + k, {name: large[name][k] for name in large}) for k in range(count)]
        return large | {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}

    def _shuffled(self, number: int) -> np.ndarray:
        """The order of images in pass `number` over the dataset."""
        ids = np.asarray(self.dataset.image_ids)
        return np.random.default_rng([self.seed, 0, number]).permutation(ids) if self.training else ids

    def _image_at(self, position: int) -> int:
        number, place = divmod(position, len(self.dataset.image_ids))
        return int(self._permutation(number)[place])

    def _load_position(self, position: int, places: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The inputs of the image at a position of the stream, or of the next that has instances.

        Image and masks are written into their `places`, the rest is returned.
        """
        count = len(self.dataset.image_ids)
        tried: set[int] = set()
        # The rest of this pass and the whole next one hold every image; what was tried in the first is left out there
        for candidate in range(position, position + 2 * count):
            image_id = self._image_at(candidate)
            if self._prefetch.closed:
                raise RuntimeError("the loader is closed")
            if image_id in tried:
                continue
            tried.add(image_id)
            try:
                inputs = self._load_image(image_id, np.random.default_rng([self.seed, 1, candidate]), places)
            except Exception as error:
                raise _named(error, self.dataset, image_id) from error
            if inputs is not None:
                return inputs
        raise ValueError(
            f"none of the {count} images of the dataset has an instance to learn "
            f"({len(tried)} tried); check load_mask, or set ALLOW_EMPTY_IMAGES = True"
        )

    def _load_image(self, image_id: int, rng: np.random.Generator, places: dict) -> dict[str, np.ndarray] | None:
        """As `_load_position`, of one image; None when it has nothing to learn from."""
        sample = load_sample(self.dataset, image_id, self.config.NUM_CLASSES, self.config.IMAGE_CHANNEL_COUNT)
        if not self._learnable(sample):
            return None
        sample, scale = self._augmented(sample, image_id, rng)
        if not self._learnable(sample):
            return None
        sample = self._limited(sample, image_id, rng)
        source = self.dataset.image_info[image_id]["source"]
        return {
            **self._molded(sample, scale, places),
            "active_classes": active_classes(self.dataset, source, self.config.NUM_CLASSES),
            "image_id": np.int32(image_id),
            "seed": np.int32(rng.integers(2**31)),
        }

    def _learnable(self, sample: Sample) -> bool:
        return self.config.ALLOW_EMPTY_IMAGES or bool((sample.class_ids > 0).any())

    def _augmented(self, sample: Sample, image_id: int, rng: np.random.Generator) -> tuple[Sample, float | None]:
        """The augmented sample, and the scale to mold it by; None: the one of its resize mode."""
        config = self.config
        source = self.dataset.image_info[image_id]["source"]
        active = self.training and source not in self.no_augmentation_sources
        jitter = config.SCALE_JITTER if active else None
        cuts = jitter is not None or config.IMAGE_RESIZE_MODE == "crop"
        scale = base_scale(*sample.image.shape[:2], **self._resizing()) if cuts else None
        result = augment(
            sample.image,
            sample.masks,
            sample.boxes,
            rng,
            flip=config.HORIZONTAL_FLIP if active else 0,
            scale_jitter=jitter,
            photometric=config.PHOTOMETRIC_DISTORTION and active,
            imgaug=self.augmentation if active else None,
            view=2 * (self._side() / scale,) if cuts else None,
            show=() if config.ALLOW_EMPTY_IMAGES else np.flatnonzero(sample.class_ids > 0),
        )
        class_ids = sample.class_ids[result.kept]
        return Sample(result.image, result.masks, result.boxes, class_ids), scale * result.zoom if cuts else None

    def _limited(self, sample: Sample, image_id: int, rng: np.random.Generator) -> Sample:
        """At most MAX_GT_INSTANCES instances: a random choice, crowds last."""
        limit, count = self.config.MAX_GT_INSTANCES, len(sample.class_ids)
        if count <= limit:
            return sample
        with self._lock:
            first, self._warned = not self._warned, True
        if first:
            warnings.warn(
                f"{describe(self.dataset, image_id)} has {count} instances, more than MAX_GT_INSTANCES = "
                f"{limit}; a random choice of them is learnt each time (said once)",
                stacklevel=2,
            )
        order = rng.permutation(count)
        chosen = np.sort(order[np.argsort(sample.class_ids[order] < 0, kind="stable")][:limit])
        return Sample(sample.image, sample.masks[:, :, chosen], sample.boxes[chosen], sample.class_ids[chosen])

    def _molded(self, sample: Sample, scale: float | None, places: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Image and instances as the network takes them; the masks are resampled here, once."""
        _, window, (scale_y, scale_x) = mold_for_network(
            sample.image,
            **self._resizing(),
            divisor=self.config.SIZE_DIVISOR,
            scaling=self.scaling,
            pad_square=True,
            scale=scale,
            antialias=self.config.IMAGE_ANTIALIAS,
            resizer=self.config.IMAGE_RESIZER,
            pad_pixel=self.config.IMAGE_PAD_PIXEL,
            canvas=places["image"],
        )
        size = self.config.MAX_GT_INSTANCES
        crops = crop_masks(sample.masks, sample.boxes, tuple(self.config.MINI_MASK_SHAPE))
        places["gt_masks"][: len(crops)] = crops
        boxes = sample.boxes * (scale_y, scale_x, scale_y, scale_x) + np.tile(window[:2], 2)
        return {
            "window": window,
            "gt_class_ids": _padded(sample.class_ids, size, np.int32),
            "gt_boxes": _padded(boxes, size, np.float32),
        }

    def _resizing(self) -> dict:
        config = self.config
        return {
            "mode": config.IMAGE_RESIZE_MODE,
            "min_dim": config.IMAGE_MIN_DIM,
            "max_dim": config.IMAGE_MAX_DIM,
            "min_scale": config.IMAGE_MIN_SCALE,
        }

    def _side(self) -> int:
        crops = self.config.IMAGE_RESIZE_MODE == "crop"
        return canvas_side(self.config.IMAGE_MIN_DIM if crops else self.config.IMAGE_MAX_DIM, self.config.SIZE_DIVISOR)


def active_classes(dataset, source: str, num_classes: int) -> np.ndarray:
    """[num_classes] float32: 1 for background and the classes that `source` knows, else 0."""
    active = np.zeros([num_classes], np.float32)
    active[[0, *dataset.source_class_ids.get(source, [])]] = 1
    return active


def describe(dataset, image_id: int) -> str:
    """Names an image for people: its id here, its id at the source, its path."""
    info = dataset.image_info[image_id]
    return f"image {image_id} ({info['source']} {info['id']!r}, {info['path']})"


def _named(error: Exception, dataset, image_id: int) -> Exception:
    """The same error, naming the image; ValueError where it is of a type that TensorFlow would misread or lose."""
    message = f"{describe(dataset, image_id)}: {error}"
    known = (ValueError, TypeError, FileNotFoundError, NotImplementedError)
    kind = next((kind for kind in known if type(error) is kind), None)
    return kind(message) if kind else ValueError(f"{describe(dataset, image_id)}: {type(error).__name__}: {error}")


def _padded(values: np.ndarray, size: int, dtype) -> np.ndarray:
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
            f"the {type(dataset).__name__} has {dataset.num_classes} classes, background included "
            f"({', '.join(dataset.class_names[:6])} ...), but NUM_CLASSES is {config.NUM_CLASSES}; set it "
            f"to {dataset.num_classes}"
        )
