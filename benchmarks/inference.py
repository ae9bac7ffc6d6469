"""Time and memory of `detect`, stage by stage, with random weights. Prints one json line.

    python benchmarks/inference.py --backbone resnet101 --head fcn --size 1024

`median_ms` is one call of `detect`; the stages are timed apart. Random weights find little, so the detection settings
keep every class over a score of 0 and the mask head always runs on 100 detections an image, the most there can be.
"""

import time

from common import median_ms, parser, peak_memory_mb, photographs, report, settings


def main() -> None:
    """Builds, detects, times."""
    arguments = parser(__doc__).parse_args()
    import tensorflow as tf  # noqa: F401, PLC0415  loaded first, so that its own memory can be told apart

    after_import = peak_memory_mb()
    import keras
    import numpy as np

    from mrcnn.config import Config
    from mrcnn.model import MaskRCNN

    start = time.perf_counter()
    model = MaskRCNN("inference", Config(**settings(arguments), DETECTION_MIN_CONFIDENCE=0.0))
    _ = model.inference_model
    build = time.perf_counter() - start
    images = photographs(arguments.batch, arguments.size)
    start = time.perf_counter()
    found = model.detect(images)
    first = time.perf_counter() - start

    detector = model.detector
    molded = [detector.mold(image) for image in images]
    pixels, windows = (np.stack([getattr(m, name) for m in molded]) for name in ("image", "window"))
    raw = detector.run(pixels, windows)
    trunk = keras.Model(model.network.trunk.inputs, model.network.trunk.outputs)
    whole = median_ms(lambda: model.detect(images), arguments.runs)
    memory = peak_memory_mb()  # before the stages, which hold tensors that detect does not
    stages = {
        "mold": median_ms(lambda: [detector.mold(image) for image in images], arguments.runs),
        "trunk": median_ms(lambda: trunk.predict_on_batch(pixels), arguments.runs),
        "network": median_ms(lambda: detector.run(pixels, windows), arguments.runs),
        "unmold": median_ms(lambda: [detector.unmold(r, m) for r, m in zip(raw, molded, strict=True)], arguments.runs),
    }
    report(arguments, median_ms=whole, stages_ms=stages, build_s=round(build, 2), first_detect_s=round(first, 2),
           detections=[len(f["scores"]) for f in found], peak_memory_mb=memory,
           peak_memory_above_tensorflow_mb=memory - after_import)


if __name__ == "__main__":
    main()
