"""The type that layers compute in, on machines that are made up here."""

import warnings

import keras
import pytest
import tensorflow as tf

from mrcnn.config import Config
from mrcnn.experiments import plan
from mrcnn.model import MaskRCNN
from mrcnn.network import precision as module
from mrcnn.network.precision import bfloat16_is_fast, chosen, machine, precision, processor_features
from tests.tiny import TinyConfig

AMX = "flags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16 amx_bf16 amx_tile amx_int8\n"
NO_AMX = "flags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16\n"
OLD = "flags\t\t: fpu sse4_2 avx2\n"
ARM = "Features\t: fp asimd bf16 i8mm\n"


@pytest.fixture
def on(monkeypatch, tmp_path):
    """A function that sets the processor's flags (None: the system has no such file), backend and GPUs."""

    def choose(flags, backend="tensorflow", gpus=()):
        file = tmp_path / "cpuinfo"
        file.unlink(missing_ok=True)
        if flags is not None:
            file.write_text(f"processor\t: 0\n{flags}processor\t: 1\n{flags}")
        monkeypatch.setattr(module, "CPU_INFO", file)
        monkeypatch.setattr(keras.backend, "backend", lambda: backend)
        monkeypatch.setattr(module, "accelerators", lambda: list(gpus))
        module._warn.cache_clear()

    yield choose
    module._warn.cache_clear()


@pytest.mark.parametrize(
    "flags, backend, gpus, fast",
    [
        (AMX, "tensorflow", (), True),
        (NO_AMX, "tensorflow", (), False),
        (OLD, "tensorflow", (), False),
        (ARM, "tensorflow", (), None),
        (None, "tensorflow", (), None),
        (AMX, "jax", (), None),
        (NO_AMX, "jax", (), False),
        (OLD, "jax", (9.0,), True),
        (AMX, "tensorflow", (7.5,), False),
        (NO_AMX, "tensorflow", (8.0, 9.0), True),
        (NO_AMX, "jax", (9.0, 7.0), False),
        (None, "jax", (float("inf"),), True),
    ],
)
def test_bfloat16_is_chosen_where_it_is_known_to_be_faster(on, flags, backend, gpus, fast):
    on(flags, backend, gpus)
    assert bfloat16_is_fast() is fast
    assert chosen("auto") == ("bfloat16" if fast else "float32")
    assert (chosen("float32"), chosen("bfloat16")) == ("float32", "bfloat16")


def test_features_are_those_of_the_file(on):
    on(NO_AMX)
    assert processor_features() == {"avx2", "avx512f", "avx512_vnni", "avx512_bf16"}
    assert machine() == "processor with avx2, avx512_bf16, avx512_vnni, avx512f"
    on(None)
    assert processor_features() == frozenset() and machine() == "processor with unknown features"
    on(None, gpus=(9.0, 8.6))
    assert machine() == "2 GPUs, lowest compute capability 8.6"


def test_slow_bfloat16_is_warned_of_once(on):
    on(NO_AMX)
    with pytest.warns(UserWarning, match=r'with avx2, avx512_bf16.*amx_bf16.*PRECISION = "auto"') as caught:
        for _ in range(3):
            with precision("bfloat16"):
                assert keras.config.dtype_policy().compute_dtype == "bfloat16"
    assert len(caught) == 1


@pytest.mark.parametrize(
    "flags, gpus, name", [(AMX, (), "bfloat16"), (ARM, (), "bfloat16"), (NO_AMX, (), "auto"), (OLD, (8.9,), "bfloat16")]
)
def test_nothing_is_said_where_bfloat16_may_be_fast_or_is_not_used(on, flags, gpus, name):
    on(flags, gpus=gpus)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with precision(name):
            pass
    assert not caught


@pytest.mark.slow
@pytest.mark.parametrize("flags, compute", [(AMX, "bfloat16"), (NO_AMX, "float32")], ids=["AMX", "none"])
def test_auto_builds_either_network_and_stays_in_the_settings_of_a_checkpoint(on, tmp_path, flags, compute):
    on(flags)
    model = MaskRCNN("inference", TinyConfig(PRECISION="auto"))
    head = model.network.mask_head.layers[-2]
    assert (head.compute_dtype, head.dtype) == (compute, "float32")
    assert keras.config.dtype_policy().name == "float32"
    model.save_weights(tmp_path / "auto.h5")
    on(AMX)
    loaded = MaskRCNN.from_pretrained(tmp_path / "auto.h5", config=TinyConfig)
    assert loaded.config.PRECISION == "auto"
    assert loaded.network.mask_head.layers[-2].compute_dtype == "bfloat16"


def test_experiments_tell_what_auto_stood_for(on):
    on(AMX)
    assert plan.settings(Config(PRECISION="auto"))["PRECISION"] == "bfloat16"
    on(NO_AMX)
    assert plan.settings(Config(PRECISION="auto"))["PRECISION"] == "float32"


def test_gpus_tell_their_compute_capability(monkeypatch):
    visible = {"GPU": ["a", "b"], "TPU": []}
    details = {"a": {"compute_capability": (9, 0)}, "b": {"device_name": "another maker's"}}
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: visible[kind])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", details.get)
    assert module.accelerators() == [9.0, float("inf")]
