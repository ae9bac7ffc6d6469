"""The contract: what every head does, as checks that anyone can run (`python -m heads NAME`) and the tests do."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
from keras import ops

from heads.protocol.check import IMAGES, trial_inputs, trial_targets
from heads.protocol.head import Head
from heads.protocol.targets import Targets

Build = Callable[[], Head]
STEPS = 60
PER_ROI = ("features", "fine", "boxes", "class_ids", "image_index", "seed")


class BrokenContractError(AssertionError):
    """A head does not do what every head does; the message says what."""


def rois_are_independent(build: Build) -> None:
    """In inference, what a head says of a RoI does not depend on the others."""
    head = build()
    inputs = trial_inputs(head, training=False, rois=4)
    together, alone = run(head, inputs, False), run(head, some_rois(inputs, 1, 3), False)
    worst = float(ops.max(ops.abs(together[head.output][1:3] - alone[head.output])))
    require(worst < 1e-4, f"the {head.output} of a RoI change by {worst:.3g} with the RoIs beside it")


def layers_have_their_own_names(build: Build) -> None:
    """Checkpoints know layers by their names, which must not depend on what was built before in the process."""
    first, second = (weight_names(build().model) for _ in range(2))
    changed = sorted(set(first) ^ set(second))
    require(not changed, f"the names of weights change from one build to the next: {changed[:4]}; name your layers")
    twice = sorted({name for name in first if first.count(name) > 1})
    require(not twice, f"several weights are called the same: {twice[:4]}; name your layers")


def both_ends_are_float32_in_bfloat16(build: Build) -> None:
    """Under mixed precision weights and the required output stay float32, and layers compute in bfloat16."""
    with policy("mixed_bfloat16"):
        head = build()
        output = run(head, trial_inputs(head, training=False), False)[head.output]
    dtype = keras.backend.standardize_dtype(output.dtype)
    require(dtype == "float32", f"under mixed_bfloat16 the {head.output} are {dtype}")
    others = sorted({weight.path for weight in head.model.weights if weight.dtype == "bfloat16"})
    require(not others, f"under mixed_bfloat16 these weights are no float32: {others[:4]}")


def losses_are_sums_over_rois(build: Build) -> None:
    """The losses of a batch are those of its parts added up, as on several devices; rows of padding add nothing."""
    head = build()
    inputs = trial_inputs(head, training=True, rois=4)
    whole = losses(head, inputs, targets_for(head, inputs, 4))
    parts = [losses(head, some_rois(inputs, i, i + 2), targets_for(head, inputs, 4, (i, i + 2))) for i in (0, 2)]
    padded = losses(head, inputs, targets_for(head, inputs, 4, weight=[1.0, 1.0, 0.0, 0.0]))
    for name, (value, count) in whole.items():
        added = [parts[0][name][i] + parts[1][name][i] for i in (0, 1)]
        require(
            near(value, added[0]) and near(count, added[1]),
            f"loss {name!r} of four RoIs is {(value, count)}, of the same in two parts {tuple(added)}: a loss is a sum "
            "over RoIs and their count, never a mean",
        )
        first = parts[0][name]
        require(
            near(padded[name][0], first[0]) and near(padded[name][1], first[1]),
            f"loss {name!r} of two RoIs is {first}, with two rows of padding {padded[name]}: use targets.total, or "
            "multiply by targets.weight",
        )


def weights_are_saved_and_loaded(build: Build) -> None:
    """A second build with the weights of the first gives the same."""
    first, second = build(), build()
    inputs = trial_inputs(first, training=False)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "head.weights.h5"
        first.model.save_weights(file)
        second.model.load_weights(file)
    worst = float(ops.max(ops.abs(run(first, inputs, False)[first.output] - run(second, inputs, False)[first.output])))
    require(worst < 1e-5, f"with the weights of another build the {first.output} differ by {worst:.3g}")


def it_learns(build: Build) -> None:
    """Sixty steps on four RoIs halve the loss, and change every weight that learns."""
    keras.utils.set_random_seed(0)
    head = build()
    inputs = trial_inputs(head, training=True, rois=4)
    before = [ops.convert_to_numpy(weight).copy() for weight in head.model.trainable_weights]
    model = TrainedHead(head, inputs)
    model.compile(keras.optimizers.Adam(1e-3))
    history = model.fit(ops.zeros((1, 1)), epochs=STEPS, verbose=0).history["loss"]
    require(
        history[-1] < 0.5 * history[0],
        f"after {STEPS} steps on the same four RoIs the loss is {history[-1]:.3g}, at first it was {history[0]:.3g}",
    )
    same = [
        weight.path
        for weight, old in zip(head.model.trainable_weights, before, strict=True)
        if not abs(ops.convert_to_numpy(weight) - old).max() > 0
    ]
    require(not same, f"these weights did not learn: {same[:4]}; no loss depends on them")


CHECKS: tuple[Callable[[Build], None], ...] = (
    rois_are_independent,
    layers_have_their_own_names,
    both_ends_are_float32_in_bfloat16,
    losses_are_sums_over_rois,
    weights_are_saved_and_loaded,
    it_learns,
)


def require(condition: bool, message: str) -> None:
    """Raises BrokenContractError with the message unless the condition holds."""
    if not condition:
        raise BrokenContractError(message)


def near(one: float, other: float) -> bool:
    return abs(one - other) <= 1e-4 * max(1.0, abs(one), abs(other))


def run(head: Head, inputs: dict[str, Any], training: bool) -> dict[str, Any]:
    """The outputs of a head by name, in inference mode; of `call` with `training`, else of `infer`."""
    model = head.model if training else head.inference
    return {"masks": model(inputs["features"], training=False)} if head.is_plain else model(inputs, training=False)


def some_rois(inputs: dict[str, Any], start: int, end: int) -> dict[str, Any]:
    """The inputs of a part of the RoIs."""
    return {name: value[start:end] if name in PER_ROI else value for name, value in inputs.items()}


def losses(head: Head, inputs: dict[str, Any], targets: Targets) -> dict[str, tuple[float, float]]:
    pairs = head.loss(run(head, inputs, True), targets)
    return {name: (float(value), float(count)) for name, (value, count) in pairs.items()}


def targets_for(
    head: Head, inputs: dict[str, Any], rois: int, part: tuple[int, int] = (0, 4), weight: list[float] | None = None
) -> Targets:
    """Ground truth for the inputs of a trial, or for a part of their RoIs: discs, one per image."""
    boxes = inputs.get("boxes", ops.convert_to_tensor([[8.0, 8.0, 72.0, 64.0]] * rois))
    class_ids = inputs.get("class_ids", ops.ones((rois,), "int32"))
    image_index = ops.arange(rois, dtype="int32") % IMAGES
    start, end = part
    return trial_targets(
        head.num_classes,
        class_ids=class_ids[start:end],
        weight=ops.convert_to_tensor((weight or [1.0] * rois)[start:end]),
        boxes=boxes[start:end],
        image_index=image_index[start:end],
    )


def weight_names(model: keras.Model, prefix: str = "") -> list[str]:
    """ "layer/weight" of every weight, with the names of the models around a layer before it."""
    names = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            names += weight_names(layer, f"{prefix}{layer.name}/")
        else:
            names += [f"{prefix}{layer.name}/{weight.name}" for weight in layer.weights]
    return names


@contextmanager
def policy(name: str) -> Iterator[None]:
    """Layers built inside have this dtype policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class TrainedHead(keras.Model):
    """A head's model on the inputs of a trial, whatever it is called with; its loss is the head's."""

    def __init__(self, head: Head, inputs: dict[str, Any]) -> None:
        super().__init__(name="trained_head")
        self.head, self.inner, self.targets = head, head.model, targets_for(head, inputs, 4)
        given = inputs["features"] if head.is_plain else inputs
        self.outputs_of = lambda training: head.model(given, training=training)  # Keras would reorder a dict it holds

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.outputs_of(training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        outputs = {"masks": y_pred} if self.head.is_plain else y_pred
        pairs = self.head.loss(outputs, self.targets)
        return sum(value / count for value, count in pairs.values())
