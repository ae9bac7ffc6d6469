"""Images that are in both the training and the validation dataset."""

import os
from collections import Counter
from collections.abc import Hashable
from functools import cache

from mrcnn.data.dataset import Dataset


def refuse_shared_images(training: Dataset, validation: Dataset) -> None:
    """Raises ValueError, with the number of images, if the datasets share images.

    Two images are the same if their paths refer to the same existing file. If a file holds several images of a dataset,
    such as the frames of a video, their ids must also be equal. Images without a file are the same only if both
    datasets are the same object.
    """
    if training is validation:
        shared = [f"image {i}" for i in training.image_ids]
    else:
        ours, theirs = _by_file(training), _by_file(validation)
        several = {
            path for files in (ours, theirs) for path, count in Counter(p for p, _ in files).items() if count > 1
        }
        identities = [{_identity(key, several): path for key, path in files.items()} for files in (ours, theirs)]
        shared = [path for identity, path in identities[0].items() if identity in identities[1]]
    if shared:
        raise ValueError(
            f"{len(shared)} of the {len(training.image_ids)} training images are also among the "
            f"{len(validation.image_ids)} validation images, such as {shared[0]}, so the val_ losses would not show "
            "whether the model generalizes. Split the images, for instance with mrcnn.data.dataset.split, or pass "
            "allow_shared_images=True."
        )


def _by_file(dataset: Dataset) -> dict[tuple[str, Hashable], str]:
    """(real path, id of the image) -> path as given, for images with a file."""

    @cache
    def real_folder(folder: str) -> str:
        return os.path.realpath(folder)

    found: dict[tuple[str, Hashable], str] = {}
    for image_id in dataset.image_ids:
        info = dataset.image_info[image_id]
        path = info.get("path")
        if isinstance(path, str | os.PathLike) and os.path.isfile(path):
            folder, name = os.path.split(os.fspath(path))
            real = os.path.join(real_folder(folder), name)
            found[os.path.realpath(real) if os.path.islink(real) else real, str(info["id"])] = os.fspath(path)
    return found


def _identity(key: tuple[str, Hashable], several: set[str]) -> Hashable:
    path, image_id = key
    return (path, image_id) if path in several else path
