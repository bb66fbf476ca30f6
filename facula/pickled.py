"""Reading PyTorch's `.pt` files without running what is in them.

Such a file is a ZIP archive: `data.pkl` pickles the containers, `data/<key>` are the bytes of
the storages.  Before PyTorch 1.6 it was a row of pickles, and the storages after them.  A pickle
is a program for a small machine that can call anything it can name; this one can name nothing
but the few functions that put tensors and containers together, each a stand-in made for the one
load.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from facula import dtypes as d
from facula.dtype import DType
from facula.errors import DataError
from facula.graph.spec import spec
from facula.runtime.allocator import Buffer, from_numpy_private
from facula.storage import Size
from facula.tensor import Tensor, from_buffer

__all__ = ["dump_objects", "read_objects", "read_zip", "read_row", "UnsafePickleError"]


class UnsafePickleError(DataError, pickle.UnpicklingError):
    """A pickle that asks for more than tensors and containers."""


_STORAGES = {"FloatStorage": d.float32, "DoubleStorage": d.float64, "HalfStorage": d.float16,
             "BFloat16Storage": d.bfloat16, "LongStorage": d.int64, "IntStorage": d.int32,
             "ShortStorage": d.int16, "CharStorage": d.int8, "ByteStorage": d.uint8,
             "BoolStorage": d.bool_, "ComplexFloatStorage": d.complex64,
             "ComplexDoubleStorage": d.complex128, "UntypedStorage": d.uint8}


class _Call:
    """Stands for a function that the pickle may call."""

    __slots__ = ("_fn",)

    def __init__(self, fn: Callable[..., Any]):
        self._fn = fn

    def __call__(self, *args: Any) -> Any:
        return self._fn(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "_fn" or hasattr(self, "_fn"):
            raise pickle.UnpicklingError("a pickle tried to change a function")
        object.__setattr__(self, name, value)


class _Storage:
    """Memory that tensors of the file share."""

    def __init__(self, data: np.ndarray, dtype: DType):
        self.data = data                    # uint8
        self.dtype = dtype
        self.whole: dict[DType, Tensor] = {}


class _Reader(pickle.Unpickler):
    """A machine that can put tensors and containers together, and nothing else.

    `fetch(key, dtype, numel)` gives the bytes of a storage, a writable uint8 array.
    """

    def __init__(self, file: Any, where: str, fetch: Callable[[str, DType, int], np.ndarray]):
        super().__init__(file)
        self.where = where
        self.fetch = fetch
        self.swap = False
        self.storages: dict[str, _Storage] = {}
        allowed: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("collections", "Counter"): collections.Counter,
            ("builtins", "set"): set, ("__builtin__", "set"): set,
            ("builtins", "complex"): complex, ("__builtin__", "complex"): complex,
            ("builtins", "bytearray"): bytearray,
            ("_codecs", "encode"): _Call(_encode),
            ("torch", "Size"): _Call(lambda sizes=(): Size(sizes)),
            ("torch", "device"): _Call(_device),
            ("torch._utils", "_rebuild_tensor_v2"): _Call(self.tensor),
            ("torch._utils", "_rebuild_tensor"): _Call(self.tensor),
            ("torch._utils", "_rebuild_tensor_v3"): _Call(self.tensor_v3),
            ("torch._utils", "_rebuild_parameter"): _Call(_parameter),
            ("torch._utils", "_rebuild_parameter_with_state"): _Call(_parameter),
            ("torch.storage", "UntypedStorage"): d.uint8,
        }
        for name, dtype in _STORAGES.items():
            allowed["torch", name] = dtype
        for name, dtype in d.DTYPES.items():
            allowed["torch", name] = dtype
        self.allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        found = self.allowed.get((module, name))
        if found is None:
            raise UnsafePickleError(
                f"{self.where}: the file asks for {module}.{name}, which is neither a tensor nor "
                "a container; loading it could run code. If you trust the file, load it with "
                "PyTorch and save the state_dict() alone")
        return found

    def persistent_load(self, pid: Any) -> Any:
        # The older format has a sixth element, which no PyTorch in use has set.
        if not (isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] == "storage"
                and isinstance(pid[1], DType) and type(pid[2]) is str and type(pid[4]) is int
                and pid[4] >= 0 and pid[5:] in ((), (None,))):
            raise UnsafePickleError(f"{self.where}: unknown persistent id {pid!r}")
        _, dtype, key, _, numel = pid[:5]
        found = self.storages.get(key)
        if found is None:
            found = self.storages[key] = _Storage(self.fetch(key, dtype, numel), dtype)
        return found

    def tensor(self, storage: Any, offset: Any, size: Any, stride: Any,
               requires_grad: Any = False, hooks: Any = None, metadata: Any = None) -> Tensor:
        if not isinstance(storage, _Storage):
            raise UnsafePickleError(f"{self.where}: a tensor without a storage")
        return self.build(storage, storage.dtype, offset, size, stride, requires_grad)

    def tensor_v3(self, storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any,
                  hooks: Any, dtype: Any, metadata: Any = None) -> Tensor:
        if not isinstance(storage, _Storage) or not isinstance(dtype, DType):
            raise UnsafePickleError(f"{self.where}: a tensor without a storage")
        return self.build(storage, dtype, offset, size, stride, requires_grad)

    def build(self, storage: _Storage, dtype: DType, offset: Any, size: Any, stride: Any,
              requires_grad: Any) -> Tensor:
        size, stride = tuple(size), tuple(stride)
        if len(size) != len(stride) or not all(
                type(n) is int and n >= 0 for n in (offset, *size, *stride)):
            raise DataError(f"{self.where}: a tensor has damaged sizes {size}, strides {stride} "
                            f"or offset {offset}")
        count = storage.data.size // dtype.itemsize
        n = math.prod(size)
        last = offset + sum((k - 1) * s for k, s in zip(size, stride)) if n else 0
        if n and last >= count:
            raise DataError(f"{self.where}: a tensor of shape {list(size)} reaches element "
                            f"{last} of a storage of {count}")
        whole = storage.whole.get(dtype)
        packed = _row_major(size)
        fits = offset == 0 and n == count and (stride == packed or _loose(size, stride, packed))
        if whole is None:
            array = storage.data[:count * dtype.itemsize]
            if self.swap and dtype.itemsize > 1:
                unit = dtype.itemsize // (2 if dtype.kind == "c" else 1)
                array = array.view(f"u{unit}").byteswap().view(np.uint8)
            shape = size if fits else (count,)
            buffer = Buffer(array.__array_interface__["data"][0], array.nbytes, array) \
                if array.nbytes > 4096 else from_numpy_private(array)
            whole = storage.whole[dtype] = from_buffer(buffer, spec(shape, dtype))
            if fits:
                return _flag(whole.detach(), requires_grad)
        if fits and whole.shape == size:
            return _flag(whole.detach(), requires_grad)
        if not n:
            return _flag(from_buffer(from_numpy_private(np.empty(0, np.uint8)),
                                     spec(size, dtype)), requires_grad)
        view = whole._view("as_strided", (stride, offset), size, stride, offset)
        return _flag(view.detach(), requires_grad)


def _flag(t: Tensor, requires_grad: Any) -> Tensor:
    return t.requires_grad_() if requires_grad is True else t      # type: ignore[no-any-return]


def _row_major(size: tuple[int, ...]) -> tuple[int, ...]:
    out, step = [], 1
    for n in reversed(size):
        out.append(step)
        step *= n
    return tuple(reversed(out))


def _loose(size: tuple[int, ...], stride: tuple[int, ...], packed: tuple[int, ...]) -> bool:
    """Row-major but for dimensions of size 1, whose strides mean nothing."""
    return all(n == 1 or s == p for n, s, p in zip(size, stride, packed))


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("bytes are pickled as latin1 text")
    return text.encode("latin1")


def _device(*args: Any) -> Any:
    from facula.device import device
    return device(*args)


def _parameter(data: Any, requires_grad: Any = True, *_: Any) -> Any:
    if not isinstance(data, Tensor):
        raise pickle.UnpicklingError("a parameter without a tensor")
    from facula.nn.parameter import Parameter
    return Parameter(data.detach(), bool(requires_grad))


def read_zip(data: memoryview, where: str) -> Any:
    """The object in a ZIP archive that `torch.save` wrote.

    Raises UnsafePickleError, naming the class, where it holds more than tensors and containers.
    """
    try:
        archive = zipfile.ZipFile(_Bytes(data))
        names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
        raise DataError(f"{where}: damaged or truncated .pt archive ({error})") from None
    root = next((n[:-len("data.pkl")] for n in names if n.endswith("data.pkl")
                 and n.count("/") <= 1), None)
    if root is None:
        what = "a TorchScript archive" if any(n.endswith("constants.pkl") for n in names) \
            else "a ZIP archive"
        raise DataError(f"{where}: {what} without data.pkl, which torch.save writes")
    if any(n.startswith(f"{root}code/") for n in names):
        raise DataError(f"{where}: a TorchScript archive holds code; save the state_dict() alone")
    def fetch(key: str, dtype: DType, numel: int) -> np.ndarray:
        try:
            raw = archive.read(f"{root}data/{key}")
        except KeyError:
            raise DataError(f"{where}: storage {key!r} is missing from the archive") from None
        if len(raw) < numel * dtype.itemsize:
            raise DataError(f"{where}: storage {key!r} has {len(raw)} bytes, and "
                            f"{numel * dtype.itemsize} are needed")
        return np.frombuffer(bytearray(raw), np.uint8)

    try:
        reader = _Reader(io.BytesIO(archive.read(f"{root}data.pkl")), where, fetch)
        if f"{root}byteorder" in names:
            reader.swap = archive.read(f"{root}byteorder").strip() == b"big"
        return reader.load()
    except DataError:
        raise
    except zipfile.BadZipFile as error:
        raise DataError(f"{where}: damaged .pt archive ({error})") from None
    except Exception as error:
        raise DataError(f"{where}: data.pkl is damaged ({type(error).__name__}: "
                        f"{error})") from None


# ---------------------------------------------------------------- whole objects

_MARK = b"facula.pickle\n"


def dump_objects(obj: Any, what: str, protocol: int | None = None) -> bytes:
    """A pickle of any object, under a mark; `what` in it is more than data.

    Raises TypeError for what cannot be pickled.
    """
    try:
        return _MARK + pickle.dumps(obj, pickle.DEFAULT_PROTOCOL if protocol is None else protocol)
    except (pickle.PicklingError, AttributeError, TypeError, NotImplementedError) as error:
        raise TypeError(f"save: cannot write {what}: it is neither data (tensors, numbers, "
                        "strings, dicts, lists, tuples), nor can all of it be pickled "
                        f"({type(error).__name__}: {error}). Leave it out, or save the "
                        "state_dict() of modules and optimisers") from error


def read_objects(data: memoryview, where: str, trusted: bool) -> Any:
    """What `dump_objects` wrote, for a caller who says that it is `trusted`.

    Raises UnsafePickleError for one who does not, DataError for a file that is damaged or whose
    classes are not there.
    """
    if bytes(data[:len(_MARK)]) != _MARK:
        raise DataError(f"{where}: truncated, or not a file of facula's")
    if not trusted:
        raise UnsafePickleError(
            f"{where}: the file holds whole objects, pickled, and reading it can run any code. If "
            "you trust those who wrote it, facula.load(..., weights_only=False) reads it; a file "
            "of the state_dict() needs no trust")
    try:
        return pickle.loads(data[len(_MARK):])
    except (ImportError, AttributeError) as error:
        raise DataError(f"{where}: a class or function in it is not there ({error}): import or "
                        "define what the objects were made of, under the same name") from error
    except Exception as error:
        raise DataError(f"{where}: the objects in it cannot be put together "
                        f"({type(error).__name__}: {error}): it is damaged or truncated, or was "
                        "written by another version of their classes") from error


_MAGIC = 0x1950a86a20f9469cfc6c
_PROTOCOL = 1001


class _Plain(pickle.Unpickler):
    """Reads numbers, strings, lists and dicts of them."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_row(data: memoryview, where: str) -> Any:
    """The object in a file of PyTorch's older format: a row of pickles, then the storages.

    What is pickled are a magic number, a version, a description of the machine, the object and
    the storages' keys; of each storage follow the number of elements and their bytes.  Raises
    DataError for another pickle, and UnsafePickleError as `read_zip` does.
    """
    file = _Bytes(data)
    try:
        magic = _Plain(file).load()
    except Exception:                               # a pickle of something else
        magic = None
    if type(magic) is not int or magic != _MAGIC:
        raise DataError(f"{where}: this is a plain pickle, not a file that torch.save wrote; "
                        "loading it could run code. Load it where you trust it, and save it "
                        "again with torch.save or as safetensors")
    try:
        version = _Plain(file).load()
        machine = _Plain(file).load()
        if version != _PROTOCOL:
            raise DataError(f"{where}: version {version!r} of PyTorch's older format, and "
                            f"{_PROTOCOL} is known")
        start = file.tell()
        # The storages come after the object that is made of them: it is read for what it asks
        # for first, and put together after that.
        asked: dict[str, tuple[DType, int]] = {}

        def ask(key: str, dtype: DType, numel: int) -> np.ndarray:
            asked[key] = dtype, numel
            size = sum(n * of.itemsize for of, n in asked.values())
            if size > len(data):
                raise DataError(f"{where}: truncated: the storages up to {key!r} need {size} "
                                f"bytes, and the file has {len(data)}")
            return np.zeros(numel * dtype.itemsize, np.uint8)

        _Reader(file, where, ask).load()
        end = file.tell()
        swap = isinstance(machine, dict) and machine.get("little_endian") is False
        found = _storages(file, where, asked, "big" if swap else "little")
        file.seek(start)
        reader = _Reader(file, where, lambda key, dtype, numel: found[key])
        reader.swap = swap
        value = reader.load()
        assert file.tell() == end
        return value
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{where}: damaged or truncated ({type(error).__name__}: "
                        f"{error})") from None


