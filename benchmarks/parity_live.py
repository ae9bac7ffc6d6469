"""torchvision's own models, run live by another Python, against this package's import of the files they save."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from parity_oracles import SMALL, load
from parity_rounding import SCORES, Candidates, Rules, Verdict
from parity_rows import Row, detection_rows, match, nhwc, relative, xyxy
from parity_stages import (
    CLOSE,
    DETECTIONS,
    FEATURES,
    Stages,
    feature_rows,
    head_rows,
    of_class,
    proposal_rows,
    rpn_rows,
    torch_rpn,
)
from seeded_weights import seeded

from mrcnn.data.images import read_image
from mrcnn.data.pasting import paste_masks
from mrcnn.model import MaskRCNN

PROGRAM = Path(__file__).with_name("parity_torchvision.py")
MODELS = ("v1", "v1_bn", "v2", "resnet101", "faster_v1", "faster_v2")
PASTED = 1e-3  # of the pixels, those whose probability is the threshold but for rounding
SIZES = ((240, 330), (410, 300))  # of generated images


def torchvision(
    python: str,
    oracles: Path,
    *,
    seeds: Sequence[int],
    models: Sequence[str] | None = None,
    photographs: Path | None = None,
    count: int = 2,
) -> Iterator[Row]:
    """Every model with every seed, on generated images of other sizes and on the first photographs of a folder."""
    images = {f"{h}x{w}": seeded(oracles).image(h, w, 100 + h) for h, w in SIZES}
    for path in sorted(photographs.glob("*.jpg"))[:count] if photographs else ():
        images[path.stem] = read_image(path, 3)
    for model in models or MODELS:
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                yield from _one(python, oracles, model, seed, images, Path(folder))


def _one(
    python: str, oracles: Path, name: str, seed: int, images: Mapping[str, np.ndarray], folder: Path
) -> Iterator[Row]:
    np.savez(folder / "images.npz", **images)
    (folder / "out").mkdir()
    subprocess.run(
        [
            python,
            str(PROGRAM),
            "--oracles",
            str(oracles),
            "--model",
            name,
            "--seed",
            str(seed),
            "--photographs",
            str(folder / "images.npz"),
            "--out",
            str(folder / "out"),
        ],
        check=True,
    )
    model, legacy = (MaskRCNN.from_pretrained(folder / "out" / f"{kind}.pth", **SMALL) for kind in ("zip", "legacy"))
    wrong = sum(
        not np.array_equal(one, other)
        for part, theirs in zip(model.network.parts().values(), legacy.network.parts().values(), strict=True)
        for one, other in zip(part.get_weights(), theirs.get_weights(), strict=True)
    )
    yield Row(f"torchvision {name}, seed {seed}", "weights that differ between torch's two formats", 0, wrong)
    del legacy
    for image in images:
        yield from _stages(
            f"torchvision {name}, seed {seed}, {image}", model, images[image], load(folder / "out" / f"{image}.npz")
        )


def _stages(source: str, model: MaskRCNN, image: np.ndarray, arrays: Mapping[str, np.ndarray]) -> Iterator[Row]:
    """Stages on torchvision's own resized image; then all of it on the photograph.

    There the masks differ, which have no bar: torchvision pastes them into boxes of whole pixels, and those of random
    weights are noise, finer than a pixel. What has one is torchvision's masks, pasted as this package does it.
    """
    stages = Stages(model, image, arrays["pixels"].transpose(1, 2, 0))
    yield from feature_rows(source, stages, {name: nhwc(arrays[name]) for name in FEATURES}, whole=True)
    yield from rpn_rows(source, stages, *torch_rpn(arrays))
    apart = np.abs(np.concatenate(stages.anchors) - xyxy(arrays["anchors"])).max()
    yield Row(source, "anchors", 0, float(apart), "px")
    yield from proposal_rows(source, stages, xyxy(arrays["proposals"]))
    deltas = xyxy(arrays["box_regression"].reshape(len(arrays["class_logits"]), -1, 4))
    heads = stages.box_head(nhwc(arrays["box_roi_pool"]))
    yield Row(source, "box head logits, fed its features", CLOSE, relative(heads["logits"], arrays["class_logits"]))
    yield Row(source, "box head box_deltas, fed its features", CLOSE, relative(heads["box_deltas"], deltas))
    expected = {
        "logits": arrays["class_logits"],
        "box_deltas": deltas,
        "box_features": (nhwc(arrays["box_roi_pool"]), lambda x: x),
    }
    if "masks" in arrays:
        masks = of_class(stages.masks(nhwc(arrays["mask_roi_pool"])), arrays["det_labels"])
        yield Row(source, "mask probabilities, fed its features", CLOSE, relative(masks, arrays["masks"]))
        expected |= {
            "mask_rois": xyxy(arrays["det_boxes"]),
            "mask_features": (nhwc(arrays["mask_roi_pool"]), lambda x: x),
            "mask_classes": arrays["det_labels"],
            "masks": arrays["masks"],
        }
    yield from head_rows(source, stages, xyxy(arrays["proposals"]), expected)
    yield from detections(source, stages, model.detect([image])[0], arrays)


def detections(
    source: str, stages: Stages, whole: Mapping[str, np.ndarray], arrays: Mapping[str, np.ndarray]
) -> Iterator[Row]:
    """Detections of the network's input, then `whole`, those of the photograph."""
    found = {"class_ids": arrays["det_labels"], "scores": arrays["det_scores"]}
    theirs, masked = {**found, "boxes": xyxy(arrays["det_boxes"])}, "masks" in arrays
    judged, ours, molded = _judge(stages, arrays, theirs), stages.detections(), stages.molded
    yield from detection_rows(
        source,
        "detections",
        ours,
        theirs | ({"masks": arrays["masks"]} if masked else {}),
        bars=DETECTIONS,
        verdict=lambda: judged(ours),
    )
    ours = {"boxes": whole["rois"], "class_ids": whole["class_ids"], "scores": whole["scores"]}
    ours |= {"pasted": whole["masks"]} if masked else {}
    back = {**ours, "boxes": ours["boxes"] * np.tile(molded.scale, 2) + np.tile(molded.window[:2], 2)}
    theirs = {**found, "boxes": xyxy(arrays["out_boxes"])}
    theirs |= {"pasted": arrays["out_masks"].transpose(1, 2, 0)} if masked else {}
    yield from detection_rows(source, "in the photograph", ours, theirs, bars=DETECTIONS, verdict=lambda: judged(back))
    if masked:
        yield _pasted_row(
            source, ours, {**theirs, "pasted": paste_masks(arrays["masks"], theirs["boxes"], *molded.size)}
        )


