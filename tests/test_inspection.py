"""Looking inside: what is shown is what the graphs compute, step by step."""

import cv2
import numpy as np
import pytest

from mrcnn import inspection
from mrcnn.data.loader import Loader
from mrcnn.layers.anchors import pyramid_anchors
from mrcnn.model import MaskRCNN
from mrcnn.ops import boxes as box_ops
from tests.tiny import SIDE, TinyConfig, TinyDataset

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> MaskRCNN:
    config = TinyConfig(DETECTION_MIN_CONFIDENCE=0.2, RPN_NMS_THRESHOLD=0.3)
    return MaskRCNN("training", config, tmp_path_factory.mktemp("logs"))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return TinyDataset(sizes=((48, 64),)).load_image(1)


def in_network(model: MaskRCNN, image: np.ndarray) -> dict:
    """What the compiled graph says, in pixels of the network's input."""
    molded = model.detector.network_input(image)
    return model.detector.run(molded.image[None], molded.window[None])[0]


def test_the_view_is_the_photograph_padded_with_the_mean_color(model, image):
    view = inspection.network_view(model, image)
    np.testing.assert_array_equal(view[:48], image)
    assert view.shape == (SIDE, SIDE, 3) and np.unique(view[48:]).tolist() == [128]  # 127.5, rounded to even


def test_rpn_predictions_are_of_all_anchors_in_order(model, image):
    rpn = inspection.rpn_predictions(model, image)
    config, sides = model.config, [16, 8, 4, 2, 1]
    anchors = pyramid_anchors(
        config.RPN_ANCHOR_SCALES, config.RPN_ANCHOR_RATIOS, [(s, s) for s in sides], config.BACKBONE_STRIDES
    )
    np.testing.assert_array_equal(rpn.anchors, np.concatenate(anchors))
    assert np.bincount(rpn.levels).tolist() == [0, 0, 256, 64, 16, 4, 1]
    logits, deltas = model.network.rpn(model.network.trunk(model.detector.network_input(image).image[None])[1])  # P3
    np.testing.assert_allclose(rpn.scores[rpn.levels == 3], 1 / (1 + np.exp(-np.array(logits[0]))), atol=1e-6)
    np.testing.assert_allclose(rpn.deltas[rpn.levels == 3], deltas[0], atol=1e-6)
    np.testing.assert_allclose(rpn.refined, box_ops.decode(rpn.deltas, rpn.anchors, config.RPN_BBOX_STD_DEV))


def check_proposal_steps(model: MaskRCNN, image: np.ndarray, bounds=(0, 0, 48, 64)) -> inspection.ProposalSteps:
    steps = inspection.proposal_steps(model, image)
    assert steps.kept.sum() == len(steps.proposals) > 0
    # Both are best first, so the kept candidates are the proposals, row by row
    np.testing.assert_allclose(steps.clipped[steps.kept], steps.proposals, atol=1e-3)
    np.testing.assert_allclose(steps.scores[steps.kept], steps.proposal_scores, atol=1e-6)
    assert (np.diff(steps.scores) <= 0).all() and (np.diff(steps.proposal_scores) <= 1e-7).all()
    inside = box_ops.clip(steps.refined[None], np.array([bounds], np.float32))[0]
    np.testing.assert_allclose(steps.clipped, inside, atol=1.01 if model.config.BOXES_INCLUSIVE else 1e-4)
    return steps


def test_proposal_steps_lead_to_the_graphs_own_proposals(model, image):
    steps = check_proposal_steps(model, image)
    assert np.bincount(steps.levels).tolist() == [0, 0, 50, 50, 16, 4, 1]  # at most PRE_NMS_LIMIT a level
    # What NMS left out overlaps a better proposal of its level, or came too late
    worst = steps.proposal_scores[-1]
    dropped = ~steps.kept & (steps.scores > worst) & (np.array(box_ops.area(steps.clipped)) > 0)
    for i in np.flatnonzero(dropped):
        rivals = steps.kept & (steps.levels == steps.levels[i]) & (steps.scores >= steps.scores[i])
        overlaps = np.array(box_ops.iou(steps.clipped[i][None], steps.clipped[rivals]))
        assert overlaps.max() > model.config.RPN_NMS_THRESHOLD - 1e-3
    assert dropped.any()


