"""LiteRT files (.tflite), with built-in operations only."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from mrcnn.config import Config
from mrcnn.files import atomic_path
from mrcnn.network.graph import Network, inference_graph

SIGNATURE = "serving_default"
PADDED = ("boxes", "class_ids", "scores", "valid")  # rows of each image
FOLDED = ("masks", "mask_scores", "keypoints")  # rows of all images, where the network has them


def save_litert(network: Network, config: Config, path: Path, size: tuple[int, int] | None = None) -> None:
    """Writes a file with one signature: image [1, height, width, C] and window [1, 4] to PADDED and FOLDED.

    Outputs have DETECTION_MAX_INSTANCES rows; those that `valid` does not mark are padding.

    Args:
        size: (height, width) of the network input, to fix it; None: any.

    Raises NotImplementedError, with the operations, for a network that needs operations LiteRT does not have.
    """
    if keras.backend.backend() != "tensorflow":
        raise NotImplementedError(f"LiteRT needs TensorFlow to convert; KERAS_BACKEND is {keras.backend.backend()!r}")
    if config.ROI_SAMPLING_RATIO == 0 and config.ROI_GEOMETRY == "aligned":
        raise NotImplementedError(
            f"{path.name}: LiteRT has no CropAndResize, which ROI_SAMPLING_RATIO = 0 needs; set it to 2, or export to "
            "ONNX or OpenVINO"
        )
    import tensorflow as tf

    graph = inference_graph(network, config, portable=True)
    specs = [
        tf.TensorSpec([1, *(size or (None, None)), graph.input["image"].shape[-1]], tf.float32, name="image"),
        tf.TensorSpec([1, 4], tf.float32, name="window"),
    ]

    @tf.function(input_signature=specs, autograph=False)
    def serve(image: Any, window: Any) -> Mapping[str, Any]:
        found = graph({"image": image, "window": window}, training=False)
        rows = {name: found[name][0] for name in PADDED}
        return rows | {name: found[name] for name in FOLDED if name in found}

    module = tf.Module()
    module.serve, module.held = serve, [variable.value for variable in graph.variables]
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={SIGNATURE: serve})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        try:
            content = converter.convert()
        except Exception as error:
            raise NotImplementedError(f"{path.name}: LiteRT has no operation for {_missing(str(error))}") from error
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _missing(message: str) -> str:
    """The operations named in a converter's message; the message itself if it names none."""
    found = re.search(r"TF Select ops: ([\w, ]+)", message)
    return found[1].strip() if found else " ".join(message.split())[:500]
