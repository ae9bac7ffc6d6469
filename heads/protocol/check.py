"""What `heads.build` checks: the shapes that a head declares, and the numbers that it gives for random inputs."""

import difflib
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import keras
from keras import ops

from heads.protocol.head import INPUTS, Head
from heads.protocol.points import cell_centers
from heads.protocol.targets import Targets

ROIS, IMAGES = 3, 2  # of a trial
LOUD = 30.0  # deviation of the features of a trial: outputs without a sigmoid leave 0..1


def check_counts(name: str, **counts: tuple[Any, int]) -> None:
    """Raises ValueError for an option of a head that is no integer or too small: check_counts("fcn", units=(u, 1))."""
    for option, (value, least) in counts.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"{option} of the {name} head must be an integer of {least} or more, received {value!r}")


def check_inputs(name: str, head: Head) -> None:
    """Raises ValueError for inputs that do not exist, and NotImplementedError without `call`, before assembly."""
    if type(head).call is Head.call:
        raise NotImplementedError(f"head {name!r} has no `call`; write it, as in the docstring of heads.Head")
    for training in (True, False):
        for given in head.needs(training):
            if given not in INPUTS:
                close = difflib.get_close_matches(given, INPUTS, n=1)
                raise ValueError(
                    f"{head.kind} head {name!r} takes an input {given!r}; the parameters of `call` and `infer` name "
                    f"inputs, which are {list(INPUTS)}" + (f"; did you mean {close[0]!r}?" if close else "")
                )
            if given == "fine" and (not isinstance(head.fine_size, int) or head.fine_size < 1):
                raise ValueError(
                    f"{head.kind} head {name!r} takes `fine`, so it must set fine_size, the cells per side of that "
                    f"input, to a positive integer; it is {head.fine_size!r}"
                )


def check_head(name: str, head: Head) -> None:
    """Checks an assembled head, and notes the names of its losses in it.

    Raises ValueError or TypeError for a head that breaks the protocol, saying how to fix it.
    """
    called = f"{head.kind} head {name!r}"
    if head.is_plain:
        masks = head.model(_normal(ROIS, head.input_shape, LOUD), training=False)
        _check_range(called, masks, "sigmoid")
        return
    for training, model in ((True, head.model), (False, head.inference)):
        _check_declared(called, head, model, "call" if training else "infer")
    _check_weights(called, head)
    for training, model in ((True, head.model), (False, head.inference)):
        inputs = trial_inputs(head, training, deviation=LOUD)
        outputs = model(inputs, training=False)
        if head.kind == "mask":
            _check_range(called, outputs["masks"], head.activation)
        if training:
            head.loss_names = _check_loss(called, head, outputs)
        elif head.rescores:
            scores = head.rescore(outputs, ops.full((ROIS,), 0.5), _class_ids(head))
            if tuple(scores.shape) != (ROIS,) or not _finite(scores):
                raise ValueError(
                    f"{called}: rescore must give a finite score per RoI, [{ROIS}]; it gave {tuple(scores.shape)}"
                )


