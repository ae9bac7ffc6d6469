"""Predictor: runs an exported model, without TensorFlow and without Keras.

from mrcnn.inference.predictor import Predictor

predictor = Predictor("model.onnx")             # or model.xml (OpenVINO), model.tflite (LiteRT)
results = predictor.detect(["a.jpg", "b.jpg"])  # as from MaskRCNN.detect
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from mrcnn.config import Config
from mrcnn.data.keypoints import Skeleton
from mrcnn.inference.detector import Detector
from mrcnn.inference.extras import require
from mrcnn.inference.results import Result
from mrcnn.inference.tiling import tiled
from mrcnn.network.pixels import PixelScaling

SUFFIXES = (".onnx", ".xml", ".tflite")
PRECISIONS = ("f32", "bf16", "f16", None)
ROWS = ("boxes", "class_ids", "scores")
MADE = ("masks", "mask_scores", "keypoints")  # where the network has them

FORMAT = 1
MOST_BYTES = 1 << 24  # of a description
LARGEST = 1e6  # mean and std of pixel values
DAMAGED = (KeyError, TypeError, ValueError, OverflowError, RecursionError)

Run = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]  # image [1, H, W, C], window [1, 4] -> ROWS, MADE


class Predictor:
    """An exported model with the interface of `MaskRCNN`. When unpickled, it loads the file again.

    Args:
        path: a file of `MaskRCNN.export`, ending in .onnx, .xml or .tflite, with its .json beside it.
        threads: number of CPU threads; None: the engine's default.
        precision: of OpenVINO's arithmetic: "f32", "bf16", "f16", or None for the engine's default.

    Raises FileNotFoundError for a missing file, ValueError for another kind of file, or for other threads or another
    precision, ImportError for a missing engine.
    """

    def __init__(self, path: str | Path, threads: int | None = None, precision: str | None = "f32") -> None:
        _check(threads, precision)
        self.arguments = (path, threads, precision)
        path = Path(path)
        described = _description(path)
        self.class_names, self.config = described.class_names, described.config
        engine = {".onnx": _onnxruntime, ".xml": _openvino, ".tflite": _litert}[path.suffix]
        try:
            self.run = engine(path, threads, precision)
        except (ImportError, MemoryError):
            raise
        except Exception as error:  # each engine has its own
            advice = "if the file is damaged, export it again"
            raise ValueError(f"{path} cannot be loaded: {str(error).strip()}; {advice}") from error
        self.detector = Detector(self._call, self.config, described.scaling, skeleton=lambda: described.skeleton)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.arguments

    def detect(
        self,
        images: Sequence[Any],
        verbose: int = 0,
        *,
        prepare: str | None = None,
        tile: int | None = None,
        overlap: float = 0.2,
    ) -> list[Result]:
        """Like `MaskRCNN.detect`: from paths or arrays to a `Result` per image."""
        if tile is not None:
            finder = tiled(self.detector, tile, overlap, self.class_names)
            return self.detector.detect_alone(list(images), finder, prepare)
        return self.detector.detect(list(images), verbose, prepare, self.class_names)

    def stream(
        self,
        images: Iterable[Any],
        *,
        prepare: str | None = "rle",
        tile: int | None = None,
        overlap: float = 0.2,
        **options: Any,
    ) -> Iterator[Any]:
        """As `MaskRCNN.stream`."""
        if tile is not None:
            finder = tiled(self.detector, tile, overlap, self.class_names)
            return self.detector.stream_alone(images, finder, prepare=prepare, **options)
        return self.detector.stream(images, prepare=prepare, class_names=self.class_names, **options)

    def _call(self, images: np.ndarray, windows: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs of the package's inference graph, from a file that takes one image at a time."""
        found = [self.run(image[None], window[None]) for image, window in zip(images, windows, strict=True)]
        most = max(len(one["scores"]) for one in found)
        valid = np.arange(most) < np.array([[len(one["scores"])] for one in found])
        outputs = {name: np.stack([_padded(one[name], most) for one in found]) for name in ROWS}
        made = {name: np.concatenate([one[name] for one in found]) for name in MADE if name in found[0]}
        return {**outputs, **made, "valid": valid, "counts": np.zeros((len(found), 4), np.int32)}


def _check(threads: int | None, precision: str | None) -> None:
    if threads is not None and (not isinstance(threads, Integral) or isinstance(threads, bool) or threads < 1):
        raise ValueError(f"threads must be an integer of 1 or more, or None, got {threads!r}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, got {precision!r}")


