"""The Keras model that `fit` trains: the training graph, with the losses summed in `compute_loss`."""

import re
import warnings
from typing import Any

import keras
from keras import ops

from mrcnn.config import LOSS_NAMES, Config
from mrcnn.distribution.replicas import ReplicatedModel, replica_share, total, whole_batch
from mrcnn.network.graph import Network, head_targets, keypoint_targets
from mrcnn.network.training_graph import training_graph
from mrcnn.training import losses
from mrcnn.training.optimizer import SGD, Schedule, schedule_for

MASK_OUTPUTS = ("mask_target", "masks", "mask_weight")
HEADS = r"(mrcnn\_.*)|(rpn\_.*)|(fpn\_.*)"  # as in the old package
PRESETS = {"heads": 6, "5+": 5, "4+": 4, "3+": 3, "all": 0}  # first backbone stage that is trained


class TrainingModel(ReplicatedModel):
    """A functional model on batches of the loader; only the sum of the losses differs from Keras's `fit`.

    Attributes:
        loss_weights: the factor of each loss in `LOSS_NAMES`.
        extra_names: losses that layers add: "regularization_loss", the sum of all weight regularizers, and
            "added_loss", the sum of all `add_loss` calls, including activity regularizers.
        image_ids: [images of a batch] int32, the batch of the last loss that was not finite.
    """

    def __init__(self, network: Network, config: Config) -> None:
        inputs, outputs = training_graph(network, config)
        super().__init__(inputs=inputs, outputs=outputs, name="mask_rcnn_training")
        self.synchronize_batch_norm()
        self.loss_weights = dict(config.LOSS_WEIGHTS)
        self.rpn_options: dict[str, Any] = {"beta": config.RPN_BBOX_LOSS_BETA, "average": config.BBOX_LOSS_AVERAGE}
        self.box_options: dict[str, Any] = {"beta": config.BBOX_LOSS_BETA, "average": config.BBOX_LOSS_AVERAGE}
        self.head, self.keypoints = network.head, network.keypoints
        own = [name for head in (self.head, self.keypoints) if head for name in head.loss_names]
        self.loss_names = [*LOSS_NAMES[:-1], *own]
        self.extra_names = _extra_losses(network)
        self.loss_means = [keras.metrics.Mean(name=name) for name in (*self.loss_names, *self.extra_names)]
        self.image_ids = self.add_weight(
            shape=(config.BATCH_SIZE,), dtype="int32", trainable=False, initializer="zeros", name="image_ids"
        )

    def losses_of(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """The losses of the training graph's outputs by name, unweighted; on a replica, its share."""
        return {
            "rpn_class_loss": losses.rpn_class_loss(outputs["rpn_labels"], outputs["rpn_logits"]),
            "rpn_bbox_loss": losses.rpn_bbox_loss(
                outputs["rpn_labels"], outputs["rpn_target"], outputs["rpn_deltas"], **self.rpn_options
            ),
            "mrcnn_class_loss": losses.mrcnn_class_loss(
                outputs["roi_class_ids"], outputs["class_logits"], outputs["roi_sampled"], outputs["active_classes"]
            ),
            "mrcnn_bbox_loss": losses.box_loss(
                outputs["roi_class_ids"] > 0,
                outputs["roi_sampled"],
                outputs["roi_target"],
                outputs["roi_deltas"],
                **self.box_options,
            ),
            **self.head_losses_of(outputs),
        }

    def head_losses_of(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """The losses of the mask head and the keypoint head; empty without either."""
        pairs: dict[str, tuple[Any, Any]] = {}
        values: dict[str, Any] = {}
        if self.head is not None and self.head.is_plain:
            values["mrcnn_mask_loss"] = losses.mrcnn_mask_loss(*(outputs[name] for name in MASK_OUTPUTS))
        elif self.head is not None:
            pairs |= self.head.loss(outputs["head"], head_targets(self.head, outputs))
        if self.keypoints is not None:
            pairs |= self.keypoints.loss(outputs["keypoint_head"], keypoint_targets(outputs))
        return values | {name: part / ops.maximum(total(count), 1.0) for name, (part, count) in pairs.items()}

    def extra_losses(self) -> dict[str, Any]:
        """The losses in `extra_names`; on a replica, its share."""
        regularized = [weight for weight in self.trainable_weights if weight.regularizer is not None]
        added = self.losses[: len(self.losses) - len(regularized)]  # Keras lists the regularizers last
        sums = {
            "regularization_loss": sum((weight.regularizer(weight) for weight in regularized), ops.zeros(())),
            "added_loss": sum((ops.sum(ops.cast(loss, "float32")) for loss in added), ops.zeros(())),
        }
        return {name: replica_share(sums[name]) for name in self.extra_names}

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        values = self.losses_of(y_pred)
        values |= self.extra_losses()
        share = sum(self.loss_weights.get(name, 1.0) * value for name, value in values.items())
        loss, total, values, image_ids = whole_batch(share, values, y_pred["image_id"])
        for mean in self.loss_means:
            mean.update_state(values[mean.name])
        self.image_ids.assign(ops.where(ops.isfinite(total), ops.convert_to_tensor(self.image_ids), image_ids))
        return loss

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [*super().metrics, *self.loss_means]


def _extra_losses(network: Network) -> list[str]:
    """Names of the losses that the layers of a network may add."""
    layers = [layer for model in network.parts().values() for layer in _flat(model)]
    regularized = any(weight.regularizer is not None for layer in layers for weight in layer.weights)
    # `add_loss` is called in `call`, so it is unknown beforehand; Keras's layers call it only for activity regularizers
    foreign = [layer for layer in layers if type(layer).__module__.split(".")[0] not in ("keras", "mrcnn")]
    adds = bool(foreign) or any(getattr(layer, "activity_regularizer", None) is not None for layer in layers)
    return ["regularization_loss"] * regularized + ["added_loss"] * adds


def _flat(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """A layer, or the layers inside a model."""
    inside = getattr(layer, "layers", None)
    return [layer] if inside is None else [leaf for each in inside for leaf in _flat(each)]


def compile_model(
    model: TrainingModel, config: Config, *, learning_rate: float | None, total_steps: int, first_step: int = 0
) -> Schedule:
    """Compiles the model with a new optimizer and schedule at `first_step` of `total_steps`; returns the schedule."""
    schedule = schedule_for(config, learning_rate, total_steps)
    if schedule.warmup_steps >= total_steps:
        warnings.warn(
            f"WARMUP_STEPS = {schedule.warmup_steps} is more than the {total_steps} steps of this training, so the "
            "learning rate stays low; lower WARMUP_STEPS",
            stacklevel=5,
        )
    optimizer = SGD(
        schedule, config.LEARNING_MOMENTUM, l2=config.WEIGHT_DECAY, global_clipnorm=config.GRADIENT_CLIP_NORM
    )
    optimizer.build(model.trainable_variables)
    optimizer.iterations.assign(first_step)
    model.compile(optimizer=optimizer)
    return schedule


def set_trainable(network: Network, layers: str, *, train_bn: bool) -> list[str]:
    """Selects the layers to train, and returns their names.

    Args:
        layers: "heads" (all but the backbone), "3+", "4+", "5+" (the heads and the backbone from that stage on),
            "all", or a regular expression matched against whole layer names, as in the old package. A layer of the
            mask head is named `mrcnn_mask/<its name>`, one of the keypoint head `mrcnn_keypoint/<its name>`.
        train_bn: whether the trunk's BatchNorm is trained; that of the heads always is.

    Raises ValueError, listing some layer names, if nothing matches, or for an invalid expression.
    """
    try:
        re.compile(layers)
    except re.error as error:
        raise ValueError(
            f"layers={layers!r} is neither one of {list(PRESETS)} nor a valid regular expression: {error}."
        ) from error
    chosen, seen = [], []
    for key, layer in network.layers().items():
        part, name = key.split("/", 1)
        name = f"mrcnn_{part.removesuffix('_head')}/{name}" if part in ("mask_head", "keypoint_head") else name
        frozen = part == "trunk" and not train_bn and isinstance(layer, keras.layers.BatchNormalization)
        stage = network.backbone.stages.get(layer.name) if part == "trunk" else None  # heads may have the same names
        stage = 5 if part == "roi_stage" else stage
        layer.trainable = _is_chosen(layers, name, stage) and not frozen
        seen.append(name)
        if layer.trainable:
            chosen.append(name)
    if not chosen:
        raise ValueError(
            f"layers={layers!r} matches no layer. Use one of {list(PRESETS)} or a regular expression that matches "
            f"whole names such as {', '.join(seen[:2] + seen[-4:])}."
        )
    return chosen


def _is_chosen(layers: str, name: str, stage: int | None) -> bool:
    """Whether a layer is trained; `stage` is a backbone layer's stage, None for other layers."""
    if layers not in PRESETS:
        return re.fullmatch(layers, name) is not None
    return re.fullmatch(HEADS, name) is not None if stage is None else stage >= PRESETS[layers]
