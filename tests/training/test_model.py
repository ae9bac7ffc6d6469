"""The model that fit trains: its losses, what learns and what does not, gradients where there is little to learn."""

import dataclasses

import keras
import numpy as np
import pytest

import heads
from mrcnn.config import LOSS_NAMES
from mrcnn.data.loader import Loader
from mrcnn.network.graph import build_network
from mrcnn.network.pixels import PixelScaling
from mrcnn.training.model import TrainingModel, compile_model, set_trainable
from tests.tiny import TinyConfig, TinyDataset

pytestmark = pytest.mark.slow

SCALING = PixelScaling((127.5,) * 3, (127.5,) * 3)
BACKBONE = [f"{kind}{stage}" for stage in range(1, 6) for kind in ("res", "bn")]
FPN = [f"fpn_c{i}p{i}" for i in (2, 3, 4, 5)] + [f"fpn_p{i}" for i in (2, 3, 4, 5)]
HEADS = FPN + [
    "rpn_conv_shared",
    "rpn_class_raw",
    "rpn_bbox_pred",
    "mrcnn_fc1",
    "mrcnn_fc2",
    "mrcnn_class_logits",
    "mrcnn_bbox_fc",
    "mrcnn_mask/conv1",
    "mrcnn_mask/deconv",
    "mrcnn_mask/masks",
]


class Training:
    """A network with its training model."""

    def __init__(self, **settings):
        self.config = TinyConfig(ALLOW_EMPTY_IMAGES=True, **settings)
        self.network = build_network(self.config)
        self.model = TrainingModel(self.network, self.config)

    def prepare(self, layers="all", **options):
        """Compiled to run without being traced: a single step is quicker so."""
        set_trainable(self.network, layers, train_bn=self.config.TRAIN_BN)
        options = {"learning_rate": 0.05, "total_steps": 10, **options}
        compile_model(self.model, self.config, **options)
        self.model.run_eagerly = True

    def weights(self):
        return {
            f"{key}/{weight.name}": np.array(weight)
            for key, layer in self.network.layers().items()
            for weight in layer.weights
        }

    def changed_by(self, *batches):
        """Names of the weights that steps on these batches change."""
        before = self.weights()
        for batch in batches:
            self.model.train_on_batch(batch)
        return {name for name, value in self.weights().items() if not np.array_equal(value, before[name])}


def batch_of(config, **dataset):
    return Loader(TinyDataset(2, **dataset), config, scaling=SCALING, training=False).assemble_batch(0, 0)


@pytest.fixture(scope="module")
def training():
    return Training()


@pytest.fixture(scope="module")
def network(training):
    return training.network


@pytest.fixture(scope="module")
def thawed():
    """A network whose trunk may learn its BatchNorm."""
    return build_network(TinyConfig(TRAIN_BN=True))


@pytest.fixture(scope="module")
def model(training):
    return training.model


@pytest.fixture(scope="module")
def batch(training):
    return batch_of(training.config)


# Losses


def test_the_loss_is_the_weighted_sum_of_five_that_are_reported_by_name(training, model, batch):
    training.prepare(learning_rate=0.0)
    model.loss_weights = dict(zip(LOSS_NAMES, (1.0, 2.0, 0.0, 0.5, 3.0), strict=True))
    logs = model.train_on_batch(batch, return_dict=True)
    model.loss_weights = dict(training.config.LOSS_WEIGHTS)
    assert set(logs) == {"loss", *LOSS_NAMES}
    expected = sum(weight * float(logs[name]) for name, weight in zip(LOSS_NAMES, (1, 2, 0, 0.5, 3), strict=True))
    assert float(logs["loss"]) == pytest.approx(expected, rel=1e-5)
    assert all(float(logs[name]) > 0 for name in LOSS_NAMES)
    values = model.losses_of(model(batch))
    assert float(values["rpn_class_loss"]) == pytest.approx(float(logs["rpn_class_loss"]), rel=1e-4)


