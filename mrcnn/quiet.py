"""Hides TensorFlow's startup messages, so that a run only prints the package's own output.

At import, TensorFlow's C++ code reports how it was compiled and that it found no GPU. TF_CPP_MIN_LOG_LEVEL silences
messages after its logging is set up; earlier ones go straight to file descriptor 2. That output is held back while
`tensorflow` is imported, and everything except such log lines is printed afterwards.
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

# An info or warning line of absl's C++ logging: "I0000 00:00:1795992073.5 15164 port.cc:153] oneDNN ..."
LOG_LINE = re.compile(
    rb"[IW]\d{4} \d\d:\d\d:[\d.]+ +\d+ [\w./-]+:\d+\]|WARNING: All log messages before absl::InitializeLog|"
    rb"To enable the following instructions:"
)


def quiet_tensorflow() -> None:
    """Silences TensorFlow's startup. Does nothing if it is already imported, or if TF_CPP_MIN_LOG_LEVEL is 0."""
    if "tensorflow" not in sys.modules and os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "0":
        sys.meta_path.insert(0, _QuietImport())


@contextlib.contextmanager
def without_log_lines() -> Iterator[None]:
    """Holds back output to file descriptor 2, then prints all of it except `LOG_LINE`s."""
    try:
        shown = os.dup(2)
    except OSError:  # there is no standard error, as in a service
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
    """Finds `tensorflow` like the other finders, once, and has it imported without log lines."""

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
            module.__spec__.loader = self.loader  # later lookups find the real loader
        module.__loader__ = self.loader
        with without_log_lines():
            self.loader.exec_module(module)
