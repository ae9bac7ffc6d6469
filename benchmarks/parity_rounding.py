"""Detections without a partner for which rounding decided, told from those that are wrong. numpy only.

torchvision's NMS on up to 1000 candidates is one NMS over all classes, whose boxes it moves apart by class x (largest
coordinate + 1), in float32: near 35,000 that rounds a corner to 1/256 pixel, and an IoU of 0.50005 becomes 0.499995.

No program is asked how it decided. A list of detections is what NMS per class and the limit make of candidates where,
and only where, none of it overlaps another of it, and each candidate that is left out overlaps a better one of it, or
stands below its last. So both lists are held against the same candidates. A decision may go either way only where the
boundary lies between the numbers that the two programs themselves compute for it, and these may be no further apart
than float32 makes them. Such a decision excuses only detections whose candidate the other list lacks.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from parity_rows import match

BOXES, SCORES = 1e-3, 1e-5  # pixels and score by which the candidates may differ; those that do by more excuse nothing
# Score by which a detection may differ from its candidate: our detections come of a graph with folded norms, our
# candidates of the layers themselves. A tenth of the bar of paired detections.
LISTED = 1e-4
OFFSET_LIMIT = 1000  # candidates: torchvision's `batched_nms` moves boxes apart up to here (on a CPU)


class Rules(NamedTuple):
    """What makes detections of candidates."""

    min_score: float
    iou: float
    limit: int


class Decision(NamedTuple):
    """One that rounding may turn: what was decided, its number in float64 and the numbers of both programs."""

    what: str
    boundary: float
    exact: float
    low: float
    high: float

    def __str__(self) -> str:
        margin = abs(self.exact - self.boundary)
        return (
            f"{self.what} {self.exact:.9f}, {margin:.1e} from {self.boundary:g}; "
            f"the programs have {self.low:.9f} to {self.high:.9f}"
        )


class Verdict(NamedTuple):
    """Of two lists of detections.

    decisions: on the boundary, that the lists rest on.
    faults: what no rounding explains.
    alone: indices of detections, of ours and of theirs, whose candidates the other list lacks. These alone follow from
        the decisions.
    """

    decisions: list[Decision]
    faults: list[str]
    alone: tuple[list[int], list[int]]

    @property
    def excused(self) -> bool:
        """Whether rounding alone explains the lists."""
        return bool(self.decisions) and not self.faults


class Numbers(NamedTuple):
    """Of candidates, those on which one program's decisions may rest: scores [n] and IoU [n, n] of the same class, 0
    with itself and others; the true ones, the least and the largest."""

    score: np.ndarray
    least: np.ndarray
    most: np.ndarray
    exact: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Candidates:
    """The same candidates as two programs have them, before NMS, and the overlaps that each computes.

    Args:
        ours, theirs: "boxes" [n, 4], "class_ids" [n], "scores" [n]. Ours with those that lie below `rules.min_score` by
            less than SCORES, without which a decision at that boundary is not recognized.
        rules: of both programs.
        offsets: theirs is torchvision, see OFFSET_LIMIT.
    """

    def __init__(
        self, ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], *, rules: Rules, offsets: bool = True
    ) -> None:
        self.own = ours, theirs
        self.rules = rules._replace(min_score=float(np.float32(rules.min_score)))  # as scores are compared with it
        self.offsets = offsets and len(theirs["scores"]) <= OFFSET_LIMIT
        pairs = np.array(match(ours, theirs, BOXES), int).reshape(-1, 2)
        alone = np.setdiff1d(np.arange(len(ours["scores"])), pairs[:, 0])
        self.faults, both = self._apart(pairs, alone), slice(len(pairs))
        self.rows = (np.concatenate([pairs[:, 0], alone]), np.concatenate([pairs[:, 1], np.full(len(alone), -1)]))
        self.class_ids, boxes, scores = (ours[name][self.rows[0]] for name in ("class_ids", "boxes", "scores"))
        # One that this program alone has, the other has at the least score at most
        boxes, scores = np.stack([boxes, boxes]), np.stack([scores, np.minimum(scores, self.rules.min_score)])
        boxes[1, both], scores[1, both] = theirs["boxes"][pairs[:, 1]], theirs["scores"][pairs[:, 1]]
        self.numbers = self._numbers(boxes.astype(np.float32), scores)

    def _apart(self, pairs: np.ndarray, alone: np.ndarray) -> list[str]:
        """Candidates on which the programs differ by more than rounding."""
        ours, theirs = self.own
        lost, far = len(theirs["scores"]) - len(pairs), (ours["scores"][alone] > self.rules.min_score + SCORES).sum()
        apart = np.abs(ours["scores"][pairs[:, 0]] - theirs["scores"][pairs[:, 1]]).max(initial=0)
        texts = {
            f"{lost} candidates of theirs are none of ours": lost > 0,
            f"{far} candidates of ours are none of theirs": far > 0,
            f"scores of candidates are {apart:.3g} apart": not apart <= SCORES,
        }  # NaN never is
        return [text for text, wrong in texts.items() if wrong]

    def _numbers(self, boxes: np.ndarray, scores: np.ndarray) -> tuple[Numbers, Numbers]:
        """Of ours and theirs, from boxes [2, n, 4] and scores [2, n]. The moved boxes are torchvision's alone."""
        same = self.class_ids[:, None] == self.class_ids[None]
        np.fill_diagonal(same, False)
        exact = np.where(same, overlaps(boxes.astype(np.float64).mean(axis=0)), 0)
        every = [np.where(same, overlaps(some), 0) for some in boxes] + [exact]
        score = (scores.astype(np.float64).mean(axis=0), scores.min(axis=0), scores.max(axis=0))
        ours = Numbers(*score, exact, np.min(every, axis=0), np.max(every, axis=0))
        if not self.offsets or not len(self.own[1]["boxes"]):
            return ours, ours
        largest = np.float32(self.own[1]["boxes"].max())  # without the candidates that only ours has
        offsets = self.class_ids.astype(np.float32) * (largest + np.float32(1))
        moved = np.where(same, overlaps(boxes[1] + offsets[:, None]), 0)
        return ours, ours._replace(low=np.minimum(ours.low, moved), high=np.maximum(ours.high, moved))

    def judged(self, found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> Verdict:
        """Of a list of detections of this program and one of the other, in pixels of the candidates."""
        decisions, faults, places = [], list(self.faults), []
        for side, (name, listed) in enumerate((("ours", found), ("theirs", expected))):
            pairs = np.array(match(self.own[side], listed, BOXES), int).reshape(-1, 2)
            faults += self._unlike(side, name, listed, pairs)
            places.append(self._places(side, pairs))
            one = Consistency(self.numbers[side], places[side] >= 0, self.rules)
            decisions += [decision._replace(what=f"{name}: {decision.what}") for decision in one.decisions]
            faults += [f"{name}: {fault}" for fault in one.faults]
        ours, theirs = places
        return Verdict(
            decisions, faults, (ours[(ours >= 0) & (theirs < 0)].tolist(), theirs[(theirs >= 0) & (ours < 0)].tolist())
        )

    def _unlike(self, side: int, name: str, listed: Mapping[str, np.ndarray], pairs: np.ndarray) -> list[str]:
        """What detections have otherwise than their candidates; pairs: [n, (candidate of that side, detection)]."""
        lost, own = len(listed["boxes"]) - len(pairs), self.own[side]
        apart = np.abs(own["scores"][pairs[:, 0]] - listed["scores"][pairs[:, 1]]).max(initial=0)
        texts = {
            f"{lost} detections of {name} are no candidates": lost > 0,
            f"scores of detections of {name} are {apart:.3g} from their candidates'": not apart <= LISTED,
        }
        return [text for text, wrong in texts.items() if wrong]

    def _places(self, side: int, pairs: np.ndarray) -> np.ndarray:
        """Of each of `rows`, its index in a list of detections; -1 where it is none. pairs: see `_unlike`."""
        every = np.full(len(self.own[side]["scores"]) + 1, -1)  # the last is for rows that the side lacks, -1
        every[pairs[:, 0]] = pairs[:, 1]
        return every[self.rows[side]]


class Consistency:
    """Detections of one program against its candidates.

    Args:
        numbers: of the candidates.
        chosen: [n] bool, those that are detections.
        rules: what detections must keep.

    Attributes:
        decisions: on the boundary, that the list rests on.
        faults: what is not as the rules have it, for any decision on the boundary.
    """

    def __init__(self, numbers: Numbers, chosen: np.ndarray, rules: Rules) -> None:
        self.numbers, self.chosen, self.rules = numbers, chosen, rules
        self.decisions: list[Decision] = []
        self.faults = [f"more than {rules.limit} detections"] if chosen.sum() > rules.limit else []
        for i, j in np.argwhere(np.triu(numbers.exact > rules.iou) & chosen[:, None] & chosen[None]):
            self._sort([self._iou(i, j)], "two detections overlap")
        for i in np.flatnonzero(chosen & (numbers.score <= rules.min_score)):
            self._sort([self._least(i)], "a detection below the least score")
        for i in np.flatnonzero(~chosen & (numbers.score > rules.min_score)):
            self._sort(self._ways_out(i), f"a candidate of score {numbers.score[i]:.9f} is left out")

    def _sort(self, ways: list[Decision | None], fault: str) -> None:
        """Keeps the decision that rounding allows, or else the fault; neither where a way is without doubt, None."""
        if None in ways:
            return
        doubtful = [way for way in ways if way.low <= way.boundary <= way.high]
        if doubtful:
            self.decisions.append(min(doubtful, key=lambda way: abs(way.exact - way.boundary)))
        else:
            self.faults.append(f"{fault}: {'; '.join(map(str, ways))}")

    def _ways_out(self, i: int) -> list[Decision | None]:
        """All by which candidate `i` may be no detection."""
        score, least, most, exact, low, high = self.numbers
        ways = [self._least(i)]
        for j in np.flatnonzero(self.chosen & (high[i] > self.rules.iou) & (most >= least[i])):
            if score[j] > score[i]:
                ways.append(None if exact[i, j] > self.rules.iou else self._iou(i, j))
            elif low[i, j] > self.rules.iou:  # one doubt a decision
                ways.append(self._order(i, j, "order of two that overlap"))
        if self.chosen.sum() >= self.rules.limit:
            last = np.flatnonzero(self.chosen)[score[self.chosen].argmin()]
            ways.append(None if score[i] < score[last] else self._order(i, last, "rank at the limit"))
        return ways

    def _iou(self, i: int, j: int) -> Decision:
        numbers = (self.numbers.exact, self.numbers.low, self.numbers.high)
        return Decision("IoU", self.rules.iou, *(float(some[i, j]) for some in numbers))

    def _least(self, i: int) -> Decision:
        numbers = (self.numbers.score, self.numbers.least, self.numbers.most)
        return Decision("score", self.rules.min_score, *(float(some[i]) for some in numbers))

    def _order(self, i: int, j: int, what: str) -> Decision:
        """Of the scores of `i` and of `j`, which was taken for the better; what lies between them at least and most."""
        score, least, most = (some.astype(np.float64) for some in self.numbers[:3])
        return Decision(f"{what}, scores apart", 0.0, score[i] - score[j], least[i] - most[j], most[i] - least[j])


def overlaps(boxes: np.ndarray) -> np.ndarray:
    """IoU [n, n] of boxes [n, 4] of two corners, in their own precision."""
    one, other = boxes[:, None], boxes[None]
    shared = np.maximum(np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2]), 0)
    shared, area = shared.prod(axis=-1), (boxes[:, 2:] - boxes[:, :2]).prod(axis=-1)
    return shared / np.maximum(area[:, None] + area[None] - shared, np.finfo(boxes.dtype).tiny)
