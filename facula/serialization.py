"""Saving and loading: files that hold data, and only data, unless both sides ask for more.

`save` writes a safetensors file: the tensors under their names, and around them, as JSON in its
metadata, the dicts, lists and numbers that they sat in.  It writes beside the old file and then
takes its place, so that a process killed on the way leaves the old file as it was.  `load` maps
the file into memory.  `.pt` files of PyTorch are read by an unpickler that can build tensors and
containers and nothing else.

Modules and other objects are pickled, under a mark of their own, by which `load` knows them: it
reads such a file for `weights_only=False` alone, since a pickle can run code.
"""

from __future__ import annotations

import base64
import collections
import errno
import json
import math
import mmap as _mmap
import os
import secrets
from collections.abc import Callable
from typing import Any

import numpy as np

from facula import dtypes as d
from facula.device import check_device
from facula.device import device as Device
from facula.dtype import DType
from facula.errors import DataError
from facula.graph.spec import spec
from facula.runtime.allocator import Buffer
from facula.storage import Size
from facula.tensor import Tensor, from_array, from_buffer

__all__ = ["save", "load"]

_NAMES = {d.bool_: "BOOL", d.uint8: "U8", d.int8: "I8", d.int16: "I16", d.uint16: "U16",
          d.int32: "I32", d.uint32: "U32", d.int64: "I64", d.uint64: "U64", d.float16: "F16",
          d.bfloat16: "BF16", d.float32: "F32", d.float64: "F64",
          d.float8_e4m3fn: "F8_E4M3", d.float8_e5m2: "F8_E5M2",
          d.float8_e4m3fnuz: "F8_E4M3FNUZ", d.float8_e5m2fnuz: "F8_E5M2FNUZ"}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}

_HEADER_LIMIT = 100_000_000
_STRUCTURE = "facula.structure"


# ---------------------------------------------------------------- containers as JSON

class _NotData(Exception):
    """An object that is more than data; says which."""


class _Packer:
    """Takes the tensors out of nested containers, and says in JSON where they were."""

    def __init__(self) -> None:
        self.tensors: dict[str, tuple[DType, tuple[int, ...], np.ndarray]] = {}
        self.seen: dict[int, str] = {}
        self.keep: list[Any] = []
        self.open: set[int] = set()

    def name(self, path: str) -> str:
        base = path or "tensor"
        if base == "__metadata__":
            base = "tensor.__metadata__"
        name, k = base, 0
        while name in self.tensors:
            k += 1
            name = f"{base}~{k}"
        return name

    def tensor(self, t: Tensor, path: str) -> dict[str, Any]:
        out: dict[str, Any] = {}
        dtype, shape = t.dtype, tuple(t.shape)
        if dtype.kind == "c":
            out["complex"] = dtype.name
            dtype, shape = dtype.to_real(), (*shape, 2)
        name = self.seen.get(id(t))
        if name is None:
            name = self.name(path)
            self.seen[id(t)] = name
            self.keep.append(t)
            self.tensors[name] = (dtype, shape, np.ascontiguousarray(t._peek()).copy()
                                  if t._path else np.ascontiguousarray(t._peek()))
        out["tensor"] = name
        if t._leaf and t._rg:
            out["requires_grad"] = True
        if type(t).__name__ == "Parameter":
            out["parameter"] = True
        return out

    def pack(self, obj: Any, path: str) -> Any:
        if isinstance(obj, Tensor):
            return self.tensor(obj, path)
        if obj is None or isinstance(obj, (bool, str)) or type(obj) is int:
            return obj
        if isinstance(obj, np.generic):
            obj = obj.item()
        if isinstance(obj, float):
            return float(obj) if math.isfinite(obj) else {"float": repr(float(obj))}
        if isinstance(obj, int):
            return int(obj)
        if isinstance(obj, complex):
            return {"number": [self.pack(obj.real, ""), self.pack(obj.imag, "")]}
        if isinstance(obj, bytes):
            return {"bytes": base64.b64encode(obj).decode()}
        if isinstance(obj, DType):
            return {"dtype": obj.name}
        if isinstance(obj, Device):
            return {"device": str(obj)}
        if isinstance(obj, np.ndarray):
            return {"array": self.tensor(from_array(obj), path)}
        if id(obj) in self.open:
            raise ValueError(f"save: the {type(obj).__name__} at {path or 'the top'!r} contains "
                             "itself")
        self.open.add(id(obj))
        try:
            return self.container(obj, path)
        finally:
            self.open.discard(id(obj))

    def container(self, obj: Any, path: str) -> Any:
        lead = f"{path}." if path else ""
        if isinstance(obj, dict):
            kind = "ordered" if isinstance(obj, collections.OrderedDict) else "dict"
            return {kind: [[self.pack(k, ""), self.pack(v, f"{lead}{k}")]
                           for k, v in obj.items()]}
        if isinstance(obj, Size):
            return {"size": [int(n) for n in obj]}
        if isinstance(obj, (list, tuple)):
            items = [self.pack(v, f"{lead}{k}") for k, v in enumerate(obj)]
            return items if isinstance(obj, list) else {"tuple": items}
        if isinstance(obj, (set, frozenset)):
            return {"set": [self.pack(v, "") for v in sorted(obj, key=repr)]}
        raise _NotData(f"{type(obj).__module__}.{type(obj).__qualname__}"
                       f"{' at ' + repr(path) if path else ''}")


