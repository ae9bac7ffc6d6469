"""SGD whose weight decay is L2 on the gradient, and the learning-rate schedules of detection training."""

import re
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import keras
from keras import ops

from mrcnn.distribution.replicas import total
from mrcnn.ops.keras_internals import OwnReduction


@keras.saving.register_keras_serializable("mrcnn")
class SGD(OwnReduction, keras.optimizers.SGD):
    """`keras.optimizers.SGD` with `l2 * weight` added to the gradient of kernels and biases.

    Keras's own `weight_decay` is decoupled from the momentum, which makes it 1 / (1 - momentum) times weaker than
    what the published recipes mean by 1e-4 (torch.optim.SGD). It is added after the global clipping, as there.
    Normalisation's gamma and beta are left alone.

    Where several replicas share a batch, their gradients are added up before the clipping, whose norm is then that of
    the batch's gradient; Keras clips each replica's.
    """

    def __init__(self, learning_rate: Any = 0.01, momentum: float = 0.9, l2: float = 0.0, **kwargs: Any) -> None:
        super().__init__(learning_rate, momentum, **kwargs)
        self.l2 = l2

    def combined(self, gradients: list[Any]) -> list[Any]:
        return total([ops.convert_to_tensor(gradient) for gradient in gradients])

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        gradient = ops.cast(gradient, variable.dtype)
        in_place = keras.backend.backend() == "tensorflow" and self.momentum != 0
        if self.l2 and decays(variable):
            with _once_there(gradient) if in_place else nullcontext():
                gradient = gradient + ops.cast(self.l2, gradient.dtype) * variable
        if in_place:
            velocity = self.momentums[self.index_of(variable)].value
            _apply_momentum(variable, velocity, gradient, learning_rate, self.momentum, self.nesterov)
        else:
            super().update_step(gradient, variable, learning_rate)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "l2": self.l2}


def _once_there(gradient: Any) -> Any:
    """A scope of TensorFlow's whose operations wait for the gradient.

    What needs only weights would be computed at the start of a step, for all of them, and kept to its end.
    """
    import tensorflow as tf

    return tf.control_dependencies([gradient])


def _apply_momentum(
    variable: Any, velocity: Any, gradient: Any, learning_rate: Any, momentum: float, nesterov: bool
) -> None:
    """Keras's update of SGD as one operation of TensorFlow's, without copies of weight and velocity."""
    import tensorflow as tf

    tf.raw_ops.ResourceApplyKerasMomentum(
        var=variable.handle,
        accum=velocity.handle,
        lr=tf.cast(learning_rate, variable.dtype),
        grad=gradient,
        momentum=tf.cast(momentum, variable.dtype),
        use_nesterov=nesterov,
    )


def decays(variable: Any) -> bool:
    """Whether weight decay pulls at this weight: kernels and biases, not gamma and beta."""
    # TensorFlow hands over its own variable, called "layer/gamma:0"; other backends Keras's, called "gamma".
    # On replicas beside the first the name ends in "/replica_1:0".
    name = re.sub(r"(/replica_\d+)?(:\d+)?$", "", getattr(variable, "name", ""))
    return name.split("/")[-1] not in ("gamma", "beta")


@keras.saving.register_keras_serializable("mrcnn")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then constant, steps or a cosine.

    Args:
        base: learning rate after the warm-up.
        total_steps: steps of the whole training; milestones are shares of it.
        kind: "constant", "step" or "cosine".
        warmup_steps, warmup_factor: the rate rises linearly from `base * warmup_factor` over these steps.
        milestones: shares of the training after which the rate falls to a tenth, for "step".
    """

    def __init__(
        self,
        base: float,
        total_steps: int,
        *,
        kind: str = "step",
        warmup_steps: int = 0,
        warmup_factor: float = 0.001,
        milestones: Sequence[float] = (0.67, 0.89),
    ) -> None:
        self.base, self.total_steps, self.kind = base, total_steps, kind
        self.warmup_steps, self.warmup_factor, self.milestones = warmup_steps, warmup_factor, tuple(milestones)

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        rate = ops.convert_to_tensor(self.base, "float32")
        if self.kind == "step":
            for share in self.milestones:
                rate = ops.where(step >= round(share * self.total_steps), rate * 0.1, rate)
        elif self.kind == "cosine":
            done = ops.clip(step / max(self.total_steps, 1), 0.0, 1.0)
            rate = rate * 0.5 * (1.0 + ops.cos(done * 3.141592653589793))
        if self.warmup_steps:
            risen = ops.minimum(step / self.warmup_steps, 1.0)
            rate = rate * (self.warmup_factor + (1.0 - self.warmup_factor) * risen)
        return rate

    def get_config(self) -> dict[str, Any]:
        return {
            "base": self.base,
            "total_steps": self.total_steps,
            "kind": self.kind,
            "warmup_steps": self.warmup_steps,
            "warmup_factor": self.warmup_factor,
            "milestones": self.milestones,
        }
