"""Where the time of `detect` goes: operations, bytes, what this machine could do, and what each stage takes.

    python benchmarks/stages.py --backbone resnet101 --size 1024 --precision float32
    python benchmarks/stages.py --size 1024 --photograph 3000 4000 --masks rle

The graph is timed up to the end of each stage, all of them in turn, and a stage takes what it adds; the least of all
rounds counts, so that a stage may come out a little short, or negative, where another was disturbed. Molding and
pasting are timed inside the calls of `detect`: by themselves they find their memory made already, and are faster.
Operations and bytes are those of convolutions and matrix products: their inputs, kernels and outputs, each once. The
floor of a stage is its operations at the machine's best, measured in the same run: a 3x3 convolution of 256 channels on
2 x 128 x 256 cells, and, for the box head, the product of 1000 x 12544 and 12544 x 1024. Weights as in `inference.py`.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common import in_turn, parser, photographs, settings
from inference import find_much
from machine import processor

# Outputs of the inference graph's layers at which a stage ends, in order
ENDS = {
    "proposals": "proposals",
    "RoIAlign, boxes": "roi_align_box",
    "box head": "box_head",
    "detections": "detections",
    "RoIAlign, masks": "roi_align_mask",
}
AROUND = ("mold", "proposals", "detections", "pasting")


def main() -> None:
    """Builds, times, prints."""
    flags = parser(__doc__)
    flags.add_argument("--photograph", type=int, nargs=2, metavar=("H", "W"), help="its own pixels; default: --size")
    flags.add_argument("--masks", default="full", choices=["full", "rle", "crops"], help="which form is computed")
    arguments = flags.parse_args()
    from mrcnn.config import Config
    from mrcnn.inference.results import Result
    from mrcnn.model import MaskRCNN

    model = MaskRCNN("inference", Config(**settings(arguments)))
    find_much(model.network)
    images = photographs(arguments.batch, *(arguments.photograph or (arguments.size,)))
    molded = [model.detector.network_input(image) for image in images]
    pixels, windows = (np.stack([getattr(m, name) for m in molded]) for name in ("image", "window"))
    calls = {name: (lambda call=call: call(pixels, windows)) for name, call in prefixes(model).items()}
    calls["whole"] = lambda: model.detect(images, prepare=arguments.masks)
    beside = {"mold": recorded(model.detector, "network_input"), "pasting": recorded(Result, "prepare")}
    calls |= {f"best {kind}": call for kind, call in ceilings(arguments.precision).items()}
    seconds = in_turn(calls, arguments.runs)
    last = arguments.batch * arguments.runs  # photographs of the rounds that count
    seconds |= {name: arguments.batch * min(taken[-last:]) for name, taken in beside.items()}
    best = {
        "convolution": 2 * 256 * 256 * 9 * 256 * 256 / seconds.pop("best convolution"),
        "product": 2 * 1000 * 12544 * 1024 / seconds.pop("best product"),
    }
    whole, height, width = seconds.pop("whole"), *pixels.shape[1:3]
    print(
        f"{processor()}\n"
        f"{arguments.backbone}, {height} x {width} of {' x '.join(map(str, images[0].shape[:2]))}, batch "
        f"{arguments.batch}, {arguments.precision}, masks {arguments.masks!r}: {1000 * whole:.0f} ms. Best of this "
        "machine: " + ", ".join(f"{kind} {rate / 1e9:.0f} GFLOP/s" for kind, rate in best.items()) + "\n"
    )
    print("| stage | ms | GFLOP | MB | floor, ms |\n|---|---|---|---|---|")
    work, took_all = operations(model, arguments, pixels.shape), stages(seconds)
    for name, took in took_all.items():
        flop, moved = work.get(name, (0, 0))
        floor = 1000 * flop / best["product" if name == "box head" else "convolution"]
        print(
            f"| {name} | {1000 * took:.0f} | "
            + (f"{flop / 1e9:.1f} | {moved / 1e6:.0f} | {floor:.0f} |" if flop else "| | |")
        )
    around = sum(took_all[name] for name in AROUND)
    print(f"\nAround the network ({', '.join(AROUND)}): {1000 * around:.0f} ms, {100 * around / whole:.1f}% of all.")


def stages(until: dict[str, float]) -> dict[str, float]:
    """Seconds that each stage takes, from those until its end in the graph; molding and pasting stand beside it."""
    until = dict(until)
    mold, pasting, found, before = until.pop("mold"), until.pop("pasting"), {}, 0.0
    for name, seconds in until.items():
        found[name], before = seconds - before, seconds
    return {"mold": mold, **found, "pasting": pasting}


def prefixes(model: Any) -> dict[str, Callable]:
    """Functions (pixels, windows) that run the inference graph up to the end of each stage."""
    import keras
    import tensorflow as tf

    from mrcnn.fusion.folding import fold
    from mrcnn.network.frozen_batch_norm import fixed_norms
    from mrcnn.network.graph import inference_graph

    graph, network = inference_graph(model.network, model.config, fast=True), model.network

    def traced(call: Callable) -> Callable:
        signature = [tf.TensorSpec(graph.input[name].shape) for name in ("image", "window")]
        return tf.function(call, input_signature=signature, autograph=False)

    parts = (network.backbone.model, network.trunk, network.rpn)
    backbone, trunk, rpn = (fold(part, fixed_norms(training=False), by_winograd=True) for part in parts)
    found = {
        "backbone": traced(lambda image, window: backbone(image)[-1]),
        "pyramid": traced(lambda image, window: trunk(image)),
        "RPN": traced(lambda image, window: [rpn(level) for level in trunk(image)]),
    }
    # What the box head gives is not to be had by its name, as it is a model
    boxes = graph.get_layer("detections")._inbound_nodes[0].input_tensors
    ends = {name: boxes if layer == "box_head" else graph.get_layer(layer).output for name, layer in ENDS.items()}
    for name, output in ends.items():
        part = keras.Model(graph.input, output)
        found[name] = traced(lambda image, window, part=part: part({"image": image, "window": window}))
    return found | {"mask head": model.detector.call}


def recorded(owner: Any, name: str) -> list[float]:
    """Seconds of each call of a method of `owner`, from now on."""
    method, taken = getattr(owner, name), []

    def timed(*arguments: Any) -> Any:
        start = time.perf_counter()
        found = method(*arguments)
        taken.append(time.perf_counter() - start)
        return found

    setattr(owner, name, timed)
    return taken


def ceilings(precision: str) -> dict[str, Callable]:
    """What the machine does best: one convolution, one product."""
    import tensorflow as tf

    dtype = tf.dtypes.as_dtype(precision)
    cells, kernel, rows, weights = (
        tf.cast(tf.random.normal(shape), dtype)
        for shape in ((2, 128, 256, 256), (3, 3, 256, 256), (1000, 12544), (12544, 1024))
    )
    return {
        "convolution": tf.function(lambda: tf.nn.conv2d(cells, kernel, 1, "SAME")),
        "product": tf.function(lambda: tf.matmul(rows, weights)),
    }


def operations(model: Any, arguments: Any, image: tuple[int, ...]) -> dict[str, tuple[int, int]]:
    """(operations, bytes) of the stages that convolve or multiply, for molded images of this shape."""
    network, sides, width = model.network, image[1:3], 2 if arguments.precision == "bfloat16" else 4
    config, channels = model.config, model.config.TOP_DOWN_PYRAMID_SIZE
    whole, backbone = counted(network.trunk, image, width), counted(network.backbone.model, image, width)
    levels = [
        (arguments.batch, *(math.ceil(side / stride) for side in sides), channels) for stride in (4, 8, 16, 32, 64)
    ]
    rpn = [counted(network.rpn, level, width) for level in levels]
    rois = (arguments.batch * config.POST_NMS_ROIS_INFERENCE, config.POOL_SIZE, config.POOL_SIZE, channels)
    found = (arguments.batch * config.DETECTION_MAX_INSTANCES, config.MASK_POOL_SIZE, config.MASK_POOL_SIZE, channels)
    return {
        "backbone": backbone,
        "pyramid": tuple(a - b for a, b in zip(whole, backbone, strict=True)),
        "RPN": tuple(map(sum, zip(*rpn, strict=True))),
        "box head": counted(network.box_head, rois, width),
        "mask head": counted(network.mask_head, found, width),
    }


def counted(part: Any, shape: tuple[int, ...], width: int) -> tuple[int, int]:
    """(operations, bytes) of the convolutions and products of a model on an input of this shape; `width` bytes a
    number. The mask head's last convolution is left out, as one channel of it is computed."""
    import tensorflow as tf

    graph = tf.function(lambda x: part(x)).get_concrete_function(tf.TensorSpec(shape)).graph
    flop = moved = 0
    for op in graph.get_operations():
        if op.type not in ("Conv2D", "MatMul", "Conv2DBackpropInput") or "/masks" in op.name:
            continue
        transposed = op.type == "Conv2DBackpropInput"  # its kernel is [h, w, out, in], and each input is used so often
        kernel, given = op.inputs[1], op.inputs[-1 if transposed else 0]
        flop += 2 * math.prod(given.shape if transposed else op.outputs[0].shape) * math.prod(kernel.shape[:-1])
        moved += width * sum(math.prod(tensor.shape) for tensor in (given, kernel, op.outputs[0]))
    return flop, moved


if __name__ == "__main__":
    main()
