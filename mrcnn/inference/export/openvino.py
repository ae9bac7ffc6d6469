"""OpenVINO files, from the ONNX graph; int8 with NNCF."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mrcnn.config import Config
from mrcnn.data.images import read_image
from mrcnn.files import atomic_path
from mrcnn.inference.detector import Detector
from mrcnn.inference.extras import require
from mrcnn.network.pixels import PixelScaling

# As `OnnxBuilder.op` names operations. Sums inside the parts, of residual blocks and of the pyramid, have other names:
# they are computed in int8, or else the largest feature maps would go through memory as float32
BOX_ARITHMETIC = r"(add|sub|mul|div)_\d+$"


def save_openvino(
    model: Any, path: Path, *, precision: str, calibration: Sequence[Any], config: Config, scaling: PixelScaling
) -> None:
    """Writes `path` (.xml) and its weights (.bin).

    Args:
        model: the ONNX model.
        precision: "float32"; "float16" only stores weights in it; "int8" also computes convolutions and products in it.
        calibration: images from which NNCF determines the ranges of activations, for int8.
        config, scaling: how these images become network inputs.
    """
    openvino = require("openvino", "openvino")
    converted = openvino.Core().read_model(model.SerializeToString())
    if precision == "int8":
        detector = Detector(lambda *_: {}, config, scaling)
        converted = _quantized(converted, detector, calibration)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".openvino.") as folder:
        made = Path(folder) / path.name
        openvino.save_model(converted, made, compress_to_fp16=precision == "float16")
        for suffix in (".bin", ".xml"):
            with atomic_path(path.with_suffix(suffix)) as temporary:
                made.with_suffix(suffix).replace(temporary)


def _quantized(model: Any, detector: Detector, images: Sequence[Any]) -> Any:
    """Uses int8 where NNCF considers it safe. Box arithmetic, between the parts with weights, stays float32."""
    nncf = require("nncf", "openvino")

    def inputs() -> Iterator[dict[str, Any]]:
        for image in images:
            given = detector.network_input(read_image(image, detector.config.IMAGE_CHANNEL_COUNT))
            yield {"image": given.image[None], "window": given.window[None]}

    return nncf.quantize(
        model,
        nncf.Dataset(list(inputs())),
        subset_size=len(images),
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(patterns=[BOX_ARITHMETIC], validate=False),
    )