def trial_inputs(head: Head, training: bool, rois: int = ROIS, deviation: float = 1.0) -> dict[str, Any]:
    """Random values for the inputs of a head, for RoIs on two images of 128 pixels.

    Args:
        deviation: of the features.
    """
    channels = head.channels
    side = 128
    corners = ops.reshape(keras.random.uniform((rois * 4,), 0.0, side / 2, seed=1), (rois, 4))
    boxes = ops.concatenate([corners[:, :2], corners[:, :2] + 8.0 + corners[:, 2:]], axis=-1)
    makers = {
        "features": lambda: _normal(rois, head.input_shape, deviation),
        "fine": lambda: _normal(rois, (head.fine_size, head.fine_size, channels), deviation),
        "pyramid": lambda: [_normal(IMAGES, (-(-side // s), -(-side // s), channels), deviation) for s in head.strides],
        "boxes": lambda: boxes,
        "class_ids": lambda: _class_ids(head, rois),
        "image_index": lambda: ops.arange(rois, dtype="int32") % IMAGES,
        "seed": lambda: ops.arange(rois, dtype="int32"),
    }
    return {name: makers[name]() for name in head.needs(training)}


def trial_targets(channels: int = 1, **rois: Any) -> Targets:
    """Ground truth for RoIs on the images of `trial_inputs`: one disc per image, with keypoints inside its box.

    Args:
        channels: of the head's output, which is the number of keypoints of a keypoint head.
        rois: class_ids, weight, boxes and image_index of `heads.Targets`.
    """
    places = keras.random.uniform((IMAGES, 1, channels, 2), 12.0, 64.0, seed=2)
    distance = ops.sum(ops.square(cell_centers(28) - 0.5), axis=-1)
    disc = ops.reshape(ops.cast(distance < 0.16, "uint8") * 255, (1, 1, 28, 28))
    return Targets(
        **rois,
        instance=ops.zeros_like(rois["image_index"]),
        gt_boxes=ops.convert_to_tensor([[[10.0, 8.0, 80.0, 70.0]]] * IMAGES),
        gt_masks=ops.tile(disc, (IMAGES, 1, 1, 1)),
        gt_keypoints=ops.concatenate([places, 2.0 * ops.ones_like(places[..., :1])], axis=-1),
    )


def _class_ids(head: Head, rois: int = ROIS) -> Any:
    return ops.zeros((rois,), "int32") + min(1, head.num_classes - 1)


def _normal(count: int, shape: Sequence[int | None], deviation: float) -> Any:
    # With a seed of its own: no other random number changes by it
    values = deviation * keras.random.normal((count, *shape), seed=0)
    return ops.cast(values, keras.config.dtype_policy().compute_dtype)


def _check_declared(called: str, head: Head, model: keras.Model, method: str) -> None:
    """The required output of `call` or `infer`, as declared."""
    outputs = model.output
    if head.output not in outputs:
        raise ValueError(f"{called}: {method} must return the output {head.output!r}; it returned {sorted(outputs)}")
    shape = tuple(outputs[head.output].shape)
    if len(shape) != 4 or shape[1] is None or shape[1] != shape[2]:
        raise ValueError(
            f"{called}: {method} must give square {head.output} [R, m, m, channels] of a known size m, they are {shape}"
        )
    allowed = (1, head.num_classes) if head.kind == "mask" else (head.num_classes,)
    if shape[3] not in allowed:
        raise ValueError(
            f"{called}: {head.output} of {method} must have {' or '.join(map(str, dict.fromkeys(allowed)))} channels "
            f"(one for the RoI's own class, or one per class), they are {shape}"
        )
    dtype = keras.backend.standardize_dtype(outputs[head.output].dtype)
    if dtype != "float32":
        raise ValueError(
            f"{called}: {head.output} of {method} must be float32, they are {dtype}; "
            'give the last layer dtype="float32"'
        )
    if head.activation not in ("sigmoid", "softmax"):
        raise ValueError(f'{called}: activation is "sigmoid" or "softmax", it is {head.activation!r}')
    if head.activation == "softmax" and shape[3] != head.num_classes:
        raise ValueError(f"{called}: a softmax needs a channel per class, {head.num_classes}, its masks are {shape}")


def _check_weights(called: str, head: Head) -> None:
    known = {id(weight) for weight in head.model.weights}
    alone = [weight.path for weight in head.inference.weights if id(weight) not in known]
    if alone:
        raise ValueError(
            f"{called}: infer has weights that call has not, {alone[:3]}, so that they would not be trained or saved; "
            "make its layers in __init__ and use the same ones in call"
        )


def _check_range(called: str, masks: Any, activation: str) -> None:
    low, high = float(ops.min(masks)), float(ops.max(masks))
    if not (low >= 0.0 and high <= 1.0):  # NaN is neither
        raise ValueError(
            f"{called} must give probabilities, 0 to 1; for random features its masks are from {low:.3g} to "
            f'{high:.3g}. End it with a sigmoid, as in layers.Conv2D(channels, 1, activation="sigmoid")'
        )
    if activation == "softmax":
        sums = ops.sum(masks, axis=-1)
        worst = float(ops.max(ops.abs(sums - 1.0)))
        if worst > 1e-3:
            raise ValueError(
                f"{called} has activation = 'softmax', but its channels do not add up to 1 (off by {worst:.3g}); end "
                'it with activation="softmax"'
            )


def _targets(head: Head) -> Targets:
    """Ground truth for the RoIs of a trial, of which the last is padding."""
    return trial_targets(
        head.num_classes,
        class_ids=_class_ids(head),
        weight=ops.convert_to_tensor([1.0] * (ROIS - 1) + [0.0]),
        boxes=ops.convert_to_tensor([[8.0, 8.0, 72.0, 64.0]] * ROIS),
        image_index=ops.arange(ROIS, dtype="int32") % IMAGES,
    )


def _check_loss(called: str, head: Head, outputs: Any) -> list[str]:
    values: Any = head.loss(outputs, _targets(head))  # a user's method may return anything
    if not isinstance(values, Mapping) or not values:
        raise TypeError(
            f"{called}: loss must return a dict of (sum, count) pairs by the names of the losses, as "
            f'{{"edge_loss": targets.total(values)}}; it returned {type(values).__name__}'
        )
    for name, pair in dict[Any, Any](values).items():
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"{called}: the name of a loss is a column of the log, such as 'edge_loss', not {name!r}")
        if not isinstance(pair, tuple | list) or len(pair) != 2 or any(ops.ndim(part) for part in pair):
            raise ValueError(
                f"{called}: loss {name!r} must be a pair of scalars (sum, count), which targets.total makes of a value "
                f"per RoI; it is {pair!r}"
            )
        if not all(map(_finite, pair)):
            raise ValueError(f"{called}: loss {name!r} is {[float(part) for part in pair]} for random inputs")
    return list(values)


def _finite(value: Any) -> bool:
    return bool(ops.all(ops.isfinite(ops.cast(value, "float32"))))
