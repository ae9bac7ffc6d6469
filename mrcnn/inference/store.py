"""Results on disk during a long run, which can be killed at any moment and continued."""

import csv
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
CREATE TEMP TABLE of_run (image INTEGER PRIMARY KEY);
CREATE TEMP VIEW chosen AS SELECT * FROM images;
"""
RESTART = "".join(f"DROP TABLE IF EXISTS {name};" for name in ("about", "images", "instances"))
ONLY_OF_RUN = """
DROP VIEW chosen;
CREATE TEMP VIEW chosen AS SELECT * FROM images WHERE id IN (SELECT image FROM of_run);
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


class OtherResultsError(ValueError):
    """A file has results that depend on something else."""


class ResultStore:
    """A file of results, by image name.

    Committed results survive a kill; later ones are computed again. Only one process can use the file. All methods
    raise OSError if the file cannot be written, for example because the disk is full, and ValueError if it is damaged.

    Args:
        path: the file, created if needed.
        about: what the results depend on, such as weights and settings. A file with results of other values is
            rejected; one without results, such as that of a run that failed at once, is taken over.
        restart: discard the results in the file, also if it is damaged; not if another process uses it.

    Raises:
        OtherResultsError: a ValueError; the file has other results.
        ValueError: the file is in use by another process, or damaged.
        OSError: the file or its folder cannot be created or written.
    """

    def __init__(self, path: str | Path, about: Mapping[str, str], *, restart: bool = False) -> None:
        self.path = Path(path)
        make_folder(self.path.parent)
        with _worded(self.path, "cannot"):
            try:
                self._open(about, restart)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:  # damaged, so no other process can be using it
                if not restart:
                    raise
                self.path.unlink()
                self._open(about, restart)

    def _open(self, about: Mapping[str, str], restart: bool) -> None:
        self._connection = sqlite3.connect(self.path, timeout=1, isolation_level=None)
        try:
            self._connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._connection.execute("BEGIN IMMEDIATE")  # the lock, before anything is discarded
            self._execute_all((RESTART if restart else "") + TABLES)
            self._check(about)
            self.commit()
        except BaseException:
            self._connection.close()
            raise

    def _execute_all(self, statements: str) -> None:
        for statement in filter(str.strip, statements.split(";")):
            self._connection.execute(statement)

    def _check(self, about: Mapping[str, str]) -> None:
        stored = dict(self._connection.execute("SELECT name, value FROM about"))
        if stored == dict(about):
            return
        if self._connection.execute("SELECT 1 FROM images WHERE error IS NULL LIMIT 1").fetchone():
            names = sorted(name for name in {*stored, *about} if stored.get(name) != about.get(name))
            raise OtherResultsError(f"{self.path} contains results that were made with other {' and '.join(names)}")
        self._execute_all("DELETE FROM about; DELETE FROM images")
        self._connection.executemany("INSERT INTO about VALUES (?, ?)", list(about.items()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commits what was added, even after an error."""
        try:
            self.commit(more=False)
        finally:
            self._connection.close()

    def commit(self, more: bool = True) -> None:
        """Commits to disk what was added since the last commit."""
        with _worded(self.path):
            if self._connection.in_transaction:  # not after an error, or Ctrl-C between the two statements
                self._connection.execute("COMMIT")
            if more:
                self._connection.execute("BEGIN IMMEDIATE")

    def version_of(self, name: str) -> str | None:
        """The version of an image that there is a result for; None without one, or if the image could not be read."""
        query = "SELECT version FROM images WHERE name = ? AND error IS NULL"
        return next((version for (version,) in self._select(query, os.fsencode(name))), None)

    def has(self, name: str, version: str = "") -> bool:
        """Whether there is a result for this version of an image; failed images are tried again."""
        return self.version_of(name) == version

    def start_run(self) -> None:
        """From now on, only images that are passed to `include` or `add` are counted and written. Results of others
        stay in the file, for a later run."""
        with _worded(self.path):
            self._execute_all("DELETE FROM of_run;" + ONLY_OF_RUN)

    def include(self, name: str) -> None:
        """Counts and writes the stored result of an image, if there is one."""
        with _worded(self.path):
            self._include(name)

    def _include(self, name: str) -> None:
        query = "INSERT OR IGNORE INTO of_run SELECT id FROM images WHERE name = ?"
        self._connection.execute(query, (os.fsencode(name),))

    def _select(self, query: str, *values: Any) -> Iterator[tuple]:
        with _worded(self.path):
            yield from self._connection.execute(query, values)

    def add(self, name: str, outcome: Record | Exception, version: str = "") -> None:
        """Stores the record of an image, or why it could not be read, replacing an earlier one, completely or not at
        all, even if Ctrl-C interrupts it.

        Args:
            version: identifies the content of the image file.

        Raises OSError if the file cannot be written; what was added since the last commit may then be lost.
        """
        with _worded(self.path):
            self._connection.execute("SAVEPOINT image")
            try:
                self._add(name, outcome, version)
            except BaseException:
                if self._connection.in_transaction:  # SQLite ends it by itself if the disk is full
                    self._execute_all("ROLLBACK TO image; RELEASE image")
                raise
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
        self._include(name)

    def counts(self) -> tuple[int, int, int]:
        """Numbers of images with results, of instances, and of images that could not be read."""
        ((images, failed),) = self._select("SELECT COUNT(*), COUNT(error) FROM chosen")
        ((instances,),) = self._select("SELECT COUNT(*) FROM chosen JOIN instances ON image = chosen.id")
        return images - failed, instances, failed

    def failures(self) -> Iterator[str]:
        """A line per image that could not be read: its name and the error."""
        for name, error in self._select("SELECT name, error FROM chosen WHERE error IS NOT NULL ORDER BY id"):
            yield "\\n".join(f"{os.fsdecode(name)}: {error}".splitlines())

    def records(self) -> Iterator[tuple[str, Record]]:
        """Name and record of each image with results, in the order in which they were found."""
        query = "SELECT id, name, height, width FROM chosen WHERE error IS NULL ORDER BY id"
        for image, name, height, width in self._select(query):
            rows = self._select(
                "SELECT class, score, y1, x1, y2, x2, area, counts, keypoints FROM instances WHERE image = ? "
                "ORDER BY id",
                image,
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
        count = max((len(json.loads(keypoints)) // 3 for (keypoints,) in self._select(query)), default=0)
        points = names_of_keypoints(skeleton, count)
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


@contextmanager
def _worded(path: Path, verb: str = "could not") -> Iterator[None]:
    """Turns SQLite's errors into OSError and ValueError that name the file and say what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise ValueError(f"{path} is in use by another process; wait for it, or stop it first") from error
        advice = "choose another folder, or free space there"
        raise OSError(f"{verb} write {path}: {error}; {advice}") from error
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{path} is damaged, or not a file of results ({error}); remove it") from error


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
