"""Weights for other classes, other input channels and parts of a network; nothing goes unsaid."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn.weights.source import PARTS, Lazy, Source
from mrcnn.weights.transfer import carry_over, inflate, load_source, loaded_parts


def network(classes=3, channels=3, seed=0):
    """The layers that matter, small: their names and shapes are those of a whole network."""
    keras.utils.set_random_seed(seed)
    dense, conv = keras.layers.Dense, keras.layers.Conv2D
    layers = {
        "trunk/conv1": (conv(4, 7, use_bias=False), channels),
        "trunk/res2a": (conv(4, 1), 4),
        "trunk/fpn_c2p2": (conv(4, 1), 4),
        "rpn/rpn_class_raw": (conv(3, 1), 4),
        "box_head/mrcnn_fc1": (dense(12), 4),
        "box_head/mrcnn_class_logits": (dense(classes), 12),
        "box_head/mrcnn_bbox_fc": (dense(4 * classes), 12),
        "mask_head/conv1": (conv(4, 3), 4),
        "mask_head/masks": (conv(classes, 1), 4),
    }
    for layer, inputs in layers.values():
        layer.build((None, inputs) if isinstance(layer, dense) else (None, None, None, inputs))
        if layer.use_bias:
            layer.bias.assign(np.random.default_rng(seed).random(layer.bias.shape))
    return {key: layer for key, (layer, _) in layers.items()}


def values(layers):
    return {
        f"{key}/{w.name}": np.array(keras.ops.convert_to_numpy(w))
        for key, layer in layers.items()
        for w in layer.weights
    }


def source_of(layers, parts=PARTS, names=()):
    tensors = {
        name: Lazy(value.shape, lambda value=value: value)
        for name, value in values(layers).items()
        if name.split("/")[0] in parts or ("backbone" in parts and name.startswith(("trunk/c", "trunk/r")))
    }
    return Source("somebody's", tensors, {}, list(names), tuple(parts))


CLASS_SHAPED = {
    f"{layer}/{weight}"
    for weight in ("kernel", "bias")
    for layer in ("box_head/mrcnn_class_logits", "box_head/mrcnn_bbox_fc", "mask_head/masks")
}
COCO, PETS = ["BG", "person", "cat", "dog"], ["BG", "hamster", "Dog", "cat", "fish"]


# Another number of classes


def test_another_number_of_classes_loads_all_but_the_class_shaped_layers_and_says_so():
    theirs, ours = network(4, seed=1), network(6, seed=2)
    before = values(ours)
    report = load_source("a.h5", ours, source_of(theirs))
    assert {tensor.name for tensor in report.skipped} == CLASS_SHAPED
    for name, value in values(ours).items():
        np.testing.assert_array_equal(value, (before if name in CLASS_SHAPED else values(theirs))[name], err_msg=name)
    text = str(report)
    assert "the file has 4 classes and the model 6: class-dependent layers are unchanged" in text
    assert "model (12, 24)" in text and "file (12, 16)" in text


def test_strict_raises_and_changes_nothing():
    ours = network(6, seed=2)
    before = values(ours)
    with pytest.raises(ValueError, match="shapes differ(.|\n)*box_head/mrcnn_bbox_fc(.|\n)*exclude="):
        load_source("a.h5", ours, source_of(network(4)), strict=True)
    for name, value in values(ours).items():
        np.testing.assert_array_equal(value, before[name])


def test_excluded_layers_are_no_reason_for_a_word():
    report = load_source(
        "a.h5", network(6), source_of(network(4)), exclude=["mrcnn_class_logits", "mrcnn_bbox_fc", "masks"], strict=True
    )
    assert {tensor.name for tensor in report.skipped} == CLASS_SHAPED and not report.notes


def test_an_exclude_that_matches_nothing_is_said_once_and_at_the_line_that_called():
    with pytest.warns(UserWarning, match="exclude: 'mask_haed' matches no layer; did you mean 'mask_head'") as caught:
        report = load_source("a.h5", network(), source_of(network()), exclude=["rpn", "mask_haed"])
    assert [warning.filename for warning in caught if warning.category is UserWarning] == [__file__]
    assert {tensor.name.split("/")[0] for tensor in report.skipped} == {"rpn"}


def test_a_layer_that_differs_otherwise_is_no_matter_of_classes():
    theirs = network(4)
    theirs["mask_head/conv1"] = keras.layers.Conv2D(8, 3)
    theirs["mask_head/conv1"].build((None, None, None, 4))
    with pytest.raises(ValueError, match="shapes differ:\n  mask_head/conv1/kernel"):
        load_source("a.h5", network(6), source_of(theirs))
    report = load_source("a.h5", network(6), source_of(theirs), by_name=True)
    assert {tensor.name for tensor in report.skipped} == CLASS_SHAPED | {
        f"mask_head/conv1/{w}" for w in ("kernel", "bias")
    }


def rows(layers, index, classes):
    """Everything that belongs to a class: logit, deltas, mask."""
    by_class = {
        name: value.reshape(*value.shape[:-1], classes, -1)
        for name, value in values(layers).items()
        if name in CLASS_SHAPED
    }
    return {name: value[..., index, :] for name, value in by_class.items()}


def test_classes_of_the_same_name_are_kept():
    theirs, ours = network(4, seed=1), network(5, seed=2)
    before = network(5, seed=2)
    report = load_source("a.h5", ours, source_of(theirs, names=COCO), keep_classes=True, class_names=PETS)
    assert not report.skipped and len(report.loaded) == len(values(ours))
    assert report.notes == ("classes kept by name: Dog, cat; unchanged: hamster, fish",)
    for here, name in enumerate(PETS):
        there = COCO.index(name.lower()) if name.lower() in COCO else None
        expected = rows(before, here, 5) if name in ("hamster", "fish") else rows(theirs, there if here else 0, 4)
        for weight, value in rows(ours, here, 5).items():
            np.testing.assert_array_equal(value, expected[weight], err_msg=f"{name} {weight}")


def test_classes_are_kept_by_name_where_their_number_is_the_same_too():
    theirs, ours = network(4, seed=1), network(4, seed=2)
    names = ["background", "dog", "cat", "person"]
    load_source("a.h5", ours, source_of(theirs, names=COCO), keep_classes=True, class_names=names)
    for here, name in enumerate(names):
        for weight, value in rows(ours, here, 4).items():
            np.testing.assert_array_equal(value, rows(theirs, COCO.index(name) if here else 0, 4)[weight])


def test_other_names_of_as_many_classes_are_said():
    theirs, ours = network(4, seed=1), network(4, seed=2)
    report = load_source("a.h5", ours, source_of(theirs, names=COCO), class_names=["BG", "dog", "cat", "person"])
    assert report.notes == (
        "the file's class names differ from the model's; classes are loaded in the file's order "
        "(keep_classes=True would match them by name)",
    )
    np.testing.assert_array_equal(values(ours)["mask_head/masks/bias"], values(theirs)["mask_head/masks/bias"])
    assert not load_source("a.h5", ours, source_of(theirs, names=COCO), class_names=["none", *COCO[1:]]).notes


def test_keeping_classes_needs_names_on_both_sides():
    ours, source = network(5), source_of(network(4))
    with pytest.raises(ValueError, match=r"keep_classes: a.h5 has 4 classes but 0 names.*keep_classes=\[...\]"):
        load_source("a.h5", ours, source, keep_classes=True, class_names=PETS)
    with pytest.raises(ValueError, match="the model has 5 classes but 4 names.*class_names=dataset.class_name"):
        load_source("a.h5", ours, source_of(network(4), names=COCO), keep_classes=True, class_names=PETS[:4])
    report = load_source("a.h5", ours, source, keep_classes=COCO, class_names=PETS)
    assert report.notes[0].startswith("classes kept by name: Dog, cat;")


def test_the_background_is_kept_and_never_taken_for_a_class():
    theirs, ours = network(2, seed=1), network(3, seed=2)
    before = network(3, seed=2)
    report = load_source(
        "a.h5", ours, source_of(theirs, names=["BG", "x"]), keep_classes=True, class_names=["nothing", "BG", "y"]
    )
    assert report.notes == ("classes kept by name: none; unchanged: BG, y",)
    for index, expected in ((0, rows(theirs, 0, 2)), (1, rows(before, 1, 3)), (2, rows(before, 2, 3))):
        for weight, value in rows(ours, index, 3).items():
            np.testing.assert_array_equal(value, expected[weight])


def test_names_that_are_no_texts_are_compared_as_such():
    theirs, ours = network(3, seed=1), network(3, seed=2)
    report = load_source(
        "a.h5", ours, source_of(theirs, names=["BG", 7, 8]), keep_classes=True, class_names=["BG", "8", 9]
    )
    assert report.notes == ("classes kept by name: 8; unchanged: 9",)


@pytest.mark.parametrize("parts, exclude", [(("trunk",), None), (PARTS, ["box_head", "mask_head"])])
def test_classes_that_are_not_there_to_be_kept(parts, exclude):
    report = load_source(
        "a.h5",
        network(5),
        source_of(network(4), parts, names=COCO),
        keep_classes=True,
        class_names=PETS,
        exclude=exclude,
    )
    assert report.notes[0] == (
        "keep_classes has no effect: the file has no class-dependent layers, or they are excluded"
    )


# Another number of input channels


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 9))
def test_equal_channels_give_what_they_gave(before, after, seed):
    """A grey image in every channel: where channels are added to or summed, not where some are cut off."""
    kernel = np.random.default_rng(seed).standard_normal((3, 3, before, 2)).astype(np.float32)
    found = inflate(kernel, after)
    assert found.shape == (3, 3, after, 2) and found.dtype == np.float32
    if after >= before or after == 1:
        np.testing.assert_allclose(found.sum(axis=2), kernel.sum(axis=2), atol=1e-5)
    if after == before:
        np.testing.assert_array_equal(found, kernel)
    if after > before:
        np.testing.assert_allclose(
            inflate(found, before), kernel if before > 1 else found.sum(2, keepdims=True), atol=1e-6, err_msg="and back"
        )


def test_inflation_by_hand():
    kernel = np.array([1, 2, 6], np.float32).reshape(1, 1, 3, 1)
    for channels, expected in {1: [9], 2: [1.5, 3], 4: [0.75, 1.5, 4.5, 2.25], 5: [0.6, 1.2, 3.6, 1.8, 1.8]}.items():
        np.testing.assert_allclose(inflate(kernel, channels).ravel(), expected, rtol=1e-6)


@pytest.mark.parametrize("channels, how", [(1, "summed"), (2, "cut"), (5, "inflated")])
def test_the_first_kernel_takes_other_channels_and_it_is_said(channels, how):
    theirs, ours = network(seed=1), network(channels=channels, seed=2)
    kernel = values(theirs)["trunk/conv1/kernel"]
    report = load_source("a.h5", ours, source_of(theirs))
    assert report.notes == (f"trunk/conv1/kernel: {how} from 3 to {channels} input channels",)
    np.testing.assert_array_equal(values(ours)["trunk/conv1/kernel"], inflate(kernel, channels))
    assert len(report.loaded) == len(values(ours))


def test_channels_in_reverse_order_are_added_in_front():
    """BGR and a fourth: the trunk gets (fourth, B, G, R)."""
    theirs, ours = network(seed=1), network(channels=4, seed=2)
    kernel = values(theirs)["trunk/conv1/kernel"]
    load_source("a.h5", ours, source_of(theirs), reverse_channels=True)
    found = values(ours)["trunk/conv1/kernel"]
    np.testing.assert_allclose(found[:, :, 1:], kernel * 0.75, rtol=1e-6)
    np.testing.assert_allclose(found[:, :, 0], kernel.mean(2) * 0.75, rtol=1e-5, atol=1e-7)


def test_an_excluded_trunk_is_not_inflated():
    report = load_source("a.h5", network(channels=4), source_of(network()), exclude="trunk")
    assert not report.notes and {t.name.split("/")[0] for t in report.skipped} == {"trunk"}


# Parts


@pytest.mark.parametrize(
    "parts, loaded, words",
    [
        (("backbone",), ["trunk/conv1", "trunk/res2a"], "the file contains only the backbone"),
        (
            ("trunk", "rpn"),
            ["trunk/conv1", "trunk/res2a", "trunk/fpn_c2p2", "rpn/rpn_class_raw"],
            "only the trunk, rpn",
        ),
    ],
)
def test_a_file_of_some_parts_fills_those(parts, loaded, words):
    theirs, ours = network(seed=1), network(5, seed=2)
    source = source_of(theirs, parts)
    report = load_source("a.h5", ours, source)
    assert list(dict.fromkeys(t.name.rpartition("/")[0] for t in report.loaded)) == loaded
    assert not report.missing + report.skipped + report.unexpected and words in report.notes[0]
    with pytest.raises(ValueError, match="missing from the file:(.|\n)*mask_head/masks"):
        load_source("a.h5", ours, source, strict=True)
    assert not load_source(
        "a.h5", ours, source_of(theirs, ("trunk",)), strict=True, exclude=["rpn", "box_head", "mask_head"]
    ).notes


def test_a_layer_that_lacks_of_a_part_that_is_there_is_an_error():
    source = source_of(network(), ("trunk",))
    source = Source(source.program, {k: v for k, v in source.tensors.items() if "res2a" not in k}, parts=("trunk",))
    with pytest.raises(ValueError, match="missing from the file:\n  trunk/res2a/kernel"):
        load_source("a.h5", network(), source)


def test_parts_of_which_something_is_loaded():
    source = source_of(network(), ("trunk", "rpn"))
    assert loaded_parts(source, None) == ["trunk", "rpn"]
    assert loaded_parts(source, "trunk") == ["rpn"] and loaded_parts(source, ["trunk", "rpn_.*"]) == []
    assert loaded_parts(source_of(network(), ("backbone",)), "nothing") == ["backbone"]


def test_nan_changes_nothing():
    theirs, ours = network(4, seed=1), network(5, seed=2)
    theirs["mask_head/conv1"].bias.assign(np.full(4, np.nan))
    before = values(ours)
    with pytest.raises(ValueError, match="a.h5 holds NaN or infinite weights(.|\n)*mask_head/conv1/bias"):
        load_source("a.h5", ours, source_of(theirs, names=COCO), keep_classes=True, class_names=PETS)
    for name, value in values(ours).items():
        np.testing.assert_array_equal(value, before[name])


def test_a_fresh_network_gets_the_same():
    theirs, ours, fresh = network(4, channels=3, seed=1), network(5, channels=4), network(5, channels=4)
    source = source_of(theirs, names=COCO)
    reports = [
        load_source("a.h5", layers, source, keep_classes=True, class_names=PETS, fresh=layers is fresh)
        for layers in (ours, fresh)
    ]
    assert reports[0] == reports[1]
    for name, value in values(fresh).items():
        np.testing.assert_array_equal(value, values(ours)[name], err_msg=name)


def test_what_two_networks_have_alike_is_carried_over():
    old, new = network(3, seed=1), network(5, seed=2)
    before = network(5, seed=2)
    carry_over(old, new)
    for name, value in values(new).items():
        np.testing.assert_array_equal(value, values(before if name in CLASS_SHAPED else old)[name])


@pytest.mark.parametrize("names, loaded", [(["BG", "a", "b"], True), (["BG", "b", "a"], False), (["BG", "a"], False)])
def test_layers_that_mix_the_classes_are_loaded_for_the_same_classes_alone(names, loaded):
    theirs, ours = network(3, seed=1), network(len(names), seed=2)
    before = values(ours)["mask_head/conv1/bias"]
    load_source(
        "f", ours, source_of(theirs, names=["BG", "a", "b"]), keep_classes=True, class_names=names,
        mixed=["mask_head/conv1"],
    )  # fmt: skip
    expected = values(theirs)["mask_head/conv1/bias"] if loaded else before
    np.testing.assert_array_equal(values(ours)["mask_head/conv1/bias"], expected)


def test_masks_are_kept_by_name_where_the_head_has_a_further_output_behind_them():
    """The same number of classes in another order: the layer called "masks" is by class, whatever stands behind it."""

    def with_another(seed):
        layers = network(3, seed=seed)
        further = keras.layers.Dense(7)
        further.build((None, 4))
        return layers | {"mask_head/further": further}

    theirs, ours = with_another(1), with_another(2)
    load_source("f", ours, source_of(theirs, names=["BG", "a", "b"]), keep_classes=True, class_names=["BG", "b", "a"])
    found, expected = (values(layers)["mask_head/masks/bias"] for layers in (ours, theirs))
    np.testing.assert_array_equal(found, expected[[0, 2, 1]])
