"""The wiring: parts that both graphs share, shapes, padding, and what comes of images with nothing on them."""

import keras
import numpy as np
import pytest

from mrcnn.data.loader import Loader
from mrcnn.fusion.folding import FoldedConvolution
from mrcnn.fusion.mask_channel import PickClass
from mrcnn.layers.anchors import pyramid_anchors
from mrcnn.network import graph
from mrcnn.network.graph import build_network, inference_graph
from mrcnn.network.pixels import PixelScaling
from mrcnn.network.precision import precision
from mrcnn.network.training_graph import training_graph
from mrcnn.ops.boxes import decode
from tests.tiny import SIDE, TinyConfig, TinyDataset

SCALING = PixelScaling((127.5,) * 3, (127.5,) * 3)


class Graphs:
    """A network with both graphs."""

    def __init__(self, config):
        self.config, self.network = config, build_network(config)
        inputs, outputs = training_graph(self.network, config)
        self.training, self.inference = keras.Model(inputs, outputs), inference_graph(self.network, config)

    def step(self, batch):
        return {name: np.asarray(value) for name, value in self.training(batch).items()}

    def detect(self, images, windows):
        return {name: np.asarray(value) for name, value in self.inference({"image": images, "window": windows}).items()}


@pytest.fixture(scope="module")
def graphs():
    return Graphs(TinyConfig(ALLOW_EMPTY_IMAGES=True, DETECTION_MIN_CONFIDENCE=0.0))


def batch_of(config, **dataset):
    return Loader(TinyDataset(2, **dataset), config, scaling=SCALING, training=False).assemble_batch(0, 0)


@pytest.fixture(scope="module")
def batch(graphs):
    return batch_of(graphs.config)


@pytest.fixture(scope="module")
def step(graphs, batch):
    return graphs.step(batch)


def ids(variables):
    return {id(variable) for variable in variables}


# Parts


def test_both_graphs_hold_the_weights_of_the_network_and_no_others(graphs):
    own = ids(weight for layer in graphs.network.layers().values() for weight in layer.weights)
    assert ids(graphs.training.weights) == own
    assert ids(graphs.inference.weights) == own
    assert own == ids(weight for part in graphs.network.parts().values() for weight in part.weights)


def test_every_layer_has_a_key_of_its_part(graphs):
    layers = graphs.network.layers()
    assert {key.split("/")[0] for key in layers} == {"trunk", "rpn", "box_head", "mask_head"}
    assert {
        "trunk/res3",
        "trunk/bn3",
        "trunk/fpn_p2",
        "rpn/rpn_class_raw",
        "box_head/mrcnn_class_logits",
        "mask_head/deconv",
    } <= set(layers)
    assert all(layer.weights for layer in layers.values())
    assert len(ids(layers.values())) == len(layers)


@pytest.mark.slow
def test_the_mask_size_is_read_from_the_head():
    assert build_network(TinyConfig(MASK_POOL_SIZE=6)).mask_size == 12
    head = {"name": "unet"}
    assert build_network(TinyConfig(MASK_HEAD=head, MASK_POOL_SIZE=8)).mask_size == 16


