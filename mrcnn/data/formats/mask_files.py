"""One file per mask: the layout of the Data Science Bowl 2018, and mask folders next to an image folder."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from mrcnn.data.annotations import problems
from mrcnn.data.annotations.annotated import AnnotatedDataset, Instance
from mrcnn.data.annotations.classes import Classes, only_name
from mrcnn.data.annotations.folders import (
    LOSSLESS,
    PICTURES,
    Places,
    by_stem,
    files_in,
    fitting_sizes,
    folder_or_root,
    header_of,
    listed,
    mask_size,
    names_in,
    paired_folders,
    subset_folder,
)
from mrcnn.data.annotations.outlines import MaskFile


class Mask(NamedTuple):
    """The mask file of one instance. class_name: the name of its folder, if masks are sorted by class."""

    path: str
    class_name: str | None


class Entry(NamedTuple):
    """An image and its masks."""

    image_id: str
    path: str
    masks: list[Mask]


def read_mask_files(
    dataset_dir: str | os.PathLike,
    subset: str | None = None,
    *,
    class_name: str | None = None,
    class_names: Sequence[str] | None = None,
    source: str = "mask_files",
    masks: bool = True,
    upright: bool | None = None,
    strict: bool = True,
) -> AnnotatedDataset:
    """Reads images with one mask file per instance; nonzero pixels are the mask. Masks may overlap.

    Two layouts are known, below `dataset_dir`/`subset`; in both, masks may be in folders named after their classes::

        <id>/images/<id>.png                   images/<name>.jpg
        <id>/masks/*.png                       masks/<name>/*.png
        <id>/masks/<class name>/*.png          masks/<name>/<class name>/*.png

    An image without instances has an empty mask folder. In the second layout, the subset may also be the innermost
    folder: images/`subset`/<name>.jpg. Headers are read right away, so that a mask of the wrong size is found before
    training; pixels are read on demand. Files next to the <id>/ folders that are not images, such as notes and
    tables, are ignored; images there are skipped and recorded in `problems`, because nothing says what they are.

    Args:
        dataset_dir, subset: the folder `dataset_dir/subset`.
        class_name: class of masks outside any class folder; None: the only entry of class_names, or "object".
        class_names: the classes, in this order; None: the names found, sorted.
        source: name of the source in the dataset.
        masks, upright, strict: see `AnnotatedDataset`.

    Returns:
        A prepared dataset, images ordered by name; image ids are file names without suffix.

    Raises:
        FileNotFoundError: the folder is missing or has another layout.
        AnnotationError: an invalid record, named by file, record and field.
    """
    images, beside = paired_folders(dataset_dir, subset, ["masks"], os.path.isdir)
    root = os.path.dirname(images) if images else subset_folder(dataset_dir, subset)
    dataset = AnnotatedDataset(root, strict, masks=masks, upright=upright)
    entries = _beside(dataset, images, beside[0]) if images else _one_folder_each(dataset, root)
    default = only_name(class_name, class_names)
    found = {mask.class_name or default for entry in entries for mask in entry.masks}
    classes = Classes(dataset, source, found or {default}, class_names)
    for entry in entries:
        _add(dataset, source, entry, classes, default)
    if not dataset.image_info:
        dataset.problems.broken(root, "", "images", "no image can be read")
    return dataset.finish()


def is_one_folder_each(root: str) -> bool:
    """Whether a folder has the competition's layout: its first few subfolders hold images/ and masks/."""
    folders = [entry.path for entry in listed(root) if entry.is_dir()][:20]
    return any(os.path.isdir(os.path.join(f, "images")) and os.path.isdir(os.path.join(f, "masks")) for f in folders)


def _one_folder_each(dataset: AnnotatedDataset, root: str) -> list[Entry]:
    """<id>/images/<one image>, <id>/masks/."""
    if not is_one_folder_each(root):
        raise FileNotFoundError(
            f"no masks in {root!r}: expected <id>/images/ and <id>/masks/, or images/ and "
            f"masks/<name>/; it holds {names_in(root)}; do you need to pass subset=?"
        )
    entries = []
    for folder in listed(root):
        if not folder.is_dir():
            _beside_folders(dataset, root, folder.name)
            continue
        pictures = [e for e in listed(os.path.join(folder.path, "images")) if e.name.lower().endswith(PICTURES)]
        place = os.path.join(folder.path, "masks")
        masks = _masks(dataset, place)
        if len(pictures) != 1:
            dataset.problems.broken(
                root,
                folder.name,
                "images",
                f"expected one image in {folder.name}/images, got {len(pictures)}",
                problems.BROKEN if pictures else problems.MISSING,
                images=max(len(pictures), 1),
                instances=len(masks),
            )
        elif not os.path.isdir(place):
            dataset.problems.broken(
                root,
                folder.name,
                "masks",
                f"folder {place!r} is missing; for an image without instances, create an empty one",
                images=1,
                instances=0,
            )
        else:
            entries.append(Entry(folder.name, pictures[0].path, masks))
    return entries


def _beside_folders(dataset: AnnotatedDataset, root: str, name: str) -> None:
    """A file next to the image folders: skipped and recorded if it is an image, else ignored."""
    if name.lower().endswith(PICTURES + LOSSLESS):
        dataset.problems.left_out(
            problems.BROKEN,
            root,
            name,
            "name",
            "an image next to the folders, without masks; expected <id>/images/<one image> and <id>/masks/",
            images=1,
            instances=0,
        )


def _beside(dataset: AnnotatedDataset, images: str, folder: str) -> list[Entry]:
    """images/<name>.jpg, masks/<name>/."""
    pictures = by_stem(dataset, images)
    for entry in listed(folder):
        if not entry.is_dir():
            dataset.problems.broken(
                folder,
                entry.name,
                "name",
                f"expected one folder of masks per image, {folder}/<name>/",
                images=0,
                instances=_could_be_mask(entry.name),
            )
        elif entry.name not in pictures:
            dataset.problems.broken(
                folder,
                entry.name,
                "name",
                f"no image of this name in {images!r}",
                problems.MISSING,
                images=1,
                instances=len(_masks(dataset, entry.path)),
            )
    entries = []
    for stem, path in pictures.items():
        masks = os.path.join(folder, stem)
        if os.path.isdir(masks):
            entries.append(Entry(stem, path, _masks(dataset, masks)))
        else:
            dataset.problems.broken(
                images,
                os.path.basename(path),
                "masks",
                f"folder {masks!r} is missing; for an image without instances, create an empty one",
                images=1,
                instances=0,
            )
    return entries


def _masks(dataset: AnnotatedDataset, folder: str) -> list[Mask]:
    """The masks of an image in order of file name, from all folders."""
    files: list[tuple[os.DirEntry[str], str | None]] = []
    for entry in listed(folder):
        files += [(inner, entry.name) for inner in listed(entry.path)] if entry.is_dir() else [(entry, None)]
    masks = []
    for entry, class_name in sorted(files, key=lambda file: file[0].name):
        if entry.name.lower().endswith(LOSSLESS) and entry.is_file():
            masks.append(Mask(entry.path, class_name))
        else:
            dataset.problems.broken(
                folder,
                entry.name,
                "name",
                f"expected a mask in a lossless format: {', '.join(LOSSLESS)}",
                images=0,
                instances=_could_be_mask(entry.name),
            )
    return masks


def _could_be_mask(name: str) -> int:
    """1 for an image file, which was meant as a mask, 0 for another file."""
    return int(name.lower().endswith(PICTURES + LOSSLESS))


def _add(dataset: AnnotatedDataset, source: str, entry: Entry, classes: Classes, default: str) -> None:
    """Adds an image; masks whose size differs from the image's or the first mask's are invalid."""
    instances: list[Instance] = []
    fitting = fitting_sizes(header_of(entry.path))
    for mask in entry.masks:
        record = f"mask {os.path.relpath(mask.path, dataset.file)!r}"
        number = classes.number(mask.class_name or default, dataset.file, record, "class")
        if number is None:
            continue
        size = mask_size(dataset, mask.path, record, entry.path, fitting, images=0, instances=1)
        if size:
            fitting = (size,) if fitting else ()
            instances.append(Instance(number, MaskFile(mask.path), record=record, field="pixels"))
    height, width = fitting[0] if instances and fitting else (None, None)
    dataset.add_annotated(source, entry.image_id, entry.path, instances, height=height, width=width)


def find(path: str, subset: str | None) -> Places:
    """<id>/images and <id>/masks; or images/ and masks/ with subfolders."""
    images, _ = paired_folders(path, subset, ["masks"], lambda folder: any(e.is_dir() for e in listed(folder)))
    fits = files_in(images, *PICTURES) if images else is_one_folder_each(folder_or_root(path, subset))
    return [{"dataset_dir": path, "subset": subset}] if fits else []
