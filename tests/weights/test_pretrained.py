"""from_pretrained: weights by name, models for other classes, and no part that stays untrained without a word."""

import shutil

import numpy as np
import pytest

from mrcnn.config import Config
from mrcnn.model import MaskRCNN
from mrcnn.weights import published
from mrcnn.weights.pretrained import locate, with_background
from mrcnn.weights.published import PublishedWeights
from mrcnn.weights.recognize import read_source
from tests import parity
from tests.test_from_pretrained import IMAGE, SMALL, save_pointrend, save_torchvision
from tests.tiny import TinyDataset
from tests.weights.importers import test_detectron2, test_keypoints, test_torchvision
from tests.weights.torch_writer import save_zip

pytestmark = pytest.mark.slow

COCO = 91  # classes of torchvision's files, whose names are COCO's


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """A small file of torchvision's with COCO's classes."""
    return save_torchvision(tmp_path_factory.mktemp("files"), classes=COCO)


@pytest.fixture
def named(coco, monkeypatch, tmp_path):
    """The same by a name, in the cache already: nothing is fetched."""
    row = PublishedWeights("torchvision/small", "http://127.0.0.1:9/small.pth")
    monkeypatch.setitem(published.PUBLISHED, row.name, row)
    monkeypatch.setenv("MRCNN_CACHE", str(tmp_path))
    row.path().parent.mkdir(parents=True)
    shutil.copy(coco, row.path())
    return row


def test_a_model_by_name(named):
    model = MaskRCNN.from_pretrained("torchvision/small", **SMALL)
    assert model.mode == "inference" and model.config.NUM_CLASSES == COCO and model.class_names[1] == "person"
    assert len(model.detect([IMAGE])[0]["scores"])


def test_weights_of_a_name_are_loaded_into_a_model_that_is_there(named):
    model = MaskRCNN.from_pretrained("torchvision/small", **SMALL)
    before = [np.array(value) for layer in model.network.layers().values() for value in layer.get_weights()]
    for layer in model.network.layers().values():
        layer.set_weights([np.zeros_like(value) for value in layer.get_weights()])
    report = model.load_weights("torchvision/small")
    assert not report.missing
    after = [value for layer in model.network.layers().values() for value in layer.get_weights()]
    for value, expected in zip(after, before, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_names_and_paths(tmp_path, monkeypatch, named):
    assert locate("torchvision/small") == named.path()
    assert locate(tmp_path / "none.h5") == tmp_path / "none.h5", "the reader says that it is missing"
    with pytest.raises(ValueError, match="no weights called 'torchvision/smal'; did you mean torchvision/small"):
        locate("torchvision/smal")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "matterport").mkdir()
    (tmp_path / "matterport" / "coco").write_text("a file of one's own")
    assert str(locate("matterport/coco")) == "matterport/coco", "a file goes before a name"


def test_a_model_for_classes_of_ones_own_is_ready_to_be_trained(coco, tmp_path, capsys):
    model = MaskRCNN.from_pretrained(
        coco, model_dir=tmp_path, classes=["cat", "gnu"], STEPS_PER_EPOCH=1, VALIDATION_STEPS=1, TRAIN_ROIS_PER_IMAGE=8,
        IMAGES_PER_GPU=1, MAX_GT_INSTANCES=4, **SMALL,
    )  # fmt: skip
    assert model.mode == "training" and model.class_names == ["BG", "cat", "gnu"] and model.config.NUM_CLASSES == 3
    assert "classes kept by name: cat; unchanged: gnu" in capsys.readouterr().out
    source = MaskRCNN.from_pretrained(coco, **SMALL)
    ours, theirs = (m.network.layers()["box_head/mrcnn_class_logits"].get_weights()[0] for m in (model, source))
    cat = source.class_names.index("cat")
    np.testing.assert_array_equal(ours[:, :2], theirs[:, [0, cat]])
    dataset = TinyDataset(2)
    model.train(dataset, None, learning_rate=1e-4, epochs=1, layers="heads")
    assert "finetuned" in model.log_dir.name and model.find_last().is_file()


def test_what_a_configuration_says_stays_with_classes(coco):
    class Mine(Config):
        NAME = "mine"
        IMAGE_MIN_DIM = IMAGE_MAX_DIM = 64

    model = MaskRCNN.from_pretrained(coco, "inference", config=Mine, classes=["cat"], keep_classes=False)
    assert (model.mode, model.config.NAME, model.config.NUM_CLASSES) == ("inference", "mine", 2)


@pytest.mark.parametrize("keep", [False, ["BG", "cat", "b", "c", "d"]])
def test_pointrend_for_classes_of_ones_own(tmp_path, keep, capsys):
    """The layers of its mask head whose inputs or outputs mix the classes are new, the others the file's."""
    path = save_pointrend(tmp_path)
    model = MaskRCNN.from_pretrained(path, classes=["cat", "gnu"], keep_classes=keep, **SMALL)
    assert model.config.MASK_HEAD["name"] == "pointrend" and model.network.head.classes == 2
    new = "mask_head/coarse/logits, mask_head/points/fc1, mask_head/points/fc2, mask_head/points/fc3, mask_head/points/"
    assert (f"unchanged, because they mix the classes: {new}logits" in capsys.readouterr().out) == bool(keep)
    layers, source = model.network.layers(), read_source(path)
    for name in ("coarse/reduce", "coarse/fc1", "coarse/fc2"):
        np.testing.assert_array_equal(
            layers[f"mask_head/{name}"].get_weights()[0], source.tensors[f"mask_head/{name}/kernel"].read()
        )


