"""LLVM text in, address of machine code out.

Texts are optimised and compiled once per process, found on disk when an earlier process has
compiled them, and linked into the process by ORC.  Kernels that are wanted together are linked
together, which is quicker and lays them side by side.  A `LoadedKernel` keeps its code alive; when
the last of those that were linked together is gone, their memory goes back.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from facula import config
from facula.codegen.llvm import APART, LIGHT, SINGLY, STRIDED
from facula.runtime import cache

__all__ = ["LoadedKernel", "Host", "host", "compile_kernels", "load_kernels", "compile_text",
           "assembly", "statistics"]

CODE_VERSION = "7"
"""Raised when the way from text to machine code changes (pipeline, code model, flags)."""


class Host(NamedTuple):
    """What code is generated for."""

    triple: str
    cpu: str
    features: str
    version: str


class LoadedKernel:
    """Machine code of one function: `address` stays valid while this object lives.

    `nbytes` is the size of its object file.
    """

    __slots__ = ("name", "key", "address", "nbytes", "_library", "__weakref__")

    def __init__(self, name: str, key: str, address: int, nbytes: int, library: _Library):
        self.name = name
        self.key = key
        self.address = address
        self.nbytes = nbytes
        self._library = library


class _Library:
    """What was linked in one go: unloaded with the last of its kernels."""

    __slots__ = ("tracker", "linker")

    def __init__(self, tracker: Any, linker: Any):
        self.tracker = tracker
        self.linker = linker

    def __del__(self) -> None:
        # in this order: closing the linker first would take the code from under the tracker
        self.tracker = None
        self.linker = None


statistics = {"compiled": 0, "loaded": 0, "reused": 0, "compile_seconds": 0.0}
"""How kernels of this process came about."""

_LOCK = threading.RLock()
_kernels: WeakValueDictionary[str, LoadedKernel] = WeakValueDictionary()
_machines: list[tuple[Any, Any]] = []
_numbers = itertools.count()

LINKS = 256
"""How many libraries one linker makes: ORC never forgets the name of one that it has unloaded,
so a linker is left to its libraries and goes with the last of them."""

# name, features to add (None: all the host has) and whether the host must have a feature first
_ISA = {
    "amx": ("", None), "avx512": ("", None), "avx2": ("x86-64-v3", "avx2"), "sse2": ("x86-64", ""),
    "neon": ("generic", ""),
}


@lru_cache(maxsize=None)
def _binding() -> Any:
    """llvmlite's binding with the native target ready."""
    import llvmlite.binding as llvm
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()      # the driver has inline assembly
    return llvm


def host_features() -> Any:
    """What LLVM finds this processor, and the system on it, to offer: a dict by name."""
    return _binding().get_host_cpu_features()


class _Masked:
    """Whether LLVM may read and write interleaved elements under a mask: an option of the whole
    process, on which all modules that are being compiled agree."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._on, self._users = False, 0

    @contextmanager
    def allowed(self, on: bool) -> Iterator[None]:
        llvm = _binding()
        # LLVM ends the process that names an option it does not know
        on &= 20 <= llvm.llvm_version_info[0] <= 22
        with self._free:
            self._free.wait_for(lambda: self._on == on or not self._users)
            if self._on != on:
                llvm.set_option("facula", "--enable-masked-interleaved-mem-accesses="
                                + ("true" if on else "false"))
                self._on = on
            self._users += 1
        try:
            yield
        finally:
            with self._free:
                self._users -= 1
                self._free.notify_all()


_masked = _Masked()


@lru_cache(maxsize=None)
def _host(isa: str) -> Host:
    llvm = _binding()
    import llvmlite
    version = f"{CODE_VERSION}/{llvmlite.__version__}/{'.'.join(map(str, llvm.llvm_version_info))}"
    triple = llvm.get_process_triple()
    features = host_features()
    if isa:
        if isa not in _ISA:
            raise ValueError(f"FACULA_ISA={isa!r}: known are {', '.join(_ISA)}")
        cpu, needed = _ISA[isa]
        if (isa == "neon") == triple.startswith("x86"):
            raise ValueError(f"FACULA_ISA={isa!r}: this machine is {triple}")
        if isa in ("amx", "avx512") and not features.get("avx512f"):
            raise ValueError(f"FACULA_ISA={isa!r}: this processor has no AVX-512")
        if isa == "amx":
            from facula.runtime.amx import refusal
            if refusal():
                raise ValueError(f"FACULA_ISA='amx': {refusal()}")
        if needed and not features.get(needed):
            raise ValueError(f"FACULA_ISA={isa!r}: this processor has no {needed}")
        if cpu:
            return Host(triple, cpu, "", version)
    return Host(triple, llvm.get_host_cpu_name(), features.flatten(), version)


def host() -> Host:
    """Triple, CPU, features and versions; FACULA_ISA is taken into account."""
    return _host(config.flag.ISA)


_current: list[Any] = [None, 0]


def _linker() -> Any:
    """The ORC instance to link the next library with.

    None is disposed of while the interpreter goes down, as llvmlite sees to: code may still run.

    JITLink lays all sections of an object side by side.  LLVM's older linker asks for memory once
    for each, and in a process that has little address space left between large arrays, code can
    come to lie further from its constants than an instruction reaches: LLVM then ends the process.
    """
    if _current[0] is None or _current[1] >= LINKS:
        side_by_side = sys.platform != "win32"      # nearly all of COFF is there, but not all
        _current[:] = _binding().create_lljit_compiler(use_jit_link=side_by_side), 0
    _current[1] += 1
    return _current[0]


def _unlocked(function: Any) -> Any:
    """llvmlite's wrapper holds one lock during a call; modules share nothing, so go past it."""
    return getattr(function, "_cfn", function)


