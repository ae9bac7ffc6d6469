"""Detections left over in the table of parity: those that rounding decided, and those that are wrong."""

from types import SimpleNamespace

import numpy as np
import parity_live
import pytest
from parity_rounding import Candidates, Rules, overlaps
from parity_rows import detection_rows, xyxy
from parity_stages import Stages

from mrcnn.data.pasting import paste_masks
from mrcnn.weights.importers.torchvision import torchvision_source
from tests import parity
from tests.weights.importers import test_torchvision

RULES = Rules(min_score=0.05, iou=0.5, limit=100)
CORNER = (400, 420, 430, 440, 1, 0.9)  # the largest coordinate: boxes of class 80 lie at 80 * 441 = 35280


def listed(*rows):
    """Of (y1, x1, y2, x2, class, score)."""
    rows = np.array(rows, np.float64).reshape(-1, 6)
    return {
        "boxes": rows[:, :4].astype(np.float32),
        "class_ids": rows[:, 4].astype(np.int32),
        "scores": rows[:, 5].astype(np.float32),
    }


def lower(down, class_id=80, score=0.3):
    """A box of 10 x 20 that lies `down` pixels below (0, 0, 20, 10): their IoU is (20 - down) / (20 + down)."""
    return (down, 0, 20 + down, 10, class_id, score)


def upper(class_id=80, score=0.4):
    return (0, 0, 20, 10, class_id, score)


def judged(candidates, ours, theirs, others=None, **options):
    """others: the candidates of theirs, where they are not the same."""
    rules = options.pop("rules", RULES)
    others = candidates if others is None else others
    numbers = Candidates(listed(*candidates), listed(*others), rules=rules, **options)
    return numbers.judged(listed(*ours), listed(*theirs))


def test_iou_by_hand():
    np.testing.assert_allclose(
        overlaps(np.array([[0, 0, 2, 2], [0, 1, 2, 3], [5, 5, 5, 5.0]])), [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 0]]
    )


def test_an_overlap_that_torchvision_rounds_under_the_threshold_is_excused():
    # 6.6663 + 35280 is 6.66796875 in float32, of steps of 1/256: (20 - 6.66796875) / (20 + 6.66796875) = 0.49992676
    every = [CORNER, upper(), lower(6.6663)]
    verdict = judged(every, every[:2], every)
    assert verdict.excused and not verdict.faults and verdict.alone == ([], [2])
    [decision] = verdict.decisions
    assert decision.what == "theirs: IoU" and decision.boundary == 0.5
    np.testing.assert_allclose(
        [decision.exact, decision.low, decision.high], [13.3337 / 26.6663, 0.49992676, 13.3337 / 26.6663], atol=2e-7
    )
    assert "theirs: IoU 0.500020635, 2.1e-05 from 0.5" in str(decision)


def test_what_follows_from_that_decision_is_excused_with_it():
    # The box below is worse than the one that rounding decides about, and overlaps it alone
    every = [CORNER, upper(), lower(6.6663), lower(12, score=0.2)]
    verdict = judged(every, [CORNER, upper(), every[3]], every[:3])
    assert verdict.excused and len(verdict.decisions) == 1 and verdict.alone == ([2], [2])
    assert not judged(every, [CORNER, upper()], every[:3]).excused  # ours has no reason to leave the last one out


@pytest.mark.parametrize(
    "down, class_id, options",
    [
        (6.6, 80, {}),  # an IoU of 0.5038
        (6.6663, 1, {}),  # moved by 441 pixels only, where float32 has steps of 3e-5
        (6.6663, 80, {"offsets": False}),
    ],
)
def test_an_overlap_that_no_program_rounds_so_far_is_not(down, class_id, options):
    every = [CORNER, upper(class_id), lower(down, class_id)]
    verdict = judged(every, every[:2], every, **options)
    assert not verdict.excused
    [fault] = verdict.faults
    assert fault.startswith("theirs: two detections overlap: IoU 0.50")


def test_rounding_of_torchvision_excuses_no_list_of_this_program():
    every = [CORNER, upper(), lower(6.6663)]
    verdict = judged(every, every, every[:2])
    assert not verdict.excused and verdict.faults[0].startswith("ours: two detections overlap: IoU 0.500020635")


def test_more_than_a_thousand_candidates_are_not_moved_by_torchvision():
    far = [(450, 10 * i, 451, 10 * i + 5, 2, 0.04) for i in range(1000)]
    every = [CORNER, upper(), lower(6.6663)]
    assert judged(every + far[:997], every[:2], every).excused
    assert not judged(every + far[:998], every[:2], every).excused


def test_torchvision_moves_boxes_by_the_largest_coordinate_of_its_own_candidates():
    # At 80 * 30001 float32 has steps of 1/4: 6.64 would become 6.75, an IoU of 0.495; at 80 * 441 it is one of 0.501
    only_ours = (0, 0, 30000, 10, 1, 0.050003)
    theirs = [CORNER, upper(), lower(6.64)]
    verdict = judged([*theirs, only_ours], [*theirs[:2], only_ours], theirs, theirs)
    [fault] = verdict.faults
    assert not verdict.excused and fault.startswith("theirs: two detections overlap: IoU 0.5015")
    assert judged([only_ours], [only_ours], [], []).faults == []  # torchvision moves nothing