@pytest.mark.parametrize("classes", ["cat", [], [""], ["cat", "cat"], ["BG", "cat"], [3], ("cat", None)])
def test_classes_that_are_none(coco, classes):
    with pytest.raises(ValueError, match="classes must"):
        MaskRCNN.from_pretrained(coco, classes=classes)
    assert with_background(("cat", "dog")) == ["BG", "cat", "dog"]


@pytest.mark.parametrize("arguments", [{"class_names": ["BG", "cat"]}, {"NUM_CLASSES": 2}])
def test_classes_are_said_once(coco, arguments):
    with pytest.raises(ValueError, match="leave out class_names and NUM_CLASSES"):
        MaskRCNN.from_pretrained(coco, classes=["cat"], **arguments)


# Parts that a file has not


def without_masks(shapes, *more):
    kept = {name: shape for name, shape in shapes.items() if ".mask_" not in name}
    return parity.values_of(kept | dict(more))


def keypoints(path):
    state = without_masks(
        test_torchvision.shapes(),
        ("roi_heads.keypoint_head.0.weight", (16, 16, 3, 3)),
        ("roi_heads.keypoint_head.0.bias", (16,)),
    )
    save_zip(path, state)


def point_rend(path):
    state = without_masks(
        test_detectron2.shapes(),
        ("roi_heads.mask_head.coarse_head.reduce_spatial_dim_conv.weight", (16, 16, 2, 2)),
        ("roi_heads.mask_head.point_head.predictor.weight", (4, 16, 1)),
    )
    save_zip(path, {"model": state})


def boxes_alone(path):
    save_zip(path, without_masks(test_torchvision.shapes()))


def trunk_with_pyramid(path):
    shapes = test_torchvision.shapes()
    save_zip(path, parity.values_of({name: shape for name, shape in shapes.items() if name.startswith("backbone.")}))


@pytest.mark.parametrize(
    "save, parts, left, settings",
    [
        (keypoints, "mask head", "keypoint_head", {}),
        (point_rend, "mask head", "coarse_head", {}),
        (boxes_alone, "mask head", "", {"MASK_HEAD": "fcn"}),
        (trunk_with_pyramid, "rpn and the box head and the mask head", "", {}),
    ],
)
def test_a_part_that_would_be_random_is_named(tmp_path, save, parts, left, settings):
    """Masks of such a model are noise."""
    path = tmp_path / "a.pth"
    save(path)
    with pytest.raises(
        ValueError, match=f"a.pth .*has no weights for the {parts}.*{left}.*would detect noise.*exclude="
    ):
        MaskRCNN.from_pretrained(path, **{**SMALL, **settings})


@pytest.mark.parametrize("arguments", [{"exclude": ["mask_head"]}, {"classes": ["cat"]}, {"NUM_CLASSES": 2}])
def test_unless_it_is_excluded_or_other_classes_are_asked_for(tmp_path, arguments):
    path = tmp_path / "a.pth"
    keypoints(path)
    assert MaskRCNN.from_pretrained(path, **SMALL, **arguments).config.BACKBONE == "resnet50"


def test_the_files_own_number_of_classes_excuses_nothing(tmp_path):
    path = tmp_path / "a.pth"
    keypoints(path)
    with pytest.raises(ValueError, match="has no weights for the mask head"):
        MaskRCNN.from_pretrained(path, NUM_CLASSES=5, **SMALL)


def test_what_is_excluded_excuses_nothing_else(tmp_path):
    path = tmp_path / "a.pth"
    keypoints(path)
    with pytest.raises(ValueError, match="has no weights for the mask head"):
        MaskRCNN.from_pretrained(path, exclude=["box_head"], **SMALL)


def test_other_keypoints_excuse_their_own_layer_alone(tmp_path):
    shapes, *_ = test_keypoints.PROGRAMS["torchvision"]
    path, masks = tmp_path / "points.pth", tmp_path / "masks.pth"
    save_zip(path, parity.values_of(shapes(5)))
    save_zip(masks, parity.values_of(test_torchvision.shapes()))
    model = MaskRCNN.from_pretrained(path, NUM_KEYPOINTS=3, **SMALL)
    assert model.network.keypoints.num_classes == 3
    with pytest.raises(ValueError, match="has no weights for the mask head"):
        MaskRCNN.from_pretrained(path, NUM_KEYPOINTS=3, MASK_HEAD="fcn", **SMALL)
    with pytest.raises(ValueError, match="has no weights for the keypoint head"):
        MaskRCNN.from_pretrained(masks, NUM_KEYPOINTS=3, KEYPOINT_HEAD="keypoints", **SMALL)


def test_parts_of_a_model_without_masks_may_be_excluded(tmp_path):
    path = tmp_path / "boxes.pth"
    save_zip(path, parity.values_of({k: v for k, v in test_torchvision.shapes().items() if "mask" not in k}))
    model = MaskRCNN.from_pretrained(path, exclude=["mrcnn_mask", "box_head"], **SMALL)
    assert model.network.head is None
