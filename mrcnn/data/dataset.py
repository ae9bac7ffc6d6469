"""Dataset: the base class for a user's images and annotations."""

import copy
import os
import warnings
from collections.abc import Callable, Hashable, Iterable, Sequence
from numbers import Integral
from typing import Any, Self, TypeVar

import numpy as np

from mrcnn.data.images import MAX_PIXELS, Header, ImageFile, read_image
from mrcnn.data.images.orientation import choose_orientation
from mrcnn.data.keypoints import Skeleton

__all__ = ["Dataset", "read_image", "split"]

AnyDataset = TypeVar("AnyDataset", bound="Dataset")


class Dataset:
    """Images, classes and instance masks, from one or several sources.

    Subclass it, call `add_class` and `add_image` for all data, override `load_mask` (and `load_image` if the files are
    not plain RGB images), then call `prepare` once::

        class CatDataset(Dataset):
            def load_cats(self, folder):
                self.add_class("cats", 1, "cat")
                self.add_image("cats", image_id="cat01", path=folder + "/cat01.jpg")

            def load_mask(self, image_id):
                return masks, class_ids  # [H, W, N] bool, [N] int32

    After `prepare`, images have ids 0, 1, 2 ... and classes 0 (background), 1, 2 ... The source's own ids are kept in
    `image_info[i]["id"]` and in `class_info`.

    In training, LOADER_WORKERS threads call `load_image`, `load_mask` and `load_boxes` concurrently. A dataset
    that reads from one open file (HDF5, a zip archive, a database) needs LOADER_WORKERS = 1 or a lock around its reads.
    """

    # How to read images with an orientation tag if height and width in `image_info` do not decide it. True: rotated
    # upright, as image viewers show them; False: as stored. None: rotated upright, with a warning.
    upright: bool | None = None
    masks = True  # False: instances have no masks, only `load_boxes` and `load_class_ids`
    max_pixels = MAX_PIXELS  # limit for image files; larger ones raise before they are decoded

    def __init__(self, class_map: Any = None) -> None:
        del class_map  # accepted because subclasses written for the old package pass it
        self._image_ids: np.ndarray = np.zeros([0], np.int32)
        self.image_info: list[dict[str, Any]] = []
        # Class 0 is the background of every source
        self.class_info: list[dict[str, Any]] = [{"source": "", "id": 0, "name": "BG"}]
        self.source_class_ids: dict[str, list[int]] = {}
        self.num_classes = 0
        self.num_images = 0
        self.skeleton: Skeleton | None = None  # what the keypoints of its instances are, if they have any
        self._warned_of_orientation = self._warned_of_masks = False

    def add_class(self, source: str | Sequence[str], class_id: int, class_name: str) -> None:
        """Adds a class under its id in the source; adding the same class twice has no effect."""
        source = _source_name(source)
        if "." in source:
            raise ValueError(f"source names cannot contain a dot, got {source!r}; use an underscore")
        if class_id < 1:
            raise ValueError(f"class {class_name!r} has id {class_id}; ids start at 1, because 0 is the background")
        for info in self.class_info:
            if info["source"] == source and info["id"] == class_id:
                if info["name"] != class_name:
                    raise ValueError(
                        f"class {class_id} of {source!r} is already {info['name']!r}, got {class_name!r}; "
                        "give each class a unique id"
                    )
                return
        self.class_info.append({"source": source, "id": class_id, "name": class_name})

    def add_image(self, source: str | Sequence[str], image_id: Any, path: Any, **kwargs: Any) -> None:
        """Adds an image; the keyword arguments are stored in its `image_info`. Pass `height` and `width` of what
        `load_image` returns to speed up training, because images of similar shape can then share a batch."""
        self.image_info.append({"id": image_id, "source": _source_name(source), "path": path, **kwargs})

    def image_reference(self, image_id: int) -> str:
        """A link or text that identifies the image at its source, for people; override it."""
        del image_id
        return ""

    def prepare(self, class_map: Any = None) -> None:
        """Numbers images and classes; call it once, after everything was added."""
        del class_map
        self.num_classes = len(self.class_info)
        self.class_ids = np.arange(self.num_classes)
        self.class_names = [str(info["name"]) for info in self.class_info]
        self.num_images = len(self.image_info)
        self._image_ids = np.arange(self.num_images)
        self.class_from_source_map = {f"{c['source']}.{c['id']}": i for i, c in enumerate(self.class_info)}
        self.image_from_source_map = {f"{c['source']}.{c['id']}": i for i, c in enumerate(self.image_info)}
        self.sources = list(dict.fromkeys(info["source"] for info in self.class_info))
        self.source_class_ids = {
            source: [i for i, info in enumerate(self.class_info) if i == 0 or info["source"] == source]
            for source in self.sources
        }

    def subset(self, image_ids: Iterable[int]) -> Self:
        """A prepared dataset of some of the images, renumbered from 0, with the same classes, files and options."""
        part = copy.copy(self)
        part.image_info = [self.image_info[int(i)] for i in image_ids]
        part.prepare()
        return part

    def map_source_class_id(self, source_class_id: str) -> int:
        """The class id in this dataset of a source's "source.id", such as "coco.12"."""
        return self._mapped(self.class_from_source_map, source_class_id, "class")

    def get_source_class_id(self, class_id: int, source: str) -> int:
        """The source's id of a class of this dataset."""
        info = self.class_info[class_id]
        if info["source"] != source:
            raise ValueError(f"class {class_id} ({info['name']!r}) comes from {info['source']!r}, not from {source!r}")
        return info["id"]

    def image_id_from_source(self, source_image_id: str) -> int:
        """The image id in this dataset of a source's "source.id", such as "coco.397133"."""
        return self._mapped(self.image_from_source_map, source_image_id, "image")

    @staticmethod
    def _mapped(table: dict[str, int], key: str, what: str) -> int:
        try:
            return table[key]
        except KeyError:
            known = ", ".join(list(table)[:5])
            raise KeyError(f"no {what} {key!r} in the dataset; expected 'source.id', such as {known}") from None

    @property
    def image_ids(self) -> np.ndarray:
        """0, 1, 2 ... for the images; set by `prepare`."""
        return self._image_ids

    def source_image_link(self, image_id: int) -> Any:
        """The path or URL of the image file."""
        return self.image_info[image_id]["path"]

    def load_image(self, image_id: int) -> np.ndarray:
        """The image, [H, W, 3] uint8 RGB, rotated by its orientation tag if `orientation_of` says so.

        Override it to return [H, W, IMAGE_CHANNEL_COUNT] if IMAGE_CHANNEL_COUNT is not 3.

        Raises FileNotFoundError, OSError or ValueError if the file is missing, truncated, too large or not an image.
        """
        path = self.image_info[image_id]["path"]
        if path is None:
            raise ValueError(f"image {image_id} has no path; override load_image to create or fetch its pixels")
        file = ImageFile(path, self.max_pixels)
        return file.decode(self.orientation_of(image_id, file.header))

    def orientation_of(self, image_id: int, header: Header) -> int:
        """The orientation (1, as stored, to 8) with which `load_image` reads an image whose file has this header.

        If height and width in `image_info` fit only the stored or only the upright image, they decide; else `upright`.
        """
        info = self.image_info[image_id]
        choice = choose_orientation(header.orientation, header.size, annotated_size(info), self.upright)
        if not choice.proven:
            self.note_orientation(image_id, header)
        return choice.orientation

    def note_orientation(self, image_id: int, header: Header) -> None:
        """Called if only the package's rule decided an image's orientation; warns once per dataset."""
        if not self._warned_of_orientation:
            self._warned_of_orientation = True
            warnings.warn(
                f"{os.fspath(self.image_info[image_id]['path'])!r} has the orientation tag {header.orientation} and is "
                "rotated upright, as image viewers show it. If masks were drawn on the stored pixels, set "
                "dataset.upright = False; True rotates all such images without this warning (shown once)",
                stacklevel=3,
            )

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """The instances of an image; override it.

        Returns:
            masks [H, W, N] bool, of the image's size, and class_ids [N] int32. A negative class id marks a crowd,
            which is ignored: it is neither an object nor background.
        """
        if not self._warned_of_masks:
            self._warned_of_masks = True
            warnings.warn(
                f"{type(self).__name__} does not override load_mask, so its images have no instances; return masks "
                "[H, W, N] bool and class_ids [N] int32 from it (shown once)",
                stacklevel=2,
            )
        return np.zeros([0, 0, 0], bool), np.zeros([0], np.int32)

    def load_class_ids(self, image_id: int) -> np.ndarray:
        """Class ids [N] int32 of the instances, negative for crowds; see `load_mask`."""
        return np.asarray(self.load_mask(image_id)[1], np.int32)

    def load_boxes(self, image_id: int) -> np.ndarray | None:
        """Annotated boxes [N, (y1, x1, y2, x2)] in image pixels; None computes them from the masks."""
        del image_id
        return None

    def load_keypoints(self, image_id: int) -> np.ndarray | None:
        """Keypoints [N, K, (y, x, visibility)] of the instances of `load_mask`, in continuous pixels of the image; see
        `mrcnn.data.keypoints`. Override it and set `skeleton`, to train a KEYPOINT_HEAD::

            class CatDataset(Dataset):
                def load_cats(self, folder):
                    self.skeleton = Skeleton(["nose", "left_ear", "right_ear"], edges=[(0, 1), (0, 2)])
                    ...

                def load_keypoints(self, image_id):
                    return keypoints  # [N, 3, 3]; visibility 0 where a keypoint is not labeled

        None: the images have none.
        """
        del image_id
        return None