def test_losses_that_a_head_adds_itself_count_and_are_logged(monkeypatch):
    """Two regularizers, 0.5 w^2 of a kernel of 8 * 3 ones (12) and 2 |b| of 3 ones (6), and a layer's own loss of 7."""

    class Adds(keras.layers.Layer):
        def call(self, inputs):
            self.add_loss(keras.ops.convert_to_tensor(7.0))
            return inputs

    def adding(input_shape, num_classes):
        features = keras.Input(input_shape)
        x = keras.layers.Conv2D(
            num_classes,
            1,
            activation="sigmoid",
            kernel_initializer="ones",
            bias_initializer="ones",
            kernel_regularizer=keras.regularizers.L2(0.5),
            bias_regularizer=keras.regularizers.L1(2.0),
            dtype="float32",
        )(Adds()(keras.layers.UpSampling2D(2)(features)))
        return keras.Model(features, x, name="mask_head")

    monkeypatch.setattr(heads.registry, "_heads", dict(heads.registry._heads))
    heads.register("adding")(adding)
    training = Training(MASK_HEAD="adding", TOP_DOWN_PYRAMID_SIZE=8)
    training.prepare(learning_rate=0.0)
    for logs in (
        training.model.train_on_batch(batch_of(training.config), return_dict=True),
        training.model.test_on_batch(batch_of(training.config), return_dict=True),
    ):
        assert float(logs["regularization_loss"]) == pytest.approx(18.0)
        assert float(logs["added_loss"]) == pytest.approx(7.0)
        assert float(logs["loss"]) == pytest.approx(25.0 + sum(float(logs[name]) for name in LOSS_NAMES), rel=1e-5)


def test_a_regularizer_pulls_at_its_weight(monkeypatch):
    """One step at a rate of 0.1 with L2 of 0.5 and no other gradient takes a tenth of it."""

    def pulled(input_shape, num_classes):
        features = keras.Input(input_shape)
        x = keras.layers.Conv2D(
            num_classes, 1, activation="sigmoid", kernel_regularizer=keras.regularizers.L2(0.5), dtype="float32"
        )(keras.layers.UpSampling2D(2)(features))
        return keras.Model(features, x, name="mask_head")

    monkeypatch.setattr(heads.registry, "_heads", dict(heads.registry._heads))
    heads.register("pulled")(pulled)
    training = Training(
        MASK_HEAD="pulled", WEIGHT_DECAY=0.0, GRADIENT_CLIP_NORM=None, LOSS_WEIGHTS=dict.fromkeys(LOSS_NAMES, 0.0)
    )
    training.prepare(learning_rate=0.1)
    name = next(name for name in training.weights() if name.startswith("mask_head/") and name.endswith("/kernel"))
    before = training.weights()[name]
    training.model.train_on_batch(batch_of(training.config))
    np.testing.assert_allclose(training.weights()[name], 0.9 * before, rtol=1e-5)


def test_the_first_losses_are_those_of_a_guess(training, model, batch):
    """Small first weights: half for an object, a third for each of three classes, half for a pixel of a mask."""
    values = {name: float(value) for name, value in model.losses_of(model(batch)).items()}
    assert values["rpn_class_loss"] == pytest.approx(np.log(2), rel=0.1)
    assert values["mrcnn_class_loss"] == pytest.approx(np.log(3), rel=0.1)
    assert values["mrcnn_mask_loss"] == pytest.approx(np.log(2), rel=0.4)


def test_the_losses_do_not_depend_on_the_padding(training, model):
    """What the network makes of the padding is neither learned nor drawn. The images have the padding's value at their
    edges, as features would otherwise see whether zeros follow or nothing."""
    batch = batch_of(training.config)
    batch["window"] = np.array([[0, 0, 250, 225], [0, 0, 200, 256]], np.float32)
    losses = []
    for below, right in ((192, 192), (224, 192), (320, 448)):
        padded = {**batch, "image": np.pad(batch["image"], ((0, 0), (0, below), (0, right), (0, 0)))}
        losses.append({name: float(value) for name, value in model.losses_of(model(padded)).items()})
    for name in LOSS_NAMES:
        assert losses[0][name] > 0
        for other in losses[1:]:
            assert other[name] == pytest.approx(losses[0][name], rel=1e-5), name


def test_validation_reports_the_same_losses(training, model, batch):
    training.prepare()
    logs = model.test_on_batch(batch, return_dict=True)
    assert set(logs) == {"loss", *LOSS_NAMES}


def test_settings_reach_the_losses():
    config = TinyConfig(
        RPN_BBOX_LOSS_BETA=0.5,
        BBOX_LOSS_BETA=0.0,
        BBOX_LOSS_AVERAGE="positives",
        LOSS_WEIGHTS=dict.fromkeys(LOSS_NAMES, 2.0),
    )
    model = TrainingModel(build_network(config), config)
    assert model.rpn_options == {"beta": 0.5, "average": "positives"}
    assert model.box_options == {"beta": 0.0, "average": "positives"}
    assert set(model.loss_weights.values()) == {2.0}


# What learns


