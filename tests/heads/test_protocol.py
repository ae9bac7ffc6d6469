"""Heads as classes: what is built of them, what is checked, and what the errors say."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import heads
from heads import registry
from heads.protocol import check
from tests.heads.example import Everything

SHAPE = (8, 8, 8)


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_heads", dict(registry._heads))


def built(kind, **options):
    heads.register("mine")(kind)
    return heads.build("mine", SHAPE, 3, **options)


def masks(x, channels=3, activation="sigmoid", **options):
    return layers.Conv2D(channels, 1, activation=activation, dtype="float32", **options)(x)


def head_of(call, **attributes):
    """A class of a head with this `call`."""
    return type("Mine", (heads.Head,), {"call": call, **attributes})


def test_everything_is_found_by_name():
    head = built(Everything, filters=4)
    assert head.needs(True) == ["features", "fine", "pyramid", "boxes", "class_ids", "image_index", "seed"]
    assert head.needs(False) == ["features", "fine", "pyramid", "boxes", "image_index"]
    assert head.loss_names == ["mrcnn_mask_loss", "edge_loss", "quality_loss"] and head.rescores
    assert head.mask_size == 16 and head.model.output["masks"].shape[1:] == (8, 8, 3)
    assert not head.is_plain and head.body.filters == 4


def test_a_class_with_a_call_alone_is_a_head():
    head = built(head_of(lambda self, features: masks(features)))
    assert head.model is head.inference and head.needs(False) == ["features"] and not head.rescores
    assert head.loss_names == ["mrcnn_mask_loss"] and sorted(head.model.output) == ["masks"]


def test_a_function_is_a_plain_head_whose_model_is_returned_as_it_is():
    head = heads.make("fcn", SHAPE, 3, {"filters": 4})
    assert head.is_plain and head.mask_size == 16 and head.needs(True) == ["features"]
    assert isinstance(heads.build("fcn", SHAPE, 3, filters=4), keras.Model)


@pytest.mark.slow
def test_layers_without_a_name_get_the_same_in_every_process():
    """Keras counts all layers ever made, and checkpoints know layers by their names."""
    names = []
    for _ in range(2):
        head = built(Everything)
        names.append([layer.name for layer in head.model.layers if layer.weights])
        layers.Dense(1)(keras.Input((1,)))
    assert names[0] == names[1] and len(set(names[0])) == 5
    assert {layer.name for layer in head.inference.layers if layer.weights} <= set(names[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: head_of(lambda self, feature: masks(feature)),
            r"takes an input 'feature'; .* which are \['features', .*; did you mean 'features'\?",
        ),
        (lambda: head_of(lambda self, fine: masks(fine)), "must set fine_size, .*; it is None"),
        (
            lambda: head_of(lambda self, features: {"mask": masks(features)}),
            r"must return the output 'masks'; .*'mask'",
        ),
        (lambda: head_of(lambda self, features: masks(features)[:, :4]), r"square masks .*\(None, 4, 8, 3\)"),
        (lambda: head_of(lambda self, features: masks(features, 2)), r"must have 1 or 3 channels .*\(None, 8, 8, 2\)"),
        (
            lambda: head_of(lambda self, features: layers.Conv2D(3, 1, dtype="mixed_bfloat16")(features)),
            'must be float32, they are bfloat16; give the last layer dtype="float32"',
        ),
        (lambda: head_of(lambda self, features: masks(features, activation=None)), "must give probabilities, 0 to 1"),
        (
            lambda: head_of(lambda self, features: masks(features), activation="softmax"),
            "its channels do not add up to 1",
        ),
        (
            lambda: head_of(lambda self, features: masks(features, 1), activation="softmax"),
            "a softmax needs a channel per class, 3",
        ),
        (
            lambda: head_of(lambda self, features: masks(features), activation="tanh"),
            'is "sigmoid" or "softmax", .*tanh',
        ),
        (
            lambda: head_of(lambda self, features: masks(features), infer=lambda self, features: masks(features, 1)),
            "infer has weights that call has not, .*make its layers in __init__",
        ),
        (
            lambda: head_of(
                lambda self, features: masks(features), loss=lambda self, outputs, targets: {"a loss": (0.0, 1.0)}
            ),
            "the name of a loss is a column of the log, such as 'edge_loss', not 'a loss'",
        ),
        (
            lambda: head_of(
                lambda self, features: masks(features), loss=lambda self, outputs, targets: {"a": targets.weight}
            ),
            r"loss 'a' must be a pair of scalars \(sum, count\), which targets.total makes",
        ),
        (
            lambda: head_of(
                lambda self, features: masks(features), loss=lambda self, outputs, targets: {"a": (ops.log(-1.0), 1.0)}
            ),
            r"loss 'a' is \[nan, 1.0\] for random inputs",
        ),
        (
            lambda: head_of(
                lambda self, features: masks(features), rescore=lambda self, outputs, scores, class_ids: scores[:1]
            ),
            r"rescore must give a finite score per RoI, \[3\]; it gave \(1,\)",
        ),
    ],
)
def test_what_breaks_the_protocol_is_named(make, message):
    with pytest.raises(ValueError, match=f"mask head 'mine'.*{message}"):
        built(make())


def test_a_loss_is_a_dict():
    with pytest.raises(TypeError, match="loss must return a dict of .* it returned tuple"):
        built(head_of(lambda self, features: masks(features), loss=lambda self, outputs, targets: (0.0, 1.0)))


def test_a_head_without_call_says_what_to_write():
    with pytest.raises(NotImplementedError, match="head 'mine' has no `call`; write it"):
        built(type("Mine", (heads.Head,), {}))


def test_another_kind_of_head_is_refused():
    def keypoints(self, features):
        return {"keypoints": masks(features, activation=None)}

    points = head_of(
        keypoints,
        kind="keypoints",
        loss=lambda self, outputs, targets: {"keypoint_loss": targets.total(targets.weight)},
    )
    assert built(points).loss_names == ["keypoint_loss"] and "mine" in heads.names("keypoints")
    assert "mine" not in heads.names("mask") and "fcn" in heads.names("mask")
    with pytest.raises(ValueError, match="head 'mine' is a keypoints head; a mask head is needed"):
        heads.make("mine", SHAPE, 3, kind="mask")


def test_softmax_and_one_channel_are_two_kinds_of_masks():
    softmax = built(head_of(lambda self, features: masks(features, activation="softmax"), activation="softmax"))
    single = built(head_of(lambda self, features: masks(features, 1)))
    for head in (softmax, single):
        outputs = head.model(check.trial_inputs(head, True))
        ((total, count),) = head.loss(outputs, check._targets(head)).values()
        assert float(count) == 2 and float(total) > 0


def test_the_default_loss_is_the_cross_entropy_of_the_own_class_by_hand():
    head = built(head_of(lambda self, features: masks(features)))
    targets = check._targets(head)
    probability = np.random.default_rng(0).uniform(0.1, 0.9, (3, 8, 8, 3)).astype("float32")
    ((total, count),) = head.loss({"masks": probability}, targets).values()
    truth, own = np.array(targets.at(8)), probability[..., 1]
    by_hand = -(truth * np.log(own) + (1 - truth) * np.log(1 - own)).mean(axis=(1, 2))
    assert float(total) == pytest.approx(by_hand[:2].sum(), rel=1e-5) and float(count) == 2, "the third is padding"


def test_describe_says_what_a_head_takes_gives_and_costs(capsys):
    heads.register("mine")(Everything)
    text = heads.describe("mine", SHAPE, 3)
    assert capsys.readouterr().out.strip() == text
    for part in (
        "training inputs   features [?, 8, 8, 8] float32, fine [?, 8, 8, 8] float32, pyramid [?, ?, ?, 8]",
        "inference outputs  masks [?, 16, 16, 3] float32, certainty [?] float32",
        "losses      mrcnn_mask_loss, edge_loss, quality_loss",
        "train_on_predicted_boxes",
    ):
        assert part in text


def test_multiply_adds_of_fcn_are_those_of_the_paper_by_hand():
    text = heads.describe("fcn")
    by_hand = 196 * 4 * 9 * 256 * 256 + 196 * 4 * 256 * 256 + 784 * 256 * 81
    assert f"multiply-adds per RoI  {by_hand:,}" in text and "parameters  2,643,537" in text


@pytest.mark.parametrize("count", [3, 12])
def test_names_do_not_depend_on_what_other_layers_are_called_by_chance(count):
    """A layer's name by its place may be the automatic name of another layer."""

    class Three(heads.Head):
        def call(self, features):
            for i in range(3):
                layer = layers.Conv2D(4, 1)
                layer.name = f"conv2d_{count - i}"  # what Keras calls layers depends on what was built before
                features = layer(features)
            return masks(features, name="masks")

    head = built(Three)
    assert [layer.name for layer in head.model.layers if layer.weights] == ["conv2d_1", "conv2d_2", "conv2d_3", "masks"]