class _Unpacker:
    def __init__(self, tensors: dict[str, Tensor], where: str):
        self.tensors = tensors
        self.where = where
        self.made: dict[str, Tensor] = {}

    def tensor(self, item: dict[str, Any]) -> Tensor:
        name = item["tensor"]
        key = json.dumps(item, sort_keys=True)
        found = self.made.get(key)
        if found is not None:
            return found
        t = self.tensors[name]
        if "complex" in item:
            dtype = d.DTYPES[item["complex"]]
            array = np.ascontiguousarray(t._peek()).view(dtype.np)
            t = from_array(array.reshape(tuple(t.shape)[:-1]))
        if item.get("parameter"):
            from facula.nn.parameter import Parameter
            t = Parameter(t, bool(item.get("requires_grad")))
        elif item.get("requires_grad"):
            t = t.detach().requires_grad_()
        self.made[key] = t
        return t

    def unpack(self, item: Any) -> Any:
        if isinstance(item, list):
            return [self.unpack(v) for v in item]
        if not isinstance(item, dict):
            return item
        if "tensor" in item:
            return self.tensor(item)
        (kind, value), = item.items()
        if kind == "dict":
            return {self.unpack(k): self.unpack(v) for k, v in value}
        if kind == "ordered":
            return collections.OrderedDict((self.unpack(k), self.unpack(v)) for k, v in value)
        if kind == "tuple":
            return tuple([self.unpack(v) for v in value])
        if kind == "set":
            return {self.unpack(v) for v in value}
        if kind == "size":
            return Size(value)
        if kind == "float":
            return float(value)
        if kind == "number":
            return complex(self.unpack(value[0]), self.unpack(value[1]))
        if kind == "bytes":
            return base64.b64decode(value)
        if kind == "dtype":
            return d.DTYPES[value]
        if kind == "device":
            return Device(value)
        if kind == "array":
            return np.array(self.tensor(value)._peek())
        raise KeyError(kind)


# ---------------------------------------------------------------- writing

