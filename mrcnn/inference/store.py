"""Results on disk during a long run, which can be killed at any moment and continued."""

import csv
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from mrcnn.data import rle
from mrcnn.data.annotations.keypoint_fields import coco_category, coco_points, continuous_points
from mrcnn.data.keypoints import Skeleton, names_of_keypoints
from mrcnn.files import atomic_path, make_folder
from mrcnn.inference.results import Result

TABLES = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS images (id INTEGER PRIMARY KEY, name BLOB UNIQUE, height INTEGER, width INTEGER, error TEXT,
    version TEXT);
CREATE TABLE IF NOT EXISTS instances (id INTEGER PRIMARY KEY, image INTEGER, class INTEGER, score REAL,
    y1 REAL, x1 REAL, y2 REAL, x2 REAL, area INTEGER, counts TEXT, keypoints TEXT);
CREATE INDEX IF NOT EXISTS of_image ON instances (image);
"""
CSV_COLUMNS = ("file", "instance", "class", "score", "area", "share", "y1", "x1", "y2", "x2")


class Row(NamedTuple):
    """One instance: class id, score, box in pixels, area in pixels, run lengths packed as in COCO's json, and keypoints
    as json of [x, y, score] * K with the coordinates of COCO, or "" without."""

    class_id: int
    score: float
    y1: float
    x1: float
    y2: float
    x2: float
    area: int
    counts: str
    keypoints: str = ""


class Record(NamedTuple):
    """The stored part of a `Result`."""

    size: tuple[int, int]
    rows: list[Row]

    @classmethod
    def of(cls, result: Result) -> Self:
        """The record of a result."""
        areas = [rle.area(one) for one in result.rle]
        values = zip(result.class_ids.tolist(), result.scores.tolist(), result.rois.astype(float).tolist(), strict=True)
        points = [""] * result.count
        if result.keypoints is not None:
            points = [json.dumps(own) for own in coco_points(result.keypoints).round(3).tolist()]
        rows = [
            Row(class_id, score, y1, x1, y2, x2, area, one["counts"], own)
            for (class_id, score, (y1, x1, y2, x2)), area, one, own in zip(
                values, areas, result.rle, points, strict=True
            )
        ]
        return cls(result.size, rows)


class ResultStore:
    """A file of results, by image name.

    Committed results survive a kill; later ones are computed again. Only one process can use the file.

    Args:
        path: the file, created if needed.
        about: what the results depend on, such as weights and settings; a file made with other values is rejected.

    Raises ValueError for a file with other results, in use by another process, or damaged.
    """

    def __init__(self, path: str | Path, about: Mapping[str, str]) -> None:
        self.path = Path(path)
        make_folder(self.path.parent)
        self._connection = _connected(self.path)
        try:
            self._connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._connection.execute("BEGIN IMMEDIATE")
            for statement in filter(str.strip, TABLES.split(";")):
                self._connection.execute(statement)
            self._check(about)
            self.commit()
        except sqlite3.OperationalError as error:
            self._connection.close()
            if "locked" in str(error):
                raise ValueError(f"{self.path} is in use by another process; wait for it, or stop it first") from error
            raise OSError(f"cannot write {self.path}: {error}; choose another folder") from error
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise ValueError(f"{self.path} is damaged, or not a file of results ({error}); remove it") from error
        except ValueError:
            self._connection.close()
            raise

    def _check(self, about: Mapping[str, str]) -> None:
        stored = dict(self._connection.execute("SELECT name, value FROM about"))
        if not stored:
            self._connection.executemany("INSERT INTO about VALUES (?, ?)", list(about.items()))
        elif stored != dict(about):
            names = sorted(name for name in {*stored, *about} if stored.get(name) != about.get(name))
            raise ValueError(f"{self.path} contains results that were made with other {' and '.join(names)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commits what was added, even after an error."""
        self.commit(more=False)
        self._connection.close()

    def commit(self, more: bool = True) -> None:
        """Commits to disk what was added since the last commit."""
        if self._connection.in_transaction:  # not if Ctrl-C ended an earlier commit before it began the next one
            self._connection.execute("COMMIT")
        if more:
            self._connection.execute("BEGIN IMMEDIATE")

    def has(self, name: str, version: str = "") -> bool:
        """Whether there is a result for this version of an image; failed images are tried again."""
        query = "SELECT error, version FROM images WHERE name = ?"
        return self._connection.execute(query, (os.fsencode(name),)).fetchone() == (None, version)

    def add(self, name: str, outcome: Record | Exception, version: str = "") -> None:
        """Stores the record of an image, or why it could not be read, replacing an earlier one, completely or not at
        all, even if Ctrl-C interrupts it.

        Args:
            version: identifies the content of the image file.
        """
        self._connection.execute("SAVEPOINT image")
        try:
            self._add(name, outcome, version)
        except BaseException:
            self._connection.execute("ROLLBACK TO image")
            raise
        finally:
            self._connection.execute("RELEASE image")

    def _add(self, name: str, outcome: Record | Exception, version: str) -> None:
        size = outcome.size if isinstance(outcome, Record) else (None, None)
        error = None if isinstance(outcome, Record) else str(outcome)
        self._connection.execute(
            "INSERT INTO images (name, height, width, error, version) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (name) DO UPDATE SET height = excluded.height, width = excluded.width, "
            "error = excluded.error, version = excluded.version",
            (os.fsencode(name), *size, error, version),
        )
        (image,) = self._connection.execute("SELECT id FROM images WHERE name = ?", (os.fsencode(name),)).fetchone()
        self._connection.execute("DELETE FROM instances WHERE image = ?", (image,))
        if isinstance(outcome, Record):
            self._connection.executemany(
                "INSERT INTO instances (image, class, score, y1, x1, y2, x2, area, counts, keypoints) "
                "VALUES (?,?,?,?,?,?,?,?,?,?)",
                ((image, *row) for row in outcome.rows),
            )

    def counts(self) -> tuple[int, int, int]:
        """Numbers of images with results, of instances, and of images that could not be read."""
        images, failed = self._connection.execute("SELECT COUNT(*), COUNT(error) FROM images").fetchone()
        (instances,) = self._connection.execute("SELECT COUNT(*) FROM instances").fetchone()
        return images - failed, instances, failed

    def failures(self) -> Iterator[str]:
        """A line per image that could not be read: its name and the error."""
        for name, error in self._connection.execute("SELECT name, error FROM images WHERE error IS NOT NULL"):
            yield "\\n".join(f"{os.fsdecode(name)}: {error}".splitlines())

    def records(self) -> Iterator[tuple[str, Record]]:
        """Name and record of each image with results, in the order in which they were found."""
        query = "SELECT id, name, height, width FROM images WHERE error IS NULL ORDER BY id"
        for image, name, height, width in self._connection.execute(query):
            rows = self._connection.execute(
                "SELECT class, score, y1, x1, y2, x2, area, counts, keypoints FROM instances WHERE image = ? "
                "ORDER BY id",
                (image,),
            )
            yield os.fsdecode(name), Record((height, width), [Row(*row) for row in rows])

    def write_coco(self, path: str | Path, class_names: Sequence[str], skeleton: Skeleton | None = None) -> None:
        """Writes a COCO json with images, annotations (with scores) and categories, which `load_dataset` reads.

        Args:
            skeleton: of the keypoints, for the categories. In the annotations a keypoint's third number is its score.
        """
        more = {} if skeleton is None else coco_category(skeleton)
        classes = [{"id": i, "name": name} | more for i, name in enumerate(class_names) if i]
        with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.write(f'{{"categories": {json.dumps(classes)},\n"images": [')
            _write_list(
                file,
                (
                    {"id": i, "file_name": name, "height": record.size[0], "width": record.size[1]}
                    for i, (name, record) in enumerate(self.records(), 1)
                ),
            )
            file.write('],\n"annotations": [')
            _write_list(file, self._annotations())
            file.write("]}\n")

    def _annotations(self) -> Iterator[dict[str, Any]]:
        number = 0
        for image, (_, record) in enumerate(self.records(), 1):
            for row in record.rows:
                number += 1
                yield {
                    "id": number,
                    "image_id": image,
                    "category_id": row.class_id,
                    "bbox": [round(v, 3) for v in (row.x1, row.y1, row.x2 - row.x1, row.y2 - row.y1)],
                    "area": row.area,
                    "iscrowd": 0,
                    "score": round(row.score, 6),
                    "segmentation": {"size": list(record.size), "counts": row.counts},
                    **({"keypoints": json.loads(row.keypoints)} if row.keypoints else {}),
                }

    def write_csv(self, path: str | Path, class_names: Sequence[str], skeleton: Skeleton | None = None) -> None:
        """Writes a table with a row per instance: file, number, class, score, pixels, fraction of the image, box, and
        y, x and score of each keypoint, all in continuous pixels."""
        query = "SELECT keypoints FROM instances WHERE keypoints != '' LIMIT 1"
        first = self._connection.execute(query).fetchone()
        points = names_of_keypoints(skeleton, len(json.loads(first[0])) // 3 if first else 0)
        columns = [f"{name} {what}" for name in points for what in ("y", "x", "score")]
        with (
            atomic_path(path) as temporary,
            open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*CSV_COLUMNS, *columns])
            for name, record in self.records():
                for i, row in enumerate(record.rows):
                    share = row.area / (record.size[0] * record.size[1])
                    box = (round(value, 2) for value in (row.y1, row.x1, row.y2, row.x2))
                    known = class_names[row.class_id]
                    own = continuous_points(json.loads(row.keypoints)) if row.keypoints else []
                    writer.writerow([name, i, known, f"{row.score:.4f}", row.area, f"{share:.6f}", *box, *own])

    def write_failures(self, path: str | Path) -> None:
        """Writes a line per image that could not be read; no file if there is none."""
        if not self.counts()[2]:
            Path(path).unlink(missing_ok=True)
            return
        with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines(f"{line}\n" for line in self.failures())


def _connected(path: Path) -> sqlite3.Connection:
    try:
        return sqlite3.connect(path, timeout=1, isolation_level=None)
    except sqlite3.OperationalError as error:
        raise OSError(f"cannot write {path}: {error}; choose another folder") from error


def _write_list(file: Any, items: Iterator[dict[str, Any]]) -> None:
    separator = "\n"
    for item in items:
        file.write(separator + json.dumps(item))
        separator = ",\n"


def cut_outs(result: Result, image: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Number and pixels of each instance, [h, w, RGBA] uint8 of its tight box, transparent around the mask.

    Empty masks are omitted.

    Args:
        image: [H, W, 3] uint8, of the result's size.
    """
    for i, one in enumerate(result.rle):
        part, (y1, x1, y2, x2) = rle.decode_box(one)
        if part.any():
            yield i, np.dstack([image[y1:y2, x1:x2], part.astype(np.uint8) * np.uint8(255)])
