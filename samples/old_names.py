"""Classes and functions that programs of the old package import from its samples; each sample re-exports its own.

As there, a method fills each dataset, using this package's readers. `image_info` has the readers' fields.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.data.annotations.annotated import AnnotatedDataset
from mrcnn.data.formats import coco, via
from mrcnn.data.formats.mask_files import read_mask_files
from mrcnn.data.rle import decode, encode, pairs_to_rle, rle_to_pairs
from mrcnn.legacy import names
from mrcnn.model import MaskRCNN
from samples import competition
from samples.coco.download import download
from samples.weights import COCO_FILE

ROOT_DIR = str(competition.ROOT)
DEFAULT_LOGS_DIR = str(competition.ROOT / "logs")
DEFAULT_DATASET_YEAR = "2014"
COCO_WEIGHTS_PATH = COCO_MODEL_PATH = str(competition.ROOT / COCO_FILE)
RESULTS_DIR = str(competition.ROOT / "results" / "nucleus")
VAL_IMAGE_IDS = names.find("samples.nucleus.nucleus", "VAL_IMAGE_IDS")
VALIDATION_SHARE = 0.04  # of the nucleus competition's images, which have no validation part


def take(dataset: AnnotatedDataset, loaded: AnnotatedDataset) -> None:
    """Adds the classes and images of a dataset to another, to be numbered by `prepare`."""
    for info in loaded.class_info[1:]:
        dataset.add_class(info["source"], info["id"], info["name"])
    dataset.image_info += loaded.image_info
    dataset.file = loaded.file
    for problem in loaded.problems:
        dataset.problems.noted(**dataclasses.asdict(problem))


class BalloonDataset(via.ViaDataset):
    """Balloons annotated with VIA."""

    def load_balloon(self, dataset_dir: str | Path, subset: str) -> None:
        """Adds the images of `dataset_dir`/`subset`, "train" or "val"."""
        take(self, via.read_via(dataset_dir, subset, class_name="balloon", source="balloon"))

    def image_reference(self, image_id: int) -> str:
        """The path of the image."""
        return self.image_info[image_id]["path"]


class NucleusDataset(AnnotatedDataset):
    """Nuclei, one mask per file."""

    def load_nucleus(self, dataset_dir: str | Path, subset: str) -> None:
        """Adds the images of `dataset_dir`/`subset`.

        If that folder does not exist, "train" and "val" are parts of stage1_train, chosen by image id.
        """
        part = Path(dataset_dir) / subset
        whole = "stage1_train" if subset in ("train", "val") and not part.is_dir() else subset
        loaded = read_mask_files(dataset_dir, whole, class_names=["nucleus"], source="nucleus")
        if whole != subset:
            competition.keep(
                loaded,
                lambda image_id: competition.held_out(image_id, VALIDATION_SHARE) == (subset == "val"),
                f"in the part {subset!r} of {whole}",
            )
        take(self, loaded)

    def image_reference(self, image_id: int) -> str:
        """The id of the image."""
        return self.image_info[image_id]["id"]


def rle_encode(mask: np.ndarray) -> str:
    """The text "start length start length ..." of a mask [H, W], in column-major order, counted from 1."""
    return rle_to_pairs(encode(np.asarray(mask, bool)), first=1)


def rle_decode(rle: str, shape: Sequence[int]) -> np.ndarray:
    """The mask [H, W] bool from such a text; `shape` is (height, width)."""
    return decode(pairs_to_rle(rle, *shape[:2], first=1)).astype(bool)


def mask_to_rle(image_id: str, mask: np.ndarray, scores: np.ndarray) -> str:
    """The lines of a submission for an image: "id, start length ..." per mask, best score first.

    Args:
        mask: [H, W, N]; a pixel in several masks goes to the best one, and masks left without pixels are dropped.
        scores: [N].
    """
    from samples.submission import separated

    order = np.argsort(-np.asarray(scores), kind="stable")
    lines = [f"{image_id}, {rle_encode(part)}" for _, part in separated(np.asarray(mask, bool), order)]
    return "\n".join(lines) or f"{image_id},"


class CocoDataset(coco.CocoDataset):
    """COCO's images."""

    def load_coco(
        self,
        dataset_dir: str | Path,
        subset: str,
        year: str | int = 2014,
        class_ids: Sequence[int] | None = None,
        class_map: Any = None,
        return_coco: bool = False,
        auto_download: bool = False,
    ) -> Any:
        """Adds the images of `dataset_dir`/annotations/instances_`subset``year`.json.

        Args:
            subset: "train", "val", "minival" or "valminusminival".
            class_ids: COCO ids of the categories to read, skipping images without them; None: all.
            class_map: not used, as in the old package.
            return_coco: return the file's `pycocotools.coco.COCO`, which `evaluate_coco` takes.
            auto_download: download missing files.
        """
        del class_map
        folder, images = Path(dataset_dir), "train" if subset == "train" else "val"
        if auto_download:
            download(folder, int(year), [images])
        file = folder / "annotations" / f"instances_{subset}{year}.json"
        loaded = coco.read_coco(file, folder / f"{images}{year}")
        if class_ids is not None:
            names = [info["name"] for info in loaded.class_info if info["id"] in set(class_ids)]
            loaded = coco.read_coco(file, folder / f"{images}{year}", class_names=names)
            loaded.image_info = [info for info in loaded.image_info if info["instances"]]
        take(self, loaded)
        if return_coco:
            from pycocotools.coco import COCO

            return COCO(str(file))
        return None

    def auto_download(self, dataDir: str | Path, dataType: str, dataYear: str | int) -> None:
        """Downloads missing images and annotations of COCO."""
        download(dataDir, int(dataYear), ["train" if dataType == "train" else "val"])

    def annToRLE(self, ann: dict[str, Any], height: int, width: int) -> dict[str, Any]:
        """The RLE of an annotation in COCO JSON, for an image of height x width."""
        from pycocotools import mask as coco_mask

        outline = ann["segmentation"]
        if isinstance(outline, list):
            return coco_mask.merge(coco_mask.frPyObjects(outline, height, width))
        return coco_mask.frPyObjects(outline, height, width) if isinstance(outline["counts"], list) else outline

    def annToMask(self, ann: dict[str, Any], height: int, width: int) -> np.ndarray:
        """The mask [height, width] uint8 of an annotation."""
        from pycocotools import mask as coco_mask

        return coco_mask.decode(self.annToRLE(ann, height, width))


