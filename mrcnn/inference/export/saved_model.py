"""TensorFlow's SavedModel, for TensorFlow Serving."""

import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import keras

from mrcnn.config import Config
from mrcnn.inference.export.encoded import encoded_function, why_not
from mrcnn.network.pixels import PixelScaling


def save(graph: keras.Model, folder: Path, config: Config, scaling: PixelScaling) -> None:
    """Writes the inference graph as it is, for any number of images. The folder is replaced as a whole.

    The signature `serving_default` takes image [B, height, width, C] and window [B, 4] and gives the outputs of
    `mrcnn.network.graph.inference_graph`, zero-padded to DETECTION_MAX_INSTANCES rows. The signature `detect_encoded`
    takes image_bytes [B], the contents of image files: see `mrcnn.inference.export.encoded`. It is left out, with a
    warning, for settings that it cannot follow.
    """
    if keras.backend.backend() != "tensorflow":
        raise NotImplementedError(f"a SavedModel needs TensorFlow; KERAS_BACKEND is {keras.backend.backend()!r}")
    import tensorflow as tf

    signature = [tf.TensorSpec(graph.input[name].shape, tf.float32, name=name) for name in ("image", "window")]

    @tf.function(input_signature=signature, autograph=False)
    def serve(image: Any, window: Any) -> dict[str, Any]:
        return graph({"image": image, "window": window}, training=False)

    module = tf.Module()
    module.graph, module.serve = graph, serve
    signatures = {"serving_default": serve}
    if reason := why_not(config):
        warnings.warn(f"{folder}: without the signature detect_encoded, as {reason}", stacklevel=2)
    else:
        module.detect = signatures["detect_encoded"] = encoded_function(graph, config, scaling)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        made = Path(temporary) / "model"
        tf.saved_model.save(module, made, signatures=signatures)
        if folder.exists():
            if not (folder / "saved_model.pb").exists() and any(folder.iterdir()):
                raise FileExistsError(f"{folder} already exists and is not a SavedModel; choose another folder")
            shutil.rmtree(folder)
        made.replace(folder)
