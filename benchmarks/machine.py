"""The machine that figures are of.

It imports nothing large, as the peak memory of a process includes that of the process which started it.
"""

import os
from pathlib import Path


def processor() -> str:
    """What figures depend on: the processor's instructions for bfloat16 and int8, and the number of cores."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    known = [name for name in ("avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8") if f" {name} " in flags]
    return f"{os.cpu_count()} cores, {' '.join(known) or 'no AVX-512'}"
