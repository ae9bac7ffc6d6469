"""Writes a model for programs that run without TensorFlow, or for TF Serving.
The suffix of FILE sets the format: .onnx, .xml (OpenVINO), .tflite (LiteRT),
none (SavedModel).

examples:
  mrcnn export model.onnx --weights last
  mrcnn export model.xml --weights mask_rcnn_coco.h5 --precision float16
  mrcnn export model.xml --weights last --precision int8 --calibration photos/

`mrcnn detect photos/ --weights model.onnx` then runs the file.
"""

import argparse
from typing import Any

from mrcnn.cli import options

USAGE = "mrcnn export FILE --weights W [options]"
CALIBRATED = 100  # maximum number of images for int8 calibration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="file or folder to write")
    options.add_weights(parser)
    parser.add_argument("--precision", default="float32", metavar="P", help="float32, or float16 or int8 for .xml")
    parser.add_argument("--calibration", metavar="DIR", help="folder of images for int8 calibration")
    options.add_settings(parser)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    import itertools

    from mrcnn.data.images.walk import walk_images

    images = []
    if arguments.calibration:
        images = [image.path for image in itertools.islice(walk_images([arguments.calibration]), CALIBRATED)]
    model = options.load_model(arguments)
    path = model.export(arguments.file, precision=arguments.precision, calibration=images)
    print(f"wrote {path}")
    return {"file": str(path), "precision": arguments.precision}
