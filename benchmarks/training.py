"""Time and memory of a training step with random weights on generated shapes. Prints one json line.

    python benchmarks/training.py --backbone resnet50 --head fcn --size 512

`median_ms` is a whole step on a batch that is ready; the stages are the forward pass with the losses, what the
backward pass and the update add to it, and the making of one batch by the loader in one thread. `fit_ms` is a step of
`MaskRCNN.train`, whose loader works with `--workers` threads beside it; what it takes more is spent waiting for batches
and, where cores are few, by those threads. With `--coco DIR` (as in samples/coco) batches are of its photographs.
"""

import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from common import median_ms, parser, peak_memory_mb, report, settings


def main() -> None:
    """Builds, steps, times."""
    flags = parser(__doc__)
    flags.add_argument("--workers", type=int, default=2)
    flags.add_argument("--coco", metavar="DIR", help="its val2017, instead of generated shapes")
    arguments = flags.parse_args()
    import tensorflow as tf  # noqa: F401  loaded first, so that its own memory can be told apart

    after_import = peak_memory_mb()
    from mrcnn.config import Config
    from mrcnn.data.loader import Loader
    from mrcnn.model import MaskRCNN
    from mrcnn.training.model import compile_model, set_trainable

    dataset = data(arguments)
    config = Config(**settings(arguments), STEPS_PER_EPOCH=arguments.runs + 3, LOADER_WORKERS=arguments.workers)
    model = MaskRCNN("training", config)
    loader = Loader(dataset, config, scaling=model.scaling, steps=1)
    (batch,) = loader[0]
    trained = model.training_model
    set_trainable(model.network, "all", train_bn=False)
    compile_model(trained, config, learning_rate=1e-6, total_steps=1000)
    step = median_ms(lambda: trained.train_on_batch(batch), arguments.runs)
    memory = peak_memory_mb()
    forward = median_ms(lambda: trained.test_on_batch(batch), arguments.runs)
    stages = {
        "forward": forward,
        "backward_and_update": round(step - forward, 1),
        "loader": median_ms(lambda: loader.assemble_batch(0, 0), arguments.runs),
    }
    report(
        arguments,
        median_ms=step,
        fit_ms=fit_ms(model, dataset),
        stages_ms=stages,
        peak_memory_mb=memory,
        peak_memory_above_tensorflow_mb=memory - after_import,
    )


def data(arguments: Any) -> Any:
    """The dataset of the flags."""
    if arguments.coco:
        from mrcnn.data.formats.coco import read_coco

        folder = Path(arguments.coco)
        return read_coco(folder / "annotations" / "instances_val2017.json", folder / "val2017")
    from samples.shapes.shapes import ShapesDataset

    dataset = ShapesDataset()
    dataset.load_shapes(max(8, 2 * arguments.batch), arguments.size, arguments.size)
    for i in range(len(dataset.class_info), arguments.classes):
        dataset.add_class("shapes", i, f"never seen {i}")
    dataset.prepare()
    return dataset


def fit_ms(model: Any, dataset: Any) -> float:
    """Median milliseconds from one step's end to the next in `MaskRCNN.train`, of one epoch without its first steps."""
    import keras

    ends: list[float] = []
    clock = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter()))
    with tempfile.TemporaryDirectory() as folder:
        model.model_dir = Path(folder)
        model.train(dataset, None, learning_rate=1e-6, custom_callbacks=[clock], verbose=0)
    return round(1000 * statistics.median(b - a for a, b in pairwise(ends[2:])), 1)


if __name__ == "__main__":
    main()
