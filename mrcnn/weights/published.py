"""Published weights of torchvision, Detectron2 and matterport, by name.

The figures are the publishers' own, on COCO val2017 unless stated otherwise. File names of torchvision and Detectron2
end with the first digits of the file's SHA-256; matterport publishes no hashes.

Sources: torchvision 0.29's weight enums, Detectron2's MODEL_ZOO.md, the README of its PointRend project and
matterport's releases, read in November 2026.
"""

import difflib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mrcnn.weights.download import download, sha256_of

TORCHVISION = "https://download.pytorch.org/models/"
DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2/"
MATTERPORT = "https://github.com/matterport/Mask_RCNN/releases/download/"
COCO_SIZE = 257_557_808  # of release 2.0; the file of release 1.0 has the same name and older weights
LICENSES = {"torchvision": "BSD-3-Clause", "detectron2": "CC BY-SA 3.0", "matterport": "MIT"}


@dataclass(frozen=True)
class PublishedWeights:
    """A published weight file.

    Attributes:
        name: "publisher/model".
        url: its address.
        size: exact size in bytes; None if the publisher does not state it.
        sha256: the first digits of its hash; empty if unknown.
        box_ap, mask_ap, keypoint_ap: published AP in percent; None if there is none.
        parameters: number of parameters of the model; None if the publisher does not state it.
        note: further remarks.
    """

    name: str
    url: str
    size: int | None = None
    sha256: str = ""
    box_ap: float | None = None
    mask_ap: float | None = None
    keypoint_ap: float | None = None
    parameters: int | None = None
    note: str = ""

    @property
    def publisher(self) -> str:
        return self.name.partition("/")[0]

    @property
    def license(self) -> str:
        """The license of the weights; torchvision states none for them, so its own."""
        return LICENSES[self.publisher]

    @property
    def file(self) -> str:
        """The publisher's file name."""
        return self.url.rpartition("/")[2]

    def path(self, cache: str | os.PathLike[str] | None = None) -> Path:
        """The file's path in the cache."""
        return Path(cache or cache_folder()) / self.name / self.file


def _torchvision() -> Iterable[PublishedWeights]:
    rows = (
        ("maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_coco-bf2d0c1e", 37.9, 34.6, None, 44_401_393),
        ("maskrcnn_resnet50_fpn_v2", "maskrcnn_resnet50_fpn_v2_coco-73cbd019", 47.4, 41.8, None, 46_359_409),
        ("keypointrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn_coco-fc266e95", 54.6, None, 65.0, 59_137_258),
        ("keypointrcnn_resnet50_fpn_legacy", "keypointrcnn_resnet50_fpn_coco-9f466800", 50.6, None, 61.1, 59_137_258),
        ("fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_coco-258fb6c6", 37.0, None, None, 41_755_286),
        ("fasterrcnn_resnet50_fpn_v2", "fasterrcnn_resnet50_fpn_v2_coco-dd69338a", 46.7, None, None, 43_712_278),
    )
    for name, file, box, mask, keypoint, parameters in rows:
        digits = file.rpartition("-")[2]
        yield PublishedWeights(
            f"torchvision/{name}", f"{TORCHVISION}{file}.pth", None, digits, box, mask, keypoint, parameters
        )


def _detectron2() -> Iterable[PublishedWeights]:
    masks = (
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x", "137259246", "9243eb", 36.8, 32.2),
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_1x", "137260150", "4f86c3", 38.3, 34.2),
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x", "137260431", "a54504", 38.6, 35.2),
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_3x", "137849525", "4ce675", 39.8, 34.4),
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_3x", "137849551", "84107b", 40.0, 35.9),
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x", "137849600", "f10217", 41.0, 37.2),
        ("COCO-InstanceSegmentation/mask_rcnn_R_101_C4_3x", "138363239", "a2914c", 42.6, 36.7),
        ("COCO-InstanceSegmentation/mask_rcnn_R_101_DC5_3x", "138363294", "0464b7", 41.9, 37.3),
        ("COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x", "138205316", "a3ec72", 42.9, 38.6),
        ("COCO-InstanceSegmentation/mask_rcnn_X_101_32x8d_FPN_3x", "139653917", "2d9806", 44.3, 39.5),
        ("new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ", "42047764", "bb69de", 44.6, 40.3),
        ("new_baselines/mask_rcnn_R_50_FPN_200ep_LSJ", "42047638", "89a8d3", 46.3, 41.7),
        ("new_baselines/mask_rcnn_R_50_FPN_400ep_LSJ", "42019571", "14d201", 47.4, 42.5),
        ("new_baselines/mask_rcnn_R_101_FPN_100ep_LSJ", "42025812", "4f7b58", 46.4, 41.6),
        ("new_baselines/mask_rcnn_R_101_FPN_200ep_LSJ", "42131867", "0bb7ae", 48.0, 43.1),
        ("new_baselines/mask_rcnn_R_101_FPN_400ep_LSJ", "42073830", "f96b26", 48.9, 43.7),
        ("Misc/mask_rcnn_R_50_FPN_3x_syncbn", "169527823", "3b3c51", 41.9, 37.8),
        ("LVISv0.5-InstanceSegmentation/mask_rcnn_R_50_FPN_1x", "144219072", "571f7c", 23.6, 24.4),
        ("Cityscapes/mask_rcnn_R_50_FPN", "142423278", "af9cf5", None, 36.5),
    )
    pointrend = (
        ("pointrend_rcnn_R_50_FPN_1x_coco", "164254221", "736f5a", 36.2),
        ("pointrend_rcnn_R_50_FPN_3x_coco", "164955410", "edd263", 38.3),
        ("pointrend_rcnn_R_101_FPN_3x_coco", "28119983", "3f4d2a", 40.1),
        ("pointrend_rcnn_X_101_32x8d_FPN_3x_coco", "28119989", "ba17b9", 41.1),
        ("pointrend_rcnn_R_50_FPN_1x_cityscapes", "164255101", "115bfb", 35.9),
    )
    keypoints = (
        ("keypoint_rcnn_R_50_FPN_1x", "137261548", "04e291", 53.6, 64.0),
        ("keypoint_rcnn_R_50_FPN_3x", "137849621", "a6e10b", 55.4, 65.5),
        ("keypoint_rcnn_R_101_FPN_3x", "138363331", "997cc7", 56.4, 66.1),
        ("keypoint_rcnn_X_101_32x8d_FPN_3x", "139686956", "5ad38f", 57.3, 66.0),
    )
    for config, run, digits, box, mask in masks:
        folder, model = config.split("/")
        where = {"LVISv0.5-InstanceSegmentation": "LVIS v0.5", "Cityscapes": "Cityscapes"}.get(folder, "")
        short = f"{'lvis_' if 'LVIS' in folder else 'cityscapes_' if where else ''}{model}"
        yield PublishedWeights(
            f"detectron2/{short}",
            f"{DETECTRON2}{config}/{run}/model_final_{digits}.pkl",
            sha256=digits,
            box_ap=box,
            mask_ap=mask,
            note=f"of {where}, whose AP this is" if where else "",
        )
    for model, run, digits, mask in pointrend:
        yield PublishedWeights(
            f"detectron2/{model.removesuffix('_coco')}",
            f"{DETECTRON2}PointRend/InstanceSegmentation/{model}/{run}/model_final_{digits}.pkl",
            sha256=digits,
            mask_ap=mask,
            note="of Cityscapes, whose AP this is" if "cityscapes" in model else "",
        )
    for model, run, digits, box, keypoint in keypoints:
        url = f"{DETECTRON2}COCO-Keypoints/{model}/{run}/model_final_{digits}.pkl"
        yield PublishedWeights(f"detectron2/{model}", url, sha256=digits, box_ap=box, keypoint_ap=keypoint)


