"""PointRend: a coarse mask, refined at the points where it is least sure."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import layers, ops

from heads.protocol.head import MASK_LOSS, Head
from heads.protocol.losses import cross_entropy_of_logits
from heads.protocol.names import Imported
from heads.protocol.points import SampleGrid, SampleMap, bilinear, uniform
from heads.protocol.targets import Targets
from heads.registry import register


@register("pointrend")
class PointRend(Head):
    """A coarse mask from dense layers, and a small MLP that is asked again at points.

    Kirillov et al. 2020, and Detectron2's projects/PointRend, whose published weights it takes. The coarse head reads
    14x14 points of P2, halves them by a convolution, and gives a 7x7 mask by dense layers. The point head reads a
    point's features of P2 and its coarse logits, which also enter each of its layers. In training it learns at 196
    random points, three quarters of them where the coarse mask is least sure. In inference the mask grows from 28 to
    224 cells by doubling, and each time the 784 least sure cells are computed anew.

    Cost at 80 classes: 18.5 million parameters; 0.03 G multiply-adds per RoI for the coarse mask and 0.28 M per
    point, 3,136 of them at 224x224: 0.92 G in all, against 0.53 G of `fcn`. Use it where boundaries matter and objects
    are large; on objects of less than 28 pixels it has nothing to add.

    Args:
        coarse_size: cells per side of the coarse mask.
        convolution_filters: of the convolution that halves the features.
        fc_layers, fc_units: of the coarse head.
        point_layers, point_units: of the point head.
        train_points: points per RoI in training. oversample: candidates per point. importance: the fraction of points
            that are chosen from the candidates because they are least sure; the others are uniform.
        steps: doublings of the mask in inference. step_points: cells that are computed anew after each.

    Raises ValueError for features of an odd size.
    """

    train_on_predicted_boxes = True
    source_masks = True
    class_layers = ("coarse/logits", "points/fc1", "points/fc2", "points/fc3", "points/logits")
    weight_names = {
        "detectron2": {
            "coarse/reduce": "coarse_head.reduce_spatial_dim_conv",
            "coarse/fc1": Imported("coarse_head.fc1", inputs_side=7),
            "coarse/fc2": "coarse_head.fc2",
            "coarse/logits": Imported("coarse_head.prediction", outputs_side=7),
            "points/fc1": "point_head.fc1",
            "points/fc2": "point_head.fc2",
            "points/fc3": "point_head.fc3",
            "points/logits": "point_head.predictor",
        }
    }

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        *,
        coarse_size: int = 7,
        convolution_filters: int = 256,
        fc_layers: int = 2,
        fc_units: int = 1024,
        point_layers: int = 3,
        point_units: int = 256,
        train_points: int = 196,
        oversample: int = 3,
        importance: float = 0.75,
        steps: int = 5,
        step_points: int = 784,
    ) -> None:
        super().__init__(input_shape, num_classes)
        if input_shape[0] % 2 or input_shape[0] != input_shape[1]:
            raise ValueError(f"the pointrend head halves its square features: even sides, not {input_shape!r}")
        self.classes = max(num_classes - 1, 1)  # the background has no mask
        self.train_points, self.oversample, self.importance = train_points, oversample, importance
        self.steps, self.step_points, self.coarse_size = steps, step_points, coarse_size
        self.coarse = self._coarse_head(convolution_filters, fc_layers, fc_units)
        self.points = self._point_head(point_layers, point_units)

    def _coarse_head(self, filters: int, fc_layers: int, units: int) -> keras.Model:
        """Features [R, h, h, C] to logits [R, coarse_size, coarse_size, classes]."""
        features = keras.Input(self.input_shape, name="coarse_features")
        x = layers.Conv2D(filters, 2, strides=2, activation="relu", kernel_initializer="he_normal", name="reduce")(
            features
        )
        x = layers.Flatten(name="flatten")(x)
        for i in range(1, fc_layers + 1):
            x = layers.Dense(units, activation="relu", name=f"fc{i}")(x)
        size = self.coarse_size
        x = layers.Dense(size * size * self.classes, dtype="float32", name="logits")(x)
        return keras.Model(features, layers.Reshape((size, size, self.classes), name="grid")(x), name="coarse")

    def _point_head(self, point_layers: int, units: int) -> keras.Model:
        """Features [R, P, C] and coarse logits [R, P, classes] of points to their logits."""
        fine = keras.Input((None, self.input_shape[-1]), name="fine_features")
        coarse = keras.Input((None, self.classes), name="coarse_logits")
        x = layers.Concatenate(name="inputs")([fine, coarse])
        for i in range(1, point_layers + 1):
            x = layers.Dense(units, activation="relu", kernel_initializer="he_normal", name=f"fc{i}")(x)
            x = layers.Concatenate(name=f"again{i}")([x, coarse])
        x = layers.Dense(self.classes, dtype="float32", name="logits")(x)
        return keras.Model([fine, coarse], x, name="points")

    @classmethod
    def imported_options(cls, program: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        sizes = {
            "convolution_filters": (shapes["coarse_head.reduce_spatial_dim_conv"][0], 256),
            "fc_units": (shapes["coarse_head.fc1"][0], 1024),
            "point_units": (shapes["point_head.fc1"][0], 256),
        }
        return {name: size for name, (size, usual) in sizes.items() if size != usual}

    def call(self, pyramid: Any, boxes: Any, class_ids: Any, image_index: Any, seed: Any) -> dict[str, Any]:
        coarse = self.coarse_logits(pyramid, boxes, image_index)
        own = own_logits(coarse, class_ids)
        choose = UncertainPoints(self.train_points, self.oversample, self.importance, name="uncertain_points")
        points = choose(own, seed)
        fine = self.sample(boxes, image_index, points=points)(pyramid)
        logits = self.points([fine, SampleGrid(name="coarse_at_points")(coarse, points)])
        return {"masks": ops.sigmoid(own), "points": points, "point_logits": own_logits(logits, class_ids)[..., 0]}

    def loss(self, outputs: dict[str, Any], targets: Targets) -> dict[str, tuple[Any, Any]]:
        truth = targets.at_points(outputs["points"])
        of_points = cross_entropy_of_logits(truth, outputs["point_logits"])
        return {MASK_LOSS: super().loss(outputs, targets)[MASK_LOSS], "mask_point_loss": targets.total(of_points)}

    def infer(self, pyramid: Any, boxes: Any, class_ids: Any, image_index: Any) -> Any:
        coarse = self.coarse_logits(pyramid, boxes, image_index)
        size, steps = self.coarse_size, self.steps
        while steps and 4 * size * size <= self.step_points:  # all cells of such a step would be computed anew
            size, steps = 2 * size, steps - 1
        fine = self.sample(boxes, image_index, side=size)(pyramid)
        at_cells = SampleGrid(side=size, name="coarse_at_cells")(coarse)
        logits = own_logits(self.points([fine, at_cells]), class_ids)
        logits = layers.Reshape((size, size, 1), dtype="float32", name="first_mask")(logits)
        for step in range(1, steps + 1):
            double = layers.UpSampling2D(2, interpolation="bilinear", dtype="float32", name=f"double{step}")
            logits = double(logits)
            cells, points = LeastSure(self.step_points, name=f"least_sure{step}")(logits)
            fine = self.sample(boxes, image_index, points=points)(pyramid)
            at_points = SampleGrid(name=f"coarse_at_points{step}")(coarse, points)
            anew = own_logits(self.points([fine, at_points]), class_ids)
            logits = PutCells(name=f"put{step}")(logits, cells, anew)
        return ops.sigmoid(logits)

    def coarse_logits(self, pyramid: Any, boxes: Any, image_index: Any) -> Any:
        """Of every class but the background, [R, coarse_size, coarse_size, classes]."""
        side, channels = self.input_shape[0], pyramid[0].shape[-1]
        if channels != self.input_shape[-1]:
            raise ValueError(
                f"the pointrend head reads the finest feature map, whose {channels} channels must be those of RoI "
                f"features; these are {self.input_shape!r}"
            )
        features = self.sample(boxes, image_index, side=side)(pyramid)
        return self.coarse(layers.Reshape(self.input_shape, name="coarse_grid")(features))

    def sample(self, boxes: Any, image_index: Any, points: Any = None, side: int | None = None) -> Any:
        """The function from the pyramid to features of P2 at points of boxes, or at centers of side x side cells."""
        layer = SampleMap(self.strides[0], side)
        return lambda pyramid: layer(pyramid[0], boxes, image_index, *([] if points is None else [points]))


def own_logits(logits: Any, class_ids: Any) -> Any:
    """[R, ..., classes] without the background -> [R, ..., 1] of each RoI's own class."""
    if logits.shape[-1] == 1:
        return logits
    own = ops.one_hot(class_ids - 1, logits.shape[-1], dtype="float32")
    own = ops.reshape(own, (-1, *[1] * (len(logits.shape) - 2), logits.shape[-1]))
    return ops.sum(logits * own, axis=-1, keepdims=True)