def build_coco_results(
    dataset: coco.CocoDataset,
    image_ids: Sequence[int],
    rois: np.ndarray | None,
    class_ids: np.ndarray,
    scores: np.ndarray,
    masks: np.ndarray,
) -> list[dict[str, Any]]:
    """Detections in images, in the form that COCO's evaluation takes.

    Args:
        image_ids: COCO ids of the images with these detections, usually one.
        rois: [N, (y1, x1, y2, x2)]; None for no detections.
        class_ids: [N], of the dataset. scores: [N]. masks: [H, W, N].
    """
    if rois is None:
        return []
    runs = [encode(np.asarray(masks[:, :, i], bool)) for i in range(len(rois))]
    return [
        {
            "image_id": image_id,
            "category_id": dataset.get_source_class_id(int(class_ids[i]), "coco"),
            "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
            "score": float(scores[i]),
            "segmentation": runs[i],
        }
        for image_id in image_ids
        for i, (y1, x1, y2, x2) in enumerate(np.asarray(rois))
    ]


def evaluate_coco(
    model: MaskRCNN,
    dataset: coco.CocoDataset,
    coco: Any,
    eval_type: str = "bbox",
    limit: int = 0,
    image_ids: Sequence[int] | None = None,
) -> None:
    """Prints COCO's table for boxes or masks. `mrcnn.evaluate(model, dataset)` computes and returns both.

    Args:
        dataset: prepared.
        coco: the result of `load_coco(return_coco=True)`.
        eval_type: "bbox" or "segm".
        limit: number of images; 0 for all.
        image_ids: ids of the images in the dataset; None for all.
    """
    from pycocotools.cocoeval import COCOeval

    chosen = list(dataset.image_ids if image_ids is None else image_ids)[: limit or None]
    found: list[dict[str, Any]] = []
    sources = [dataset.image_info[image_id]["id"] for image_id in chosen]
    for image_id, source in zip(chosen, sources, strict=True):
        r = model.detect([dataset.load_image(image_id)])[0]
        found += build_coco_results(dataset, [source], r["rois"], r["class_ids"], r["scores"], r["masks"])
    if not found:
        print(f"No detections in {len(chosen)} images.")
        return
    evaluation = COCOeval(coco, coco.loadRes(found), eval_type)
    evaluation.params.imgIds = sources
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
