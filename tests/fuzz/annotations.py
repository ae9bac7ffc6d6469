"""Damages annotations at random and reads them: no input may take long, or much memory, or raise anything unexpected.

    python -m tests.fuzz.annotations --format coco --count 20000
    python -m tests.fuzz.annotations --count 100 --seed 7           # of each format

Bytes are flipped, parts cut out and doubled, values replaced by those of other types, by numbers such as 10^12, or by
bombs of entities, anchors and brackets. What is read may raise AnnotationError, ValueError or OSError that names the
file. Inputs are the same for the same seed; those that fail are kept in --keep.
"""

import argparse
import copy
import json
import random
import resource
import shutil
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mrcnn.data.formats import load_dataset
from tests.data.scenes import FORMATS

MOST_SECONDS, MOST_MEGABYTES = 1.0, 200
TEXTS = (".json", ".txt", ".yaml", ".csv", ".xml", ".pbtxt")
OTHERS: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    10**12,
    -(10**12),
    10**400,
    1e308,
    0.5,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\0",
    "9" * 5000,
    "/dev/zero",
    "../../../etc/passwd",
    [],
    {},
    [[]],
    [1, 2, 3],
    ["a", None],
    {"a": 1},
]
NUMBERS = (b"1000000000000", b"-1", b"1e308", b"NaN", b"0", b"99999999999999999999", b"0.0000001", b"")
BOMBS = (
    b"[" * 3000,
    b"{" * 3000,
    b'{"a":' * 3000,
    b"- " * 3000,
    b"a: &a [*a]\n",
    b"".join(b"l%d: &l%d [%s]\n" % (i, i, b",".join([b"*l%d" % (i - 1)] * 9 if i else [b"x"] * 9)) for i in range(12)),
    b"".join(
        [
            b"<!DOCTYPE a [",
            *(b'<!ENTITY e%d "%s">' % (i, b"&e%d;" % (i - 1) * 9) for i in range(1, 12)),
            b"]><a>&e11;</a>",
        ]
    ),
    b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
    b"\xff\xfe",
    b"\0" * 100,
)


class Failure(NamedTuple):
    """An input that does not do what it should. what: in words; number: of the input."""

    number: int
    what: str


def mutated(random_: random.Random, data: bytes, is_text: bool) -> bytes:
    """The content of a file with one to three kinds of damage."""
    for _ in range(random_.choice((1, 1, 1, 2, 3))):
        data = random_.choice((_structured if is_text else _bytes, _bytes, _numbers if is_text else _bytes))(
            random_, data
        )
    return data