def save(obj: Any, f: Any, pickle_module: Any = None, pickle_protocol: Any = None) -> None:
    """Write tensors, and the containers they sit in, to the path or file object `f`.

    A dict of tensors becomes a plain safetensors file that other programs read.  What holds more
    than tensors, numbers, strings, dicts, lists, tuples and sets, a module for one, is pickled,
    and `load` reads it for `weights_only=False` only: save a `state_dict()` where that is enough.
    A path is written beside the old file and replaces it when it is complete.  Raises TypeError
    for an object that cannot be pickled either.
    """
    if pickle_module is not None:
        raise TypeError("save: data are written as safetensors, and other objects by pickle; "
                        "leave pickle_module out")
    packer = _Packer()
    metadata = {"format": "pt"}
    plain = (isinstance(obj, dict) and bool(obj) and all(
        isinstance(k, str) and k != "__metadata__" and type(v) is Tensor and v.dtype.kind != "c"
        and not v._rg for k, v in obj.items()))
    write: Callable[[Any], Any]
    try:
        structure = packer.pack(obj, "")
    except _NotData as what:
        from facula.pickled import dump_objects
        content = dump_objects(obj, str(what), pickle_protocol)
        write = lambda out: out.write(content)
    else:
        if not plain or len(packer.tensors) != len(obj):
            metadata[_STRUCTURE] = json.dumps(structure)
        write = lambda out: _write(out, packer.tensors, metadata)
    if hasattr(f, "write"):
        write(f)
    else:
        _replace(f, write)