def test_proposal_steps_over_all_levels_with_inclusive_corners(image, tmp_path):
    config = TinyConfig(RPN_PER_LEVEL=False, BOXES_INCLUSIVE=True, RPN_BBOX_STD_DEV=[0.1, 0.1, 0.2, 0.2])
    steps = check_proposal_steps(MaskRCNN("inference", config, tmp_path), image)
    assert len(steps.anchors) == 50  # of all levels together


def test_proposals_may_reach_into_the_padding(image, tmp_path):
    model = MaskRCNN("inference", TinyConfig(RPN_CLIP_TO_PHOTOGRAPH=False), tmp_path)
    steps = check_proposal_steps(model, image, bounds=(0, 0, SIDE, SIDE))
    assert steps.proposals[:, 2].max() > 48


def test_detection_steps_end_with_the_detections(model, image):
    steps, found = inspection.detection_steps(model, image), in_network(model, image)
    assert len(found["boxes"]) > 2
    np.testing.assert_allclose(steps.clipped[steps.kept], found["boxes"], atol=1e-3)
    np.testing.assert_allclose(steps.scores[steps.kept], found["scores"], atol=1e-5)
    assert steps.class_ids[steps.kept].tolist() == found["class_ids"].tolist()
    rois, over, _, detections = found["counts"]
    assert (len(steps.rois), len(steps.roi), steps.kept.sum()) == (rois, over, detections)
    np.testing.assert_allclose(steps.probabilities.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(steps.scores, steps.probabilities[steps.roi, steps.class_ids])
    assert steps.scores.min() > 0.2 and steps.class_ids.min() == 1


def test_detection_steps_with_one_class_a_roi(image, tmp_path):
    config = TinyConfig(DETECTION_BEST_CLASS_ONLY=True, BOXES_INCLUSIVE=True, DETECTION_MIN_CONFIDENCE=0.0)
    model = MaskRCNN("inference", config, tmp_path)
    steps, found = inspection.detection_steps(model, image), in_network(model, image)
    assert len(np.unique(steps.roi)) == len(steps.roi) == found["counts"][1]
    np.testing.assert_array_equal(steps.class_ids, steps.probabilities[steps.roi].argmax(axis=1))
    np.testing.assert_allclose(steps.clipped[steps.kept], found["boxes"], atol=1e-3)


def test_mask_predictions_hold_those_of_the_detections(model, image):
    masks, found = inspection.mask_predictions(model, image), in_network(model, image)
    np.testing.assert_allclose(masks.boxes, found["boxes"], atol=1e-3)
    assert masks.features.shape == (len(masks.boxes), 8, 8, 16)
    assert masks.masks.shape == (len(masks.boxes), 16, 16, 3)
    own = masks.masks[np.arange(len(masks.boxes)), ..., masks.class_ids]
    np.testing.assert_allclose(own, found["masks"], atol=1e-4)


def test_nothing_found_is_empty_everywhere(image, tmp_path):
    model = MaskRCNN("inference", TinyConfig(DETECTION_MIN_CONFIDENCE=1.0), tmp_path)
    steps, masks = inspection.detection_steps(model, image), inspection.mask_predictions(model, image)
    assert len(steps.rois) == 30 and steps.clipped.shape == (0, 4) and steps.kept.shape == (0,)
    assert masks.boxes.shape == (0, 4) and masks.features.shape[0] == 0 and masks.masks.shape == (0, 16, 16, 3)


def test_activations_are_those_of_the_trunk(model, image):
    values = inspection.activations(model, image, ["res2_relu", "fpn_p3"])
    levels = model.network.trunk(model.detector.network_input(image).image[None])
    np.testing.assert_allclose(values["fpn_p3"], levels[1][0], atol=1e-5)
    assert values["res2_relu"].shape == (16, 16, 8) and values["res2_relu"].min() >= 0
    assert {name: value.shape[0] for name, value in inspection.activations(model, image).items()} == {
        "fpn_p2": 16,
        "fpn_p3": 8,
        "fpn_p4": 4,
        "fpn_p5": 2,
        "fpn_p6": 1,
    }


def test_photographs_may_be_paths_and_gray(model, image, tmp_path):
    gray = image.mean(axis=2).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "gray.png"), gray)
    np.testing.assert_array_equal(
        inspection.rpn_predictions(model, tmp_path / "gray.png").scores,
        inspection.rpn_predictions(model, np.stack([gray] * 3, axis=-1)).scores,
    )


