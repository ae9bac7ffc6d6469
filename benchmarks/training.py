"""Time and memory of a training step with random weights on generated shapes. Prints one json line.

    python benchmarks/training.py --backbone resnet50 --head fcn --size 512

`median_ms` is a whole step on a batch that is ready; the stages are the forward pass with the losses, what the
backward pass and the update add to it, and the making of one batch by the loader in one thread.
"""

from common import median_ms, parser, peak_memory_mb, report, settings


def main() -> None:
    """Builds, steps, times."""
    arguments = parser(__doc__).parse_args()
    import tensorflow as tf  # noqa: F401  loaded first, so that its own memory can be told apart

    after_import = peak_memory_mb()
    from mrcnn.config import Config
    from mrcnn.data.loader import Loader
    from mrcnn.model import MaskRCNN
    from mrcnn.training import compile_model, set_trainable
    from samples.shapes.shapes import ShapesDataset

    dataset = ShapesDataset()
    dataset.load_shapes(max(8, 2 * arguments.batch), arguments.size, arguments.size)
    for i in range(len(dataset.class_info), arguments.classes):
        dataset.add_class("shapes", i, f"never seen {i}")
    dataset.prepare()
    config = Config(**settings(arguments))
    model = MaskRCNN("training", config)
    loader = Loader(dataset, config, scaling=model.scaling, steps=1)
    (batch,) = loader[0]
    trained = model.training_model
    set_trainable(model.network, "all", train_bn=False)
    compile_model(trained, config, learning_rate=1e-6, momentum=0.9, total_steps=1000)
    step = median_ms(lambda: trained.train_on_batch(batch), arguments.runs)
    memory = peak_memory_mb()
    forward = median_ms(lambda: trained.test_on_batch(batch), arguments.runs)
    stages = {"forward": forward, "backward_and_update": round(step - forward, 1),
              "loader": median_ms(lambda: loader.load_batch(0, 0), arguments.runs)}
    report(arguments, median_ms=step, stages_ms=stages, peak_memory_mb=memory,
           peak_memory_above_tensorflow_mb=memory - after_import)


if __name__ == "__main__":
    main()
