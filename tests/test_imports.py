"""Who may import whom, read from the source, and that `import mrcnn` stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "mrcnn").rglob("*.py"), *(ROOT / "heads").rglob("*.py")])
HEAVY = {"matplotlib", "pycocotools", "imgaug", "skimage", "scipy"}
FACADES = {"model", "utils", "visualize", "parallel_model", "legacy", "cli"}

# What each package, and each module at the root, may import of the others.
BELOW = {
    "files": set(),
    "quiet": set(),
    "config_checks": set(),
    "config": {"config_checks", "files"},
    "presets": {"config"},
    "ops": set(),
    "layers": {"ops"},
    "fusion": {"layers", "ops"},
    "network": {"config", "fusion", "heads", "layers", "ops"},
    "distribution": {"ops"},
    "data": {"config", "files", "network", "ops"},
    "training": {"config", "data", "distribution", "files", "layers", "network", "ops"},
    "inference": {"config", "data", "files", "fusion", "layers", "network", "ops"},
    "evaluation": {"config", "data", "files", "inference", "ops"},
    "weights": {"config", "data", "files", "network", "presets"},
    "pictures": {"data", "evaluation", "inference"},
    "app": {"data", "files", "inference", "pictures"},
    "inspection": {"config", "data", "inference", "network", "ops"},
    "legacy": {
        *("config", "data", "evaluation", "inference", "inspection", "layers", "network", "ops", "presets"),
        *("training", "weights"),
    },
    "utils": {"data", "evaluation", "legacy", "ops", "weights"},
    "visualize": {"legacy", "pictures"},
    "parallel_model": {"legacy"},
    "model": {
        *("config", "data", "distribution", "evaluation", "files", "inference", "legacy", "network", "presets"),
        *("training", "weights"),
    },
}
# Users of the facade: they may import everything but each other, except as ABOVE_ALL says.
ABOVE = {"cli", "experiments", "__main__", "__init__"}
ABOVE_ALL = {"cli": {"experiments"}, "__main__": {"cli"}}
PENDING: set[tuple[str, str]] = set()


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


def part(name: str) -> str:
    """The package of `mrcnn` that a dotted name lies in, its module at the root, or "heads"."""
    first, *rest = name.split(".")
    return "heads" if first == "heads" else rest[0] if rest else "__init__"


def imports_for_types(path: Path) -> set[str]:
    """Dotted names imported under `if TYPE_CHECKING:`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for inner in node.body:
                if isinstance(inner, ast.ImportFrom):
                    names |= {inner.module} | {f"{inner.module}.{alias.name}" for alias in inner.names}
    return names


def test_the_reader_of_imports_sees_what_is_there(tmp_path):
    file = tmp_path / "a.py"
    file.write_text("import os.path\ndef f():\n    from mrcnn import utils\n")
    assert imports(file) == {"os.path", "mrcnn", "mrcnn.utils"}
    assert imports(file, top_level_only=True) == {"os.path"}
    assert len(SOURCES) > 20


@pytest.mark.slow
@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_edges(path):
    name, used = module_name(path), imports(path) - imports_for_types(path)
    packages = {package(other) for other in used}
    assert not packages & {"samples", "tests", "benchmarks"}
    if package(name) == "heads":
        assert packages <= {"keras", "heads"} | sys.stdlib_module_names
        return
    own = part(name)
    if name != "mrcnn.network.graph" and own != "cli":
        assert "heads" not in packages
    others = {part(other) for other in used if package(other) in ("mrcnn", "heads")} - {own, "__init__"}
    if own in ABOVE:
        assert not others & (ABOVE - ABOVE_ALL.get(own, set()))
    else:
        assert {(own, other) for other in others - BELOW[own]} <= PENDING


def test_there_is_no_cycle():
    """Among the packages; each module imports its package's others only."""
    graph = {own: below - {"heads"} for own, below in BELOW.items()}
    while leaves := {own for own, below in graph.items() if not below}:
        graph = {own: below - leaves for own, below in graph.items() if own not in leaves}
    assert not graph


@pytest.mark.slow
def test_modules_of_one_package_form_no_cycle():
    names = {module_name(path): path for path in SOURCES}
    graph = {}
    for name, path in names.items():
        used = imports(path, top_level_only=True) & set(names) - {name}
        # A package's __init__ stands for its modules.
        graph[name] = {other for other in used if not name.startswith(other + ".")}
    while leaves := {name for name, used in graph.items() if not used}:
        graph = {name: used - leaves for name, used in graph.items() if name not in leaves}
    assert not graph


@pytest.mark.slow
@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_a_config_is_annotated_and_read_where_things_are_assembled(path):
    """Below assembly, layers and functions take explicit keyword arguments."""
    assembling = {
        "cli",
        "data",
        "distribution",
        "experiments",
        "inference",
        "inspection",
        "legacy",
        "model",
        "training",
    }
    outer = assembling | {"config", "evaluation", "network", "presets", "weights", "config_checks"}
    own = part(module_name(path))
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.FunctionDef) and node.name != "from_config":  # Keras's own
            for argument in [*node.args.args, *node.args.kwonlyargs]:
                if argument.arg == "config":
                    where = f"{path}:{node.lineno} {node.name}"
                    assert own in outer, f"{where}: takes a config below the code that assembles"
                    assert argument.annotation is not None, f"{where}: annotate `config`"
                    assert "Config" in ast.unparse(argument.annotation), f"{where}: annotate it as Config"


def test_folders_and_the_root_stay_small():
    root = [path for path in (ROOT / "mrcnn").glob("*.py") if path.stem != "__main__"]
    assert len(root) <= 11
    for folder in {path.parent for path in SOURCES}:
        assert len(list(folder.glob("*.py"))) <= 14, folder


@pytest.mark.slow
@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_heavy_modules_are_imported_where_they_are_used(path):
    assert not {package(name) for name in imports(path, top_level_only=True)} & HEAVY


def test_import_of_the_package_is_light():
    code = f"import sys, mrcnn; print(*sorted({HEAVY | {'tensorflow', 'keras'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
