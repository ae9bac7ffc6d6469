"""Seeded damage to image files: every one is read, or refused by a documented error that names it.

    python -m tests.fuzz.images --count 20000 --seed 1

Each input is a small PNG, JPEG, BMP, TIFF, WebP or GIF with flipped bytes, parts cut out, doubled or overwritten, or
numbers in its header replaced by extreme ones. It must take under 10 s and 2 GB, and raise nothing but ValueError or
OSError. Prints how many were read and refused; the exit status is 1 when an input broke a rule.
"""

import argparse
import io
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from mrcnn.data.images import read_header, read_image

KINDS = {
    "png": {},
    "jpg": {},
    "bmp": {},
    "tif": {},
    "webp": {},
    "gif": {},
    "progressive.jpg": {"progressive": True},
    "lossless.webp": {"lossless": True},
    "deflate.tif": {"compression": "tiff_adobe_deflate"},
}
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF)
SECONDS, BYTES = 10.0, 2 * 2**30


def sound(kind: str, rng: np.random.Generator) -> bytes:
    """A file of this kind; one in three has an orientation tag."""
    size = rng.integers(1, 60, 2)
    pixels = np.kron(rng.integers(0, 256, (*(size // 8 + 1), 3)), np.ones((8, 8, 1))).astype(np.uint8)
    options = dict(KINDS[kind])
    if rng.random() < 0.3 and not kind.endswith(("bmp", "gif")):
        options["exif"] = Image.Exif()
        options["exif"][274] = int(rng.integers(1, 9))
    file = io.BytesIO()
    formats = {"jpg": "JPEG", "tif": "TIFF"}
    suffix = kind.split(".")[-1]
    Image.fromarray(pixels[: size[0], : size[1]]).save(file, formats.get(suffix, suffix.upper()), **options)
    return file.getvalue()


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The file with one to four changes, half of them in its first 64 bytes."""
    content = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        end = len(content) if rng.random() < 0.5 else min(64, len(content))
        at, length = int(rng.integers(0, max(1, end))), int(rng.integers(1, 9))
        change = int(rng.integers(0, 6))
        if change == 0:
            content[at : at + 1] = bytes([content[at] ^ 1 << int(rng.integers(8))]) if content else b""
        elif change == 1:
            content[at : at + length] = bytes([EXTREMES[int(rng.integers(len(EXTREMES)))]] * length)
        elif change == 2:
            content[at : at + length] = rng.integers(0, 256, length, np.uint8).tobytes()
        elif change == 3:
            del content[at : at + length * int(rng.integers(1, 40))]
        elif change == 4:
            content[at:at] = content[at : at + length * 8]
        else:
            del content[int(rng.integers(0, len(content) + 1)) :]
        if not content:
            break
    return bytes(content)


def outcome(path: Path) -> str:
    """What reading a file came to: "read", "refused", or what is wrong with that."""
    start = time.monotonic()
    try:
        image = read_image(path)
        header = read_header(path)
        result = "read" if image.shape[:2] == header.upright_size else f"{image.shape} is not {header}"
    except (ValueError, OSError) as error:
        result = "refused" if path.name in str(error) else f"the file is not named: {error}"
    except BaseException as error:  # whatever else it is, it is undocumented
        result = f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - start
    return result if seconds < SECONDS else f"it took {seconds:.1f} s"


def campaign(count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Outcomes of so many inputs, and the descriptions of those that broke a rule. The same seed gives the same."""
    counts: Counter[str] = Counter()
    broken = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            rng = np.random.default_rng([seed, number])
            kind = list(KINDS)[number % len(KINDS)]
            path = Path(folder) / f"input{number}.{kind.split('.')[-1]}"
            path.write_bytes(damaged(sound(kind, rng), rng))
            result = outcome(path)
            path.unlink()
            counts[result if result in ("read", "refused") else "broken"] += 1
            if result not in ("read", "refused"):
                broken.append(f"seed {seed}, input {number} ({kind}): {result}")
    return counts, broken


def main() -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (BYTES + 4 * 2**30, resource.RLIM_INFINITY))  # the libraries' own on top
    counts, broken = campaign(options.count, options.seed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"{options.count} inputs: {dict(counts)}; peak memory of the process {peak:.0f} MB")
    print("\n".join(broken[:20]))
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
