"""The report as an HTML page, with images of the affected instances."""

import base64
import html
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from mrcnn.data.annotations.problems import Problem
from mrcnn.data.check.report import WAYS_OUT, Place, Report, is_broken
from mrcnn.data.dataset import Dataset
from mrcnn.files import write_atomically

SIDE = 220  # longer side of an image in pixels
MARGIN = 0.5  # context around an instance, as a fraction of its box
SHOWN = 12  # number of images of each kind
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #222; }
h2 { margin: 2.2rem 0 .2rem; font-size: 1.15rem; } h2.broken { color: #a40000; }
table { border-collapse: collapse; } td, th { padding: .15rem .9rem; text-align: right; }
th:first-child { text-align: left; }
pre { background: #f5f5f5; padding: 1rem; overflow-x: auto; font-size: 13px; line-height: 1.35; }
.way { color: #555; margin: 0 0 .8rem; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; width: 220px; } figure img { max-width: 220px; max-height: 220px; background: #ddd; }
figcaption { font-size: 12px; overflow-wrap: anywhere; color: #444; }
li { overflow-wrap: anywhere; font-size: 13px; }
"""


def write_page(path: str | os.PathLike, report: Report, dataset: Dataset) -> None:
    """Writes the page, completely or not at all. Images are embedded, so that the page can be sent as one file."""
    parts = "".join(_parts(report, dataset))
    title = html.escape(f"Check of {report.name}")
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body><h1>{title}</h1>{parts}</body></html>\n"
    )
    write_atomically(Path(path), page)


def _parts(report: Report, dataset: Dataset) -> Iterator[str]:
    rows = "".join(
        f"<tr><th>{html.escape(treatment)}</th>" + "".join(f"<td>{count:,}</td>" for count in counts.values()) + "</tr>"
        for treatment, counts in report.records.items()
    )
    yield f"<p>{html.escape(report.verdict())}</p>"
    yield f"<table><tr><th></th><th>images</th><th>instances</th><th>others</th></tr>{rows}</table>"
    for (kind, treatment), found in report.groups().items():
        mark = ' class="broken"' if is_broken(found[0]) else ""
        yield f"<h2{mark}>{len(found):,} x {html.escape(kind)}</h2><p class='way'>{html.escape(treatment)}. "
        yield f"{html.escape(WAYS_OUT.get(kind, '')).capitalize()}</p>"
        yield from _examples(found, report, dataset)
    yield f"<h2>Statistics</h2><pre>{html.escape(str(report.statistics))}</pre>"


def _examples(found: list[Problem], report: Report, dataset: Dataset) -> Iterator[str]:
    """Images of the first findings with a location, largest instances first; the others as a list."""
    placed = [(problem, report.places[problem]) for problem in found if problem in report.places]
    placed.sort(key=lambda item: -_area(item[1]))
    pictures = []
    for problem, place in placed[:SHOWN]:
        if (picture := _picture(place, dataset)) is not None:
            caption = html.escape(f"{problem.record}: {problem.message}")
            image = f'<img src="data:image/jpeg;base64,{picture}" alt="">'
            pictures.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    yield f'<div class="pictures">{"".join(pictures)}</div>'
    others = [problem for problem in found if problem not in report.places][: 2 * SHOWN]
    if others:
        yield "<ul>" + "".join(f"<li>{html.escape(f'{p.record}: {p.message}')}</li>" for p in others) + "</ul>"
    shown = len(pictures) + len(others)
    yield f"<p class='way'>and {len(found) - shown:,} more</p>" * (len(found) > shown)


def _area(place: Place) -> int:
    return 0 if place.box is None else (place.box[2] - place.box[0]) * (place.box[3] - place.box[1])


def _picture(place: Place, dataset: Dataset) -> str | None:
    """The part of the image around a box, with the box and the mask outlines, as base64 JPEG; None if the image
    cannot be read."""
    try:
        image = np.ascontiguousarray(dataset.load_image(place.image_id)[..., :3])
    except Exception:  # the finding describes it
        return None
    height, width = image.shape[:2]
    y1, x1, y2, x2 = place.box or (0, 0, height, width)
    more_y, more_x = int(MARGIN * (y2 - y1)) + 4, int(MARGIN * (x2 - x1)) + 4
    top, left = max(0, min(y1 - more_y, height - 1)), max(0, min(x1 - more_x, width - 1))
    bottom, right = max(top + 1, min(height, y2 + more_y)), max(left + 1, min(width, x2 + more_x))
    part = image[top:bottom, left:right]
    scale = SIDE / max(part.shape[:2])
    shape = max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale))
    part = cv2.resize(part, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    if part.ndim == 2 or part.shape[2] == 1:
        part = cv2.cvtColor(part, cv2.COLOR_GRAY2RGB)
    for outline in _outlines(place.image_id, dataset):
        cv2.polylines(part, [np.rint((outline - (left, top)) * scale).astype(np.int32)], True, (255, 220, 0), 1)
    if place.box is not None:
        corners = np.rint((np.array([x1, y1, x2, y2]) - (left, top, left, top)) * scale).astype(int).tolist()
        cv2.rectangle(part, corners[:2], corners[2:], (230, 0, 0), 2)
    done, data = cv2.imencode(".jpg", part[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    return base64.b64encode(data.tobytes()).decode() if done else None


def _outlines(image_id: int, dataset: Dataset) -> Iterator[np.ndarray]:
    """[points, (x, y)] of the polygons of an image, for instances that have them."""
    for instance in dataset.image_info[image_id].get("instances", ()):
        yield from getattr(instance.outline, "parts", ())
