"""Training state besides the weights, with which a run continues as if it had never stopped.

Variables have names, so that checkpoints can store them and they survive a change of the trained layers:
"iterations", "learning_rate" (if a callback set it), "momentum/<layer>/<number>", "seed/<part>/<number>" (random
layers such as Dropout) and, within an epoch, "metric/<name>/<number>".
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from mrcnn.network.graph import Network
from mrcnn.training.model import TrainingModel


def state_variables(model: TrainingModel, network: Network) -> dict[str, keras.Variable]:
    """The state variables of a compiled model, except those of the metrics."""
    layers = network.layers().items()
    names = {id(weight): f"{key}/{i}" for key, layer in layers for i, weight in enumerate(layer.weights)}
    found = {"iterations": model.optimizer.iterations, "learning_rate": model.optimizer.schedule.chosen}
    for weight, momentum in zip(model.trainable_variables, model.optimizer.momentums, strict=False):
        found[f"momentum/{names[id(weight)]}"] = momentum
    for part, model_of_part in network.parts().items():
        weights = {id(weight) for weight in model_of_part.weights}
        seeds = [variable for variable in model_of_part.variables if id(variable) not in weights]
        found |= {f"seed/{part}/{i}": seed for i, seed in enumerate(seeds)}
    return found


def metric_variables(model: TrainingModel) -> dict[str, keras.Variable]:
    """The sums behind the means that `fit` logs at the end of an epoch."""
    return {
        f"metric/{metric.name}/{i}": variable for metric in model.metrics for i, variable in enumerate(metric.variables)
    }


def values_of(variables: Mapping[str, keras.Variable]) -> dict[str, np.ndarray]:
    """The variables' values, as a checkpoint stores them."""
    return {name: np.array(keras.ops.convert_to_numpy(variable)) for name, variable in variables.items()}


def restore(variables: Mapping[str, keras.Variable], values: Mapping[str, Any]) -> None:
    """Sets each variable that has a stored value.

    Raises ValueError for a value with a different shape.
    """
    for name, variable in variables.items():
        if name in values and values[name] is not variable:
            if tuple(values[name].shape) != tuple(variable.shape):
                raise ValueError(
                    f"the training state holds {name} with shape {tuple(values[name].shape)}, but the model has "
                    f"{tuple(variable.shape)}; it belongs to a different network"
                )
            variable.assign(values[name])
