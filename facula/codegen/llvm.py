"""Writing LLVM assembly as text.

Text is what llvmlite parses anyway, it prints in a tenth of the time that building an object
model takes, and it is what one reads when a kernel has to be understood.  Pointers are opaque.

A `Module` collects functions and the declarations they need; a `Fn` is one function being
written, with fresh value names, blocks and counted loops.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

__all__ = ["Module", "Fn", "Function", "float_literal", "LLVM_TYPES", "APART", "LIGHT", "SINGLY",
           "STRIDED"]

LLVM_TYPES = {
    "bool": "i8", "uint8": "i8", "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64",
    "uint16": "i16", "uint32": "i32", "uint64": "i64",
    "float16": "half", "bfloat16": "bfloat", "float32": "float", "float64": "double",
    "complex64": "<2 x float>", "complex128": "<2 x double>",
}
"""The type an element of each dtype has in memory (booleans are bytes 0 and 1)."""


def float_literal(value: float, type_: str = "float") -> str:
    """The exact LLVM spelling of a floating constant of `type_` (half, bfloat, float, double)."""
    if type_ == "float":
        value = struct.unpack("f", struct.pack("f", value))[0] if abs(value) <= 3.5e38 else value
    if type_ == "half":
        return f"0xH{struct.unpack('H', struct.pack('e', value))[0]:04X}"
    if type_ == "bfloat":
        bits = struct.unpack("I", struct.pack("f", value))[0]
        return f"0xR{(bits + 0x7FFF + ((bits >> 16) & 1)) >> 16:04X}"
    return f"0x{struct.unpack('Q', struct.pack('d', value))[0]:016X}"


LIGHT = "; passes: light\n"
"""The first line of a module whose code is written as it is to be: no pass need find vectors or
unroll loops in it, so it goes through a short pipeline and compiles in half the time."""

STRIDED = "; loops: strided\n"
"""The first line of a module with a short loop over every second (third, ...) element, which is to
read and write whole vectors under a mask and pick from them, instead of going one by one.  Such a
loop names how wide its vectors are: LLVM's two estimates of what masked picking costs differ, and
where it has a choice of widths it ends the process over that."""

SINGLY = "; loads: one by one\n"
"""The first line of a module with loops that look elements up: made into vectors, they load them
one by one and put them together, which takes three quarters of the time of x86's instruction that
gathers a vector (Zen 4)."""

APART = "; functions apart\n"
"""The line of a text between two modules.  The second one has the inner functions of the first:
register tiles, written as they are to be, which the short pipeline is for, while the loops around
them are more often than not for LLVM to make vectors of.  They are linked after their passes."""


class Function(NamedTuple):
    """A function as text: what follows `define`, and what stands between the braces.

    An `inner` one is there for other functions of its module alone.
    """

    head: str
    body: str
    inner: bool = False

    def definition(self, linkage: str = "") -> str:
        return f"define {linkage}{self.head} {{\n{self.body}\n}}"

    def declaration(self) -> str:
        return f"declare {self.head}"


class Module:
    """Functions, declarations and metadata of one LLVM module, printed by `text()`.

    `light`, `strided`, `singly`: see `LIGHT`, `STRIDED` and `SINGLY`.
    """

    light = False
    strided = False
    singly = False

    def __init__(self, name: str = "facula"):
        self.name = name
        self.functions: dict[str, Function] = {}
        self.declarations: dict[str, str] = {}
        self.globals: dict[str, str] = {}
        self._metadata: list[str] = []
        self._untouched: list[str] = []

    def declare(self, signature: str) -> str:
        """Declare an external function once, e.g. `float @llvm.fabs.f32(float)`; its @name."""
        name = signature[signature.index("@"):signature.index("(")]
        self.declarations.setdefault(name, f"declare {signature}")
        return name

    def define(self, name: str, content: str) -> str:
        """Define what is no function, e.g. as `private unnamed_addr constant i16 0`; its @name."""
        self.globals[name] = f"@{name} = {content}"
        return f"@{name}"

    def metadata(self, body: str, distinct: bool = False) -> str:
        """Add a numbered metadata node (`!{...}`) and return its reference, `!7`."""
        ref = f"!{len(self._metadata)}"
        prefix = "distinct " if distinct else ""
        self._metadata.append(f"{ref} = {prefix}{body.replace('!SELF', ref)}")
        return ref

    def untouched(self) -> str:
        """Metadata of a loop that is neither to be unrolled nor made vectors of."""
        if not self._untouched:
            self._untouched = [self.metadata('!{!"llvm.loop.unroll.disable"}'),
                               self.metadata('!{!"llvm.loop.vectorize.enable", i1 false}')]
        return self.metadata(f"!{{!SELF, {', '.join(self._untouched)}}}", distinct=True)

    def text(self) -> str:
        """What LLVM reads: one module, or two where inner functions stand `APART`."""
        own, inner = [], []
        for function in self.functions.values():
            if function.inner and not self.light:
                own.append(function.declaration())
                inner.append(function.definition())
            else:
                own.append(function.definition("internal " if function.inner else ""))
        passes = LIGHT if self.light else STRIDED if self.strided else \
            SINGLY if self.singly else ""
        around = list(self.declarations.values())
        text = passes + _lines([*self.globals.values(), *around, *own, *self._metadata])
        if not inner:
            return text
        tiles = _lines(inner)
        used = [line for name, line in self.globals.items() if f"@{name}" in tiles]
        return text + APART + LIGHT + _lines([*used, *around, *self._metadata]) + tiles


def _lines(parts: Sequence[str]) -> str:
    return "".join([part + "\n" for part in parts])


class Fn:
    """One function being written, block after block.

    `params` are (type, name) pairs; inside, a parameter is `%name`.  Close with `finish()`.
    `inner`: see `Function`.
    Where `written` is set, loops without metadata of their own stay as they are written: LLVM
    spends a long time on finding nothing in loops around calls and vectors.

    `opaque` counts what LLVM has to examine before it knows that rounds of a loop are independent:
    accesses that metadata does not set apart, and calls of functions.
    """

    written = False
    opaque = 0

    def __init__(self, module: Module, name: str, params: Sequence[tuple[str, str]],
                 ret: str = "void", attrs: str = "", inner: bool = False):
        self.module = module
        self.name = name
        head = ", ".join(f"{ty} %{n}" for ty, n in params)
        self._head, self._inner = f"{ret} @{name}({head}) {attrs}", inner
        self._entry: list[str] = []       # allocas: they must stand in the entry block
        self._lines: list[str] = []
        self._count = 0
        self._label = "entry"
        self.closing: list[Callable[[], None]] = []     # what writes the function's last lines

    def fresh(self, hint: str = "v") -> str:
        self._count += 1
        return f"%{hint}{self._count}"

    def do(self, instruction: str) -> None:
        """Emit an instruction that yields no value."""
        self._lines.append("  " + instruction)

    def val(self, expression: str, hint: str = "v") -> str:
        """Emit `%fresh = expression` and return the name."""
        name = self.fresh(hint)
        self._lines.append(f"  {name} = {expression}")
        return name

    def alloca(self, type_: str, count: int = 1, align: int = 64) -> str:
        """Stack memory, taken once in the entry block whatever loop this is called in."""
        name = self.fresh("stack")
        self._entry.append(f"  {name} = alloca {type_}, i64 {count}, align {align}")
        return name

    def at_entry(self, instruction: str) -> None:
        """Emit an instruction into the entry block, whatever loop this is called in."""
        self._entry.append("  " + instruction)

    def gep(self, type_: str, ptr: str, index: str | int) -> str:
        return self.val(f"getelementptr inbounds {type_}, ptr {ptr}, i64 {index}", "p")

    def load(self, type_: str, ptr: str, align: int | None = None, extra: str = "") -> str:
        tail = f", align {align}" if align else ""
        self._accessed(extra)
        return self.val(f"load {type_}, ptr {ptr}{tail}{extra}")

    def store(self, type_: str, value: str, ptr: str, align: int | None = None,
              extra: str = "") -> None:
        tail = f", align {align}" if align else ""
        self._accessed(extra)
        self.do(f"store {type_} {value}, ptr {ptr}{tail}{extra}")

    def _accessed(self, extra: str) -> None:
        if "!llvm.access.group" not in extra and "!invariant.load" not in extra:
            self.opaque += 1

    # -- integer helpers; constants fold so that the text stays readable
    def add(self, a: str | int, b: str | int) -> str | int:
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if b == 0:
            return a
        if a == 0:
            return b
        return self.val(f"add nsw i64 {a}, {b}", "i")

    def mul(self, a: str | int, b: str | int) -> str | int:
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if a == 0 or b == 0:
            return 0
        if b == 1:
            return a
        if a == 1:
            return b
        return self.val(f"mul nsw i64 {a}, {b}", "i")

    # -- control flow
    @property
    def label(self) -> str:
        """The block being written (for phi nodes)."""
        return self._label

    def new_label(self, hint: str = "b") -> str:
        self._count += 1
        return f"{hint}{self._count}"

    def place(self, label: str) -> None:
        """Begin the block `label`; the one before must have ended in a branch."""
        self._lines.append(f"{label}:")
        self._label = label

    def br(self, label: str) -> None:
        self.do(f"br label %{label}")

    def cbr(self, condition: str, then: str, other: str) -> None:
        self.do(f"br i1 {condition}, label %{then}, label %{other}")

    @contextmanager
    def loop(self, start: str | int, stop: str | int, step: int = 1, hint: str = "i",
             metadata: str = "") -> Iterator[str]:
        """`for i in range(start, stop, step)`, the bound tested first; yields the index.

        `metadata`: a reference such as `!3` that is put on the back edge as `!llvm.loop`.
        Values carried between rounds live in `alloca` slots, which LLVM turns into registers.
        """
        head, body, done = (self.new_label(f"{hint}.{part}") for part in ("head", "body", "end"))
        before = self._label
        self.br(head)
        self.place(head)
        index = self.fresh(hint)
        slot = len(self._lines)
        self._lines.append("")            # the phi is known only when the body has ended
        self.cbr(self.val(f"icmp slt i64 {index}, {stop}", "c"), body, done)
        self.place(body)
        yield index
        following = self.val(f"add nsw i64 {index}, {step}", f"{hint}n")
        self._lines[slot] = (f"  {index} = phi i64 [ {start}, %{before} ], "
                             f"[ {following}, %{self._label} ]")
        if self.written and not metadata:
            metadata = self.module.untouched()
        tail = f", !llvm.loop {metadata}" if metadata else ""
        self.do(f"br label %{head}{tail}")
        self.place(done)

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """`if condition:` with no else branch."""
        then, done = self.new_label("then"), self.new_label("endif")
        self.cbr(condition, then, done)
        self.place(then)
        yield
        self.br(done)
        self.place(done)

    def finish(self, value: str | None = None) -> None:
        """Return (`value` with its type, or nothing) and hand the text to the module."""
        for close in self.closing:
            close()
        self.do(f"ret {value}" if value else "ret void")
        body = "\n".join(["entry:", *self._entry, *self._lines])
        self.module.functions[self.name] = Function(self._head, body, self._inner)
