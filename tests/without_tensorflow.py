"""Detects, trains, saves, loads and evaluates where `import tensorflow` fails; run by test_without_tensorflow.py.

KERAS_BACKEND=jax python -m tests.without_tensorflow FOLDER
"""

import sys

sys.modules["tensorflow"] = None  # as if it were not installed

from pathlib import Path  # noqa: E402

import jax  # noqa: E402
import numpy as np  # noqa: E402

from mrcnn import MaskRCNN, evaluate  # noqa: E402
from tests.tiny import TinyConfig, TinyDataset  # noqa: E402

jax.config.update("jax_disable_most_optimizations", True)  # compiling takes longer here than what is compiled


def main(folder: Path) -> None:
    """Prints what the test looks at."""
    config = TinyConfig(DETECTION_MIN_CONFIDENCE=0.0, STEPS_PER_EPOCH=1)
    model = MaskRCNN("training", config, folder)
    images = [TinyDataset(1).load_image(0)]
    before = model.detect(images)[0]
    model.train(TinyDataset(4), TinyDataset(2, seed=1), epochs=1, verbose=0)
    after = model.detect(images)[0]
    assert not np.array_equal(before.scores, after.scores), "nothing was learned"

    model.save_weights(folder / "saved.h5")
    loaded = MaskRCNN.from_pretrained(folder / "saved.h5", config=config)
    (again,) = loaded.detect(images)
    for name in ("rois", "class_ids", "scores", "masks"):
        np.testing.assert_array_equal(after[name], again[name], err_msg=name)
    results = evaluate(loaded, TinyDataset(2, seed=1))
    print("detections", again.count, "checkpoints", len(list(model.find_last().parent.glob("*.h5"))))
    print("AP", results.box["AP"], results.mask["AP"])
    found = sorted(name for name in sys.modules if name.split(".")[0] == "tensorflow" and sys.modules[name] is not None)
    print("tensorflow", found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
