"""Dataset: the base class for the images and annotations of a user."""

import copy
import os
import warnings
from collections.abc import Callable, Hashable, Iterable, Sequence
from numbers import Integral
from typing import Any, Self, TypeVar

import numpy as np

from mrcnn.data.images import MAX_PIXELS, Header, ImageFile, read_image
from mrcnn.data.images.orientation import choose_orientation

__all__ = ["Dataset", "read_image", "split"]

AnyDataset = TypeVar("AnyDataset", bound="Dataset")


class Dataset:
    """Images, classes and instance masks, from one or several sources.

    Subclass it, call `add_class` and `add_image` for everything there is, override `load_mask` (and `load_image` where
    files are not plain RGB images), then call `prepare` once::

        class CatDataset(Dataset):
            def load_cats(self, folder):
                self.add_class("cats", 1, "cat")
                self.add_image("cats", image_id="cat01", path=folder + "/cat01.jpg")

            def load_mask(self, image_id):
                return masks, class_ids  # [H, W, N] bool, [N] int32

    After `prepare`, images have the ids 0, 1, 2 ... and classes 0 (background), 1, 2 ... The ids that the source used
    stay in `image_info[i]["id"]` and in `class_info`.

    In training, `load_image`, `load_mask` and `load_boxes` are called from LOADER_WORKERS threads at once. A dataset
    that reads from one open file (HDF5, a zip archive, a database) needs LOADER_WORKERS = 1 or a lock around its reads.
    """

    # How to read images with an orientation tag where `image_info` has no height and width that decide it. True: turned
    # upright, as image viewers show them; False: as stored. None: turned upright, with a warning that says so.
    upright: bool | None = None
    masks = True  # False: `load_boxes` and `load_class_ids` give the instances, which have no masks
    max_pixels = MAX_PIXELS  # of an image file; larger ones raise before they are decoded

    def __init__(self, class_map: Any = None) -> None:
        del class_map  # accepted because subclasses written for the old package pass it on
        self._image_ids: np.ndarray = np.zeros([0], np.int32)
        self.image_info: list[dict[str, Any]] = []
        # Class 0 is background, in every source
        self.class_info: list[dict[str, Any]] = [{"source": "", "id": 0, "name": "BG"}]
        self.source_class_ids: dict[str, list[int]] = {}
        self.num_classes = 0
        self.num_images = 0
        self._warned_of_orientation = self._warned_of_masks = False

    def add_class(self, source: str | Sequence[str], class_id: int, class_name: str) -> None:
        """Adds a class under the id that the source gives it; the same class twice is ignored."""
        source = _source_name(source)
        if "." in source:
            raise ValueError(f"the name of a source cannot contain a dot, got {source!r}; use an underscore")
        if class_id < 1:
            raise ValueError(f"class {class_name!r} has id {class_id}; ids start at 1, because 0 is the background")
        for info in self.class_info:
            if info["source"] == source and info["id"] == class_id:
                if info["name"] != class_name:
                    raise ValueError(
                        f"class {class_id} of {source!r} is {info['name']!r} already, got {class_name!r}; "
                        "give each class an id of its own"
                    )
                return
        self.class_info.append({"source": source, "id": class_id, "name": class_name})

    def add_image(self, source: str | Sequence[str], image_id: Any, path: Any, **kwargs: Any) -> None:
        """Adds an image; the keyword arguments are kept in its `image_info`. Training is faster where `height` and
        `width` of what `load_image` returns are among them, as images of similar shape then share a batch."""
        self.image_info.append({"id": image_id, "source": _source_name(source), "path": path, **kwargs})

    def image_reference(self, image_id: int) -> str:
        """A link or text that leads a person to the image at its source; override it."""
        del image_id
        return ""

    def prepare(self, class_map: Any = None) -> None:
        """Numbers images and classes; call it once everything was added and before the dataset is used."""
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
        """A prepared dataset of some of the images, numbered anew from 0; classes, files and options are the same."""
        part = copy.copy(self)
        part.image_info = [self.image_info[int(i)] for i in image_ids]
        part.prepare()
        return part

    def map_source_class_id(self, source_class_id: str) -> int:
        """The class id here of "source.id" there, e.g. "coco.12"."""
        return self._mapped(self.class_from_source_map, source_class_id, "class")

    def get_source_class_id(self, class_id: int, source: str) -> int:
        """The id that the source gives to a class of ours."""
        info = self.class_info[class_id]
        if info["source"] != source:
            raise ValueError(f"class {class_id} ({info['name']!r}) comes from {info['source']!r}, not from {source!r}")
        return info["id"]

    def image_id_from_source(self, source_image_id: str) -> int:
        """The image id here of "source.id" there, e.g. "coco.397133"."""
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
        """0, 1, 2 ... for each image; filled by `prepare`."""
        return self._image_ids

    def source_image_link(self, image_id: int) -> Any:
        """The path or address of the image file."""
        return self.image_info[image_id]["path"]

    def load_image(self, image_id: int) -> np.ndarray:
        """The image, [H, W, 3] uint8 RGB, turned by its orientation tag where `orientation_of` says so.

        Override it when IMAGE_CHANNEL_COUNT is not 3, to return [H, W, IMAGE_CHANNEL_COUNT].

        Raises FileNotFoundError, OSError or ValueError where the file is missing, truncated, too large or no image.
        """
        path = self.image_info[image_id]["path"]
        if path is None:
            raise ValueError(f"image {image_id} has no path; override load_image to make or fetch its pixels")
        file = ImageFile(path, self.max_pixels)
        return file.decode(self.orientation_of(image_id, file.header))

    def orientation_of(self, image_id: int, header: Header) -> int:
        """How `load_image` turns an image whose file has this header: 1 (as stored) to 8.

        A height and width in `image_info` that only the stored or only the upright image has decide it, then `upright`.
        """
        info = self.image_info[image_id]
        choice = choose_orientation(header.orientation, header.size, annotated_size(info), self.upright)
        if not choice.proven:
            self.note_orientation(image_id, header)
        return choice.orientation

    def note_orientation(self, image_id: int, header: Header) -> None:
        """Called where nothing but the package's rule decided how an image is turned; warns, once for the dataset."""
        if not self._warned_of_orientation:
            self._warned_of_orientation = True
            warnings.warn(
                f"{os.fspath(self.image_info[image_id]['path'])!r} has the orientation tag {header.orientation} and is "
                "turned upright, as image viewers show it. If masks were drawn on the pixels as stored, set "
                "dataset.upright = False; True turns all such images without this warning (said once)",
                stacklevel=3,
            )

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """The instances of an image; override it.

        Returns:
            masks [H, W, N] bool, of the image's own size, and class_ids [N] int32. A negative class id marks a
            crowd, which is ignored, neither learnt nor counted as background.
        """
        if not self._warned_of_masks:
            self._warned_of_masks = True
            warnings.warn(
                f"{type(self).__name__} does not override load_mask, so its images have no instances; return masks "
                "[H, W, N] bool and class_ids [N] int32 from it (said once)",
                stacklevel=2,
            )
        return np.zeros([0, 0, 0], bool), np.zeros([0], np.int32)

    def load_class_ids(self, image_id: int) -> np.ndarray:
        """Class ids [N] int32 of the instances, negative for crowds; see `load_mask`."""
        return np.asarray(self.load_mask(image_id)[1], np.int32)

    def load_boxes(self, image_id: int) -> np.ndarray | None:
        """Annotated boxes [N, (y1, x1, y2, x2)] in pixels of the image; None takes them from the masks."""
        del image_id
        return None