def _target_machine(target: Host) -> Any:
    llvm = _binding()
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="small")


def _optimised(text: str, machine: Any, target: Host) -> Any:
    """The module of `text` after LLVM's pipeline, in a context of its own; functions that stand
    apart (see `APART`) are linked to it after their own."""
    context = _binding().create_context()
    own, *apart = text.split(APART)
    module = _passed(own, machine, target, context)
    for part in apart:
        other = _passed(part, machine, target, context)
        names = [f.name for f in other.functions if not f.is_declaration]
        module.link_in(other)
        for name in names:
            module.get_function(name).linkage = "internal"
    return module


def _passed(text: str, machine: Any, target: Host, context: Any) -> Any:
    """A module after the passes that its first line asks for."""
    llvm = _binding()
    from llvmlite.binding import ffi
    try:
        module = llvm.parse_assembly(text, context)
    except RuntimeError as error:
        numbered = "\n".join(f"{n:5} {line}" for n, line in enumerate(text.splitlines(), 1))
        raise RuntimeError(f"generated code does not parse: {error}\n{numbered}") from None
    module.triple = target.triple
    module.data_layout = str(machine.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    if text.startswith(LIGHT):
        builder = llvm.create_pass_builder(machine, options)
        passes = llvm.create_new_module_pass_manager()
        passes.add_sroa_pass()
        passes.add_instruction_combine_pass()
        passes.add_loop_rotate_pass()
        passes.add_simplify_cfg_pass()
    else:
        # Not unrolled: what has to be is written out, and a loop that has been unrolled before the
        # vectoriser comes to it is lost to it (a norm takes six times as long).  Not vectorised
        # across statements either: that finds nothing and takes a fifth of the time.
        options.loop_vectorization = True
        options.loop_interleaving = True
        options.slp_vectorization = False
        options.loop_unrolling = False
        builder = llvm.create_pass_builder(machine, options)
        passes = builder.getModulePassManager()
    with _masked.allowed(text.startswith(STRIDED)):
        _unlocked(ffi.lib.LLVMPY_RunNewModulePassManager)(passes, module, builder)
    # llvmlite's object would not do it: its `_dispose` is the empty one of its first base class
    ffi.lib.LLVMPY_DisposeNewModulePassManger(passes)
    passes.detach()
    return module


def _tuned(text: str, target: Host) -> Host:
    """The target for a module: with what its first line asks of the processor's tuning."""
    if text.startswith(SINGLY) and target.triple.startswith("x86") and \
            _binding().llvm_version_info[0] >= 18:
        more = "+prefer-no-gather"
        return target._replace(features=",".join(filter(None, (target.features, more))))
    return target


def _take_machine(target: Host) -> Any:
    with _LOCK:
        for i, (owner, machine) in enumerate(_machines):
            if owner == target:
                del _machines[i]
                return machine
    return _target_machine(target)


def compile_text(text: str, target: Host | None = None) -> bytes:
    """Optimise and compile a module, for `host()`; the object file.  Runs beside other threads'
    compilations."""
    target = _tuned(text, target or host())
    machine = _take_machine(target)
    module = _optimised(text, machine, target)
    data = _emit(machine, module)
    with _LOCK:
        _machines.append((target, machine))
    return data


def _emit(machine: Any, module: Any) -> bytes:
    import ctypes

    from llvmlite.binding import ffi
    with ffi.OutputString() as error:
        buffer = _unlocked(ffi.lib.LLVMPY_TargetMachineEmitToMemory)(machine, module, 1, error)
        if not buffer:
            raise RuntimeError(f"generated code does not compile: {error}")
    try:
        return ctypes.string_at(ffi.lib.LLVMPY_GetBufferStart(buffer),
                                ffi.lib.LLVMPY_GetBufferSize(buffer))
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)


def assembly(text: str, optimised_ir: bool = False) -> str:
    """What a module becomes: assembly, or LLVM after optimisation."""
    target = _tuned(text, host())
    machine = _target_machine(target)
    module = _optimised(text, machine, target)
    return str(module) if optimised_ir else machine.emit_assembly(module)