@keras.saving.register_keras_serializable("heads")
class UncertainPoints(layers.Layer):
    """Random points of each RoI, most of them where its mask is least sure (section 3.1 of the paper).

    call: (logits [R, m, m, 1], seed [R]) -> points [R, count, (y, x)] float32, fractions of the RoI's sides.
    """

    def __init__(self, count: int, oversample: int, importance: float, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.count, self.oversample, self.importance = count, oversample, importance

    def call(self, logits: Any, seed: Any) -> Any:
        chosen = int(self.importance * self.count)
        candidates = uniform(seed, (self.count * self.oversample, 2), salt=1)
        rows = ops.arange(ops.shape(logits)[0], dtype="int32")[:, None]
        sure = ops.abs(bilinear(ops.stop_gradient(logits), candidates * logits.shape[1], rows)[..., 0])
        places = ops.top_k(-sure, chosen)[1]
        points = ops.take_along_axis(candidates, ops.cast(places, "int32")[..., None], axis=1)
        return ops.stop_gradient(ops.concatenate([points, uniform(seed, (self.count - chosen, 2), salt=2)], axis=1))

    def compute_output_spec(self, logits: Any, seed: Any) -> Any:
        return keras.KerasTensor((logits.shape[0], self.count, 2), "float32")

    def get_config(self) -> dict[str, Any]:
        own = {"count": self.count, "oversample": self.oversample, "importance": self.importance}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("heads")
class LeastSure(layers.Layer):
    """The cells of a mask whose logits are nearest to zero.

    call: logits [R, m, m, 1] -> cells [R, P] int32, row by row, and their centers [R, P, (y, x)] float32 as fractions
        of the sides; P is `count`, or all cells where there are fewer.
    """

    def __init__(self, count: int, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.count = count

    def call(self, logits: Any) -> tuple[Any, Any]:
        size = logits.shape[1]
        sure = ops.abs(ops.reshape(logits, (-1, size * size)))
        cells = ops.cast(ops.top_k(-sure, min(self.count, size * size))[1], "int32")
        centers = ops.stack([cells // size, cells % size], axis=-1)
        return cells, (ops.cast(centers, "float32") + 0.5) / size

    def compute_output_spec(self, logits: Any) -> tuple[Any, Any]:
        shape = (logits.shape[0], min(self.count, logits.shape[1] * logits.shape[2]))
        return keras.KerasTensor(shape, "int32"), keras.KerasTensor((*shape, 2), "float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "count": self.count}


@keras.saving.register_keras_serializable("heads")
class PutCells(layers.Layer):
    """call: (masks [R, m, m, 1], cells [R, P] int32, values [R, P, 1]) -> masks with the values in these cells."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})

    def call(self, masks: Any, cells: Any, values: Any) -> Any:
        size = masks.shape[1]
        first = ops.arange(ops.shape(masks)[0], dtype="int32")[:, None] * (size * size)
        places = ops.reshape(first + cells, (-1, 1))
        flat = ops.scatter_update(ops.reshape(masks, (-1,)), places, ops.reshape(values, (-1,)))
        return ops.reshape(flat, (-1, size, size, 1))

    def compute_output_spec(self, masks: Any, cells: Any, values: Any) -> Any:
        return keras.KerasTensor(masks.shape, "float32")
