"""The compute dtype of layers, and whether it is fast on this machine."""

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras

CPU_INFO = Path("/proc/cpuinfo")
FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
FIRST_GPU = 8.0  # lowest compute capability whose tensor cores support bfloat16 (Ampere)


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Layers built in this context compute in the dtype `chosen(name)`; their weights are always float32."""
    before = keras.config.dtype_policy()
    if name == "bfloat16" and bfloat16_is_fast() is False:
        _warn(machine())
    name = chosen(name)
    keras.config.set_dtype_policy("mixed_bfloat16" if name == "bfloat16" else name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def chosen(name: str) -> str:
    """Resolves "auto": "bfloat16" if it is known to be fast, else "float32". Returns other names unchanged."""
    if name != "auto":
        return name
    return "bfloat16" if bfloat16_is_fast() else "float32"


def bfloat16_is_fast() -> bool | None:
    """Whether bfloat16 is faster than float32 on the device that the Keras backend uses.

    True for GPUs whose tensor cores support it, for TPUs and, on TensorFlow, for processors with AMX. False for older
    GPUs and for x86 processors without AMX: with only `avx512_bf16`, bfloat16 takes 1.7 times as long. None if unknown.
    """
    gpus = accelerators()
    if gpus:
        return min(gpus) >= FIRST_GPU
    features = processor_features()
    if not features or (features & {"amx_bf16"} and keras.backend.backend() != "tensorflow"):
        return None
    return "amx_bf16" in features


def processor_features() -> frozenset[str]:
    """The processor's features among FEATURES; empty if the system does not report them."""
    try:
        flags = CPU_INFO.read_text().split()
    except OSError:
        return frozenset()
    return frozenset(FEATURES) & frozenset(flags)


def accelerators() -> list[float]:
    """The compute capability of each GPU that the backend uses; infinite for other accelerators."""
    if keras.backend.backend() == "jax":
        import jax

        devices = [device for device in jax.local_devices() if device.platform != "cpu"]
        return [float(getattr(device, "compute_capability", "inf")) for device in devices]
    if keras.backend.backend() != "tensorflow":
        return []
    import tensorflow as tf

    details = map(tf.config.experimental.get_device_details, tf.config.get_visible_devices("GPU"))
    found = [detail.get("compute_capability", (float("inf"), 0)) for detail in details]
    return [major + minor / 10 for major, minor in found] + [float("inf") for _ in tf.config.get_visible_devices("TPU")]


def machine() -> str:
    """A description of the hardware that the speed depends on."""
    gpus = accelerators()
    if gpus:
        return f"{len(gpus)} GPUs, lowest compute capability {min(gpus)}"
    return "processor with " + (", ".join(sorted(processor_features())) or "unknown features")


@functools.cache
def _warn(where: str) -> None:
    """Warns once per process."""
    warnings.warn(
        f"bfloat16 is slower than float32 on this machine ({where}): it needs AMX (`amx_bf16` in {CPU_INFO}) on a "
        f'CPU, or compute capability {FIRST_GPU} on a GPU. Set PRECISION = "auto" to use bfloat16 only where it '
        'is faster, or PRECISION = "float32".',
        stacklevel=6,
    )
