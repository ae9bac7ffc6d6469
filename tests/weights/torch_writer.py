"""Writes the files of `torch.save`, zip and legacy, without torch: numpy arrays stand for tensors."""

import io
import pickle
import sys
import types
import zipfile

import numpy as np

STORAGES = {
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "float64": "DoubleStorage",
    "int64": "LongStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


class Tensor:
    """A tensor over a whole storage, or over a part of it by size, stride and offset."""

    def __init__(self, storage, size=None, stride=None, offset=0, kind=None, count=None):
        self.storage = np.array(storage, order="C")
        self.size = self.storage.shape if size is None else size
        steps = [s // self.storage.itemsize for s in self.storage.strides]
        self.stride = tuple(steps) if stride is None else stride
        self.offset, self.kind = offset, kind or STORAGES[self.storage.dtype.name]
        self.count = self.storage.size if count is None else count


class Storage:
    def __init__(self, tensor):
        self.tensor = tensor


def _stand_ins():
    """Modules whose functions pickle by torch's names."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in [*STORAGES.values(), "BFloat16Storage"]:
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2():
        """Never called: pickled by name."""

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    return {"torch": torch, "torch._utils": utils}


class _Pickler(pickle.Pickler):
    def __init__(self, file, modules, legacy):
        super().__init__(file, 2)
        self.modules, self.legacy, self.tensors = modules, legacy, []

    def reducer_override(self, value):
        tensor = Tensor(value) if isinstance(value, np.ndarray) else value
        if not isinstance(tensor, Tensor):
            return NotImplemented
        arguments = (Storage(tensor), tensor.offset, tuple(tensor.size), tuple(tensor.stride), False, {})
        return self.modules["torch._utils"]._rebuild_tensor_v2, arguments

    def persistent_id(self, value):
        if not isinstance(value, Storage):
            return None
        self.tensors.append(value.tensor)
        view = (None,) if self.legacy else ()
        kind = getattr(self.modules["torch"], value.tensor.kind)
        return "storage", kind, str(len(self.tensors) - 1), "cpu", value.tensor.count, *view


def _pickled(content, legacy):
    file, modules = io.BytesIO(), _stand_ins()
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        pickler = _Pickler(file, modules, legacy)
        pickler.dump(content)
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    return file.getvalue(), [tensor.storage for tensor in pickler.tensors]


def save_zip(path, content, compression=zipfile.ZIP_STORED):
    """The format since torch 1.6."""
    data, storages = _pickled(content, legacy=False)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", "little")
        for i, storage in enumerate(storages):
            archive.writestr(f"archive/data/{i}", storage.tobytes())
        archive.writestr("archive/version", "3\n")


def save_legacy(path, content):
    """The format before it."""
    data, storages = _pickled(content, legacy=True)
    with open(path, "wb") as file:
        for head in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True, "protocol_version": 1001}):
            pickle.dump(head, file, protocol=2)
        file.write(data)
        pickle.dump([str(i) for i in range(len(storages))], file, protocol=2)
        for storage in storages:
            file.write(storage.size.to_bytes(8, "little") + storage.tobytes())
