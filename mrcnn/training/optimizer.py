"""SGD with weight decay as an L2 term in the gradient, and learning-rate schedules."""

import math
import re
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn.config import Config
from mrcnn.distribution.replicas import total
from mrcnn.ops.keras_internals import OwnReduction


@keras.saving.register_keras_serializable("mrcnn")
class SGD(OwnReduction, keras.optimizers.SGD):
    """`keras.optimizers.SGD` with `l2 * weight` added to the gradient of kernels and biases.

    Keras's `weight_decay` is decoupled from the momentum, which makes it 1 / (1 - momentum) times weaker than the 1e-4
    of published recipes (torch.optim.SGD). As there, L2 is added after clipping the gradients, and not to the gamma
    and beta of normalization layers.

    Setting `learning_rate` ends a `Schedule` and keeps the new rate. Keras's optimizers raise an error instead, so that
    neither `LearningRateScheduler` nor `ReduceLROnPlateau` works with a schedule.

    If several replicas share a batch, their gradients are summed before clipping, so the norm is that of the batch's
    gradient; Keras clips each replica's gradient.
    """

    def __init__(self, learning_rate: Any = 0.01, momentum: float = 0.9, l2: float = 0.0, **kwargs: Any) -> None:
        super().__init__(learning_rate, momentum, **kwargs)
        self.l2 = l2
        self.schedule = learning_rate if isinstance(learning_rate, Schedule) else None

    def build(self, variables: Any) -> None:
        super().build(variables)
        if self.schedule is not None and self.schedule.chosen is None:
            self.schedule.chosen = self.add_variable((), initializer="zeros", dtype="float32", name="chosen_rate")
            self.schedule.chosen.assign(-1.0)

    def _choose(self, rate: Any) -> None:
        if self.schedule is None:
            keras.optimizers.SGD.learning_rate.fset(self, rate)
            return
        if self.schedule.chosen is None:
            raise ValueError("the optimizer is not built: call optimizer.build(model.trainable_variables) first")
        try:
            value = float(rate)
        except (TypeError, ValueError):
            raise TypeError(f"learning_rate must be a number, got {rate!r}; set LR_SCHEDULE for a schedule") from None
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"learning_rate must be a finite, non-negative number, got {value}")
        self.schedule.chosen.assign(value)

    learning_rate = keras.optimizers.SGD.learning_rate.setter(_choose)

    def combined(self, gradients: list[Any]) -> list[Any]:
        return total([ops.convert_to_tensor(gradient) for gradient in gradients])

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        gradient = ops.cast(gradient, variable.dtype)
        in_place = keras.backend.backend() == "tensorflow" and self.momentum != 0
        if self.l2 and decays(variable):
            with _after(gradient) if in_place else nullcontext():
                gradient = gradient + ops.cast(self.l2, gradient.dtype) * variable
        if in_place:
            velocity = self.momentums[self.index_of(variable)].value
            _apply_momentum(variable, velocity, gradient, learning_rate, self.momentum, self.nesterov)
        else:
            super().update_step(gradient, variable, learning_rate)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "l2": self.l2}


def _after(gradient: Any) -> Any:
    """A TensorFlow scope whose operations wait for the gradient.

    `l2 * variable` depends only on a weight, so TensorFlow would compute it for every variable at the start of a step
    and keep the results to the end.
    """
    import tensorflow as tf

    return tf.control_dependencies([gradient])


def _apply_momentum(
    variable: Any, velocity: Any, gradient: Any, learning_rate: Any, momentum: float, nesterov: bool
) -> None:
    """The update of Keras's SGD as one TensorFlow operation, without copies of the weight and the velocity."""
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
    """Whether weight decay applies to this weight: True for kernels and biases, False for gamma and beta."""
    # TensorFlow passes its own variable, named "layer/gamma:0", or "layer/gamma/replica_1:0" on a replica. Other
    # backends pass Keras's, named "gamma".
    name = re.sub(r"(/replica_\d+)?(:\d+)?$", "", getattr(variable, "name", ""))
    return name.split("/")[-1] not in ("gamma", "beta")


@keras.saving.register_keras_serializable("mrcnn")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then a constant rate, steps or a cosine.

    Args:
        base: learning rate after the warm-up.
        total_steps: steps of the whole training; the milestones are fractions of it.
        kind: "constant", "step" or "cosine".
        warmup_steps, warmup_factor: the rate rises linearly from `base * warmup_factor` over `warmup_steps` steps.
        milestones: fractions of the training after which the rate is divided by ten, for "step".

    `chosen` is a variable of the optimizer: a value of 0 or more replaces the schedule as the learning rate.
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
        self.chosen: keras.Variable | None = None

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        rate = ops.convert_to_tensor(self.base, "float32")
        if self.kind == "step":
            for fraction in self.milestones:
                rate = ops.where(step >= round(fraction * self.total_steps), rate * 0.1, rate)
        elif self.kind == "cosine":
            done = ops.clip(step / max(self.total_steps, 1), 0.0, 1.0)
            rate = rate * 0.5 * (1.0 + ops.cos(done * math.pi))
        if self.warmup_steps:
            risen = ops.minimum(step / self.warmup_steps, 1.0)
            rate = rate * (self.warmup_factor + (1.0 - self.warmup_factor) * risen)
        if self.chosen is None:
            return rate
        chosen = ops.convert_to_tensor(self.chosen)  # JAX functions do not accept variables
        return ops.where(chosen >= 0, chosen, rate)

    def as_array(self) -> np.ndarray:
        """The arguments as numbers, for comparison."""
        kind = ("constant", "step", "cosine").index(self.kind)
        return np.array([self.base, self.total_steps, kind, self.warmup_steps, self.warmup_factor, *self.milestones])

    def __str__(self) -> str:
        warm_up = f" after {self.warmup_steps} steps of warm-up" if self.warmup_steps else ""
        return f"{self.base:g} ({self.kind}{warm_up})"

    def get_config(self) -> dict[str, Any]:
        return {
            "base": self.base,
            "total_steps": self.total_steps,
            "kind": self.kind,
            "warmup_steps": self.warmup_steps,
            "warmup_factor": self.warmup_factor,
            "milestones": self.milestones,
        }


def schedule_for(config: Config, learning_rate: float | None, total_steps: int) -> Schedule:
    """The learning-rate schedule for `total_steps` steps.

    A given `learning_rate` is held constant unless the configuration sets LR_SCHEDULE or LR_STEPS. The warm-up takes at
    most a tenth of the steps unless the configuration sets WARMUP_STEPS.
    """
    explicit = config.explicit()
    follows = learning_rate is None or not explicit.isdisjoint({"LR_SCHEDULE", "LR_STEPS"})
    warm_up = config.WARMUP_STEPS
    return Schedule(
        config.LEARNING_RATE if learning_rate is None else learning_rate,
        total_steps,
        kind=config.LR_SCHEDULE if follows else "constant",
        warmup_steps=warm_up if "WARMUP_STEPS" in explicit else min(warm_up, (total_steps - 1) // 10),
        warmup_factor=config.WARMUP_FACTOR,
        milestones=config.LR_STEPS,
    )
