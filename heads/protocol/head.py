"""Head: the class behind every head, for those that a function from features to masks cannot express."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from heads.protocol import losses
from heads.protocol.costs import multiply_adds
from heads.protocol.targets import Targets

INPUTS = ("features", "fine", "pyramid", "boxes", "class_ids", "image_index", "seed")
MASK_LOSS = "mrcnn_mask_loss"

Pair = tuple[Any, Any]


class Head:
    """A head with named inputs and outputs, and optionally its own loss, targets and inference.

    Derive from it, register the class, and write `call`; everything else is optional::

        @heads.register("edges")
        class Edges(heads.Head):
            fine_size = 28

            def call(self, features, fine):
                ...
                return {"masks": masks, "edges": edges}

            def loss(self, outputs, targets):
                edges = heads.cross_entropy(targets.boundary(28), outputs["edges"])
                return super().loss(outputs, targets) | {"edge_loss": targets.total(edges)}

    The names of the parameters of `call` and `infer` say which inputs the head gets. R is the number of RoIs of all
    images together, C the number of channels of the feature maps, `channels`:

        features: [R, *input_shape], RoIAlign on the pyramid level that suits each RoI.
        fine: [R, fine_size, fine_size, C], RoIAlign on the finest level.
        pyramid: list of the levels that RoIs are pooled from, finest first, [B, H_l, W_l, C]; `strides` has the pixels
            between their cells.
        boxes: [R, (y1, x1, y2, x2)] float32, in pixels of the network input.
        class_ids: [R] int32, the class of each RoI, from 1 on; 0 where a row is padding.
        image_index: [R] int32, the image of each RoI in the batch.
        seed: [R] int32, the same for the same RoI in every run; see `heads.uniform`.

    `call` and `infer` are called once, with symbolic tensors, and make functional models of what they return: a tensor,
    which is `masks`, or a dict of tensors by name. Operations on tensors of unknown size belong into a Keras layer.

    Outputs: `masks` [R, m, m, channels] float32 is required of heads of kind "mask". One channel is the RoI's own
    class; `num_classes` channels are one per class, background first. All other names are the head's own.

    A keypoint head is a `Head` with `kind = "keypoints"`: it gives `keypoints` [R, m, m, num_classes] float32 heatmaps
    (`num_classes` is then the number of keypoints), and has its own `loss` on `targets.keypoints(m)`.

    Attributes (set them in the class or in `__init__`):
        kind: "mask" or "keypoints", and with it the name of the required output.
        activation: of the masks: "sigmoid", or "softmax" over the channels, which decides the default loss.
        fine_size: cells per side of the input `fine`.
        source_masks: make targets from masks of the network input's size, not from crops of MINI_MASK_SHAPE.
        train_on_predicted_boxes: train on the boxes that the box head predicts, as in inference, not on proposals.
        class_layers: the names of layers whose weights depend on num_classes otherwise than by an equal number of
            outputs for each class, class after class and background first. A model for other classes trains them anew.
        weight_names: program ("detectron2") to what its files call this head's layers; see `heads.protocol.names`.
        input_shape, num_classes: as given to `heads.build`. strides, channels: of the feature maps.
        model: the functional model of `call`, which holds all weights. inference: that of `infer`.
        loss_names: the names of the losses, found by `heads.build`.
    """

    kind = "mask"
    activation = "sigmoid"
    fine_size: int | None = None
    source_masks = False
    train_on_predicted_boxes = False
    class_layers: Sequence[str] = ()
    weight_names: Mapping[str, Mapping[str, Any]] = {}
    strides: Sequence[int] = (4, 8, 16, 32)
    loss_names: Sequence[str] = (MASK_LOSS,)
    model: keras.Model
    inference: keras.Model

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int) -> None:
        """Override it to take options; call it first. Layers that `call` and `infer` share are made here."""
        self.input_shape, self.num_classes, self.channels = input_shape, num_classes, input_shape[-1]

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Named inputs to outputs, in training."""
        raise NotImplementedError(f"{type(self).__name__} has no `call`; write it, as in the docstring of heads.Head")

    def infer(self, *args: Any, **kwargs: Any) -> Any:
        """Named inputs to outputs, in inference, where that differs from `call`; it has the layers of `call`."""
        return self.call(*args, **kwargs)

    def loss(self, outputs: dict[str, Any], targets: Targets) -> dict[str, Pair]:
        """Each loss by its name as a pair of scalars (sum, count).

        A loss is its sum over the batch divided by its count over the batch, also where several devices share the
        batch. Rows of padding must add nothing: `targets.total` makes the pair of a value per RoI. Losses are added up
        with weight 1, or the weight of their name in LOSS_WEIGHTS.

        Default: the cross-entropy of the masks (He et al. 2017, section 3), at the size that the head gives them.
        """
        masks = outputs["masks"]
        truth = targets.at(masks.shape[1])
        if self.activation == "softmax":
            return {MASK_LOSS: targets.total(losses.softmax_cross_entropy(truth, masks, targets.class_ids))}
        return {MASK_LOSS: targets.total(losses.cross_entropy(truth, own_channel(masks, targets.class_ids)))}

    def rescore(self, outputs: dict[str, Any], scores: Any, class_ids: Any) -> Any:
        """Scores of the masks [R], which rank them in evaluation; the scores of the boxes stay as they are."""
        del outputs, class_ids
        return scores

    @classmethod
    def imported_options(cls, program: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        """The options with which a file's weights fit; none by default.

        Args:
            program: a key of `weight_names`.
            shapes: of the weights in the file, by the names in `weight_names`, in the program's layout.
        """
        del program, shapes
        return {}

    # What the package asks

    @property
    def output(self) -> str:
        """The name of the required output."""
        return {"mask": "masks"}.get(self.kind, self.kind)

    @property
    def is_plain(self) -> bool:
        """Whether the head is one function from features to masks, so that faster equivalents of it may be used."""
        return False

    @property
    def mask_size(self) -> int:
        """Cells per side of the required output in inference."""
        return self.inference.output[self.output].shape[1]

    @property
    def multiply_adds(self) -> int:
        """Of inference, for each RoI; see `heads.protocol.costs`."""
        return multiply_adds(self.inference)

    @property
    def rescores(self) -> bool:
        """Whether masks have scores of their own."""
        return type(self).rescore is not Head.rescore

    @property
    def infers_apart(self) -> bool:
        """Whether inference differs from training."""
        return type(self).infer is not Head.infer

    def needs(self, training: bool) -> list[str]:
        """The names of the inputs of `call`, or of `infer`."""
        return parameters(self.call if training or not self.infers_apart else self.infer)

    def assemble(self) -> None:
        """Makes `model` and `inference`."""
        self.model = self.inference = self._functional(self.call, self.needs(True), f"{self.kind}_head")
        if self.infers_apart:
            self.inference = self._functional(self.infer, self.needs(False), f"{self.kind}_head_inference")
        name_layers(self.model)

    def _functional(self, function: Callable, names: Sequence[str], name: str) -> keras.Model:
        inputs = {key: self._symbol(key) for key in names}
        return keras.Model(inputs, self.named(function(**inputs)), name=name)

    def named(self, outputs: Any) -> dict[str, Any]:
        """What `call` or `infer` returned, as a dict."""
        return dict(outputs) if isinstance(outputs, Mapping) else {self.output: outputs}

    def _symbol(self, name: str) -> Any:
        """The symbolic input of a name."""
        channels = self.channels
        if name == "pyramid":
            return [keras.Input((None, None, channels), name=f"pyramid_{i}") for i in range(len(self.strides))]
        shape, dtype = {
            "features": (self.input_shape, None),
            "fine": ((self.fine_size, self.fine_size, channels), None),
            "boxes": ((4,), "float32"),
        }.get(name, ((), "int32"))
        return keras.Input(shape, dtype=dtype or keras.config.dtype_policy().compute_dtype, name=name)


class FunctionHead(Head):
    """A head that a function made: one model from features to masks."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(tuple(model.input_shape[1:]), model.output_shape[-1])
        self.made = self.model = self.inference = model

    @property
    def is_plain(self) -> bool:
        return True

    @property
    def mask_size(self) -> int:
        return self.made.output_shape[1]

    def call(self, features: Any) -> Any:
        return self.made.output if features is self.made.input else self.made(features)

    def assemble(self) -> None:
        """The model is the function's own."""

    def _symbol(self, name: str) -> Any:
        return self.made.input if name == "features" else super()._symbol(name)


class SoftmaxHead(FunctionHead):
    """The same, where the channels of the masks are a softmax over the classes."""

    activation = "softmax"

    @property
    def is_plain(self) -> bool:
        return False

    def assemble(self) -> None:
        Head.assemble(self)


def own_channel(masks: Any, class_ids: Any) -> Any:
    """[R, m, m, channels] -> [R, m, m] of each RoI's own class; a single channel is every class's own."""
    channels = masks.shape[-1]
    if channels == 1:
        return masks[..., 0]
    own = ops.one_hot(class_ids, channels, dtype=masks.dtype)
    return ops.sum(masks * own[:, None, None, :], axis=-1)


def parameters(function: Callable) -> list[str]:
    """The names of a function's parameters, without `self`."""
    return [name for name in inspect.signature(function).parameters if name != "self"]


def name_layers(model: keras.Model) -> None:
    """Renames layers that got an automatic name, which counts all layers ever made, by their place in the model.

    Checkpoints know layers by their names, which must be the same in every process.
    """
    automatic = {layer: stem for layer in model.layers if (stem := _automatic_stem(layer))}
    taken = {layer.name for layer in model.layers if layer not in automatic}
    for place, layer in enumerate(model.layers):
        if isinstance(layer, keras.Model):
            name_layers(layer)
        if layer in automatic:
            name = f"{automatic[layer]}_{place}"
            while name in taken:
                name += "_"
            taken.add(name)
            layer.name = name


def _automatic_stem(layer: keras.layers.Layer) -> str | None:
    """The type in the name that Keras gave a layer with weights, as "conv2d" of "conv2d_7"; None for other names."""
    stem = re.sub(r"_\d+$", "", layer.name)
    return stem if layer.weights and stem.replace("_", "") == type(layer).__name__.lower() else None