@pytest.mark.slow
def test_initial_weights_follow_from_the_seed():
    def weights(seed):
        return [w for part in build_network(TinyConfig(SEED=seed)).parts().values() for w in part.get_weights()]

    first, again, other = weights(1), weights(1), weights(2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_unknown_parts_are_named():
    with pytest.raises(
        ValueError,
        match=r"unknown mask head 'unnet'; the registered ones are \[.*'fcn'.*did you mean "
        "'unet'",
    ):
        build_network(TinyConfig(MASK_HEAD="unnet"))
    with pytest.raises(ValueError, match="unknown backbone 'resnet55'; did you mean 'resnet50'"):
        build_network(TinyConfig(BACKBONE="resnet55"))


def test_no_wrappers_that_hide_a_graph(graphs):
    for model in (graphs.training, graphs.inference):
        kinds = {type(layer).__name__ for layer in model._flatten_layers()}
        assert not kinds & {"Lambda", "TimeDistributed"}
        assert not model.losses, "no add_loss"


def test_a_graph_whose_ops_have_no_xla_kernel_is_not_given_to_xla(graphs):
    """Keras turns XLA on by itself for a single GPU, unless a layer says that it cannot."""
    for model in (graphs.training, graphs.inference):
        unfit = {type(layer).__name__ for layer in model._flatten_layers() if not getattr(layer, "supports_jit", True)}
        assert {"Proposals", "RoIAlign", "KeepValid"} <= unfit
    assert all(layer.supports_jit for layer in graphs.network.trunk._flatten_layers()), "the trunk alone may be"


def test_precision_ends_with_the_block_even_if_it_fails():
    before = keras.config.dtype_policy().name
    with pytest.raises(KeyError), precision("bfloat16"):
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        raise KeyError
    assert keras.config.dtype_policy().name == before
    with precision("float32"):
        assert keras.config.dtype_policy().name == "float32"


# Training


def test_shapes_of_a_training_step(step):
    positives = (step["roi_class_ids"] > 0).sum()
    assert {name: value.shape for name, value in step.items()} == {
        "rpn_labels": (2, 32),
        "rpn_logits": (2, 32),
        "rpn_target": (2, 32, 4),
        "rpn_deltas": (2, 32, 4),
        "roi_class_ids": (2, 16),
        "roi_sampled": (2, 16),
        "class_logits": (2, 16, 3),
        "roi_target": (2, 16, 4),
        "roi_deltas": (2, 16, 4),
        "active_classes": (2, 3),
        "masks": (positives, 16, 16),
        "mask_target": (positives, 16, 16),
        "mask_weight": (positives,),
        "image_id": (2,),
    }
    assert positives > 0


def test_types_of_a_training_step(step):
    integers = {"rpn_labels", "roi_class_ids", "image_id"}
    assert {name for name, value in step.items() if value.dtype == np.int32} == integers
    assert step["roi_sampled"].dtype == bool
    assert {value.dtype.name for name, value in step.items() if name not in {*integers, "roi_sampled"}} == {"float32"}


def test_a_step_learns_the_objects_of_its_batch(batch, step):
    """Ground truth joins the proposals, so that every object is learned, with its class and its mask."""
    for image in range(2):
        found = set(step["roi_class_ids"][image][step["roi_sampled"][image]]) - {0}
        assert found == set(batch["gt_class_ids"][image]) - {0}
    assert (step["rpn_labels"] == 1).any(axis=1).all()
    assert set(np.unique(step["mask_target"])) == {0, 1}
    assert step["mask_target"].mean(axis=(1, 2)).min() > 0.2
    np.testing.assert_array_equal(step["mask_weight"], 1)
    np.testing.assert_array_equal(step["image_id"], [0, 1])


def test_predicted_deltas_are_those_of_the_roi_s_own_class(graphs, batch):
    """With deltas that say their class and coordinate, background included."""
    layer = graphs.network.box_head.get_layer("mrcnn_bbox_fc")
    before = layer.get_weights()
    layer.set_weights([0 * before[0], np.arange(12.0)])
    step = graphs.step(batch)
    layer.set_weights(before)
    np.testing.assert_array_equal(step["roi_deltas"], 4 * step["roi_class_ids"][..., None] + np.arange(4))


def test_anchors_targets_and_predictions_are_gathered_alike(graphs, batch, step):
    """Logit and deltas tell which anchor was drawn; its target is that anchor's."""
    config, levels = graphs.config, graphs.network.trunk(batch["image"])
    predicted = [graphs.network.rpn(level) for level in levels]
    logits, deltas = (np.concatenate([np.asarray(level[i]) for level in predicted], axis=1) for i in (0, 1))
    anchors = np.concatenate(
        pyramid_anchors(
            config.RPN_ANCHOR_SCALES,
            config.RPN_ANCHOR_RATIOS,
            [level.shape[1:3] for level in levels],
            config.BACKBONE_STRIDES,
            1,
        )
    )
    for image in range(2):
        gathered = np.concatenate([step["rpn_logits"][image][:, None], step["rpn_deltas"][image]], axis=1)
        distance = np.abs(gathered[:, None] - np.concatenate([logits[image][:, None], deltas[image]], axis=1)).max(-1)
        drawn = distance.argmin(axis=1)
        assert distance.min(axis=1).max() < 1e-5
        positive = step["rpn_labels"][image] == 1
        found = decode(step["rpn_target"][image][positive], anchors[drawn[positive]], config.RPN_BBOX_STD_DEV)
        assert np.abs(np.asarray(found)[:, None] - batch["gt_boxes"][image]).max(axis=-1).min(axis=1).max() < 1e-3


def test_the_draw_depends_on_the_seed_alone(graphs, batch, step):
    again = graphs.step(batch)
    for name, value in step.items():
        np.testing.assert_array_equal(again[name], value)
    other = graphs.step({**batch, "seed": batch["seed"] + 1})
    assert not np.array_equal(other["rpn_labels"] * other["rpn_logits"], step["rpn_labels"] * step["rpn_logits"])


@pytest.mark.slow
@pytest.mark.parametrize("dataset", [{"empty": (0, 1)}, {"empty": (1,)}, {"crowds": (0, 1)}])
def test_images_without_objects_and_with_crowds_give_finite_outputs(graphs, dataset):
    batch = batch_of(graphs.config, **dataset)
    step = graphs.step(batch)
    assert all(np.isfinite(value).all() for value in step.values())
    objects = (batch["gt_class_ids"] > 0).any(axis=1)
    np.testing.assert_array_equal((step["roi_class_ids"] > 0).any(axis=1), objects)
    np.testing.assert_array_equal((step["rpn_labels"] == 1).any(axis=1), objects)
    assert step["roi_sampled"].any(axis=1).all(), "negatives are learnt where there are no objects"
    assert (step["mask_weight"].sum() > 0) == objects.any()
    assert len(step["masks"]) >= 1


def test_the_maximum_of_instances(graphs, batch):
    full = {name: value.copy() for name, value in batch.items()}
    full["gt_class_ids"][:] = [1, 2, 1, 2]
    full["gt_boxes"][:] = [[4, 4, 24, 24], [30, 4, 60, 20], [4, 30, 24, 60], [34, 34, 60, 60]]
    full["gt_masks"][:] = 255
    step = graphs.step(full)
    assert all(np.isfinite(value).all() for value in step.values())
    np.testing.assert_array_equal((step["roi_class_ids"] > 0).sum(axis=1), 4)
    np.testing.assert_array_equal(step["mask_weight"], np.ones(8))


def test_images_of_padding_only(graphs, batch):
    padding = {name: np.zeros_like(value) for name, value in batch.items()}
    padding["active_classes"] += 1
    step = graphs.step(padding)
    assert all(np.isfinite(value).all() for value in step.values())
    assert not (step["roi_class_ids"] > 0).any()
    assert not step["roi_sampled"].any(), "no proposal lies in an empty window"
    assert step["mask_weight"].sum() == 0


# Detection


@pytest.fixture(scope="module")
def photographs():
    dataset = TinyDataset(3)
    images = np.stack([dataset.load_image(i) for i in range(3)]).astype(np.float32) / 127.5 - 1
    return images, np.array([[0, 0, SIDE, SIDE]] * 3, np.float32)


def test_detections_are_padded_sorted_and_inside_their_window(graphs, photographs):
    images, windows = photographs
    windows = windows * [[1], [0.5], [0]]  # the third is padding only
    found = graphs.detect(images, windows.astype(np.float32))
    assert found["class_ids"].dtype == np.int32 and found["boxes"].dtype == np.float32
    assert found["boxes"].shape == (3, 10, 4) and found["counts"].shape == (3, 4)
    np.testing.assert_array_equal(found["valid"].sum(axis=1), found["counts"][:, 3])
    np.testing.assert_array_equal(found["valid"].sum(axis=1), [10, 10, 0])
    for name in ("boxes", "class_ids", "scores"):
        assert not found[name][~found["valid"]].any()
    assert (np.diff(found["scores"], axis=1) <= 0).all()
    assert (found["class_ids"][found["valid"]] > 0).all()
    for image, side in enumerate((SIDE, SIDE / 2, 0)):
        assert found["boxes"][image].min() >= 0 and found["boxes"][image].max() <= side
    assert found["masks"].shape == (20, 16, 16)
    assert 0 <= found["masks"].min() and found["masks"].max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"TRAIN_BN": False}, {"TRAIN_BN": True, "MASK_HEAD": {"name": "unet", "filters": 16}}]
)
def test_detections_are_those_of_the_parts_as_they_are(options, photographs, monkeypatch):
    """The graph with folded parts and one mask channel, beside one of the network's own layers."""
    graphs = Graphs(TinyConfig(DETECTION_MIN_CONFIDENCE=0.0, **options))
    rng = np.random.default_rng(0)
    for layer in graphs.network.trunk.layers:  # fresh statistics of 0 and 1 would hide what folding does
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.7, 1.3, w.shape) for w in layer.weights])
    found = graphs.detect(*photographs)
    monkeypatch.setattr(graph, "fold", lambda model, norms, by_winograd: model)
    monkeypatch.setattr(
        graph, "class_masks", lambda head: lambda features, class_ids: PickClass()(head(features), class_ids)
    )
    plain = inference_graph(graphs.network, graphs.config)
    assert not any(isinstance(layer, FoldedConvolution) for layer in plain._flatten_layers())
    assert any(isinstance(layer, FoldedConvolution) for layer in graphs.inference._flatten_layers())
    images, windows = photographs
    assert found["valid"].any()
    for name, value in plain({"image": images, "window": windows}).items():
        np.testing.assert_allclose(found[name], value, atol=1e-3, err_msg=name)


