"""Detection in millions of images: an exported model in several processes or on several machines, with Ray Data.

Images are processed in chunks. Each chunk becomes one Parquet file, written completely or not at all and named by its
number, so each image is in the output once, even if workers are killed and chunks repeated. A stopped run continues
with the chunks whose files are missing.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.data.images import SUFFIXES, read_image
from mrcnn.data.images.walk import walk_images
from mrcnn.files import atomic_path, write_atomically
from mrcnn.inference.extras import require
from mrcnn.inference.predictor import Predictor, content_hash

ROW = {
    "path": "string",
    "height": "int32",
    "width": "int32",
    "class_ids": "list<int32>",
    "class_names": "list<string>",
    "scores": "list<float>",
    "rois": "list<list<float>>",
    "masks": "list<string>",
    "error": "string",
}


class ImageDetector:
    """Converts rows of images to rows of detections; a picklable callable for Ray Data, Beam and Spark.

    Args:
        model: an exported file, see `Predictor`.
        min_score: detections with a lower score are left out.
        options: further arguments of `Predictor`, such as threads=1.

    Call arguments:
        rows: dicts with "path", and optionally the "bytes" of an encoded image.

    Returns:
        A dict per row: path; height and width; class_ids, class_names, scores; rois (y1, x1, y2, x2) in pixels; masks,
        the counts of COCO's run lengths; error, None for an image that could be read.
    """

    def __init__(self, model: str | Path, *, min_score: float = 0.0, **options: Any) -> None:
        self.predictor, self.min_score = Predictor(model, **options), min_score

    def __call__(self, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [self._row(row) for row in rows]

    def _row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        empty: dict[str, Any] = {name: [] for name, kind in ROW.items() if kind.startswith("list")}
        found = {"path": str(row["path"]), "height": None, "width": None, **empty, "error": None}
        try:
            image = _pixels(row)
            (result,) = self.predictor.detect([image])
        except (ValueError, TypeError, OSError) as error:
            return {**found, "error": " ".join(str(error).split())}
        result = result.keep(result.scores >= self.min_score)
        return {
            **found,
            "height": result.size[0],
            "width": result.size[1],
            "class_ids": result.class_ids.tolist(),
            "class_names": result.names,
            "scores": result.scores.tolist(),
            "rois": result.rois.tolist(),
            "masks": [rle["counts"] for rle in result.rle],
        }


class _ChunkWriter(ImageDetector):
    """Writes the detections of a chunk to its file; runs in Ray's workers."""

    def __init__(self, model: str, output: str, options: dict[str, Any]) -> None:
        super().__init__(model, **options)
        self.output = Path(output)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:  # type: ignore[override]
        counts = []
        for number, text in zip(batch["number"], batch["rows"], strict=True):
            found = super().__call__(json.loads(text))
            _write(self.output / chunk_name(int(number)), found)
            counts.append([len(found), sum(row["error"] is not None for row in found)])
        return {"number": batch["number"], "counts": np.array(counts)}


def detect_many(
    model: str | Path, images: str | Path, output: str | Path, *, workers: int = 2, chunk: int = 64, **options: Any
) -> dict[str, int]:
    """Detects in every image of a folder or table, in several processes.

    Args:
        model: an exported file, see `MaskRCNN.export`.
        images: a folder, searched with its subfolders, or a Parquet file with a column "path".
        output: a folder for the Parquet files; an unfinished run in it is continued.
        workers: parallel processes. On a cluster, call `ray.init(address="auto")` first to use all of it.
        chunk: images per file.
        options: further arguments of `ImageDetector`; threads defaults to 1.

    Returns:
        {"images": number in the output, "failed": could not be read, "skipped": done by an earlier run}.

    Raises FileNotFoundError if there are no images, ValueError if `output` belongs to another run, ImportError for a
    missing library.
    """
    ray, parquet = require("ray", "ray"), require("pyarrow.parquet", "ray")
    output = Path(output)
    rows = _rows(Path(images), parquet)
    run = {"model": str(model), "content": content_hash(model), "images": str(images), "chunk": chunk}
    _check_run(output, {**run, "count": len(rows), "min_score": options.get("min_score", 0.0)})
    numbers = range(-(-len(rows) // chunk))
    missing = [number for number in numbers if not (output / chunk_name(number)).exists()]
    skipped = len(rows) - sum(len(rows[number * chunk : (number + 1) * chunk]) for number in missing)
    if missing:
        items = [
            {"number": number, "rows": json.dumps(rows[number * chunk : (number + 1) * chunk])} for number in missing
        ]
        arguments = {"model": str(Path(model).resolve()), "output": str(output.resolve())}
        ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _ChunkWriter,
            fn_constructor_kwargs={**arguments, "options": {"threads": 1, **options}},
            batch_size=1,
            concurrency=workers,
        ).materialize()
    errors = [parquet.read_table(output / chunk_name(number), columns=["error"])["error"] for number in numbers]
    failed = sum(len(column) - column.null_count for column in errors)
    return {"images": sum(map(len, errors)), "failed": failed, "skipped": skipped}


def chunk_name(number: int) -> str:
    """The file of a chunk."""
    return f"part-{number:08d}.parquet"


def _rows(images: Path, parquet: Any) -> list[dict[str, str]]:
    if images.is_dir():
        paths = sorted(str(images / found.name) for found in walk_images([images]))
    elif images.suffix == ".parquet":
        paths = parquet.read_table(images, columns=["path"])["path"].to_pylist()
    else:
        raise FileNotFoundError(f"{images} is neither a folder of images nor a .parquet file with a column 'path'")
    if not paths:
        raise FileNotFoundError(f"{images} has no images ({', '.join(SUFFIXES)})")
    return [{"path": path} for path in paths]


def _check_run(output: Path, run: dict[str, Any]) -> None:
    """The output folder's own run, or a new one."""
    record = output / "run.json"
    if not record.exists():
        write_atomically(record, json.dumps(run))
        return
    before = json.loads(record.read_text())
    if before != run:
        other = [
            f"{name} was {before.get(name)!r} and is {run[name]!r}" for name in run if before.get(name) != run[name]
        ]
        raise ValueError(f"{output} contains another run: {'; '.join(other)}. Use another folder, or remove this one.")


def _pixels(row: Mapping[str, Any]) -> np.ndarray:
    if row.get("bytes") is None:
        return read_image(row["path"])
    import cv2

    pixels = cv2.imdecode(np.frombuffer(row["bytes"], np.uint8), cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise ValueError(f"{row['path']}: its bytes cannot be decoded as an image")
    return pixels


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    pyarrow, parquet = require("pyarrow", "ray"), require("pyarrow.parquet", "ray")
    types = {
        "string": pyarrow.string(),
        "int32": pyarrow.int32(),
        "list<int32>": pyarrow.list_(pyarrow.int32()),
        "list<string>": pyarrow.list_(pyarrow.string()),
        "list<float>": pyarrow.list_(pyarrow.float32()),
        "list<list<float>>": pyarrow.list_(pyarrow.list_(pyarrow.float32())),
    }
    schema = pyarrow.schema([(name, types[kind]) for name, kind in ROW.items()])
    with atomic_path(path) as temporary:
        parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema=schema), temporary)
