"""Where stage 5 of a ResNet goes: it belongs to the trunk, and with NECK = "c4" to the heads."""

import numpy as np
import pytest

from mrcnn.model import MaskRCNN
from mrcnn.network.graph import build_network
from mrcnn.weights.loading import _with_stage_5
from mrcnn.weights.source import Source
from tests.network.test_necks import KINDS, NARROW
from tests.tiny import TinyConfig

C4 = TinyConfig(**KINDS["c4"])
TENSORS = {name: np.zeros(1) for name in ("trunk/res4a_branch1/kernel", "trunk/bn5a_branch1/gamma", "trunk/res5c/x")}


@pytest.mark.slow
def test_stage_5_moves_where_the_network_has_it():
    network = build_network(C4)
    found = _with_stage_5(Source("x", TENSORS, parts=("trunk", "rpn")), network)
    assert list(found.tensors) == ["trunk/res4a_branch1/kernel", "roi_stage/bn5a_branch1/gamma", "roi_stage/res5c/x"]
    assert found.parts == ("trunk", "rpn", "roi_stage")
    assert _with_stage_5(found, network) is found, "it is there already"
    back = _with_stage_5(found, build_network(TinyConfig(**NARROW)))
    assert back.tensors.keys() == TENSORS.keys() and back.parts == ("trunk", "rpn")


def test_a_checkpoint_of_c4_holds_stage_5(tmp_path, capsys):
    MaskRCNN("training", C4, tmp_path).save_weights(tmp_path / "a.h5")
    model = MaskRCNN("training", TinyConfig(**KINDS["c4"], SEED=1), tmp_path)
    report = model.load_weights(tmp_path / "a.h5")
    assert not report.missing and not report.notes and "only" not in capsys.readouterr().out
    assert len(report.loaded) == sum(len(layer.weights) for layer in model.network.layers().values())


@pytest.mark.slow
def test_a_trunk_with_a_pyramid_fills_c4_and_its_stage_5(tmp_path):
    """Of a whole checkpoint, every layer of the ResNet is taken over."""
    pyramid = MaskRCNN("training", TinyConfig(**NARROW, SEED=1), tmp_path)
    pyramid.save_weights(tmp_path / "a.h5")
    model = MaskRCNN("training", C4, tmp_path)
    model.load_weights(tmp_path / "a.h5", exclude=["rpn", "box_head", "mask_head", "trunk/fpn_.*"])
    for name in ("res4b_branch2b", "res5b_branch2b"):
        part = model.network.roi_stage if "res5" in name else model.network.trunk
        np.testing.assert_array_equal(
            part.get_layer(name).get_weights()[0], pyramid.network.trunk.get_layer(name).get_weights()[0]
        )
