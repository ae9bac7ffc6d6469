"""Layers and weights out of the h5 files of Keras 1 and 2, in every arrangement that the old package's users have."""

import h5py
import numpy as np
import pytest

from mrcnn.weights.importers.keras_h5 import read_layers

OLD = {"kernel": "W", "bias": "b", "moving_mean": "running_mean", "moving_variance": "running_std"}


def model():
    rng = np.random.default_rng(0)
    norm = dict.fromkeys(("gamma", "beta", "moving_mean", "moving_variance"), (8,))
    shapes = {
        "conv1": {"kernel": (7, 7, 3, 8), "bias": (8,)},
        "bn_conv1": norm,
        "rpn_conv_shared": {"kernel": (3, 3, 8, 4), "bias": (4,)},
        "mrcnn_mask_bn1": norm,
        "fpn_c5p5": {"kernel": (1, 1, 8, 4), "bias": (4,)},
    }
    return {
        layer: {name: rng.normal(size=shape).astype(np.float32) for name, shape in weights.items()}
        for layer, weights in shapes.items()
    }


def keras2(layer, weight):
    return f"{layer}/{layer}/{weight}:0"


def keras2_nested(layer, weight):
    return f"rpn_model/{layer}/{weight}:0" if layer.startswith("rpn") else keras2(layer, weight)


def keras2_second_model(layer, weight):
    """Where training and inference models were built in one process, the second one's weights have a count."""
    return f"rpn_model/{layer}_1/{weight}:0" if layer.startswith("rpn") else f"{layer}/{layer}_1/{weight}:0"


def keras2_counted_weights(layer, weight):
    return f"{layer}/{layer}/{weight}_1:0"


def keras1(layer, weight):
    return f"{layer}/{layer}_{OLD.get(weight, weight)}:0"


def keras1_theano(layer, weight):
    return f"{layer}/{layer}_{OLD.get(weight, weight)}"


def whole_model(layer, weight):
    return f"model_weights/{keras2_nested(layer, weight)}"


LAYOUTS = [keras2, keras2_nested, keras2_second_model, keras2_counted_weights, keras1, keras1_theano, whole_model]


def write(path, layout, more=None):
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in [*model(), "input_image"]]
        file.create_group("input_image")
        for layer, weights in model().items():
            for weight, value in weights.items():
                file[layout(layer, weight)] = value
        for name, value in (more or {}).items():
            file[name] = value


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_layers(tmp_path, layout):
    write(
        tmp_path / "a.h5",
        layout,
        {
            "optimizer_weights/training/SGD/conv1/kernel:0": np.full((7, 7, 3, 8), 9.0, np.float32),
            "optimizer_weights/SGD/iterations:0": np.int64(5),
        },
    )
    found = read_layers(tmp_path / "a.h5")
    assert found.keys() == model().keys()
    for layer, weights in model().items():
        assert found[layer].keys() == weights.keys()
        for weight, value in weights.items():
            assert found[layer][weight].shape == value.shape
            np.testing.assert_array_equal(found[layer][weight].read(), value)


def test_names_of_layers_that_end_in_a_number_stay(tmp_path):
    """keras.applications has such: conv_pw_1."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in ("conv_pw_1", "conv_pw_2"):
            file[f"{name}/{name}/kernel:0"] = np.zeros((1, 1))
        file["conv_pw_3/conv_pw_3_1/kernel:0"] = np.zeros((1, 1))
    assert set(read_layers(tmp_path / "a.h5")) == {"conv_pw_1", "conv_pw_2", "conv_pw_3"}


def test_what_is_no_weight_is_left_out(tmp_path):
    write(tmp_path / "a.h5", keras2, {"conv1/conv1/seed:0": np.zeros(2), "top": np.zeros(3), "scalar": 1.0})
    assert read_layers(tmp_path / "a.h5").keys() == model().keys()


def test_one_weight_in_two_shapes_is_an_error(tmp_path):
    write(tmp_path / "a.h5", keras2, {"other/conv1/bias:0": np.zeros(5)})
    with pytest.raises(ValueError, match=r"a.h5 contains conv1/bias twice, as \((8,\) and \(5|5,\) and \(8),\)"):
        read_layers(tmp_path / "a.h5")


def test_other_files(tmp_path):
    path = tmp_path / "a.h5"
    with pytest.raises(FileNotFoundError, match="no checkpoint file at .*a.h5"):
        read_layers(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="a.h5 is not an HDF5 file"):
        read_layers(path)


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_truncated_files(tmp_path, share):
    path = tmp_path / "a.h5"
    write(path, keras2)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match="a.h5 is truncated or damaged"):
        for weights in read_layers(path).values():
            for weight in weights.values():
                weight.read()


def test_a_file_that_goes_between_reading_its_layers_and_their_weights(tmp_path):
    path = tmp_path / "a.h5"
    write(path, keras2)
    found = read_layers(path)
    path.write_bytes(b"gone")
    with pytest.raises(ValueError, match="a.h5 is not an HDF5 file .4 bytes"):
        found["conv1"]["kernel"].read()