def test_nothing_found_still_gives_a_row_of_masks(graphs, photographs):
    images, windows = photographs
    found = graphs.detect(images, 0 * windows)
    assert not found["valid"].any()
    assert found["masks"].shape == (1, 16, 16)
    np.testing.assert_array_equal(found["counts"], 0)


def test_a_batch_equals_its_images_alone(graphs, photographs):
    images, windows = photographs
    together = graphs.detect(images, windows)
    ends = np.cumsum(together["valid"].sum(axis=1))
    for i in range(3):
        alone = graphs.detect(images[i : i + 1], windows[i : i + 1])
        for name in ("boxes", "class_ids", "scores", "valid", "counts"):
            np.testing.assert_allclose(together[name][i], alone[name][0], atol=1e-4, err_msg=name)
        of_image = together["masks"][ends[i] - together["valid"][i].sum() : ends[i]]
        np.testing.assert_allclose(of_image, alone["masks"], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("height, width", [(32, 64), (96, 32), (32, 32)])
def test_sides_need_only_be_multiples_of_32(graphs, height, width):
    found = graphs.detect(np.zeros((1, height, width, 3), np.float32), np.array([[0, 0, height, width]], np.float32))
    assert np.isfinite(found["boxes"]).all()
    assert found["boxes"][..., [0, 2]].max() <= height and found["boxes"][..., [1, 3]].max() <= width


# bfloat16


@pytest.mark.slow
def test_bfloat16_computes_boxes_scores_masks_and_targets_in_float32(photographs, batch):
    graphs = Graphs(TinyConfig(PRECISION="bfloat16", DETECTION_MIN_CONFIDENCE=0.0))
    assert graphs.network.trunk.get_layer("res3").compute_dtype == "bfloat16"
    assert {weight.dtype for weight in graphs.training.weights} == {"float32"}
    step = graphs.step(batch)
    assert {value.dtype.name for value in step.values()} == {"float32", "int32", "bool"}
    assert all(np.isfinite(value).all() for value in step.values())
    found = graphs.detect(*photographs)
    for name in ("boxes", "scores", "masks"):
        assert found[name].dtype == np.float32
    assert found["valid"].any()


def test_the_background_alone_is_no_model():
    with pytest.raises(ValueError, match="NUM_CLASSES is 1: the background alone. Set it to 1 . your classes"):
        build_network(TinyConfig(NUM_CLASSES=1))