@pytest.mark.parametrize("layers, first_stage", [("heads", 6), ("5+", 5), ("4+", 4), ("3+", 3), ("all", 1)])
def test_presets_train_the_heads_and_the_backbone_from_a_stage_on(thawed, layers, first_stage):
    chosen = set_trainable(thawed, layers, train_bn=True)
    assert set(chosen) == {*HEADS, *(name for name in BACKBONE if int(name[-1]) >= first_stage)}
    assert len(chosen) == len(set(chosen))


def test_a_head_learns_whole_where_its_layers_are_called_as_the_backbone_s():
    """MobileNet's first convolution is called conv1, and so is the fcn head's."""
    network = build_network(TinyConfig(BACKBONE="mobilenet", BACKBONE_OPTIONS={"alpha": 0.25}))
    assert network.backbone.stages["conv1"] == 1
    for layers in ("heads", "5+"):
        chosen = set_trainable(network, layers, train_bn=False)
        assert {"mrcnn_mask/conv1", "mrcnn_mask/deconv", "mrcnn_mask/masks"} <= set(chosen)
        assert "conv1" not in chosen
    assert {"conv1", "mrcnn_mask/conv1"} <= set(set_trainable(network, "all", train_bn=False))


@pytest.mark.parametrize("layers", ["all", "3+", "bn.*|fpn_p2"])
def test_the_trunk_s_batch_norm_learns_only_if_the_settings_say_so(thawed, layers):
    assert not {name for name in set_trainable(thawed, layers, train_bn=False) if name.startswith("bn")}
    assert {"bn3", "bn4", "bn5"} <= set(set_trainable(thawed, layers, train_bn=True))


@pytest.mark.parametrize(
    "layers, expected",
    [
        (r"mrcnn_mask.*", {"mrcnn_mask/conv1", "mrcnn_mask/deconv", "mrcnn_mask/masks"}),
        (r"res5|rpn_class_raw", {"res5", "rpn_class_raw"}),
        (r"(fpn\_p.*)|(rpn\_bbox.*)", {"fpn_p2", "fpn_p3", "fpn_p4", "fpn_p5", "rpn_bbox_pred"}),
        (r".*", {*HEADS, *BACKBONE}),
    ],
)
def test_a_regular_expression_matches_whole_names(thawed, layers, expected):
    assert set(set_trainable(thawed, layers, train_bn=True)) == expected


@pytest.mark.parametrize("layers", ["head", "fpn", "4"])
def test_an_expression_that_matches_nothing_names_the_presets_and_some_layers(network, layers):
    with pytest.raises(
        ValueError,
        match=rf"layers='{layers}' matches no layer. Use one of \['heads', '5\+'.*"
        r"whole names such as res1, .*mrcnn_mask/masks",
    ):
        set_trainable(network, layers, train_bn=False)


def test_a_broken_expression_is_named(network):
    with pytest.raises(ValueError, match=r"layers='\(fpn' is neither .* nor a valid regular expression: missing \)"):
        set_trainable(network, "(fpn", train_bn=False)


def test_a_resnet_s_stages_go_by_its_names(network):
    from mrcnn.network.backbone import Backbone
    from mrcnn.network.resnet import resnet, stage_of

    backbone = resnet("resnet50", width=2)
    stages = {layer.name: stage_of(layer.name) for layer in backbone.layers}
    network = dataclasses.replace(network, trunk=backbone, backbone=Backbone(backbone, stages, SCALING))
    chosen = set_trainable(network, "4+", train_bn=True)
    of_backbone = {name for name in chosen if name.startswith(("res", "bn", "conv1"))}
    assert {name[:4] for name in of_backbone if name.startswith("res")} == {"res4", "res5"}
    assert {name[:3] for name in of_backbone if name.startswith("bn")} == {"bn4", "bn5"}
    assert "conv1" in set_trainable(network, "all", train_bn=True)


def test_only_chosen_layers_change(training, model, batch):
    training.prepare("heads")
    names = {name.rsplit("/", 1)[0].split("/")[-1] for name in training.changed_by(batch)}
    assert {"fpn_p2", "rpn_class_raw", "mrcnn_fc1", "mrcnn_class_logits", "masks"} <= names
    assert not {name for name in names if name.startswith(("res", "bn"))}


def test_frozen_batch_norm_stays_to_the_last_bit_while_all_else_trains(training, model, batch):
    training.prepare("all")
    names = training.changed_by(batch, batch)
    assert not {name for name in names if "/bn" in name}
    assert {f"trunk/res{stage}/kernel" for stage in range(1, 6)} <= names


