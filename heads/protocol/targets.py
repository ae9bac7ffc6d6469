"""Targets: the ground truth of each RoI, in the forms that heads learn from."""

from typing import Any

from keras import ops

EDGE = 0.5  # a cell of which at least this fraction is covered belongs to the object


class Targets:
    """The ground truth of the RoIs that a head trains on. Rows are RoIs, of all images together.

    Attributes:
        class_ids: [R] int32 of the objects.
        weight: [R] float32, 1 for a RoI and 0 for a row of padding.
        boxes: [R, (y1, x1, y2, x2)] float32 of the RoIs, in pixels of the network input.
    """

    def __init__(self, class_ids: Any, weight: Any, boxes: Any) -> None:
        self.class_ids, self.weight, self.boxes = class_ids, weight, boxes

    def at(self, size: int) -> Any:
        """The object's mask in each RoI, [R, size, size] float32: 1 where it covers at least half of a cell, else 0."""
        raise NotImplementedError

    def at_points(self, points: Any) -> Any:
        """How much of each point is the object, [R, points] float32 in 0..1.

        Args:
            points: [R, points, (y, x)], fractions of the RoI's sides.
        """
        raise NotImplementedError

    def area_ratio(self) -> Any:
        """The fraction of each object's area that lies in its RoI, [R] float32 in 0..1."""
        raise NotImplementedError

    def keypoints(self, size: int) -> tuple[Any, Any]:
        """The cell of each keypoint in a RoI of size x size cells, [R, keypoints] int32, and whether it counts [R,
        keypoints] float32."""
        raise NotImplementedError

    def boundary(self, size: int) -> Any:
        """The object's boundary in each RoI, [R, size, size] float32: 1 on cells of the object with a neighbor that is
        none, beyond the edge of the RoI too.

        BMask R-CNN (Cheng et al. 2020), section 3.3: the mask under a Laplacian filter.
        """
        mask = self.at(size)
        padded = ops.pad(mask, ((0, 0), (1, 1), (1, 1)))
        around = sum(padded[:, y : y + size, x : x + size] for y in range(3) for x in range(3))
        return mask * ops.cast(around < 9.0 - EDGE, "float32")

    def total(self, values: Any) -> tuple[Any, Any]:
        """(sum, count) of a value per RoI [R], of the RoIs that are not padding."""
        kept = ops.where(self.weight > 0, values, ops.zeros_like(values))
        return ops.sum(kept), ops.sum(self.weight)
