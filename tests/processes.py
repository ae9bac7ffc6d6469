"""Processes of `tests.distributed`, and what they say."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 300  # seconds after which a process of a test is taken to hang


class Program:
    """A process of `tests.distributed`, with what it printed."""

    def __init__(self, folder, name, *arguments, **environment):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", **environment}
        self.path = folder / f"{name}.txt"
        with self.path.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.distributed", str(folder), *map(str, arguments)],
                cwd=ROOT,
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def end(self):
        """Waits for the end of it; returns its exit status."""
        try:
            return self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"still running after {LIMIT} s:\n{self.text[-3000:]}") from None

    @property
    def text(self):
        return self.path.read_text()

    def said(self, kind, key):
        """Losses by step or epoch, in the order in which they were printed."""
        lines = [json.loads(line) for line in self.text.splitlines() if line.startswith('{"kind"')]
        return {line[key]: line["losses"] for line in lines if line["kind"] == kind and key in line}


def start_workers(folder, name, arguments, **environment):
    """Two processes over loopback; `arguments` of each."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    clusters = [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": i}}) for i in range(2)
    ]
    return [
        Program(folder, f"{name}_{i}", "multi_worker", *arguments[i], TF_CONFIG=clusters[i], **environment)
        for i in range(2)
    ]


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, losses in expected.items():
        assert found[key].keys() == losses.keys()
        for name, value in losses.items():
            assert found[key][name] == pytest.approx(value, rel=1e-5), (key, name)