def test_a_rank_at_the_limit_is_excused_within_the_differences_of_the_scores_alone():
    rules = RULES._replace(limit=1)

    def lists(apart):  # each program has another one first
        ours = [(0, 0, 9, 9, 1, 0.3 + apart), (20, 0, 29, 9, 1, 0.3)]
        theirs = [(0, 0, 9, 9, 1, 0.3), (20, 0, 29, 9, 1, 0.3 + apart)]
        return judged(ours, ours[:1], theirs[1:], theirs, rules=rules)

    verdict = lists(2e-6)
    assert verdict.excused and "rank at the limit, scores apart" in str(verdict.decisions[0])
    assert lists(2e-5).faults == ["scores of candidates are 2e-05 apart"]
    every = [(0, 0, 9, 9, 1, 0.3001), (20, 0, 29, 9, 1, 0.3)]
    verdict = judged(every, every[:1], every[1:], rules=rules)
    assert not verdict.excused and "theirs: a candidate of score 0.300099999" in verdict.faults[0]


def test_a_score_at_the_minimum_is_excused_where_the_other_program_may_have_it_below():
    every = [CORNER, (0, 0, 9, 9, 1, 0.050003)]
    verdict = judged(every, every, every[:1], every[:1])
    assert verdict.excused and verdict.decisions[0].what == "theirs: score"
    clear = [CORNER, (0, 0, 9, 9, 1, 0.0501)]
    assert judged(clear, clear, clear[:1], clear[:1]).faults[0] == "1 candidates of ours are none of theirs"
    assert not judged(clear, clear, clear[:1]).excused  # both have it over the minimum


@pytest.mark.parametrize(
    "ours, theirs, message",
    [
        ([0, 1], [0], "theirs: a candidate of score 0.400000006 is left out"),
        ([0], [0, 1], "ours: a candidate of score 0.400000006 is left out"),
    ],
)
def test_a_candidate_left_out_for_no_reason_is_not_excused(ours, theirs, message):
    every = [CORNER, upper()]
    verdict = judged(every, [every[i] for i in ours], [every[i] for i in theirs])
    assert not verdict.excused and verdict.faults[0].startswith(message)


def test_what_is_no_candidate_is_not_excused_and_neither_are_other_candidates():
    every = [CORNER, upper(), lower(6.6663)]
    verdict = judged(every, every[:2], [*every, (200, 0, 220, 9, 5, 0.3)])
    assert not verdict.excused and verdict.faults == ["1 detections of theirs are no candidates"]
    others = [CORNER, upper(score=0.4001), lower(6.6663)]  # scores differ by more than rounding
    verdict = judged(every, every[:2], others, others)
    assert not verdict.excused and verdict.faults == ["scores of candidates are 0.0001 apart"]
    others = [CORNER, upper(score=np.nan), lower(6.6663)]
    assert "scores of candidates are nan apart" in judged(every, every[:2], others, others).faults
    others = [CORNER, upper(), lower(6.7)]  # boxes do
    assert "1 candidates of theirs are none of ours" in judged(every, every[:2], others, others).faults
    assert judged(every, every[:2], every, rules=RULES._replace(limit=2)).faults == ["theirs: more than 2 detections"]


def test_lists_without_doubt_need_no_excuse_and_get_none():
    every = [CORNER, upper(), lower(1)]
    verdict = judged(every, every[:2], every[:2])
    assert not verdict.excused and verdict == ([], [], ([], []))
    assert judged([], [], []) == ([], [], ([], []))


@pytest.mark.parametrize("score, apart", [(0.9, "0.6"), (0.3002, "0.0002"), (np.nan, "nan")])
def test_a_detection_has_the_score_of_its_candidate(score, apart):
    every = [CORNER, upper(), lower(6.6663)]
    assert judged(every, every[:2], [*every[:2], lower(6.6663, score=0.30005)]).excused
    verdict = judged(every, every[:2], [*every[:2], lower(6.6663, score=score)])
    assert not verdict.excused
    assert verdict.faults == [f"scores of detections of theirs are {apart} from their candidates'"]


def test_the_table_tells_what_rounding_decided_and_what_is_wrong():
    every = [CORNER, upper(), lower(6.6663)]
    ours, theirs = listed(*every[:2]), listed(*every)

    def rows(candidates):
        numbers = Candidates(candidates, candidates, rules=RULES)
        return detection_rows(
            "a", "b", ours, theirs, bars={"unmatched": 0}, verdict=lambda: numbers.judged(ours, theirs)
        )[:2]

    left, rounded = rows(theirs)
    assert left.passed and left.figure == 0 and left.note == "(2 pairs of 2 and 3, 1 by rounding)"
    assert rounded.stage == "b: decided by rounding" and rounded.figure == 1 and rounded.bar is None
    assert "IoU 0.500020635" in rounded.note
    left, other = rows(ours)
    assert not left.passed and left.figure == 1 and other.stage == "b: boxes"
    assert left.note == "(2 pairs of 2 and 3): 1 detections of theirs are no candidates"
    left, _ = detection_rows("a", "b", ours, theirs, bars={"unmatched": 0})[:2]
    assert not left.passed and left.figure == 1