def split(
    dataset: AnyDataset, share: float, seed: int = 0, *, group: str | Callable[[dict[str, Any]], Hashable] | None = None
) -> tuple[AnyDataset, AnyDataset]:
    """Randomly splits the images of a prepared dataset into two parts, such as training and validation.

    Args:
        share: fraction of the images in the first part, between 0 and 1; each part gets at least one image (or group).
        seed: the same seed gives the same parts.
        group: keeps the images of a group together, such as those of one patient or video: a key of `image_info`, or a
            function of an image's info. None: each image is its own group.

    Raises:
        ValueError: a share that leaves a part empty, fewer than two groups, or a dataset that is not prepared.
        KeyError: an image's info lacks the key `group`.
    """
    if not 0 < share < 1:
        raise ValueError(f"share is {share}; expected a number between 0 and 1, such as 0.8")
    if len(dataset.image_ids) != len(dataset.image_info):
        raise ValueError(f"the {type(dataset).__name__} is not prepared; call its prepare() first")
    groups: dict[Hashable, list[int]] = {}
    for image_id in dataset.image_ids.tolist():
        info = dataset.image_info[image_id]
        key = image_id if group is None else group(info) if callable(group) else info[group]
        groups.setdefault(key, []).append(image_id)
    if len(groups) < 2:
        raise ValueError(f"splitting needs at least two groups of images, got {len(groups)}")
    order = list(groups.values())
    order = [order[i] for i in np.random.default_rng(seed).permutation(len(order))]
    counts = np.cumsum([len(images) for images in order])[:-1]  # size of the first part if split after each group
    cut = int(np.argmin(np.abs(counts - share * len(dataset.image_ids)))) + 1
    parts = (sorted(i for images in part for i in images) for part in (order[:cut], order[cut:]))
    first, second = (dataset.subset(part) for part in parts)
    return first, second


def _source_name(source: str | Sequence[str]) -> str:
    """The name of a source; programs for the old package also pass a list with one name."""
    names = [source] if isinstance(source, str) else list(source)
    if len(names) != 1 or not isinstance(names[0], str):
        raise ValueError(f"a source is one name, got {source!r}; add an image or a class once for each source")
    return names[0]


def annotated_size(info: dict[str, Any]) -> tuple[int, int] | None:
    """(height, width) that an `image_info` states; None where it states none."""
    height, width = info.get("height"), info.get("width")
    return (int(height), int(width)) if isinstance(height, Integral) and isinstance(width, Integral) else None
