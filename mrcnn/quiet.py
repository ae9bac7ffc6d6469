"""Keeps TensorFlow's startup lines off the terminal, so that a run prints only what the package itself says.

TensorFlow's C++ code reports at import how it was compiled and that it found no GPU. TF_CPP_MIN_LOG_LEVEL silences what
comes after its logging is set up; the lines before that go straight to file descriptor 2. They are held back while
`tensorflow` is imported, and whatever is not a log line of that kind is printed afterwards.
"""

import contextlib
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# An information or warning line of absl's C++ logging: "I0000 00:00:1795992073.5 15164 port.cc:153] oneDNN ..."
LOG_LINE = re.compile(
    rb"[IW]\d{4} \d\d:\d\d:[\d.]+ +\d+ [\w./-]+:\d+\]|WARNING: All log messages before absl::InitializeLog|"
    rb"To enable the following instructions:"
)


def quiet_tensorflow() -> None:
    """Silences TensorFlow's startup. Does nothing if it is imported already, or if TF_CPP_MIN_LOG_LEVEL is 0."""
    if "tensorflow" not in sys.modules and os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "0":
        sys.meta_path.insert(0, _QuietImport())


@contextlib.contextmanager
def without_log_lines() -> Iterator[None]:
    """Holds back what is written to file descriptor 2, and then prints all of it but `LOG_LINE`s."""
    try:
        shown = os.dup(2)
    except OSError:  # no standard error at all, as in a service
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(shown, 2)
            os.close(shown)
            held.seek(0)
            for line in held:
                if not LOG_LINE.match(line):
                    os.write(2, line)


class _QuietImport(MetaPathFinder):
    """Finds `tensorflow` as the other finders do, once, and has it imported without log lines."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _QuietLoader(spec.loader)
        return spec


class _QuietLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader  # what others look up later is the real one
        module.__loader__ = self.loader
        with without_log_lines():
            self.loader.exec_module(module)
