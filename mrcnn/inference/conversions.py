"""Results in the formats of other tools: supervision's Detections, a pandas table, and GeoJSON polygons."""

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from mrcnn.inference.extras import require
from mrcnn.inference.results import Crop, Result

Ring = list[list[float]]  # closed, of [x, y]


def to_supervision(result: Result) -> Any:
    """Converts to `supervision.Detections` with full masks, class names in `data["class_name"]`, and with a keypoint
    head `data["keypoints"]`, [N, K, (x, y, score)].

    Raises ImportError, with the command that installs it, without supervision.
    """
    supervision = require("supervision", "supervision")
    rois = np.asarray(result.rois, np.float32).reshape(-1, 4)
    data: dict[str, Any] = {"class_name": np.array(result.names, str)}
    if result.keypoints is not None:
        data["keypoints"] = result.keypoints[..., [1, 0, 2]]
    return supervision.Detections(
        xyxy=rois[:, [1, 0, 3, 2]],
        mask=np.ascontiguousarray(np.moveaxis(result.masks, 2, 0)),
        confidence=np.asarray(result.scores, np.float32),
        class_id=np.asarray(result.class_ids, int),
        data=data,
    )


def to_pandas(result: Result) -> Any:
    """A table with a row per instance: class_id, class, score, y1, x1, y2, x2, area (pixels), share (of the image).

    With a keypoint head also y, x and score of each keypoint, such as "nose y", "nose x", "nose score".

    Raises ImportError, with the command that installs it, without pandas.
    """
    pandas = require("pandas", "pandas")
    rois = np.asarray(result.rois).reshape(-1, 4)
    columns = {"class_id": result.class_ids, "class": result.names, "score": result.scores}
    columns |= {name: rois[:, i] for i, name in enumerate(("y1", "x1", "y2", "x2"))}
    columns |= {"area": result.areas, "share": result.areas / (result.size[0] * result.size[1])}
    if result.keypoints is not None:
        for i, name in enumerate(result.keypoint_names):
            columns |= {f"{name} {what}": result.keypoints[:, i, j] for j, what in enumerate(("y", "x", "score"))}
    return pandas.DataFrame(columns)


def to_geojson(result: Result, tolerance: float = 1.0) -> dict[str, Any]:
    """A GeoJSON FeatureCollection: a MultiPolygon per instance, with its holes, in pixels of the image, y downwards.

    Outer rings have the direction of RFC 7946, counterclockwise if y points up. Empty masks have no geometry. With a
    keypoint head, the property "keypoints" has [x, y, score] by name.

    Args:
        tolerance: pixels by which the outline may move when points are removed; 0 keeps every pixel corner.

    Raises ValueError for a negative tolerance.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be 0 pixels or more, got {tolerance!r}")
    features = []
    boxes = np.asarray(result.rois, float).reshape(-1, 4)
    values = zip(result.crops, result.names, result.class_ids.tolist(), result.scores.tolist(), boxes, strict=True)
    for i, (crop, name, class_id, score, (y1, x1, y2, x2)) in enumerate(values):
        polygons = list(_polygons(crop, tolerance))
        properties: dict[str, Any] = {"class": name, "class_id": class_id, "score": round(score, 6)}
        if result.keypoints is not None:
            points = result.keypoints[i].astype(float)[:, [1, 0, 2]].round(3).tolist()
            properties["keypoints"] = dict(zip(result.keypoint_names, points, strict=True))
        features.append(
            {
                "type": "Feature",
                "bbox": [round(float(value), 3) for value in (x1, y1, x2, y2)],
                "geometry": {"type": "MultiPolygon", "coordinates": polygons} if polygons else None,
                "properties": properties,
            }
        )
    return {"type": "FeatureCollection", "features": features}


def _polygons(crop: Crop, tolerance: float) -> Iterator[list[Ring]]:
    """Each connected part of a mask: its outer ring, then its holes."""
    if not crop.mask.any():
        return
    # OpenCV's outlines pass through the centers of border pixels. In a four times larger image these are an eighth of a
    # pixel from the edges of the mask's own pixels, so rounding gives the edges.
    large = np.kron(np.pad(crop.mask, 1).astype(np.uint8), np.ones((4, 4), np.uint8))
    outlines, tree = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    origin = np.array([crop.left - 1, crop.top - 1], float)
    rings = [_ring(outline[:, 0, :], origin, tolerance) for outline in outlines]
    for i, (_, _, child, parent) in enumerate(tree[0].tolist()):
        if parent < 0:
            polygon = [_oriented(rings[i], positive=False)]
            while child >= 0:
                polygon.append(_oriented(rings[child], positive=True))
                child = tree[0][child][0]
            yield polygon


def _ring(points: np.ndarray, origin: np.ndarray, tolerance: float) -> np.ndarray:
    """A closed ring [points, (x, y)] along the edges of pixels. One too small to be simplified keeps its corners."""
    corners = np.rint((points + 0.5) / 4) + origin
    corners = corners[np.any(corners != np.roll(corners, 1, axis=0), axis=1)].astype(np.float32)[:, None]
    for allowed in (tolerance, 0.0):
        ring = cv2.approxPolyDP(corners, allowed, True)[:, 0].astype(float)
        if len(ring) >= 3:
            break
    return np.concatenate([ring, ring[:1]])


def _oriented(ring: np.ndarray, positive: bool) -> Ring:
    """The ring in the direction in which its area, with y downwards, is positive or negative."""
    x, y = ring[:, 0], ring[:, 1]
    area = float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))
    return (ring if (area > 0) == positive else ring[::-1]).tolist()