def _matterport() -> Iterable[PublishedWeights]:
    yield PublishedWeights("matterport/coco", f"{MATTERPORT}v2.0/mask_rcnn_coco.h5", COCO_SIZE)
    older = "of release 1.0: older weights in a file of the same name; take matterport/coco"
    yield PublishedWeights("matterport/coco_v1", f"{MATTERPORT}v1.0/mask_rcnn_coco.h5", note=older)
    yield PublishedWeights("matterport/balloon", f"{MATTERPORT}v2.1/mask_rcnn_balloon.h5", note="of its balloon sample")


PUBLISHED = {weights.name: weights for weights in (*_torchvision(), *_detectron2(), *_matterport())}


def cache_folder() -> Path:
    """The folder for downloaded weights: $MRCNN_CACHE, or mrcnn in the user's cache folder."""
    own, users = os.environ.get("MRCNN_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else (Path(users) if users else Path.home() / ".cache") / "mrcnn"


def find(name: str) -> PublishedWeights:
    """Weights by name. Raises ValueError, with the nearest names, for an unknown name."""
    if name in PUBLISHED:
        return PUBLISHED[name]
    near = difflib.get_close_matches(name, PUBLISHED, n=3, cutoff=0.4)
    raise ValueError(f"there are no weights called {name!r}; did you mean {' or '.join(near or PUBLISHED)}?")


def looks_like_a_name(path: str | os.PathLike[str]) -> bool:
    """Whether this is a (possibly misspelled) name of published weights and not a file."""
    text = os.fspath(path)
    return not os.path.exists(text) and (text in PUBLISHED or text.partition("/")[0] in LICENSES)


def fetch(name: str, cache: str | os.PathLike[str] | None = None, progress: bool = True) -> Path:
    """The file of published weights, downloaded on first use.

    A file that was put into the cache manually is checked once against the published size and hash.

    Raises:
        ValueError: there are no weights with this name, or the file in the cache is a different one.
        DownloadError: the download failed; the message says which file to put where.
    """
    weights = find(name)
    path = weights.path(cache)
    seen = path.with_name(f"{path.name}.sha256")
    if not path.exists():
        download(weights.url, path, size=weights.size, sha256=weights.sha256, progress=progress)
    elif not seen.exists():
        _compare(weights, path)
    if not seen.exists():
        seen.write_text(sha256_of(path))
    return path


def _compare(weights: PublishedWeights, path: Path) -> None:
    size, digest = path.stat().st_size, sha256_of(path)
    if (weights.size is not None and size != weights.size) or not digest.startswith(weights.sha256):
        raise ValueError(
            f"{path} is not {weights.name} as published ({size} bytes, SHA-256 {digest}): damaged, or a different "
            "file with the same name. Remove it to download it again; to use it anyway, pass its path."
        )


def download_trained_weights(path: str | os.PathLike[str], verbose: int = 1) -> Path:
    """Downloads the old package's COCO weights (release 2.0) to a path, unless they are already there.

    Raises:
        ValueError: a different file with this name is there, such as that of release 1.0.
        DownloadError: the download failed; the message says which file to put where.
    """
    weights, path = PUBLISHED["matterport/coco"], Path(path)
    if path.exists() and path.stat().st_size != COCO_SIZE:
        raise ValueError(
            f"{path} has {path.stat().st_size} bytes, but release 2.0's file has {COCO_SIZE}: it may be truncated, or "
            "from release 1.0, which has the same name and older weights. Remove it and call again."
        )
    if not path.exists():
        if verbose:
            print(f"Downloading {weights.url} to {path}")
        download(weights.url, path, size=weights.size, progress=bool(verbose))
    return path