def test_one_decision_excuses_no_detection_that_both_lists_have():
    every = [CORNER, upper(), lower(6.6663)]
    verdict = judged(every, every[:2], every)
    moved = listed(CORNER, (3, 0, 23, 10, 80, 0.4))  # as another step has placed `upper`
    left, rounded, *_ = detection_rows("a", "b", moved, listed(*every), bars={"unmatched": 0}, verdict=lambda: verdict)
    assert not left.passed and left.figure == 1
    assert left.note == "(1 pairs of 2 and 3, 1 by rounding): both lists have the candidates of the rest"
    assert rounded.stage == "b: decided by rounding" and rounded.figure == 1


@pytest.mark.parametrize("ours, theirs, alone", [([], [CORNER], 1), ([CORNER, upper()], [lower(3)], 2)])
def test_detections_without_any_pair_never_pass(ours, theirs, alone):
    rows = detection_rows("a", "b", listed(*ours), listed(*theirs), bars={})  # nothing has a bar
    assert [(row.stage, row.passed, row.figure) for row in rows] == [
        ("b: left over", True, alone),
        ("b: no pair to compare", False, alone),
    ]
    [row] = detection_rows("a", "b", listed(), listed(), bars={"unmatched": 0})
    assert row.passed and row.figure == 0


def photograph(scale, window):
    """Rows of what torchvision and this program have in a photograph of half the network's size; scale, window: as this
    program has them."""
    every, size = listed(CORNER, upper(), lower(6.6663)), (300, 300)
    ours, masks = {name: values[:2] for name, values in every.items()}, np.ones((3, 28, 28), np.float32)
    boxes = ((ours["boxes"] - np.tile(window, 2)) / scale).astype(np.float32)
    stages = SimpleNamespace(
        layer=lambda _: SimpleNamespace(min_confidence=0.05, nms_threshold=0.5, max_instances=100),
        candidates=lambda below: every,
        detections=lambda: {**ours, "masks": masks[:2]},
        molded=SimpleNamespace(scale=(scale, scale), window=np.array([*window, 600, 600]), size=size),
    )
    whole = {
        "rois": boxes,
        "class_ids": ours["class_ids"],
        "scores": ours["scores"],
        "masks": paste_masks(masks[:2], boxes, *size),
    }
    arrays = {
        "masks": masks,
        "out_boxes": xyxy(every["boxes"]) / 2,
        "out_masks": paste_masks(masks, every["boxes"] / 2, *size).transpose(2, 0, 1),
    }
    for kind in ("candidate", "det"):
        arrays |= {
            f"{kind}_boxes": xyxy(every["boxes"]),
            f"{kind}_labels": every["class_ids"],
            f"{kind}_scores": every["scores"],
        }
    return {row.stage: row for row in parity_live.detections("a", stages, whole, arrays)}


def test_a_decision_in_the_network_excuses_no_wrong_way_back_to_the_photograph():
    assert [row for row in photograph(2, (0, 0)).values() if not row.passed] == []
    assert photograph(2, (0, 0))["in the photograph: decided by rounding"].figure == 1
    for scale, window in ((4, (0, 0)), (2, (-8, -8))):  # boxes at half their place; 4 pixels off
        rows = photograph(scale, window)
        assert {stage: row.figure for stage, row in rows.items() if not row.passed} == {
            "in the photograph: left over": 2,
            "in the photograph: no pair to compare": 3,
            "in the photograph: torchvision's masks pasted as here, pixels apart": 1,
        }


@pytest.mark.slow
def test_the_detections_of_a_model_are_what_its_candidates_make():
    state, name = parity.values_of(test_torchvision.shapes()), f"{test_torchvision.ROI}box_predictor"
    state[f"{name}.cls_score.bias"][0] -= 7  # a background that leaves something
    state[f"{name}.bbox_pred.weight"] *= 0.2
    model = parity.build(torchvision_source(state, "a.pth"), DETECTION_MAX_INSTANCES=6)
    stages = Stages(model, np.random.default_rng(2).integers(0, 256, (48, 64, 3), np.uint8))
    candidates, found = stages.candidates(), stages.detections()
    assert len(candidates["scores"]) > len(found["scores"]) > 1
    numbers = Candidates(candidates, candidates, rules=RULES._replace(limit=6), offsets=False)
    assert numbers.judged(found, found).faults == []
    fewer = {name: values[1:] for name, values in found.items()}
    assert numbers.judged(fewer, found).faults
