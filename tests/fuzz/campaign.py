"""Runs a reader on thousands of damaged files, and counts what became of each.

An input is made from the seed and its number alone, so that `--start N --count 1` repeats the one of number N. The
reader runs in a child process. A child that takes too long for one input, or dies, is replaced, and the input counts as
a hang or a crash.

    python -m tests.fuzz.pickles --count 20000 --seed 1 --keep failures/
"""

import argparse
import collections
import faulthandler
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 10.0  # for one input
MEGABYTES = 2000  # that reading may add to the process
BATCH = 500  # inputs that one child process reads

Make = Callable[[random.Random], bytes]
Read = Callable[[Path], object]


@dataclass
class Report:
    """What became of the inputs. `failures`: number of the input, and what was wrong with it."""

    accepted: int = 0
    refused: collections.Counter = field(default_factory=collections.Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)
    slowest: float = 0.0
    largest: float = 0.0

    def __str__(self):
        refused = ", ".join(f"{count} {name}" for name, count in self.refused.most_common()) or "none"
        lines = [
            f"accepted: {self.accepted}; refused: {refused}; failures: {len(self.failures)}; "
            f"slowest {self.slowest:.2f} s, largest {self.largest:.0f} MB"
        ]
        return "\n".join(lines + [f"input {number}: {what}" for number, what in self.failures[:50]])


def campaign(
    make: Make,
    read: Read,
    count: int,
    *,
    seed: int = 0,
    start: int = 0,
    suffix: str = "",
    documented: tuple[type[Exception], ...] = (ValueError,),
    keep: Path | None = None,
) -> Report:
    """Reads `count` inputs, those of number `start` and after.

    Args:
        make: returns an input.
        read: reads a file; raises one of `documented` for a bad one.
        suffix: of the file's name.
        documented: all other exceptions are failures.
        keep: a folder for the inputs that failed.
    """
    report = Report()
    number, end = start, start + count
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"input{suffix}"
        while number < end:
            number = _batch(make, read, path, seed, number, min(number + BATCH, end), documented, report, keep)
    return report


def made(make: Make, seed: int, number: int) -> bytes:
    return make(random.Random(f"{seed}/{number}"))


def _batch(make, read, path, seed, number, end, documented, report, keep) -> int:
    """Lets a child read inputs up to `end`; returns the number of the one to go on with."""
    from_child, to_parent = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os.close(from_child)
        _child(make, read, path, seed, number, end, documented, to_parent)
    os.close(to_parent)
    with os.fdopen(from_child, encoding="utf-8") as lines:
        for line in lines:
            failed = _take(line.rstrip("\n"), number, report)
            if failed and keep:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{number}{path.suffix}").write_bytes(made(make, seed, number))
            number += 1
    _, status = os.waitpid(child, 0)
    if number < end:  # it ended before it had told of this one
        report.failures.append((number, f"the process ended, status {status}: a hang, or a crash"))
        if keep:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{number}{path.suffix}").write_bytes(made(make, seed, number))
        number += 1
    return number


def _take(line: str, number: int, report: Report) -> bool:
    """Adds an outcome to the report; True for a failure."""
    seconds, megabytes, kind, what = line.split("\t", 3)
    report.slowest, report.largest = max(report.slowest, float(seconds)), max(report.largest, float(megabytes))
    if kind == "accepted":
        report.accepted += 1
    elif kind == "refused":
        report.refused[what] += 1
    else:
        report.failures.append((number, what))
    return kind == "failed"


def _child(make, read, path, seed, number, end, documented, to_parent) -> None:
    """Reads the inputs, writes a line about each, and ends the process."""
    # While an input is read, a thread of C waits for the time to be over: it ends a loop inside of C as well.
    with os.fdopen(to_parent, "w", encoding="utf-8") as lines, open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        for i in range(number, end):
            path.write_bytes(made(make, seed, i))
            before, begin = _peak(), time.perf_counter()
            faulthandler.dump_traceback_later(SECONDS, exit=True, file=nowhere)
            outcome = _outcome(read, path, documented)
            faulthandler.cancel_dump_traceback_later()
            seconds, megabytes = time.perf_counter() - begin, _peak() - before
            if megabytes > MEGABYTES:
                outcome = "failed", f"took {megabytes:.0f} MB"
            what = outcome[1].replace("\n", " | ").replace("\t", " ")
            lines.write(f"{seconds:.3f}\t{megabytes:.1f}\t{outcome[0]}\t{what}\n")
            lines.flush()
    os._exit(0)


def _outcome(read: Read, path: Path, documented: tuple[type[Exception], ...]) -> tuple[str, str]:
    try:
        read(path)
    except documented as error:
        long = len(str(error)) > 5000
        return ("failed", f"a message of {len(str(error))} characters") if long else ("refused", type(error).__name__)
    except BaseException:
        return "failed", traceback.format_exc(limit=-4)
    return "accepted", ""


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(make: Make, read: Read, description: str, **options: object) -> None:
    """The command line of a script; ends with status 1 if there were failures."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of the first input")
    parser.add_argument("--keep", type=Path, help="a folder for the inputs that failed")
    arguments = parser.parse_args()
    report = campaign(make, read, **vars(arguments), **options)
    print(report)
    sys.exit(bool(report.failures))


# Damage to bytes

NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**40, 2**63 - 1, 2**64 - 1)


def mutated(rng: random.Random, data: bytes, others: list[bytes], most: int = 2**20) -> bytes:
    """A file with one to five changes; `others`: files of which parts may be taken."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        data = rng.choice(CHANGES)(rng, data or b"\0", rng.choice(others))[:most]
    return data


def _place(rng: random.Random, data: bytes) -> int:
    """Heads of files are more worth than the rest."""
    return rng.randrange(min(len(data), 200) if rng.random() < 0.3 else len(data))


def _bit(rng, data, other):
    place = _place(rng, data)
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]


def _byte(rng, data, other):
    place = _place(rng, data)
    return data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]


def _number(rng, data, other):
    place, size = _place(rng, data), rng.choice((1, 2, 4, 8))
    value = rng.choice(NUMBERS) % 256**size
    return data[:place] + value.to_bytes(size, rng.choice(("little", "big"))) + data[place + size :]


def _cut(rng, data, other):
    place = _place(rng, data)
    return data[:place] + data[place + rng.choice((1, 2, 8, 100, len(data))) :]


def _inserted(rng, data, other):
    place = _place(rng, data)
    return data[:place] + rng.randbytes(rng.choice((1, 2, 8, 64))) + data[place:]


def _repeated(rng, data, other):
    place = _place(rng, data)
    part = data[place : place + rng.choice((1, 4, 32, 256))]
    return data[:place] + part * rng.choice((2, 3, 10, 1000)) + data[place:]


def _moved(rng, data, other):
    place, there, length = _place(rng, data), _place(rng, data), rng.choice((1, 4, 32, 256))
    return data[:place] + data[there : there + length] + data[place + length :]


def _joined(rng, data, other):
    return data[: _place(rng, data)] + (other[_place(rng, other) :] if other else b"")


CHANGES = (_bit, _byte, _number, _cut, _inserted, _repeated, _moved, _joined)
