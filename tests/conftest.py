"""What every test starts from: quiet TensorFlow, no window system, fixed seeds, Keras's settings as they come."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
from hypothesis import settings

# The same examples in every run, and none judged by how long it took: the machine may be busy.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def fresh_keras():
    """Seeds before each test, the dtype policy as it was after it; tests without Keras do not pay for its import."""
    if "keras" not in sys.modules:
        yield
        return
    import keras

    keras.utils.set_random_seed(0)
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)
