"""ONNX Runtime and OpenVINO for `against_peers.py`, with torchvision's graph or this package's own; run by this
project's Python with the extras onnx and openvino.

The graph is exported by another process first, unless the case's folder of graphs has it already. torchvision's leaves
its masks at 28 x 28; they are pasted here, one by one with OpenCV, as its users write it. This package's runs in its
`Predictor`, which pastes them itself.

Precisions. float32. bfloat16: OpenVINO computes in it. int8: of this package's graph for OpenVINO by NNCF; all others
by ONNX Runtime's static quantization of convolutions and products (per channel, in QDQ form, which OpenVINO reads too),
as NNCF fails on torchvision's graph.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import worker

HERE = Path(__file__).resolve().parent
sys.path[1:1] = [str(HERE.parents[1])]
SUFFIXES = {"onnxruntime": ".onnx", "openvino": ".xml"}


def load(case) -> str:
    """The engine's version."""
    engine = __import__(case["engine"])
    return f"{case['engine']} {engine.__version__}"


def build(case) -> worker.Job:
    """Detection from uint8 photographs to pasted masks."""
    if case["work"] != "detect":
        raise ValueError(f"engines only detect; --work is {case['work']!r}")
    path, images = graph(case), worker.photographs(case)
    call = exported(path, case, images) if case["graph"] == "exported" else torchvision(path, case, images)

    def found(result):
        return {"detections": [len(one[0]) for one in result], "pasted": True, "masks": list(result[0][1].shape)}

    return worker.Job(call, found, note=f"{case['graph']}'s graph")


def graph(case) -> Path:
    """The file that the engine loads; exported, and quantized, where it is not there yet."""
    folder, ours = Path(case["graphs"]), case["graph"] == "exported"
    size = "" if ours else f"-{case['height']}x{case['width']}"
    stem = f"{case['graph']}-{case['backbone']}-{case['min_dim']}-{case['max_dim']}{size}"
    openvino = ours and case["engine"] == "openvino"
    by_nncf = openvino and case["precision"] == "int8"
    path = folder / (f"{stem}{'-int8' if by_nncf else ''}{'.xml' if openvino else '.onnx'}")
    if not path.exists():
        told = json.dumps(case)
        script = [sys.executable, str(HERE / "export_here.py")]
        if not ours:
            script = [case["torch_python"], "-E", str(HERE / "torchvision_export.py")]
        subprocess.run([*script, told, str(path)], check=True, stdout=sys.stderr)
    if case["precision"] == "int8" and not by_nncf:
        path = quantized(path, case)
    return path


def quantized(path: Path, case) -> Path:
    """The ONNX file with convolutions and products in int8, by ONNX Runtime; in a process of its own, whose memory does
    not count."""
    target = path.with_name(f"{path.stem}-int8.onnx")
    if not target.exists():
        subprocess.run(
            [sys.executable, str(HERE / "quantize.py"), json.dumps(case), str(path), str(target)], check=True
        )
        if path.with_suffix(".json").exists():
            target.with_suffix(".json").write_bytes(path.with_suffix(".json").read_bytes())
    return target


def exported(path: Path, case, images):
    """A call of this package's `Predictor`."""
    from mrcnn.inference.predictor import Predictor

    predictor = Predictor(path, threads=case["threads"], precision={"bfloat16": "bf16"}.get(case["precision"], "f32"))
    return lambda: [(one.rois, one.masks) for one in predictor.detect(images, prepare="full")]


def torchvision(path: Path, case, images):
    """A call of torchvision's graph: an image after the other, then its masks pasted."""
    run = {"onnxruntime": onnxruntime, "openvino": openvino}[case["engine"]](path, case)

    def call():
        results = []
        for image in images:
            boxes, _, _, masks = run(np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) / 255)
            scale = np.array(image.shape[:2]) / worker.resized(case)
            boxes = boxes * np.tile(scale[::-1], 2)
            results.append((boxes, pasted(masks[:, 0], boxes, image.shape[:2])))
        return results

    return call


def onnxruntime(path: Path, case):
    """A session as a function."""
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = case["threads"], 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(("boxes", "labels", "scores", "masks"), {"image": image})


def openvino(path: Path, case):
    """A compiled model as a function."""
    import openvino as engine

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": case["threads"],
        "INFERENCE_PRECISION_HINT": {"bfloat16": "bf16"}.get(case["precision"], "f32"),
    }
    model = engine.Core().compile_model(str(path), "CPU", settings)

    def run(image):
        found = model([image])
        return [np.array(found[i]) for i in range(4)]

    return run


def pasted(masks, boxes, size):
    """Masks [n, 28, 28] at their boxes [n, (x1, y1, x2, y2)], in images [n, height, width] bool of `size`."""
    import cv2

    full = np.zeros((len(masks), *size), bool)
    for whole, mask, (x1, y1, x2, y2) in zip(full, masks, boxes.round().astype(int), strict=True):
        part = cv2.resize(mask, (max(x2 - x1, 1), max(y2 - y1, 1))) > 0.5
        top, left = max(y1, 0), max(x1, 0)
        bottom, right = min(y1 + part.shape[0], size[0]), min(x1 + part.shape[1], size[1])
        whole[top:bottom, left:right] = part[top - y1 : bottom - y1, left - x1 : right - x1]
    return full


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    worker.serve(load, build)
