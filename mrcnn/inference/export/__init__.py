"""Exporting a model for programs that run without this package's graph: `MaskRCNN.export`.

Every format contains the whole network, from the network input to detections and their masks. A JSON file next to it,
which `mrcnn.inference.predictor.Predictor` reads, has the class names and how images become network inputs.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from mrcnn.config import Config
from mrcnn.data.keypoints import Skeleton
from mrcnn.files import write_atomically
from mrcnn.network.graph import Network
from mrcnn.network.pixels import PixelScaling

FORMATS = {".onnx": "ONNX", ".xml": "OpenVINO", ".tflite": "LiteRT", "": "a SavedModel folder"}
OUTPUTS = {
    "boxes": "[n, (y1, x1, y2, x2)] float32, pixels of the network input",
    "class_ids": "[n] int64, starting at 1",
    "scores": "[n] float32, descending",
    "masks": "[n, m, m] float32, probabilities inside each box",
    "mask_scores": "[n] float32, scores that rank the masks",
    "keypoints": "[n, m, m, keypoints] float32, logits of a heatmap inside each box for each keypoint",
}
PRECISIONS = ("float32", "float16", "int8")


def export(
    network: Network,
    graph: keras.Model,
    path: str | Path,
    *,
    config: Config,
    scaling: PixelScaling,
    class_names: Sequence[str] = (),
    skeleton: Skeleton | None = None,
    precision: str = "float32",
    calibration: Sequence[Any] = (),
) -> Path:
    """Writes a network in the format given by the extension of `path`. See `MaskRCNN.export`."""
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"{path.name}: the extension must be one of {_endings()}, got {path.suffix!r}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, got {precision!r}")
    if precision != "float32" and path.suffix != ".xml":
        raise ValueError(f"precision {precision!r} is for OpenVINO; name the file {path.with_suffix('.xml').name}")
    if precision == "int8" and not len(calibration):
        raise ValueError("int8 needs calibration=: 50 or more images like those that the network will process")
    _check_parts(path, config)
    described = description(graph, config, scaling, class_names, skeleton, precision)
    if path.suffix == "":
        from mrcnn.inference.export.saved_model import save

        save(graph, path, config, scaling)
    elif path.suffix == ".tflite":
        from mrcnn.inference.export.litert import save_litert

        save_litert(network, config, path)
        described["outputs"]["valid"] = "[n] bool: the rows that count; the others of every output are padding"
    else:
        from mrcnn.inference.export.onnx_graph import onnx_model

        model = onnx_model(network, graph, {"mask_rcnn": json.dumps(described)})
        if path.suffix == ".onnx":
            from mrcnn.inference.export.onnx_graph import save_onnx

            save_onnx(model, path)
        else:
            from mrcnn.inference.export.openvino import save_openvino

            save_openvino(model, path, precision=precision, calibration=calibration, config=config, scaling=scaling)
    write_atomically(description_path(path), json.dumps(described, indent=1))
    return path


def _check_parts(path: Path, config: Config) -> None:
    """Raises NotImplementedError for a network that the format cannot hold."""
    if path.suffix and (config.ROI_POOLING != "align" or config.ROI_REDUCTION != "average"):
        raise NotImplementedError(
            f"ROI_POOLING = {config.ROI_POOLING!r}, ROI_REDUCTION = {config.ROI_REDUCTION!r}: {FORMATS[path.suffix]} "
            "has RoIAlign with averages alone. Export to a SavedModel folder instead."
        )
    if path.suffix == ".xml" and config.NECK == "dc5":
        raise NotImplementedError(
            "NECK = 'dc5': OpenVINO rejects its dilated convolutions. Export to ONNX or LiteRT instead, by a name that "
            "ends in .onnx or .tflite."
        )


def description(
    graph: keras.Model,
    config: Config,
    scaling: PixelScaling,
    class_names: Sequence[str],
    skeleton: Skeleton | None,
    precision: str,
) -> dict[str, Any]:
    """What a program needs to know in addition to the network."""
    return {
        "format": 1,
        "inputs": {
            "image": "[1, height, width, channels] float32: resized, normalized and padded according to the settings",
            "window": "[1, (y1, x1, y2, x2)] float32: position of the image in it, in pixels",
        },
        "outputs": {name: meaning for name, meaning in OUTPUTS.items() if name in graph.output},
        "precision": precision,
        "class_names": list(class_names),
        **({"skeleton": skeleton.as_dict()} if skeleton else {}),
        "pixels": {"mean": list(scaling.mean), "std": list(scaling.std), "bgr": scaling.bgr},
        "config": config.to_dict(),
    }


def description_path(path: Path) -> Path:
    """The JSON file that belongs to an exported file or folder."""
    return path / "mask_rcnn.json" if path.suffix == "" else path.with_suffix(".json")


def _endings() -> str:
    return ", ".join(f"{ending or 'none'} ({name})" for ending, name in FORMATS.items())