def split(
    dataset: AnyDataset, share: float, seed: int = 0, *, group: str | Callable[[dict[str, Any]], Hashable] | None = None
) -> tuple[AnyDataset, AnyDataset]:
    """Divides the images of a prepared dataset at random into two parts, such as for training and validation.

    Args:
        share: of the images in the first part, between 0 and 1; each part gets one image (or group) at least.
        seed: the same seed gives the same parts.
        group: images of one group stay together, such as those of one patient or video: a key of `image_info`, or a
            function of an image's info. None: every image stands alone.

    Raises:
        ValueError: for a share that leaves a part empty, fewer than two groups, or a dataset that is not prepared.
        KeyError: where an image's info lacks the key `group`.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share is {share}; give a number between 0 and 1, such as 0.8")
    if len(dataset.image_ids) != len(dataset.image_info):
        raise ValueError(f"the {type(dataset).__name__} is not prepared; call its prepare() first")
    groups: dict[Hashable, list[int]] = {}
    for image_id in dataset.image_ids.tolist():
        info = dataset.image_info[image_id]
        key = image_id if group is None else group(info) if callable(group) else info[group]
        groups.setdefault(key, []).append(image_id)
    if len(groups) < 2:
        raise ValueError(f"{len(groups)} groups of images cannot be divided into two parts")
    order = list(groups.values())
    order = [order[i] for i in np.random.default_rng(seed).permutation(len(order))]
    counts = np.cumsum([len(images) for images in order])[:-1]  # images of the first part, were it cut there
    cut = int(np.argmin(np.abs(counts - share * len(dataset.image_ids)))) + 1
    parts = (sorted(i for images in part for i in images) for part in (order[:cut], order[cut:]))
    first, second = (dataset.subset(part) for part in parts)
    return first, second


def _source_name(source: str | Sequence[str]) -> str:
    """The name of a source; programs for the old package also wrote a list of one."""
    names = [source] if isinstance(source, str) else list(source)
    if len(names) != 1 or not isinstance(names[0], str):
        raise ValueError(f"a source is one name, got {source!r}; add an image or a class once for each source")
    return names[0]


def annotated_size(info: dict[str, Any]) -> tuple[int, int] | None:
    """(height, width) that an `image_info` states; None where it states none."""
    height, width = info.get("height"), info.get("width")
    return (int(height), int(width)) if isinstance(height, Integral) and isinstance(width, Integral) else None
