"""Targets: the ground truth of each RoI, in the forms that heads are trained with."""

from typing import Any

from keras import ops

from heads.protocol.points import bilinear, cell_centers, interpolate

SAMPLES = 2  # samples per side of a cell
AREA_SIDE = 64  # cells per side with which areas are measured


class Targets:
    """The ground truth of the RoIs that a head is trained on. Rows are RoIs, of all images together.

    Attributes:
        class_ids: [R] int32 of the objects.
        weight: [R] float32, 1 for a RoI and 0 for a row of padding.
        boxes: [R, (y1, x1, y2, x2)] float32 of the RoIs, in pixels of the network input.
    """

    def __init__(
        self,
        *,
        class_ids: Any,
        weight: Any,
        boxes: Any,
        image_index: Any,
        instance: Any,
        gt_boxes: Any,
        gt_masks: Any = None,
        gt_keypoints: Any = None,
        whole: bool = False,
    ) -> None:
        """
        Args:
            image_index, instance: [R] int32, the image of each RoI and its object among those of the image.
            gt_boxes: [B, I, (y1, x1, y2, x2)] of the objects, in pixels of the network input.
            gt_masks: [B, I, m, m] uint8 0..255, what each of these boxes holds of its mask; or, with `whole`, masks of
                the size of the network input, [B, I, H, W / 8] uint8, a bit per pixel, the first the highest. None:
                for a head that asks for no masks.
            gt_keypoints: [B, I, K, (y, x, visibility)] float32, in pixels of the network input; 0 is not visible.
        """
        self.class_ids, self.weight, self.boxes = class_ids, weight, boxes
        self.whole = whole
        self._row = image_index * ops.shape(gt_boxes)[1] + instance
        self._truth = ops.take(ops.reshape(gt_boxes, (-1, 4)), self._row, axis=0)
        self._masks = gt_masks if whole or gt_masks is None else ops.reshape(gt_masks, (-1, *gt_masks.shape[2:]))
        self._keypoints = gt_keypoints

    def at(self, size: int) -> Any:
        """The object's mask in each RoI, [R, size, size] float32: 1 where it covers at least half of a cell, else 0.

        Coverage is the mean of four samples per cell, as in RoIAlign.
        """
        return ops.stop_gradient(ops.cast(self._coverage(self.boxes, size) >= 0.5, "float32"))

    def at_points(self, points: Any) -> Any:
        """How much of each point is the object, [R, points] float32 in 0..1, between pixels by interpolation.

        Args:
            points: [R, points, (y, x)], fractions of the RoI's sides.
        """
        return ops.stop_gradient(self._sampled(self.boxes, points))

    def boundary(self, size: int) -> Any:
        """The object's boundary in each RoI, [R, size, size] float32: 1 on cells of the object with a neighbor that is
        not of the object; what lies beyond the RoI is not.

        BMask R-CNN (Cheng et al. 2020), section 3.3: the mask under a Laplacian filter.
        """
        mask = self.at(size)
        padded = ops.pad(mask, ((0, 0), (1, 1), (1, 1)))
        around = sum(padded[:, y : y + size, x : x + size] for y in range(3) for x in range(3))
        return mask * ops.cast(around < 8.5, "float32")

    def area_ratio(self) -> Any:
        """The fraction of each object's area that lies in its RoI, [R] float32 in 0..1."""
        inside, all_of_it = (_area(box) * self._mean(box) for box in (self.boxes, self._truth))
        return ops.stop_gradient(ops.clip(inside / ops.maximum(all_of_it, 1e-6), 0.0, 1.0))

    def keypoints(self, size: int) -> tuple[Any, Any]:
        """The cell of each keypoint among size x size cells of its RoI, and which keypoints there are to learn.

        A keypoint teaches nothing where it is not visible, lies outside the RoI, or its row is padding. One on the
        lower or right edge belongs to the last cells (Detectron2's and torchvision's keypoints_to_heatmap).

        Returns:
            cells: [R, K] int32, row by row; 0 where there is nothing to learn.

            visible: [R, K] float32, 1 or 0.
        """
        points = ops.take(ops.reshape(self._keypoints, (-1, *self._keypoints.shape[2:])), self._row, axis=0)
        places, boxes = points[..., :2], ops.cast(self.boxes, "float32")[:, None]
        sides = ops.maximum(boxes[..., 2:] - boxes[..., :2], 1e-6)
        cell = ops.floor((places - boxes[..., :2]) * (size / sides))
        cell = ops.where(places == boxes[..., 2:], size - 1.0, cell)
        inside = ops.all(ops.logical_and(cell >= 0, cell < size), axis=-1)
        visible = ops.logical_and(inside, ops.logical_and(points[..., 2] > 0, self.weight[:, None] > 0))
        cell = ops.cast(ops.where(visible[..., None], cell, 0.0), "int32")
        return ops.stop_gradient(cell[..., 0] * size + cell[..., 1]), ops.cast(visible, "float32")

    def total(self, values: Any) -> tuple[Any, Any]:
        """(sum, count) of a value per RoI [R], of the RoIs that are not padding."""
        kept = ops.where(self.weight > 0, values, ops.zeros_like(values))
        return ops.sum(kept), ops.sum(self.weight)

    def _mean(self, boxes: Any) -> Any:
        """The mean coverage of boxes [R, 4] by each RoI's object, [R]."""
        return ops.mean(self._sampled(boxes, cell_centers(AREA_SIDE)[None]), axis=1)

    def _coverage(self, boxes: Any, size: int) -> Any:
        """How much of each of size x size cells of boxes [R, 4] is the object, [R, size, size] float32 in 0..1."""
        samples = self._sampled(boxes, cell_centers(SAMPLES * size)[None])
        samples = ops.reshape(samples, (-1, size, SAMPLES, size, SAMPLES))
        return ops.mean(samples, axis=(2, 4))

    def _sampled(self, boxes: Any, points: Any) -> Any:
        """How much of points [R or 1, P, (y, x)], fractions of the sides of boxes [R, 4], is the object, [R, P]."""
        boxes = ops.cast(boxes, "float32")[:, None]
        places = boxes[..., :2] + ops.cast(points, "float32") * (boxes[..., 2:] - boxes[..., :2])
        return self._whole_at(places) if self.whole else self._crops_at(places)

    def _crops_at(self, places: Any) -> Any:
        """Values of the crops at places [R, P, (y, x)] in pixels of the network input; zero beyond the boxes."""
        truth = self._truth[:, None]
        sides = ops.maximum(truth[..., 2:] - truth[..., :2], 1e-6)
        cells = ops.convert_to_tensor([float(side) for side in self._masks.shape[1:3]])
        places = (places - truth[..., :2]) / sides * cells
        return bilinear(self._masks[..., None], places, self._row[:, None])[..., 0] / 255.0

    def _whole_at(self, places: Any) -> Any:
        """Values of masks of the network input's size at places [R, P, (y, x)] in its pixels."""
        *_, height, width = ops.shape(self._masks)
        flat = ops.reshape(self._masks, (-1,))

        def pixel(y: Any, x: Any) -> Any:
            byte = ops.take(flat, (self._row[:, None] * height + y) * width + x // 8, axis=0)
            bit = ops.right_shift(ops.cast(byte, "int32"), 7 - x % 8)
            return ops.cast(ops.bitwise_and(bit, 1), "float32")

        return interpolate(pixel, places, height, width * 8)


def _area(boxes: Any) -> Any:
    sides = ops.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)
    return sides[:, 0] * sides[:, 1]