def content_hash(path: str | Path) -> str:
    """A hash of a weights file; of an exported one, also of its description, and of OpenVINO's file of weights."""
    path = Path(path)
    suffixes = {".xml": (".bin", ".json")}.get(path.suffix, (".json",) if path.suffix in SUFFIXES else ())
    hashes = []
    for file in (path, *map(path.with_suffix, suffixes)):
        if file.is_file():
            with file.open("rb") as content:
                hashes.append(hashlib.file_digest(content, "sha256").hexdigest())
    return "+".join(hashes)


def _padded(rows: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([rows, np.zeros((count - len(rows), *rows.shape[1:]), rows.dtype)])


class Description(NamedTuple):
    """The JSON file beside a model, checked, as anyone can have written it. skeleton: None without one."""

    class_names: list[str]
    config: Config
    scaling: PixelScaling
    skeleton: Skeleton | None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises ValueError, naming the file, for anything but a description by `MaskRCNN.export`."""
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"{path} is not a description by MaskRCNN.export: it has more than {MOST_BYTES:,} bytes")
        try:
            described = json.loads(path.read_text(encoding="utf-8"))
            version = described["format"]
            if version == FORMAT:
                return cls._of(described)
        except DAMAGED as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(
                f"{path} is not a description by MaskRCNN.export: {reason}; export the model again"
            ) from error
        raise ValueError(f"{path}: format {version!r}; this version reads format {FORMAT}")

    @classmethod
    def _of(cls, described: Mapping[str, Any]) -> Self:
        names, skeleton = described["class_names"], described.get("skeleton")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"class_names must be a list of names, got {names!r:.100}")
        config = Config.from_dict(described["config"])
        scaling = _scaling(described["pixels"], config.IMAGE_CHANNEL_COUNT)
        return cls(names, config, scaling, None if skeleton is None else Skeleton.from_dict(skeleton))


def _scaling(pixels: Mapping[str, Any], channels: int) -> PixelScaling:
    mean, std = (tuple(map(float, pixels[name])) for name in ("mean", "std"))
    numbers = all(abs(one) < LARGEST for one in mean) and all(0 < one < LARGEST for one in std)
    if not numbers or not len(mean) == len(std) == channels:
        raise ValueError(
            f"pixels must have a mean and a positive std for each of {channels} channels, got {pixels!r:.200}"
        )
    return PixelScaling(mean, std, bool(pixels["bgr"]))


def _description(path: Path) -> Description:
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"{path}: expected a file of MaskRCNN.export that ends in .onnx, .xml or .tflite, got {path.suffix!r}"
        )
    for needed in (path, path.with_suffix(".json")):
        if not needed.is_file():
            raise FileNotFoundError(f"{needed} is missing; MaskRCNN.export writes {path.name} and {path.stem}.json")
    return Description.read(path.with_suffix(".json"))


def _onnxruntime(path: Path, threads: int | None, precision: str | None) -> Run:
    runtime = require("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    names = [output.name for output in session.get_outputs()]

    def run(image: np.ndarray, window: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {"image": image, "window": window}), strict=True))

    return run


def _openvino(path: Path, threads: int | None, precision: str | None) -> Run:
    openvino = require("openvino", "openvino")
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    settings |= {"INFERENCE_NUM_THREADS": threads} if threads else {}
    settings |= {"INFERENCE_PRECISION_HINT": precision} if precision else {}
    model = openvino.Core().compile_model(str(path), "CPU", settings)
    outputs = {name: output for output in model.outputs for name in output.names if name in (*ROWS, *MADE)}

    def run(image: np.ndarray, window: np.ndarray) -> dict[str, np.ndarray]:
        found = model({"image": image, "window": window})
        return {name: np.array(found[output]) for name, output in outputs.items()}

    return run


def _litert(path: Path, threads: int | None, precision: str | None) -> Run:
    litert = require("ai_edge_litert.interpreter", "litert")
    interpreter = litert.Interpreter(str(path), num_threads=threads)
    signature = interpreter.get_signature_runner()

    def run(image: np.ndarray, window: np.ndarray) -> dict[str, np.ndarray]:
        found = signature(image=image, window=window)
        rows = int(found["valid"].sum())
        return {name: values[:rows] for name, values in found.items() if name in (*ROWS, *MADE)}

    return run
