"""Writes this package's network as ONNX or OpenVINO for `engine_peer.py`: arguments are the case as json, the file."""

import json
import sys
from pathlib import Path

import this_package
import worker


def main() -> None:
    """Exports."""
    case, path = json.loads(sys.argv[1]), Path(sys.argv[2])
    model = this_package.network({**case, "work": "detect", "precision": "float32"})
    this_package.find_much(model)
    int8 = case["precision"] == "int8" and path.suffix == ".xml"
    model.export(path, precision="int8" if int8 else "float32", calibration=worker.photographs({**case, "batch": 2}))


if __name__ == "__main__":
    main()
