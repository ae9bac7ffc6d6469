"""Who may import whom, read from the source, and that `import mrcnn` stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "mrcnn").rglob("*.py"), *(ROOT / "heads").rglob("*.py")])
HEAVY = {"matplotlib", "pycocotools", "imgaug", "skimage", "scipy"}
FACADES = {"mrcnn.model", "mrcnn.utils", "mrcnn.evaluation", "mrcnn.visualize", "mrcnn.validation"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Dotted names that a file imports; `from a import b` counts as a and as a.b."""
    tree = ast.parse(path.read_text(), str(path))
    nodes = tree.body if top_level_only else ast.walk(tree)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write it from the top"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def package(name: str) -> str:
    return name.split(".")[0]


def test_the_reader_of_imports_sees_what_is_there(tmp_path):
    file = tmp_path / "a.py"
    file.write_text("import os.path\ndef f():\n    from mrcnn import utils\n")
    assert imports(file) == {"os.path", "mrcnn", "mrcnn.utils"}
    assert imports(file, top_level_only=True) == {"os.path"}
    assert len(SOURCES) > 20


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_edges(path):
    name, used = module_name(path), imports(path)
    packages = {package(other) for other in used}
    assert not packages & {"samples", "tests", "benchmarks"}
    if package(name) == "heads":
        assert packages <= {"keras", "heads"} | sys.stdlib_module_names
        return
    if name != "mrcnn.graph":
        assert "heads" not in packages
    if name not in FACADES:
        assert not used & FACADES


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_config_is_read_at_the_door_only(path):
    """Below assembly, layers and functions take explicit arguments."""
    readers = {"mrcnn.presets", "mrcnn.graph", "mrcnn.training", "mrcnn.model", "mrcnn.detector", "mrcnn.pixels"}
    # An importer says which preset its weights need.
    readers |= {f"mrcnn.weights.{program}" for program in ("matterport", "torchvision", "detectron2", "imagenet")}
    name = module_name(path)
    if name not in readers and name != "mrcnn.config":
        assert not imports(path) & {"mrcnn.config.Config", "mrcnn.presets"}


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_heavy_modules_are_imported_where_they_are_used(path):
    assert not {package(name) for name in imports(path, top_level_only=True)} & HEAVY


def test_import_of_the_package_is_light():
    code = f"import sys, mrcnn; print(*sorted({HEAVY | {'tensorflow', 'keras'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
