"""Makes torchvision's wheel load beside a torch without CUDA.

The wheel on PyPI is linked against CUDA's libraries, which a torch for CPUs does not bring; its kernels for CPUs need
nothing of them. So empty libraries are compiled that define what it asks for, and loaded before it. A call that would
reach a GPU ends the process with the name of the function.
"""

import re
import subprocess
import sys
from pathlib import Path

CHECK = "import torch, torchvision; torchvision.ops.nms(torch.ones(1, 4), torch.ones(1), 0.5)"
# The library that each symbol is looked for in; the first pattern that fits
LIBRARIES = {r"(__)?cuda": "libcudart", r"_ZNK?3c104cuda": "libc10_cuda", r"_ZN2at4cuda": "libtorch_cuda"}
# What runs while the library is loaded, and must therefore do something
BODIES = {
    r".*CUDACachingAllocator9allocatorE$": "void *{name}[16] = {{0}};",  # a variable
    r"__cudaRegisterFatBinary$": "void **{name}(void *p) {{ static void *handle[64]; return handle; }}",
    r"__cuda(Un)?[rR]egister": "void {name}(void) {{}}",
    r"__cudaInitModule$": "char {name}(void **p) {{ return 1; }}",
    r".*device_countEv$": "signed char {name}(void) {{ return 0; }}",
    r".*": 'long {name}(void) {{ fprintf(stderr, "a GPU is needed: {name}\\n"); abort(); }}',
}


def make_loadable(python: Path) -> None:
    """Adds the libraries to the environment of `python` unless torchvision works in it as it is.

    Raises subprocess.CalledProcessError when it still does not, or without nm, readelf and gcc.
    """
    if subprocess.run([python, "-c", CHECK], capture_output=True).returncode == 0:
        return
    site = Path(_output(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").strip())
    extension, folder = site / "torchvision" / "_C.so", site / "cuda_stand_ins"
    folder.mkdir(exist_ok=True)
    undefined = _output("nm", "-D", "--undefined-only", extension).splitlines()
    wanted = [line.split()[-1].split("@")[0] for line in undefined]
    needed = re.findall(r"NEEDED.*\[(.+)\]", _output("readelf", "-d", extension))
    paths = []
    for pattern, library in LIBRARIES.items():
        name = next((n for n in needed if n.startswith(library + ".")), f"{library}.so")
        paths.append(_compile(folder / name, [s for s in wanted if re.match(pattern, s)], library == "libcudart"))
    (site / "cuda_stand_ins.pth").write_text("import ctypes; " + "; ".join(f"ctypes.CDLL({str(p)!r})" for p in paths))
    subprocess.run([python, "-c", CHECK], check=True, stdout=sys.stderr)


def source(symbols: list[str]) -> str:
    """C that defines the symbols."""
    lines = ["#include <stdio.h>", "#include <stdlib.h>"]
    for name in symbols:
        body = next(body for pattern, body in BODIES.items() if re.match(pattern, name))
        lines.append(body.format(name=name))
    return "\n".join(lines) + "\n"


def _compile(path: Path, symbols: list[str], versioned: bool) -> Path:
    path.with_suffix(".c").write_text(source(symbols))
    flags = ["-shared", "-fPIC", "-w", f"-Wl,-soname,{path.name}"]
    if versioned:  # the wheel asks for cudart's symbols by the version named as the library
        path.with_suffix(".map").write_text(f"{path.name} {{ global: *; }};")
        flags.append(f"-Wl,--version-script={path.with_suffix('.map')}")
    subprocess.run(["gcc", *flags, "-o", path, path.with_suffix(".c")], check=True)
    return path


def _output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
