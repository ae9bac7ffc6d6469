"""Quantizes an ONNX file for `engine_peer.py` by ONNX Runtime: arguments are the case as json, the file, the new file.

Convolutions and products in int8, per channel, with the ranges of two photographs. The rest stays float32.
"""

import json
import sys

import numpy as np
import worker
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static


class Photographs(CalibrationDataReader):
    """What the graph is run on to see the ranges of its activations."""

    def __init__(self, case) -> None:
        images = worker.photographs({**case, "batch": 2})
        inputs = inputs_of_ours if case["graph"] == "exported" else inputs_of_torchvision
        self.inputs = iter([inputs(case, image) for image in images])

    def get_next(self):
        return next(self.inputs, None)


def inputs_of_torchvision(case, image):
    """The image [1, 3, height, width] in 0..1."""
    return {"image": np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) / 255}


def inputs_of_ours(case, image):
    """The image, normalized and padded, and its window."""
    from pathlib import Path

    sys.path[1:1] = [str(Path(__file__).resolve().parents[2])]
    from mrcnn.inference.predictor import Predictor

    given = Predictor(sys.argv[2]).detector.network_input(image)
    return {"image": given.image[None], "window": given.window[None]}


def main() -> None:
    """Quantizes."""
    case, source, target = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
    quantize_static(
        source,
        target,
        Photographs(case),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "MatMul", "Gemm"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


if __name__ == "__main__":
    main()
