"""The notebooks: each runs from top to bottom, and what is committed is what such a run gave."""

import base64
import json
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

from notebooks import execute  # noqa: E402

pytestmark = pytest.mark.slow

FOLDER = Path(execute.__file__).parent
NAMES = execute.NAMES
MOST_BYTES = 5_000_000  # of all notebooks together

# As little as shows that every cell runs.
TINY = {
    "detect": {"STEPS": 2},
    "finetune_your_own_data": {"IMAGES": 8, "EPOCHS": (1, 2)},
    "inspect_data": {"IMAGES": 8, "SHOW": 2},
    "inspect_model": {"STEPS": 2, "IMAGE": 1},
    "compare_heads": {
        "STEPS": 2,
        "TEST_IMAGES": 4,
        "SEEDS": (0,),
        "HEADS": {"fcn": {"name": "fcn", "filters": 8, "convolutions": 1}, "unet": {"name": "unet", "filters": 8}},
    },
    "write_a_head": {"STEPS": 2, "TEST_IMAGES": 4, "FILTERS": 8, "RIVALS": ()},
    "make_config": {"BACKBONES": {"mobilenet, narrow": {"alpha": 0.25}}, "IMAGE_SIZES": (512,)},
}


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook) -> list:
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def texts(notebook) -> str:
    """Everything that a reader sees, but for the pictures."""
    shown = [cell.source for cell in notebook.cells]
    for output in outputs(notebook):
        shown += [
            output.get("text", ""),
            *(str(value) for kind, value in output.get("data", {}).items() if not kind.startswith("image/")),
        ]
    return "\n".join(shown)


def pictures(notebook) -> list[bytes]:
    return [
        base64.b64decode(output.data["image/png"])
        for output in outputs(notebook)
        if "image/png" in output.get("data", {})
    ]


def test_all_notebooks_are_there_and_have_tiny_settings():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NAMES)
    assert sorted(TINY) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name, tmp_path):
    notebook = execute.load(name)
    first = code_cells(notebook)[0].source
    folders = {"LOGS": str(tmp_path / "logs"), "OUTPUT": str(tmp_path / "output")}
    parameters = TINY[name] | {key: value for key, value in folders.items() if f"{key} = " in first}
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    executed = execute.execute(execute.with_parameters(notebook, parameters), timeout=600)
    cells = code_cells(executed)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert len(pictures(executed)) >= 2
    said = "".join(
        output.text for output in outputs(executed) if output.output_type == "stream" and output.name == "stderr"
    ).splitlines()
    # So few steps as here end within the warm-up, of which a training rightly warns
    assert not [line for line in said if "warning" in line.lower() and "WARMUP_STEPS" not in line]


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_one_was_run_in_order_without_errors(name):
    notebook = execute.load(name)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert {output.output_type for output in outputs(notebook)} <= {"stream", "display_data", "execute_result"}
    drawn = pictures(notebook)
    assert len(drawn) >= 2 and all(picture.startswith(b"\x89PNG") for picture in drawn)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    assert cells[0].metadata.get("tags") == ["parameters"]


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_one_tells_nothing_of_the_machine(name):
    notebook = execute.load(name)
    seen = texts(notebook)
    # Paths from the root or of a user, as in tracebacks, warnings and logs
    assert not re.findall(r"(?<![\w.:/<])/(?:work|home|root|tmp|usr|opt|var|mnt|Users|private)\b\S*", seen)
    assert not re.findall(r"[A-Za-z]:\\\w", seen) and "site-packages" not in seen
    assert not [output for output in outputs(notebook) if output.get("name") == "stderr"]
    assert "Warning:" not in seen and "WARNING" not in seen
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)


def test_all_together_are_small():
    sizes = {path.name: path.stat().st_size for path in FOLDER.glob("*.ipynb")}
    assert sum(sizes.values()) < MOST_BYTES, sizes


def sample() -> "nbformat.NotebookNode":
    cell = nbformat.v4.new_code_cell("A = 1\nB = 'x'  # what", metadata={"tags": ["parameters"], "collapsed": True})
    notebook = nbformat.v4.new_notebook(cells=[cell, nbformat.v4.new_code_cell("print(A, B)")])
    notebook.metadata.language_info = {"name": "python", "version": "3.99"}
    return notebook


def test_parameters_are_set_behind_their_cell():
    notebook = execute.with_parameters(sample(), {"A": (1, 2), "B": None})
    assert [cell.source for cell in notebook.cells[1:]] == ["A = (1, 2)\nB = None", "print(A, B)"]


def test_unknown_parameters_are_refused():
    with pytest.raises(ValueError, match=r"no parameters \['C'\]; it has \['A', 'B'\]"):
        execute.with_parameters(sample(), {"C": 1})
    notebook = sample()
    notebook.cells[0].metadata.tags = []
    with pytest.raises(ValueError, match='0 cells are tagged "parameters"'):
        execute.with_parameters(notebook, {"A": 1})


def test_cleaning_keeps_tags_and_shrinks_pictures():
    import io

    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(60, 190, (64, 64, 3), np.uint8)
    pixels[:2, :2] = 255, 0, 0  # as of a legend
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    notebook = sample()
    notebook.cells[1].outputs = [
        nbformat.v4.new_output("display_data", {"image/png": base64.b64encode(file.getvalue()).decode()})
    ]
    notebook.cells[1].metadata["execution"] = {"shell.execute_reply": "2026-01-01"}
    clean = execute.clean(notebook)
    (picture,) = pictures(clean)
    assert len(picture) < 0.6 * len(file.getvalue())
    back = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    assert back.shape == pixels.shape and np.abs(back.astype(int) - pixels).mean() < 20  # noise: the hardest there is
    assert np.abs(back[:2, :2].astype(int) - pixels[:2, :2]).max() < 20
    assert clean.cells[0].metadata == {"tags": ["parameters"]} and clean.cells[1].metadata == {}
    assert "3.99" not in json.dumps(clean)
