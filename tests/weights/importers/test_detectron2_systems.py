"""Detectron2's other systems by the names and shapes of its files, made narrow: C4 and DC5 of any depth, ResNeXt, boxes
or keypoints alone. Every weight of the model is in the file, and every weight of the file in the model."""

import json
import pickle
import re

import pytest

from mrcnn.model import MaskRCNN
from mrcnn.weights.recognize import read_source
from tests import oracles, parity

pytestmark = pytest.mark.slow

OUTPUTS = re.compile("cls_score|bbox_pred|predictor|objectness|anchor_deltas")
SMALL = {"IMAGE_MIN_DIM": 64, "IMAGE_MAX_DIM": 64}
SYSTEMS = {
    "C4 R101": ("C4_R_50", 23, "", {"NECK": "c4", "BACKBONE": "resnet101", "KEYPOINT_HEAD": None}),
    "C4 R101 boxes": ("C4_R_50", 23, "mask_head", {"NECK": "c4", "BACKBONE": "resnet101", "MASK_HEAD": None}),
    "DC5 R101": ("DC5_R_50", 23, "", {"NECK": "dc5", "BACKBONE": "resnet101", "POOL_SIZE": 7}),
    "DC5 R101 boxes": ("DC5_R_50", 23, "mask_head", {"NECK": "dc5", "MASK_HEAD": None}),
    "X101": ("X_101_32x8d", 23, "", {"NECK": "fpn", "BACKBONE": "resnet101", "BACKBONE_STRIDE_IN_1X1": False}),
    "X101 boxes": ("X_101_32x8d", 23, "mask_head", {"NECK": "fpn", "MASK_HEAD": None}),
    "keypoints R101": ("keypoint_R_50", 23, "", {"BACKBONE": "resnet101", "MASK_HEAD": None, "NUM_KEYPOINTS": 17}),
}


def narrow(kind, blocks, left_out):
    """The file's names and shapes with an eighth of the channels, and so many blocks in stage 4."""
    stored = json.loads(oracles.path(f"detectron2/state_dict_shapes_{kind}.json").read_text())
    shapes = {}
    for name, shape in stored.items():
        if left_out and re.search(left_out, name):
            continue
        kept = 1 if OUTPUTS.search(name) else 0  # axes that count classes or anchors
        groups = kind.startswith("X") and ".conv2." in name
        sides = [n if i < kept or n < 64 or (groups and i == 1) else n // 8 for i, n in enumerate(shape)]
        shapes[name] = tuple(sides)
        if match := re.fullmatch(r"(.*res4\.)5(\..*)", name):
            shapes |= {f"{match[1]}{i}{match[2]}": tuple(sides) for i in range(6, blocks)}
    return shapes


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_s_file_gives_its_model(system, tmp_path):
    kind, blocks, left_out, expected = SYSTEMS[system]
    path = tmp_path / "model_final.pkl"
    state = parity.values_of(narrow(kind, blocks, left_out))
    path.write_bytes(pickle.dumps({"model": state, "__author__": "Detectron2 Model Zoo"}))
    assert read_source(path, None).unused == {}
    model = MaskRCNN.from_pretrained(path, **SMALL)  # raises for a part without weights
    assert {name: getattr(model.config, name) for name in expected} == expected
    assert model.config.BACKBONE_OPTIONS["width"] == 8