def _replace(f: Any, write: Callable[[Any], Any]) -> None:
    """Write the file beside the old one, and let it take its place."""
    path = os.path.realpath(os.fspath(f))
    folder, name = os.path.split(path)
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, "save: there is no such folder; make it first, with "
                                "os.makedirs", folder)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        with open(handle, "wb") as out:
            write(out)
            out.flush()
            os.fsync(out.fileno())
        try:
            os.chmod(temporary, os.stat(path).st_mode & 0o7777)
        except FileNotFoundError:
            pass
        os.replace(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass
        raise
    _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    """Make the new name itself durable, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def _write(out: Any, tensors: dict[str, Any], metadata: dict[str, str]) -> None:
    # The widest elements first, as the format's own writer does: then each lies aligned.
    order = sorted(tensors, key=lambda name: (-tensors[name][0].itemsize, name))
    header: dict[str, Any] = {"__metadata__": metadata}
    offset = 0
    for name in order:
        dtype, shape, _ = tensors[name]
        size = math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape),
                        "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % 64)
    out.write(len(text).to_bytes(8, "little") + text)
    for name in order:
        array = tensors[name][2]
        if array.nbytes:
            flat = array.reshape(-1).view(np.uint8)
            for start in range(0, flat.size, 1 << 26):
                out.write(flat[start:start + (1 << 26)].data)


# ---------------------------------------------------------------- reading

def load(f: Any, map_location: Any = None, pickle_module: Any = None, *,
         weights_only: bool | None = None, mmap: bool | None = None) -> Any:
    """What `save` or PyTorch's `torch.save` wrote to the path or file object `f`.

    No file runs code, unless `weights_only=False` is given: then those are read, too, in which
    `save` pickled whole objects, and they can do whatever they please.  PyTorch's files hold
    tensors and containers, or are refused, in either case.  A path is mapped into memory; changes
    to the tensors stay in memory (mmap=False reads it instead).  Raises FileNotFoundError for a
    missing file, `pickle.UnpicklingError` for objects where `weights_only` is not False, and
    DataError, naming the file and what is wrong, for a damaged one.
    """
    if pickle_module is not None:
        raise TypeError("load: files are read without running code, or by pickle with "
                        "weights_only=False; leave pickle_module out")
    if isinstance(map_location, (str, Device)):
        check_device(map_location)
    if hasattr(f, "read"):
        where = str(getattr(f, "name", "the file object"))
        return _read(memoryview(bytearray(f.read())), where, weights_only)
    where = os.fspath(f)
    with open(where, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise DataError(f"{where}: the file is empty")
        data: Any
        if mmap is False:
            data = memoryview(bytearray(file.read()))
        else:
            data = memoryview(_mmap.mmap(file.fileno(), 0, access=_mmap.ACCESS_COPY))
    return _read(data, where, weights_only)


def _read(data: memoryview, where: str, weights_only: bool | None) -> Any:
    start = bytes(data[:8])
    if start == b"facula.p":
        from facula.pickled import read_objects
        return read_objects(data, where, weights_only is False)
    if start[:4] == b"PK\x03\x04":
        from facula.pickled import read_zip
        return read_zip(data, where)
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        from facula.pickled import read_row
        return read_row(data, where)
    if len(start) < 8:
        raise DataError(f"{where}: {len(data)} bytes are too few for a safetensors file")
    tensors, metadata = _read_safetensors(data, where)
    text = metadata.get(_STRUCTURE)
    if text is None:
        return tensors
    try:
        return _Unpacker(tensors, where).unpack(json.loads(text))
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise DataError(f"{where}: the description of what the tensors were in is damaged "
                        f"({type(error).__name__}: {error})") from None


def _read_safetensors(data: memoryview, where: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors by name, over the memory of `data`, and the metadata."""
    length = int.from_bytes(data[:8], "little")
    if length > _HEADER_LIMIT or length + 8 > len(data):
        raise DataError(f"{where}: not a safetensors or .pt file, or truncated: its header "
                        f"should be {length} bytes long, and the file has {len(data)}")
    try:
        header = json.loads(bytes(data[8:8 + length]))
        if not isinstance(header, dict):
            raise ValueError("the header is no object")
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: the header is not valid JSON ({error})") from None
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise DataError(f"{where}: __metadata__ in the header is not an object")
    base, room = 8 + length, len(data) - 8 - length
    tensors: dict[str, Tensor] = {}
    end_of_last = 0
    spans = []
    for name, entry in header.items():
        try:
            dtype = _DTYPES.get(entry["dtype"])
            shape = tuple(entry["shape"])
            begin, end = entry["data_offsets"]
            good = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{where}: the header's entry of tensor {name!r} is damaged: "
                            f"{entry!r}") from None
        if dtype is None:
            raise DataError(f"{where}: tensor {name!r} has dtype {entry['dtype']!r}, which "
                            "facula does not have")
        size = math.prod(shape) * dtype.itemsize if good else -1
        if not good or begin > end or end - begin != size:
            raise DataError(f"{where}: tensor {name!r} of shape {list(shape)} and dtype "
                            f"{entry['dtype']} does not fill bytes {begin} to {end}")
        if end > room:
            raise DataError(f"{where}: truncated: tensor {name!r} ends at byte {base + end}, and "
                            f"the file has {len(data)}")
        spans.append((begin, end, name))
        end_of_last = max(end_of_last, end)
        tensors[name] = _over(data, base + begin, shape, dtype)
    before = 0
    for begin, end, name in sorted(spans):
        if begin != before:
            raise DataError(f"{where}: tensor {name!r} begins at byte {base + begin} of the "
                            f"file, and the one before it ends at {base + before}")
        before = end
    if end_of_last != room:
        raise DataError(f"{where}: {room - end_of_last} bytes follow the last tensor, which "
                        "belong to nothing")
    return tensors, metadata


def _over(data: memoryview, offset: int, shape: tuple[int, ...], dtype: DType) -> Tensor:
    """A tensor over bytes of the file; copied where they are not aligned."""
    count = math.prod(shape)
    array = np.frombuffer(data, np.uint8, count * dtype.itemsize, offset)
    if not count or array.__array_interface__["data"][0] % max(dtype.itemsize, 1):
        own = np.empty(shape, dtype.np)
        own.reshape(-1).view(np.uint8)[:] = array
        return from_array(own)
    if dtype is d.bool_ and (array > 1).any():
        array = (array != 0).view(np.uint8)
    buffer = Buffer(array.__array_interface__["data"][0], array.nbytes, array)
    return from_buffer(buffer, spec(shape, dtype))