def _link(parts: list[tuple[str, str, bytes]]) -> list[LoadedKernel]:
    """The kernels of (name, key, object file), linked in one go; their names differ."""
    builder = _binding().JITLibraryBuilder()
    for name, _, data in parts:
        builder.add_object_img(data).export_symbol(name)
    builder.add_current_process()
    linker = _linker()
    tracker = builder.link(linker, f"{parts[0][0]}.{next(_numbers)}")
    library = _Library(tracker, linker)
    return [LoadedKernel(name, key, tracker[name], len(data), library) for name, key, data in parts]


def link_alone(name: str, text: str) -> LoadedKernel:
    """The function `name` of a module for all that this processor offers, whatever FACULA_ISA
    says; neither looked up nor kept."""
    return _link([(name, "", compile_text(text, _host("")))])[0]


def _object_for(item: tuple[str, str, str]) -> bytes:
    """Compile one (name, text, key) and keep the object code on disk."""
    name, text, key = item
    started = time.perf_counter()
    data = compile_text(text)
    cache.store(key, data)
    statistics["compiled"] += 1
    statistics["compile_seconds"] += time.perf_counter() - started
    if config.flag.DEBUG >= 4:
        print(f"facula: LLVM of {name}\n{text}", file=sys.stderr)
    if config.flag.DEBUG >= 5:
        print(f"facula: assembly of {name}\n{assembly(text)}", file=sys.stderr)
    return data


def compile_kernels(items: Iterable[tuple[str, str]], threads: int | None = None
                    ) -> list[LoadedKernel]:
    """The kernels for (function name, module text) pairs, in order.

    Equal texts are one kernel.  Texts that are neither in this process nor on disk are compiled
    side by side on `threads` threads (default: as many as programs run on).
    """
    target = host()
    wanted = []
    missing: dict[str, tuple[str, str, str]] = {}
    found: dict[str, LoadedKernel] = {}
    for name, text in items:
        key = cache.key_of(name, text, *target)
        wanted.append(key)
        kernel = _kernels.get(key)
        if kernel is not None:
            found[key] = kernel
            statistics["reused"] += 1
        else:
            missing.setdefault(key, (name, text, key))
    for kernel in _from_disk([(name, key) for name, _, key in missing.values()]):
        found[kernel.key] = kernel
        del missing[kernel.key]
    if missing:
        if threads is None:
            from facula.runtime.threads import get_num_threads
            threads = get_num_threads()
        # the longest first, so that no thread is left alone with one of them at the end
        todo = sorted(missing.values(), key=lambda item: -len(item[1]))
        if threads > 1 and len(todo) > 1:
            with ThreadPoolExecutor(min(threads, len(todo))) as pool:
                objects = list(pool.map(_object_for, todo))
        else:
            objects = [_object_for(item) for item in todo]
        made = [(name, key, data) for (name, _, key), data in zip(todo, objects, strict=True)]
        found.update({kernel.key: kernel for kernel in _register(made)})
    return [found[key] for key in wanted]


def load_kernels(items: Sequence[tuple[str, str]]) -> list[LoadedKernel] | None:
    """The kernels of (function name, key) pairs that are there already; None if one is not."""
    found: dict[str, LoadedKernel] = {}
    missing: dict[str, str] = {}
    for name, key in items:
        kernel = _kernels.get(key)
        if kernel is not None:
            found[key] = kernel
        else:
            missing[key] = name
    found.update({k.key: k for k in _from_disk([(name, key) for key, name in missing.items()])})
    if any(key not in found for _, key in items):
        return None
    statistics["reused"] += len(items) - len(missing)
    return [found[key] for _, key in items]


def _from_disk(items: Sequence[tuple[str, str]]) -> list[LoadedKernel]:
    """Those of the (function name, key) pairs whose code is on disk."""
    parts = [(name, key, data) for name, key in items if (data := cache.load(key)) is not None]
    kernels = _register(parts, from_disk=True)
    statistics["loaded"] += len(kernels)
    return kernels


def _register(parts: list[tuple[str, str, bytes]], from_disk: bool = False) -> list[LoadedKernel]:
    """Link (name, key, object file) and make the kernels known to the process.

    With `from_disk` those that do not link here, although their hash is right, are left out.
    """
    out: list[LoadedKernel] = []
    with _LOCK:
        together: dict[str, tuple[str, str, bytes]] = {}
        alone: list[tuple[str, str, bytes]] = []
        for part in parts:
            kernel = _kernels.get(part[1])
            if kernel is not None:
                out.append(kernel)
            elif together.setdefault(part[0], part) is not part:
                alone.append(part)
        try:
            out += _link(list(together.values())) if together else []
        except RuntimeError:
            alone += together.values()
        for part in alone:
            try:
                out += _link([part])
            except RuntimeError:
                if not from_disk:
                    raise
        for kernel in out:
            _kernels[kernel.key] = kernel
    return out
