"""Strides of small models whose maps are known by hand."""

import keras
import numpy as np
import pytest
from keras import layers

from mrcnn.network import feature_taps as strides


def model(*parts, name="small"):
    """A chain of layers or functions from an image of any size."""
    image = x = keras.Input((None, None, 3), name="image")
    for part in parts:
        x = part(x)
    return keras.Model(image, x, name=name)


def conv(stride=1, name=None, padding="same"):
    return layers.Conv2D(4, 3, strides=stride, padding=padding, name=name)


def names(tensors):
    return [tensor._keras_history.operation.name for tensor in tensors]


def test_stride_and_excess_of_each_kind_of_layer():
    chain = model(
        layers.ZeroPadding2D(3, name="pad"),
        conv(2, "valid", "valid"),
        conv(2, "same"),
        layers.GlobalAveragePooling2D(name="global"),
    )
    found = {m.layer.name: (m.stride, m.excess) for m in strides.feature_maps(chain)}
    assert found == {"image": (1, 0), "pad": (1, 6), "valid": (2, 2), "same": (4, 1), "global": (None, 0)}


def test_branches_are_no_bottleneck():
    def residual(x):
        return layers.Add(name="sum")([conv(name="left")(x), conv(name="right")(x)])

    found = {m.layer.name: m.is_bottleneck for m in strides.feature_maps(model(conv(name="before"), residual))}
    assert found == {"image": True, "before": True, "left": False, "right": False, "sum": True}


def test_a_long_branch_hides_all_it_passes():
    def skip(x):
        return layers.Concatenate(name="joined")([conv(name="late")(conv(name="early")(x)), x])

    found = {m.layer.name: m.is_bottleneck for m in strides.feature_maps(model(skip, conv(name="after")))}
    assert found == {"image": True, "early": False, "late": False, "joined": True, "after": True}


def test_squeeze_and_excitation_has_no_stride():
    def excite(x):
        weights = layers.Conv2D(4, 1, name="excite")(layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x))
        return layers.Multiply(name="scaled")([x, weights])

    chain = model(conv(2, "first"), excite)
    found = {m.layer.name: (m.stride, m.is_bottleneck) for m in strides.feature_maps(chain)}
    assert found == {
        "image": (1, True),
        "first": (2, True),
        "squeeze": (None, False),
        "excite": (None, False),
        "scaled": (2, True),
    }
    assert strides.stages(chain) == {"image": 1, "first": 1, "squeeze": 1, "excite": 1, "scaled": 1}


def test_taps_are_the_last_before_each_drop():
    chain = model(
        conv(2),
        conv(2),
        conv(name="c2"),
        conv(2),
        layers.ReLU(name="c3"),
        conv(2, "c4"),
        conv(2),
        layers.BatchNormalization(name="c5"),
    )
    assert names(strides.taps(chain)) == ["c2", "c3", "c4", "c5"]


def test_a_tap_is_not_what_was_padded_for_the_next_convolution():
    def padded(x):
        return conv(2, padding="valid")(layers.ZeroPadding2D(((0, 1), (0, 1)))(x))

    chain = model(
        padded,
        padded,
        layers.ReLU(name="c2"),
        padded,
        layers.ReLU(name="c3"),
        padded,
        layers.ReLU(name="c4"),
        padded,
        layers.ReLU(name="c5"),
    )
    assert names(strides.taps(chain)) == ["c2", "c3", "c4", "c5"]


def test_a_tap_is_not_inside_a_block_that_halves():
    def block(x):
        inner = conv(2)(conv()(x))
        return layers.Add()([inner, layers.MaxPooling2D(1, strides=2)(x)])

    def named(name):
        return layers.ReLU(name=name)

    chain = model(conv(), block, block, named("c2"), block, named("c3"), block, named("c4"), block, named("c5"))
    assert names(strides.taps(chain)) == ["c2", "c3", "c4", "c5"]


@pytest.mark.parametrize("size", [(64, 96), (96, 160), (256, 32)])
def test_what_unpadded_convolutions_cut_off_is_filled_with_zeros(size):
    chain = model(conv(2), conv(2), conv(padding="valid"), conv(2), conv(2), conv(2))
    trunk = keras.Model(chain.inputs[0], strides.taps(chain))
    maps = trunk(np.ones((1, *size, 3), "float32"))
    assert [tuple(x.shape[1:3]) for x in maps] == [(size[0] // s, size[1] // s) for s in (4, 8, 16, 32)]
    edge = keras.ops.convert_to_numpy(maps[0])[0]
    assert not edge[[0, -1]].any() and not edge[:, [0, -1]].any()
    assert edge[1:-1, 1:-1].any()


def test_a_stride_that_is_missing_is_named():
    with pytest.raises(ValueError, match=r"'short' has no feature map at stride 32 .*strides \[1, 2, 4, 8, 16\]"):
        strides.taps(model(conv(2), conv(2), conv(2), conv(2), name="short"))


def test_a_model_for_some_sizes_only_is_refused():
    def fragile(x):
        return layers.Add()([conv(2, padding="valid")(x), layers.Cropping2D(127)(x)])

    with pytest.raises(ValueError, match="'fragile' does not accept images of any size, as a backbone must: .*shape"):
        strides.taps(model(conv(), fragile, name="fragile"))


def test_stages_follow_the_output_and_reach_into_layers():
    block = keras.Sequential([conv(2, "inner_conv"), layers.BatchNormalization(name="inner_norm")], name="block")
    chain = model(conv(name="s1"), conv(2, "s2"), conv(2, "s4"), block, conv(2, "s16"), conv(2, "s32"), conv(2, "s64"))
    stages = strides.stages(chain)
    assert {name: stages[name] for name in ("s1", "s2", "s4", "s16", "s32", "s64")} == {
        "s1": 1,
        "s2": 1,
        "s4": 2,
        "s16": 4,
        "s32": 5,
        "s64": 5,
    }
    assert stages["block"] == stages["inner_conv"] == stages["inner_norm"] == 3
