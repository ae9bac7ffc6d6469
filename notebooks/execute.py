"""Executes the notebooks and writes them back with their outputs, without traces of the machine they ran on.

    python notebooks/execute.py                 # all of them
    python notebooks/execute.py detect          # one
    python notebooks/execute.py detect STEPS=20 # with other parameters, only to see whether it runs: nothing is written

Pictures are stored with 256 colors, which is hard to see on these and makes them a quarter as large.
"""

import ast
import base64
import io
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent
NAMES = (
    "detect",
    "finetune_your_own_data",
    "inspect_data",
    "inspect_model",
    "compare_heads",
    "write_a_head",
    "make_config",
)
COLORS = 256


def load(name: str) -> nbformat.NotebookNode:
    """A notebook of this folder. Raises FileNotFoundError for an unknown name."""
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def with_parameters(notebook: nbformat.NotebookNode, parameters: Mapping[str, Any]) -> nbformat.NotebookNode:
    """Adds a cell that sets parameters after the one tagged "parameters", as papermill does.

    Raises ValueError for a parameter that the tagged cell does not set, and where there is no such cell.
    """
    places = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())]
    if len(places) != 1:
        raise ValueError(f'{len(places)} cells are tagged "parameters"; there has to be one')
    known = {
        target.id
        for node in ast.parse(notebook.cells[places[0]].source).body
        if isinstance(node, ast.Assign)
        for target in node.targets
    }
    if unknown := set(parameters) - known:
        raise ValueError(f"the notebook has no parameters {sorted(unknown)}; it has {sorted(known)}")
    code = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    notebook.cells.insert(places[0] + 1, nbformat.v4.new_code_cell(code))
    return notebook


def execute(notebook: nbformat.NotebookNode, timeout: int = 3600) -> nbformat.NotebookNode:
    """Runs all cells in a new kernel, in this folder. Raises nbclient's CellExecutionError where one fails.

    What libraries print past Python, as TensorFlow on its start, goes to this process's stderr, not into the notebook.
    """
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(FOLDER)}},
        extra_arguments=["--IPKernelApp.capture_fd_output=False"],
    )
    silent = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}  # pictures belong to the outputs
    client.execute(env={"TF_CPP_MIN_LOG_LEVEL": "2", **silent})
    return notebook


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without versions and times of the machine; pictures with few colors."""
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {key: value for key, value in cell.metadata.items() if key == "tags"}
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = _with_few_colors(data["image/png"])
    return notebook


def _with_few_colors(png: str) -> str:
    """A base64 picture with a palette, where that is smaller."""
    from PIL import Image

    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    smaller = io.BytesIO()
    # Maximum coverage keeps colors that are rare, as those of legends; median cut would merge them
    few = picture.quantize(COLORS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(smaller, "png", optimize=True)
    text = base64.b64encode(smaller.getvalue()).decode()
    return min(text, png, key=len)


def main(arguments: list[str]) -> None:
    """Executes what the command line names."""
    parameters = {name: ast.literal_eval(value) for name, _, value in (a.partition("=") for a in arguments if "=" in a)}
    for name in [argument for argument in arguments if "=" not in argument] or NAMES:
        began = time.perf_counter()
        notebook = load(name)
        execute(with_parameters(notebook, parameters) if parameters else notebook)
        if not parameters:
            nbformat.write(clean(notebook), FOLDER / f"{name}.ipynb")
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
