"""Files of weights are told by what they hold, and what is wrong with one is said before anything changes."""

import pickle
import shutil

import h5py
import keras
import numpy as np
import pytest

from mrcnn.data.coco_classes import COCO_CLASSES, coco_names
from mrcnn.weights.checkpoint import save_checkpoint
from mrcnn.weights.importers.pickles import ForbiddenPickle
from mrcnn.weights.recognize import read_source
from tests import parity
from tests.weights import matterport_writer
from tests.weights.importers import test_detectron2, test_torchvision
from tests.weights.torch_writer import save_legacy, save_zip


@pytest.fixture(scope="module")
def torchvision():
    return parity.values_of(test_torchvision.shapes())


@pytest.fixture(scope="module")
def detectron2():
    return parity.values_of(test_detectron2.shapes())


def save_pickle(path, content):
    path.write_bytes(pickle.dumps(content, protocol=2))


WRITERS = {"zip": save_zip, "legacy": save_legacy, "pickle": save_pickle}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 3},
        lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}},
    ],
    ids=["bare", "model", "DataParallel"],
)
@pytest.mark.parametrize("kind", WRITERS)
def test_torch_s_files_of_every_kind(torchvision, detectron2, tmp_path, kind, wrap):
    for program, state in (("torchvision", torchvision), ("Detectron2", detectron2)):
        path = tmp_path / "weights.of.any.name"
        WRITERS[kind](path, wrap(state))
        source = read_source(path)
        assert source.program == program and source.settings["NUM_CLASSES"] == 5 and source.class_names == []
        bias = next(state[name] for name in state if name.endswith(("fpn_output2.bias", "ks.0.0.bias")))
        assert source.tensors["trunk/fpn_c2p2/kernel"].shape == (1, 1, 32, 16)
        if program == "Detectron2":
            np.testing.assert_array_equal(source.tensors["trunk/fpn_p2/bias"].read(), bias)


def test_a_trunk_of_detectron2_and_caffe2_s_blobs(detectron2, tmp_path):
    trunk = {
        name.removeprefix("backbone.bottom_up."): value for name, value in detectron2.items() if "bottom_up" in name
    }
    save_pickle(tmp_path / "a.pkl", {"model": trunk, "matching_heuristics": True})
    assert read_source(tmp_path / "a.pkl").parts == ("backbone",)
    blobs = {test_detectron2.caffe2_name(name): value for name, value in detectron2.items() if "bottom_up" in name}
    save_pickle(tmp_path / "b.pkl", {"blobs": blobs | {"res2_0_branch2a_w_momentum": np.ones(3, np.float32)}})
    source = read_source(tmp_path / "b.pkl")
    assert source.parts == ("backbone",) and len(source.tensors) == 53 * 5


def test_the_epsilon_of_a_trunk_is_handed_on(torchvision, tmp_path):
    save_zip(tmp_path / "a.pth", torchvision)
    variances = [
        read_source(tmp_path / "a.pth", bn_epsilon=epsilon).tensors["trunk/bn_conv1/moving_variance"].read()
        for epsilon in (1e-5, 1e-2)
    ]
    np.testing.assert_array_equal(variances[0], torchvision["backbone.body.bn1.running_var"])
    np.testing.assert_allclose(variances[1] - variances[0], 1e-2 - 1e-5, rtol=1e-3)


def test_matterport_s_files_whatever_models_their_layers_lie_in(tmp_path):
    layers = matterport_writer.values_of(matterport_writer.shapes())
    for model in ("", "mask_rcnn"):
        matterport_writer.save(tmp_path / "a.h5", layers, model)
        source = read_source(tmp_path / "a.h5")
        assert source.program == "matterport's Mask_RCNN" and source.settings["NUM_CLASSES"] == 4
        np.testing.assert_array_equal(
            source.tensors["box_head/mrcnn_bbox_fc/bias"].read(), layers["mrcnn_bbox_fc"]["bias"]
        )


def test_our_own_checkpoints_bring_settings_and_names(tmp_path):
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    save_checkpoint(tmp_path / "a.h5", {"rpn/a": layer}, {"config": {"NUM_CLASSES": 2}, "class_names": ["BG", "cat"]})
    source = read_source(tmp_path / "a.h5")
    assert source.is_own and source.settings == {"NUM_CLASSES": 2} and source.class_names == ["BG", "cat"]
    np.testing.assert_array_equal(source.tensors["rpn/a/kernel"].read(), layer.kernel)


def test_coco_s_names_where_the_number_of_classes_says_so(tmp_path):
    for classes, third, last in ((81, "car", "toothbrush"), (91, "car", "toothbrush"), (80, None, None)):
        matterport_writer.save(
            tmp_path / "a.h5", matterport_writer.values_of(matterport_writer.shapes(classes=classes))
        )
        source = read_source(tmp_path / "a.h5")
        names = source.class_names
        assert len(names) == (classes if third else 0) == len(source.notes) * classes
        if third:
            assert (names[0], names[3], names[-1]) == ("BG", third, last)
            assert source.notes[0] == (
                f"the file has {classes} classes but no class names; COCO's are assumed because the count matches. "
                "Pass class_names=[...] if they differ"
            )


