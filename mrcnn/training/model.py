"""The Keras model that `fit` trains: the training graph, with the losses summed in `compute_loss`."""

import re
import warnings
from typing import Any

import keras
from keras import ops

from mrcnn.config import LOSS_NAMES, Config
from mrcnn.distribution.replicas import ReplicatedModel, total, whole_batch
from mrcnn.network.graph import Network, head_targets, training_graph
from mrcnn.training import losses
from mrcnn.training.optimizer import SGD, Schedule

MASK_OUTPUTS = ("mask_target", "masks", "mask_weight")
HEADS = r"(mrcnn\_.*)|(rpn\_.*)|(fpn\_.*)"  # as in the old package
PRESETS = {"heads": 6, "5+": 5, "4+": 4, "3+": 3, "all": 0}  # the first stage of the backbone that learns


class TrainingModel(ReplicatedModel):
    """Functional model on a batch of the loader; everything but the sum of the losses is Keras's own `fit`.

    `loss_weights`: factor of each of `LOSS_NAMES`. `image_ids` holds the batch of the last loss that was not finite.
    """

    def __init__(self, network: Network, config: Config) -> None:
        inputs, outputs = training_graph(network, config)
        super().__init__(inputs=inputs, outputs=outputs, name="mask_rcnn_training")
        self.synchronise_batch_norm()
        self.loss_weights = dict(config.LOSS_WEIGHTS)
        self.rpn_options = {"beta": config.RPN_BBOX_LOSS_BETA, "average": config.BBOX_LOSS_AVERAGE}
        self.box_options = {"beta": config.BBOX_LOSS_BETA, "average": config.BBOX_LOSS_AVERAGE}
        self.head = network.head
        self.loss_names = [*LOSS_NAMES[:-1], *(network.head.loss_names if network.head else ())]
        self.loss_means = [keras.metrics.Mean(name=name) for name in self.loss_names]
        self.image_ids = self.add_weight(
            shape=(config.BATCH_SIZE,), dtype="int32", trainable=False, initializer="zeros", name="image_ids"
        )

    def losses_of(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """The five losses by name, unweighted, of the training graph's outputs; a replica's share of them."""
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
        """Those of the mask head; none without one."""
        if self.head is None:
            return {}
        if self.head.is_plain:
            return {"mrcnn_mask_loss": losses.mrcnn_mask_loss(*(outputs[name] for name in MASK_OUTPUTS))}
        pairs = self.head.loss(outputs["head"], head_targets(self.head, outputs))
        return {name: part / ops.maximum(total(count), 1.0) for name, (part, count) in pairs.items()}

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        values = self.losses_of(y_pred)
        share = sum(self.loss_weights.get(name, 1.0) * values[name] for name in self.loss_names)
        loss, total, values, image_ids = whole_batch(share, values, y_pred["image_id"])
        for mean, name in zip(self.loss_means, self.loss_names, strict=True):
            mean.update_state(values[name])
        self.image_ids.assign(ops.where(ops.isfinite(total), ops.convert_to_tensor(self.image_ids), image_ids))
        return loss

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [*super().metrics, *self.loss_means]


def compile_model(
    model: TrainingModel,
    config: Config,
    *,
    learning_rate: float,
    momentum: float,
    total_steps: int,
    first_step: int = 0,
) -> None:
    """Gives the model its optimizer, whose schedule goes on at `first_step`."""
    schedule = Schedule(
        learning_rate,
        total_steps,
        kind=config.LR_SCHEDULE,
        warmup_steps=config.WARMUP_STEPS,
        warmup_factor=config.WARMUP_FACTOR,
        milestones=config.LR_STEPS,
    )
    optimizer = SGD(schedule, momentum, l2=config.WEIGHT_DECAY, global_clipnorm=config.GRADIENT_CLIP_NORM)
    optimizer.build(model.trainable_variables)
    optimizer.iterations.assign(first_step)
    model.compile(optimizer=optimizer)


def warn_of_long_warm_up(warm_up: int, steps: int) -> None:
    """Warns, at the line that called `train`, where a training of so many steps ends within its warm-up."""
    if warm_up >= steps:
        warnings.warn(
            f"the warm-up of WARMUP_STEPS = {warm_up} is not over after the {steps} steps of this training, "
            "so that its learning rate stays low; set it lower",
            stacklevel=3,
        )


def set_trainable(network: Network, layers: str, *, train_bn: bool) -> list[str]:
    """Chooses which layers learn, and returns their names.

    Args:
        layers: "heads" (all but the backbone), "3+", "4+", "5+" (the heads and the backbone from that stage on),
            "all", or a regular expression matched against whole layer names, as in the old package. A layer of the
            mask head is called `mrcnn_mask/<its name>`.
        train_bn: whether the trunk's BatchNorm may learn; that of the heads always does.

    Raises ValueError when nothing matches, naming some of the layers there are, or for a broken expression.
    """
    try:
        re.compile(layers)
    except re.error as error:
        raise ValueError(
            f"layers={layers!r} is neither one of {list(PRESETS)} nor a regular expression: {error}."
        ) from error
    chosen, seen = [], []
    for key, layer in network.layers().items():
        part, name = key.split("/", 1)
        name = f"mrcnn_mask/{name}" if part == "mask_head" else name
        frozen = part == "trunk" and not train_bn and isinstance(layer, keras.layers.BatchNormalization)
        stage = network.backbone.stages.get(layer.name) if part == "trunk" else None  # heads may use the same names
        stage = 5 if part == "roi_stage" else stage
        layer.trainable = _is_chosen(layers, name, stage) and not frozen
        seen.append(name)
        if layer.trainable:
            chosen.append(name)
    if not chosen:
        raise ValueError(
            f"layers={layers!r} matches no layer. Use one of {list(PRESETS)} or a regular expression for "
            f"whole names such as {', '.join(seen[:2] + seen[-4:])}."
        )
    return chosen


def _is_chosen(layers: str, name: str, stage: int | None) -> bool:
    """Whether a layer learns; `stage` is that of a backbone's layer, None for every other."""
    if layers not in PRESETS:
        return re.fullmatch(layers, name) is not None
    return re.fullmatch(HEADS, name) is not None if stage is None else stage >= PRESETS[layers]
