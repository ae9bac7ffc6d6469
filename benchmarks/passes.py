"""Programs that make passes over a data set when told to, each in a process of its own, so that they can take turns."""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Self


class Program:
    """A benchmark's process: one json line in, one out.

    Args:
        command: the program and its arguments; it answers by `serve`.
    """

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **request: Any) -> dict[str, Any]:
        """What the program measured in one pass."""
        self.send(**request)
        return self.receive()

    def send(self, **request: Any) -> None:
        """Makes the program begin a pass; several can then be at work."""
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """What the program measured in the pass that was begun."""
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{' '.join(self._command)} ended; its error is above")
        return json.loads(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.stdin.close()
        self._process.wait()


def flags(description: str) -> argparse.ArgumentParser:
    """What every such program is told."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--annotations", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--cores", type=int, nargs="+", required=True, help="one worker on each")
    return parser


def serve(answer: Callable[..., dict[str, Any]]) -> None:
    """Answers the requests of the program that started this one, until it closes its end."""
    out, sys.stdout = sys.stdout, sys.stderr  # whatever else prints
    for line in sys.stdin:
        out.write(json.dumps(answer(**json.loads(line))) + "\n")
        out.flush()


def timed(batches: Callable[[], Iterable[int]], processes: Iterable[int] = ()) -> dict[str, Any]:
    """Images, wall and CPU seconds of a pass; `batches` gives the number of images of each.

    processes: ids of the worker processes whose CPU time counts, too.
    """
    processes = list(processes)
    wall, cpu = time.perf_counter(), cpu_seconds(processes)
    images = sum(batches())
    return {"images": images, "wall_s": time.perf_counter() - wall, "cpu_s": cpu_seconds(processes) - cpu}


def cpu_seconds(processes: Iterable[int]) -> float:
    """CPU time of this process, all its threads included, and of others."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    total = own.ru_utime + own.ru_stime
    for process in processes:
        with open(f"/proc/{process}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total