def _bytes(random_: random.Random, data: bytes) -> bytes:
    if not data:
        return random_.choice(BOMBS)
    start = random_.randrange(len(data))
    end = min(len(data), start + random_.choice((1, 2, 8, 100, 1000)))
    kind = random_.randrange(6)
    if kind == 0:
        changed = bytearray(data)
        for _ in range(random_.choice((1, 3, 20))):
            changed[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
        return bytes(changed)
    if kind == 1:
        return data[:start] + data[end:]
    if kind == 2:
        return data[:end] + data[start:]
    if kind == 3:
        return data[:start]
    if kind == 4:
        return data[:start] + random_.choice(BOMBS) + data[start:]
    return data[:start] + random_.randbytes(end - start) + data[end:]


def _numbers(random_: random.Random, data: bytes) -> bytes:
    """One run of digits replaced."""
    digits = b"0123456789"
    places = [i for i in range(len(data)) if data[i : i + 1] in digits and (not i or data[i - 1 : i] not in digits)]
    if not places:
        return _bytes(random_, data)
    start = random_.choice(places)
    end = start
    while end < len(data) and data[end : end + 1] in digits:
        end += 1
    return data[:start] + random_.choice(NUMBERS) + data[end:]


def _structured(random_: random.Random, data: bytes) -> bytes:
    """A value of a JSON file replaced, deleted or doubled; lines of other files."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        lines = data.splitlines(keepends=True) or [b""]
        place = random_.randrange(len(lines))
        made = [lines[:place] + lines[place + 1 :], lines[: place + 1] + lines[place:], lines * 2]
        return b"".join(random_.choice(made))
    if not isinstance(content, dict | list) or not content:
        return json.dumps(copy.deepcopy(random_.choice(OTHERS))).encode()
    for _ in range(random_.choice((1, 1, 4))):
        parent, key = random_.choice(list(_nodes(content)))
        kind = random_.randrange(4)
        if kind == 0 or not isinstance(parent, list) and kind == 1:
            del parent[key]
        elif kind == 1:
            parent[key:key] = [parent[key]] * random_.choice((1, 1, 50))
        else:
            parent[key] = copy.deepcopy(random_.choice(OTHERS))
        if not content or not list(_nodes(content)):
            break
    return json.dumps(content).encode()


def _nodes(content: Any) -> Iterator[tuple[Any, Any]]:
    """Each container with each of its keys."""
    stack = [content]
    while stack:
        node = stack.pop()
        for key, value in list(node.items()) if isinstance(node, dict) else list(enumerate(node)):
            yield node, key
            if isinstance(value, dict | list):
                stack.append(value)


def read(folder: Path, name: str, strict: bool) -> None:
    """Reads a dataset with all its masks, as training would."""
    options: dict[str, Any] = {"attribute": "kind"} if name.startswith("via") else {}
    subset = "train" if name == "yolo" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = load_dataset(folder, subset, format=name.split()[0], strict=strict, **options)
        for image_id in dataset.image_ids[:3]:
            dataset.load_mask(int(image_id))
            dataset.load_image(int(image_id))


def fuzz(
    name: str, count: int, seed: int, keep: Path | None = None, note: Callable[[str], None] = lambda _: None
) -> list[Failure]:
    """Reads `count` damaged inputs of a format; returns those that fail."""
    failures, found = [], Counter[str]()
    with tempfile.TemporaryDirectory() as place:
        original, folder = Path(place) / "original", Path(place) / "data"
        original.mkdir()
        FORMATS[name][0](original)
        shutil.copytree(original, folder)
        read(folder, name, True)
        files = sorted(
            path for path in original.rglob("*") if path.is_file() and not _is_image(path.relative_to(original))
        )
        slowest = 0.0
        baseline = _peak()
        for number in range(count):
            random_ = random.Random(f"{name} {seed} {number}")
            path = random_.choice(files)
            target = folder / path.relative_to(original)
            data = mutated(random_, path.read_bytes(), path.suffix in TEXTS)
            target.write_bytes(data)
            start, before, what = time.perf_counter(), _peak(), ""
            try:
                read(folder, name, random_.random() < 0.5)
                found["read"] += 1
            except (ValueError, OSError) as error:
                found[type(error).__name__] += 1
                if str(folder) not in str(error):
                    what = f"{type(error).__name__} without a file: {str(error)[:200]}"
            except Exception as error:
                what = f"{type(error).__name__}: {str(error)[:200]}"
            seconds, more = time.perf_counter() - start, _peak() - before
            slowest = max(slowest, seconds)
            if seconds > MOST_SECONDS:
                what = what or f"{seconds:.2f} s"
            if more > MOST_MEGABYTES:
                what = what or f"{more:.0f} MB more than before"
            if what:
                failures.append(Failure(number, f"{path.name}: {what}"))
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{name.replace(' ', '_')}_{number}{path.suffix}").write_bytes(data)
            target.write_bytes(path.read_bytes())
        counts = ", ".join(f"{kind} {n}" for kind, n in found.most_common())
        note(
            f"{name}: {count} inputs, {len(failures)} failures; {counts}; the slowest took {slowest:.2f} s, "
            f"memory grew by {_peak() - baseline:.0f} MB in all"
        )
    return failures


def _is_image(path: Path) -> bool:
    """Whether a file is the image, rather than a part of the annotations."""
    return path.suffix in (".png", ".jpg") and not any("mask" in part or "Segm" in part for part in path.parts)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", action="append", choices=FORMATS, help="one of the scene's formats (all)")
    parser.add_argument("--count", type=int, default=1000, help="inputs of each format (1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the inputs that fail")
    options = parser.parse_args()
    failed = 0
    for name in options.format or FORMATS:
        failures = fuzz(name, options.count, options.seed, options.keep, lambda text: print(text, flush=True))
        for failure in failures[:20]:
            print(f"  {failure.number}: {failure.what}", flush=True)
        failed += len(failures)
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