def test_an_unknown_layer_is_named_with_its_neighbors(model, image):
    with pytest.raises(ValueError, match=r"'trunk' has no layer 'fpn_p7'; similar names: \['fpn_p"):
        inspection.activations(model, image, ["fpn_p7"])
    with pytest.raises(ValueError, match="'mask_rcnn' has no layer 'rpn_model'"):
        inspection.layer_values(model.inference_model, {}, ["rpn_model"])


@pytest.fixture(scope="module")
def taught(model) -> tuple[dict, inspection.Targets]:
    loader = Loader(TinyDataset(), model.config, scaling=model.scaling, training=False)
    batch = loader.assemble_batch(0, 0)
    loader.close()
    return batch, inspection.training_targets(model, batch)


def test_targets_of_anchors_are_the_objects(model, taught):
    batch, targets = taught
    assert targets.anchor_labels.shape == (2, 32) and set(np.unique(targets.anchor_labels)) <= {-1, 0, 1}
    for i in range(2):
        positive = targets.anchor_labels[i] == 1
        assert positive.any() and not targets.anchor_boxes[i][~positive].any()
        objects = batch["gt_boxes"][i][batch["gt_class_ids"][i] > 0]
        anchors = targets.anchors[targets.anchor_index[i]]
        overlaps = np.array(box_ops.iou(anchors, objects))
        np.testing.assert_allclose(
            targets.anchor_boxes[i][positive], objects[overlaps[positive].argmax(axis=1)], atol=1e-3
        )
        assert overlaps[targets.anchor_labels[i] == 0].max() < model.config.RPN_NEGATIVE_OVERLAP


def test_targets_of_rois_and_masks_are_the_objects(taught):
    batch, targets = taught
    for i in range(2):
        positive = targets.roi_class_ids[i] > 0
        objects, class_ids = batch["gt_boxes"][i], batch["gt_class_ids"][i]
        overlaps = np.array(box_ops.iou(targets.rois[i], objects))
        nearest = overlaps.argmax(axis=1)
        assert positive.any() and overlaps[positive].max(axis=1).min() >= 0.5
        np.testing.assert_allclose(targets.roi_boxes[i][positive], objects[nearest[positive]], atol=1e-3)
        assert targets.roi_class_ids[i][positive].tolist() == class_ids[nearest[positive]].tolist()
        assert not targets.roi_boxes[i][~positive].any() and targets.roi_sampled[i][positive].all()
    # The ground truth is among the RoIs: its mask is its own mini mask, brought to the size of the head's
    count = len(targets.mask_rois)
    assert targets.mask_targets.shape == targets.mask_predictions.shape == (count, 16, 16)
    assert count == (targets.roi_class_ids > 0).sum()
    exact = 0
    for row in range(count):
        i = targets.mask_image[row]
        same = np.abs(batch["gt_boxes"][i] - targets.mask_rois[row]).max(axis=1) < 1e-3
        if same.any():
            mini = cv2.resize(
                batch["gt_masks"][i][same.argmax()].astype(np.float32), (16, 16), interpolation=cv2.INTER_AREA
            )
            assert ((mini >= 127.5) == targets.mask_targets[row]).mean() > 0.97
            exact += 1
    assert exact > 0


def test_predicted_masks_are_those_that_the_loss_sees(model, taught):
    batch, targets = taught
    outputs = model.training_model(batch, training=False)
    np.testing.assert_allclose(targets.mask_predictions, outputs["masks"], atol=1e-4)
    np.testing.assert_array_equal(targets.anchor_labels, outputs["rpn_labels"])


def test_a_batch_without_objects_teaches_background(model):
    config = TinyConfig(ALLOW_EMPTY_IMAGES=True, IMAGES_PER_GPU=1)
    loader = Loader(TinyDataset(1, empty=[0]), config, scaling=model.scaling, training=False)
    targets = inspection.training_targets(model, loader.assemble_batch(0, 0))
    loader.close()
    assert not (targets.anchor_labels == 1).any() and not targets.roi_class_ids.any()
    assert targets.roi_sampled.all() and not targets.roi_boxes.any()
    assert targets.mask_targets.shape == (1, 16, 16) and not targets.mask_targets.any()