def _storages(file: _Bytes, where: str, asked: dict[str, tuple[DType, int]],
              order: Any) -> dict[str, np.ndarray]:
    keys = _Plain(file).load()
    found: dict[str, np.ndarray] = {}
    for key in keys:
        dtype, numel = asked[key]
        size = numel * dtype.itemsize
        head = file.read(8)
        count = int.from_bytes(head, order)
        raw = file.read(size)
        if len(head) < 8 or count != numel or len(raw) < size:
            raise DataError(f"{where}: truncated or damaged: storage {key!r} should have {numel} "
                            f"elements, and there are {count}, in {len(raw)} of {size} bytes")
        found[key] = np.frombuffer(bytearray(raw), np.uint8)
    missing = sorted(set(asked) - set(found))
    if missing:
        raise DataError(f"{where}: storage {missing[0]!r} is missing")
    return found


class _Bytes(io.RawIOBase):
    """A file over memory, without a copy of it."""

    def __init__(self, data: memoryview):
        self._data = data
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self.read(len(buffer))
        buffer[:len(part)] = part
        return len(part)

    def readline(self, size: int | None = -1) -> bytes:
        text = bytes(self._data[self._at:self._at + 65536])
        end = text.find(b"\n") + 1
        return self.read(end if end else len(text))

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self._at, len(self._data))[whence]
        if base + offset < 0:
            raise ValueError("a position before the beginning")
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        end = len(self._data) if size is None or size < 0 else min(self._at + size,
                                                                  len(self._data))
        out = bytes(self._data[self._at:end])
        self._at = max(self._at, end)
        return out