def _pasted_row(source: str, ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> Row:
    """Share of the pixels of theirs that differ in ours; all, where there is no pair though there are detections."""
    pairs = np.array(match(ours, theirs, 1.0), int).reshape(-1, 2)
    one, other = ours["pasted"][..., pairs[:, 0]], theirs["pasted"][..., pairs[:, 1]]
    apart, count = (one != other).sum(), other.sum()
    lost = not len(pairs) and (len(ours["boxes"]) or len(theirs["boxes"]))
    return Row(
        source,
        "in the photograph: torchvision's masks pasted as here, pixels apart",
        PASTED,
        1.0 if lost else float(apart / max(count, 1)),
        f"of {count}",
    )


def _judge(
    stages: Stages, arrays: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]
) -> Callable[[Mapping[str, np.ndarray]], Verdict]:
    """Of detections of this program in pixels of the network; the candidates are looked up when it is asked."""
    layer = stages.layer("detections")

    def judged(ours: Mapping[str, np.ndarray]) -> Verdict:
        candidates = {
            "boxes": xyxy(arrays["candidate_boxes"]),
            "class_ids": arrays["candidate_labels"],
            "scores": arrays["candidate_scores"],
        }
        rules = Rules(layer.min_confidence, layer.nms_threshold, layer.max_instances)
        return Candidates(stages.candidates(SCORES), candidates, rules=rules).judged(ours, theirs)

    return judged
