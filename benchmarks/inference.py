"""Time and memory of `detect`, stage by stage, with random weights. Prints one json line.

    python benchmarks/inference.py --backbone resnet101 --head fcn --size 1024
    python benchmarks/inference.py --backbone resnet50 --system c4

`median_ms` is one call of `detect`; the stages are timed apart. Random weights find nothing, so those of the box
deltas are set to 0 and the class to one for every RoI: then the proposals are anchors, and 1000 RoIs leave about 100
detections with their masks, the most there can be.
"""

import time

from common import median_ms, parser, peak_memory_mb, photographs, report, settings


def find_much(network) -> None:
    """Sets the last layers so that every RoI is a sure object of class 1 where its anchor was."""
    for part, name in (("rpn", "rpn_bbox_pred"), ("box_head", "mrcnn_bbox_fc"), ("box_head", "mrcnn_class_logits")):
        layer = network.parts()[part].get_layer(name)
        bias = layer.bias.numpy() * 0
        if name == "mrcnn_class_logits":
            bias[1] = 10
        layer.set_weights([layer.kernel.numpy() * 0, bias])


def main() -> None:
    """Builds, detects, times."""
    arguments = parser(__doc__).parse_args()
    import tensorflow as tf  # loaded first, so that its own memory can be told apart

    after_import = peak_memory_mb()
    import numpy as np

    from mrcnn.config import Config
    from mrcnn.fusion.folding import fold
    from mrcnn.model import MaskRCNN
    from mrcnn.network.frozen_batch_norm import fixed_norms

    start = time.perf_counter()
    model = MaskRCNN("inference", Config(**settings(arguments)))
    _ = model.inference_model
    build = time.perf_counter() - start
    find_much(model.network)
    images = photographs(arguments.batch, arguments.size)
    start = time.perf_counter()
    found = model.detect(images, prepare="full")
    first = time.perf_counter() - start

    detector = model.detector
    molded = [detector.network_input(image) for image in images]
    pixels, windows = (np.stack([getattr(m, name) for m in molded]) for name in ("image", "window"))
    raw = detector.run(pixels, windows)
    folded = fold(model.network.trunk, fixed_norms(training=False), by_winograd=True)
    trunk = tf.function(lambda x: folded(x), input_signature=[tf.TensorSpec(folded.inputs[0].shape)])
    whole = median_ms(lambda: model.detect(images, prepare="full"), arguments.runs)
    memory = peak_memory_mb()  # before the stages, which hold tensors that detect does not
    stages = {
        "mold": median_ms(lambda: [detector.network_input(image) for image in images], arguments.runs),
        "trunk": median_ms(lambda: trunk(pixels), arguments.runs),
        "network": median_ms(lambda: detector.run(pixels, windows), arguments.runs),
        "paste": median_ms(
            lambda: [detector.result(r, m).masks for r, m in zip(raw, molded, strict=True)], arguments.runs
        ),
    }
    report(
        arguments,
        median_ms=whole,
        stages_ms=stages,
        build_s=round(build, 2),
        first_detect_s=round(first, 2),
        detections=[len(f["scores"]) for f in found],
        peak_memory_mb=memory,
        peak_memory_above_tensorflow_mb=memory - after_import,
    )


if __name__ == "__main__":
    main()