def test_coco_s_names_and_ids():
    assert len(COCO_CLASSES) == 80 and list(COCO_CLASSES) == sorted(COCO_CLASSES) and max(COCO_CLASSES) == 90
    by_id, in_turn = coco_names(91), coco_names(81)
    assert [name for name in by_id if not name.startswith("unused")] == in_turn
    assert (by_id[90], by_id[12], by_id[13], in_turn[12]) == ("toothbrush", "unused 12", "stop sign", "stop sign")
    assert len(set(by_id)) == 91 and coco_names(3) == []


# What is wrong


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "is not an HDF5 file, a torch.save file or a pickle .0 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not an HDF5 file.*beginning with b'vers'.*Supported: "),
        (b"\xff\xd8\xff\xe0JFIF", "not an HDF5 file"),
        (b"\x80\x02}q", "truncated or damaged"),
        (b"PK\x03\x04and no end", "a zip file, as torch.save writes, that is truncated or damaged; fetch it again"),
        (b"\x89HDF\r\n\x1a\n and no end", "weights is truncated or damaged"),
    ],
)
def test_files_of_nothing(tmp_path, content, message):
    path = tmp_path / "weights"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_source(path)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint file at .*gone.h5; `mrcnn weights` lists"):
        read_source(tmp_path / "gone.h5")
    with pytest.raises(FileNotFoundError, match="it is a folder"):
        read_source(tmp_path)


def test_other_weights_are_named_and_what_is_known(tmp_path):
    others = {f"encoder.layer.{i}.weight": np.ones(2, np.float32) for i in range(7)}
    for kind, writer in WRITERS.items():
        writer(tmp_path / kind, {"state_dict": others})
        with pytest.raises(
            ValueError,
            match=r"it contains encoder.layer.0.weight, encoder.layer.1.weight, .* and 2 more. "
            r"Supported: a checkpoint of this package; matterport's .*Detectron2's",
        ):
            read_source(tmp_path / kind)
    save_pickle(tmp_path / "list.pkl", [1, 2])
    with pytest.raises(ValueError, match="it contains no tensors. Supported: "):
        read_source(tmp_path / "list.pkl")
    save_pickle(tmp_path / "empty.pkl", {"model": {}, "epoch": 3})
    with pytest.raises(ValueError, match="it contains model, epoch. Supported"):
        read_source(tmp_path / "empty.pkl")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["dense_7/dense_7/kernel:0"] = np.ones((2, 2))
    with pytest.raises(ValueError, match="it contains dense_7. Supported"):
        read_source(tmp_path / "other.h5")


def test_a_pickle_that_asks_for_more_runs_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return shutil.rmtree, (str(tmp_path),)

    for kind, writer in WRITERS.items():
        path = tmp_path / kind
        writer(path, {"model": {"backbone.body.conv1.weight": Evil()}})
        with pytest.raises(ForbiddenPickle, match="asks for shutil.rmtree"):
            read_source(path)
        assert path.exists()


@pytest.mark.parametrize(
    "name, shape, message",
    [
        ("backbone.body.conv1.weight", (7,), r"conv1.weight has shape \(7,\); 4 axes were expected"),
        (
            "backbone.body.layer1.0.conv1.weight",
            (8, 8),
            r"layer1.0.conv1.weight has shape \(8, 8\); 4 axes were expected",
        ),
        ("rpn.head.cls_logits.weight", (), "names of a known model, but a tensor of another shape|axes were expected"),
        ("roi_heads.box_head.fc6.weight", (12, 5), "a.pth"),
    ],
)
def test_tensors_of_another_shape(torchvision, tmp_path, name, shape, message):
    save_zip(tmp_path / "a.pth", torchvision | {name: np.ones(shape, np.float32)})
    with pytest.raises(ValueError, match=message):
        read_source(tmp_path / "a.pth")


def test_a_tensor_that_is_not_there(torchvision, tmp_path):
    gone = "backbone.body.layer2.0.bn1.running_var"
    save_zip(tmp_path / "a.pth", {name: value for name, value in torchvision.items() if name != gone})
    with pytest.raises(ValueError, match=f"a.pth lacks the tensor '{gone}'"):
        tensors = read_source(tmp_path / "a.pth").tensors
        tensors["trunk/bn3a_branch2a/gamma"].read()
    layers = matterport_writer.values_of(matterport_writer.shapes())
    del layers["mrcnn_mask_conv3"]
    matterport_writer.save(tmp_path / "a.h5", layers)
    with pytest.raises(ValueError, match="a.h5 lacks mrcnn_mask_conv3/kernel"):
        read_source(tmp_path / "a.h5")