def test_batch_norm_of_a_head_learns_and_so_does_the_trunk_s_when_asked():
    for train_bn in (True, False):
        training = Training(
            TRAIN_BN=train_bn, MASK_HEAD={"name": "fcn", "filters": 16, "convolutions": 1, "normalization": "batch"}
        )
        training.prepare("all")
        names = training.changed_by(batch_of(training.config))
        weights = ("gamma", "beta", "moving_mean", "moving_variance")
        assert {f"mask_head/norm1/{name}" for name in weights} <= names
        assert ({f"trunk/bn2/{name}" for name in weights} <= names) == train_bn


def test_a_step_goes_down_the_gradient(training, model, batch):
    """The same batch, whose draw is fixed by its seed, costs less after a few small steps."""
    training.prepare("all", learning_rate=0.02)
    first = float(model.train_on_batch(batch, return_dict=True)["loss"])
    for _ in range(3):
        model.reset_metrics()
        last = float(model.train_on_batch(batch, return_dict=True)["loss"])
    assert last < first


def test_the_schedule_goes_on_where_it_should():
    config = TinyConfig(LR_SCHEDULE="step", WARMUP_STEPS=10, WARMUP_FACTOR=0.5, LEARNING_MOMENTUM=0.8)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    compile_model(model, config, learning_rate=1.0, total_steps=100, first_step=70)
    optimizer = model.optimizer
    assert int(np.asarray(optimizer.iterations)) == 70
    assert float(np.asarray(optimizer.learning_rate)) == pytest.approx(0.1)
    assert (optimizer.l2, optimizer.momentum) == (config.WEIGHT_DECAY, 0.8)
    assert (optimizer.global_clipnorm, optimizer.clipnorm) == (config.GRADIENT_CLIP_NORM, None)
    optimizer.iterations.assign(0)
    assert float(np.asarray(optimizer.learning_rate)) == pytest.approx(0.5)


# Little to learn from


@pytest.mark.parametrize("dataset", [{"empty": (0, 1)}, {"empty": (0,)}, {"crowds": (0, 1)}])
def test_gradients_are_finite_without_objects_and_with_crowds(training, model, network, dataset):
    import tensorflow as tf

    set_trainable(network, "all", train_bn=False)
    batch = batch_of(training.config, **dataset)
    with tf.GradientTape() as tape:
        values = model.losses_of(model(batch, training=True))
        total = sum(values.values())
    gradients = tape.gradient(total, [variable.value for variable in model.trainable_variables])
    assert np.isfinite(float(total))
    assert all(np.isfinite(tf.convert_to_tensor(gradient)).all() for gradient in gradients if gradient is not None)
    if not (batch["gt_class_ids"] > 0).any():
        assert [float(values[name]) for name in ("rpn_bbox_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss")] == [0, 0, 0]
        assert float(values["rpn_class_loss"]) > 0 and float(values["mrcnn_class_loss"]) > 0, "background is learnt"


def test_a_step_on_padding_only_is_finite(training, model, batch):
    padding = {name: np.zeros_like(value) for name, value in batch.items()}
    padding["active_classes"] += 1
    values = model.losses_of(model(padding, training=True))
    assert all(np.isfinite(float(value)) for value in values.values())


def test_the_images_of_the_last_loss_that_was_not_finite_are_kept(training, model, batch):
    training.prepare(learning_rate=0.0)
    model.image_ids.assign([7, 7])
    model.train_on_batch(batch)
    np.testing.assert_array_equal(model.image_ids, [7, 7])
    model.loss_weights["mrcnn_mask_loss"] = float("nan")
    model.train_on_batch({**batch, "image_id": np.array([3, 4], np.int32)})
    model.loss_weights = dict(training.config.LOSS_WEIGHTS)
    np.testing.assert_array_equal(model.image_ids, [3, 4])


# bfloat16


def test_a_step_in_bfloat16(batch):
    training = Training(PRECISION="bfloat16")
    training.prepare()
    before = training.weights()
    logs = training.model.train_on_batch(batch, return_dict=True)
    assert all(np.isfinite(float(value)) for value in logs.values())
    after = training.weights()
    for name in ("trunk/res1/kernel", "rpn/rpn_class_raw/kernel", "mask_head/masks/kernel"):
        assert not np.array_equal(before[name], after[name])
    assert {value.dtype.name for value in after.values()} == {"float32"}
    assert all(np.isfinite(value).all() for value in after.values())
    assert keras.config.dtype_policy().name == "float32"
