"""A network with a keypoint head: both graphs, with and without masks."""

import numpy as np
import pytest

from mrcnn.data.loader import Loader
from mrcnn.model import MaskRCNN
from mrcnn.training.model import TrainingModel, set_trainable
from tests.tiny import SIDE, TinyDataset, TinyKeypointConfig, TinyKeypoints

pytestmark = pytest.mark.slow


class KeypointsAlone(TinyKeypointConfig):
    MASK_HEAD = None


def outputs_of(config, dataset):
    model = MaskRCNN("training", config)
    loader = Loader(dataset, config, scaling=model.scaling, steps=1)
    (inputs,) = loader[0]
    loader.close()
    training = TrainingModel(model.network, config)
    return training, inputs, training(inputs, training=True)


@pytest.mark.parametrize("kind", [TinyKeypointConfig, KeypointsAlone])
def test_training_learns_keypoints_of_positives(kind):
    training, inputs, outputs = outputs_of(kind(), TinyKeypoints())
    assert training.loss_names[-1] == "mrcnn_keypoint_loss"
    assert ("mrcnn_mask_loss" in training.loss_names) == (kind is TinyKeypointConfig)
    losses = {name: float(value) for name, value in training.losses_of(outputs).items()}
    assert all(np.isfinite(value) for value in losses.values()) and list(losses) == training.loss_names
    # Ground-truth boxes are among the RoIs, so that there is something to learn; at first every cell is as likely
    assert losses["mrcnn_keypoint_loss"] == pytest.approx(np.log(32 * 32), rel=0.5)
    truth = outputs["keypoint_truth"]
    assert (np.array(truth["weight"]) == 1).all() and len(truth["boxes"]) >= (inputs["gt_class_ids"] > 0).sum()


def test_instances_without_visible_keypoints_do_not_teach():
    class Unlabeled(TinyKeypoints):
        def load_keypoints(self, image_id):
            keypoints = super().load_keypoints(image_id)
            return keypoints * 0 if image_id else keypoints

    dataset = Unlabeled(2)
    _, inputs, outputs = outputs_of(TinyKeypointConfig(HORIZONTAL_FLIP=0.0), dataset)
    rows = {int(image) for image in inputs["image_id"]}
    assert rows == {0, 1}
    place = inputs["image_id"].tolist().index(0)
    assert set(np.array(outputs["keypoint_truth"]["image_index"]).tolist()) == {place}


def test_a_batch_without_keypoints_has_a_loss_of_zero():
    class Unlabeled(TinyKeypoints):
        def load_keypoints(self, image_id):
            return None

    training, _, outputs = outputs_of(TinyKeypointConfig(), Unlabeled(2))
    assert float(training.losses_of(outputs)["mrcnn_keypoint_loss"]) == 0


@pytest.mark.parametrize("kind", [TinyKeypointConfig, KeypointsAlone])
def test_detection_gives_keypoints_in_the_image(kind, tmp_path):
    model = MaskRCNN("inference", kind(DETECTION_MIN_CONFIDENCE=0.0))
    dataset = TinyKeypoints(3, sizes=((SIDE, SIDE), (40, 80)))
    model.skeleton = dataset.skeleton
    results = model.detect([dataset.load_image(i) for i in range(3)])
    for found in results:
        assert found.count and found.keypoints.shape == (found.count, 3, 3)
        assert found.skeleton == dataset.skeleton
        boxes = found.rois[:, None]
        inside = (found.keypoints[..., :2] >= boxes[..., :2] - 1) & (found.keypoints[..., :2] <= boxes[..., 2:] + 1)
        assert inside.all()
        assert found.masks.shape[2] == found.count
    model.save_weights(tmp_path / "a.h5")
    other = MaskRCNN.from_pretrained(tmp_path / "a.h5", config=kind(DETECTION_MIN_CONFIDENCE=0.0))
    assert other.skeleton == dataset.skeleton
    np.testing.assert_array_equal(other.detect([dataset.load_image(0)])[0].keypoints, results[0].keypoints)


def test_layers_of_the_head_are_heads():
    network = MaskRCNN("training", TinyKeypointConfig()).network
    chosen = set_trainable(network, "heads", train_bn=False)
    assert {"mrcnn_keypoint/conv1", "mrcnn_keypoint/deconv", "mrcnn_mask/masks"} <= set(chosen)
    assert set_trainable(network, r"mrcnn_keypoint/.*", train_bn=False) == [
        "mrcnn_keypoint/conv1",
        "mrcnn_keypoint/deconv",
    ]


def test_tiles_and_augmented_views_are_refused():
    model = MaskRCNN("inference", TinyKeypointConfig())
    for options in ({"tile": 64}, {"augment": True}):
        with pytest.raises(NotImplementedError, match="not keypoints"):
            model.detect([np.zeros((64, 64, 3), np.uint8)], **options)


def test_settings_that_contradict_each_other():
    with pytest.raises(ValueError, match='KEYPOINT_HEAD must be None for NECK = "c4"'):
        TinyKeypointConfig(NECK="c4", BACKBONE_STRIDES=[16], BOX_HEAD_FC_LAYERS=0, POOL_SIZE=8)
    with pytest.raises(ValueError, match="NUM_CLASSES must be 1 \\+ the classes whose instances have keypoints"):
        TinyKeypointConfig(NUM_CLASSES=1)
    with pytest.raises(ValueError, match="NUM_KEYPOINTS must be an integer of 1 or more"):
        TinyKeypointConfig(NUM_KEYPOINTS=0)
    weights = {**TinyKeypointConfig().LOSS_WEIGHTS, "mrcnn_keypoint_loss": 2.0}
    assert TinyKeypointConfig(LOSS_WEIGHTS=weights).LOSS_WEIGHTS["mrcnn_keypoint_loss"] == 2
    model = MaskRCNN("training", TinyKeypointConfig(NUM_KEYPOINTS=5))
    with pytest.raises(ValueError, match=r"has 3 keypoints .* but NUM_KEYPOINTS is 5; set it to 3"):
        Loader(TinyKeypoints(), model.config, scaling=model.scaling)
    with pytest.raises(ValueError, match="the TinyDataset has no keypoints: set its skeleton"):
        Loader(TinyDataset(), model.config, scaling=model.scaling)
    with pytest.raises(ValueError, match="is a mask head; a keypoints head is needed: \\['keypoints'\\]"):
        MaskRCNN("training", TinyKeypointConfig(KEYPOINT_HEAD="fcn"))
