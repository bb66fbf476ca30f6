"""One primitive on one element, as straight-line LLVM instructions.

In registers a bool is an i1, a bfloat16 the i16 of its bits, a complex number a pair of names;
everything else has the type it has in memory.  16-bit floating values are widened to float for
each operation and rounded once after it, which is what the NumPy meaning of the primitives does.
The instructions have no branches, so that LLVM can turn the loop around them into vectors.
"""

from __future__ import annotations

from typing import Any

from facula.codegen.elements import half
from facula.codegen.llvm import Fn, float_literal
from facula.dtype import DType, bool_, float32, float64

__all__ = ["register_type", "load_value", "store_value", "constant", "emit_op",
           "emit_cast", "select", "widen", "narrow", "compute_dtype", "memory_type"]

Value = Any     # a name or literal; (real, imaginary) for a complex number

_INT = {1: "i8", 2: "i16", 4: "i32", 8: "i64"}
_FP = {"float16": "half", "float32": "float", "float64": "double"}
_SUFFIX = {"float": "f32", "double": "f64", "half": "f16"}


def part(dtype: DType) -> DType:
    """The dtype of the two parts of a complex number; any other dtype itself."""
    return dtype.to_real() if dtype.kind == "c" else dtype


def register_type(dtype: DType) -> str:
    """The LLVM type of a value in a register (of one part, for complex)."""
    if dtype.kind == "b":
        return "i1"
    if dtype.name == "bfloat16":
        return "i16"
    return _FP.get(part(dtype).name) or _INT[dtype.itemsize]


def memory_type(dtype: DType) -> str:
    """The LLVM type of an element in memory (of one part, for complex)."""
    return "i8" if dtype.kind == "b" else register_type(dtype)


def compute_dtype(dtype: DType) -> DType:
    """float32 for the 16-bit floating types, else the dtype itself."""
    return float32 if dtype.name in ("float16", "bfloat16") else dtype


def load_value(fn: Fn, dtype: DType, ptr: str, position: str | int, extra: str = "") -> Value:
    """Element number `position` of the array at `ptr`."""
    type_ = memory_type(dtype)
    if dtype.kind == "c":
        base = fn.gep(f"[2 x {type_}]", ptr, position)
        return (fn.load(type_, base, extra=extra),
                fn.load(type_, fn.gep(type_, base, 1), extra=extra))
    value = fn.load(type_, fn.gep(type_, ptr, position), extra=extra)
    return fn.val(f"icmp ne i8 {value}, 0") if dtype.kind == "b" else value


def store_value(fn: Fn, dtype: DType, value: Value, ptr: str, position: str | int,
                extra: str = "") -> None:
    """Write element number `position` of the array at `ptr`."""
    type_ = memory_type(dtype)
    if dtype.kind == "c":
        base = fn.gep(f"[2 x {type_}]", ptr, position)
        fn.store(type_, value[0], base, extra=extra)
        fn.store(type_, value[1], fn.gep(type_, base, 1), extra=extra)
        return
    if dtype.kind == "b":
        value = fn.val(f"zext i1 {value} to i8")
    fn.store(type_, value, fn.gep(type_, ptr, position), extra=extra)


def constant(dtype: DType, value: Any) -> Value:
    """The literal of `value` converted to `dtype` (integers wrap)."""
    if dtype.kind == "c":
        value = complex(value)
        return constant(part(dtype), value.real), constant(part(dtype), value.imag)
    if dtype.kind == "b":
        return "true" if value else "false"
    if dtype.kind == "f":
        value = float(value)
        if dtype.name == "bfloat16":
            import struct
            if value != value:
                return str(0x7FC0)
            bits = struct.unpack("I", struct.pack("f", _clip(value, 3.4028234663852886e38)))[0]
            return str(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) & 0xFFFF)
        if dtype.name == "float16":
            return float_literal(_clip(value, 65519.99) if value == value else value, "half")
        if dtype.name == "float32":
            value = _clip(value, 3.4028235677973366e38)
        return float_literal(value, _FP[dtype.name])
    return str(int(value) & ((1 << 8 * dtype.itemsize) - 1))


def _clip(value: float, limit: float) -> float:
    """Infinity for a magnitude that rounds to it in a narrower type."""
    if value >= limit and value != float("inf"):
        return float("inf") if limit != 3.4028234663852886e38 or value > limit else value
    if value <= -limit and value != float("-inf"):
        return float("-inf") if limit != 3.4028234663852886e38 or value < -limit else value
    return value


def widen(fn: Fn, dtype: DType, value: str) -> str:
    """A 16-bit floating value as float; any other value as it is."""
    return half.widen(fn, dtype.name, value)


def narrow(fn: Fn, dtype: DType, value: str) -> str:
    """The way back from `widen`: round to nearest, ties to even."""
    return half.narrow(fn, dtype.name, value)


def select(fn: Fn, dtype: DType, condition: str, a: Value, b: Value) -> Value:
    """a where the i1 `condition` holds, else b."""
    type_ = register_type(dtype)
    if dtype.kind == "c":
        return tuple(fn.val(f"select i1 {condition}, {type_} {x}, {type_} {y}")
                     for x, y in zip(a, b, strict=True))
    return fn.val(f"select i1 {condition}, {type_} {a}, {type_} {b}")


def intrinsic(fn: Fn, name: str, type_: str, *args: str, flags: str = "") -> str:
    """Call `@llvm.name` on operands of one type."""
    suffix = _SUFFIX.get(type_, type_)
    params = ", ".join([type_] * len(args))
    callee = fn.module.declare(f"{type_} @llvm.{name}.{suffix}({params})")
    operands = ", ".join(f"{type_} {a}" for a in args)
    return fn.val(f"call {flags}{type_} {callee}({operands})")


_BY_DOUBLE = frozenset(["sin", "cos", "tan", "asin", "acos", "atan", "erf", "erfc", "erfinv",
                        "lgamma", "digamma", "atan2", "pow", "hypot", "fmod", "remainder",
                        "floor_divide", "sinh", "cosh", "expm1", "log", "log2", "log10", "log1p",
                        "asinh", "acosh", "atanh", "logaddexp"])
"""Functions of a float that may be computed in double.  LLVM would round that to half at once, by
a function of a run-time library that is not in the process, but for a fence between."""


def emit_op(fn: Fn, op: str, args: list[Value], dtypes: list[DType], out: DType) -> Value:
    """The result of primitive `op`, of dtype `out`, for one element.

    args, dtypes: the operands.  Raises KeyError for an operation that has no lowering.
    """
    if op == "alias":
        return args[0]
    if op == "where":
        return select(fn, out, args[0], args[1], args[2])
    if op == "cast":
        return emit_cast(fn, args[0], dtypes[0], out)
    if op == "bitcast":
        return _bitcast(fn, args[0], dtypes[0], out)
    dtype = dtypes[0]
    if op in ("logical_not", "logical_and", "logical_or", "logical_xor"):
        bits = [emit_cast(fn, a, d, bool_) for a, d in zip(args, dtypes, strict=True)]
        if op == "logical_not":
            return fn.val(f"xor i1 {bits[0]}, true")
        return fn.val(f"{op[8:]} i1 {bits[0]}, {bits[1]}")
    if op == "complex":
        return args[0], args[1]
    if op in ("real", "imag", "conj") and dtype.kind != "c":
        return args[0] if op != "imag" else constant(out, 0)
    if dtype.kind == "c":
        from facula.codegen.elements.complex_expr import emit_complex
        return emit_complex(fn, op, args, dtype)
    if dtype.kind == "f":
        wide = [widen(fn, dtype, a) for a in args]
        work = compute_dtype(dtype)
        from facula.codegen.elements.float_expr import emit_float
        value = emit_float(fn, op, wide, work)
        if dtype.name == "float16" and op in _BY_DOUBLE:
            value = intrinsic(fn, "arithmetic.fence", register_type(work), value)
        return value if out.kind == "b" else narrow(fn, dtype, value)
    return _emit_integer(fn, op, args, dtype)


# ------------------------------------------------------------------------------- integers

_ICMP = {"eq": "eq", "ne": "ne", "lt": "lt", "le": "le", "gt": "gt", "ge": "ge"}
_PLAIN = {"add": "add", "sub": "sub", "mul": "mul", "bitwise_and": "and", "bitwise_or": "or",
          "bitwise_xor": "xor"}
_BOOL = {"add": "or", "maximum": "or", "fmax": "or", "mul": "and", "minimum": "and",
         "fmin": "and", "sub": "xor", "bitwise_and": "and", "bitwise_or": "or",
         "bitwise_xor": "xor", "ne": "xor"}


def _emit_integer(fn: Fn, op: str, args: list[str], dtype: DType) -> str:
    """Arithmetic of bool, signed and unsigned integers; it wraps around."""
    type_ = register_type(dtype)
    a = args[0]
    b = args[1] if len(args) > 1 else ""
    signed = dtype.kind == "i"
    if dtype.kind == "b" and op in _BOOL:
        return fn.val(f"{_BOOL[op]} i1 {a}, {b}")
    if op in _PLAIN:
        return fn.val(f"{_PLAIN[op]} {type_} {a}, {b}")
    if op in _ICMP:
        prefix = "" if op in ("eq", "ne") else "s" if signed else "u"
        return fn.val(f"icmp {prefix}{_ICMP[op]} {type_} {a}, {b}")
    if op == "neg":
        return fn.val(f"sub {type_} 0, {a}")
    if op in ("abs", "sign") and not signed:
        return a if op == "abs" or dtype.kind == "b" else fn.val(
            f"zext i1 {fn.val(f'icmp ne {type_} {a}, 0')} to {type_}")
    if op == "abs":
        return intrinsic_flag(fn, "abs", type_, a)
    if op == "sign":
        up = fn.val(f"zext i1 {fn.val(f'icmp sgt {type_} {a}, 0')} to {type_}")
        down = fn.val(f"zext i1 {fn.val(f'icmp slt {type_} {a}, 0')} to {type_}")
        return fn.val(f"sub {type_} {up}, {down}")
    if op in ("floor", "ceil", "round", "trunc"):
        return a
    if op in ("isnan", "isinf"):
        return "false"
    if op == "isfinite":
        return "true"
    if op == "bitwise_not":
        return fn.val(f"xor {type_} {a}, -1")
    if op == "relu":
        return intrinsic(fn, "smax", type_, a, "0") if signed else a
    if op in ("maximum", "fmax", "minimum", "fmin"):
        name = ("s" if signed else "u") + ("max" if op in ("maximum", "fmax") else "min")
        return intrinsic(fn, name, type_, a, b)
    if op in ("floor_divide", "remainder", "fmod", "div"):
        return _divide(fn, op, a, b, type_, signed)
    if op in ("shift_left", "shift_right"):
        return _shift(fn, op, a, b, type_, signed, 8 * dtype.itemsize)
    if op == "pow":
        return _integer_power(fn, a, b, type_, signed, 8 * dtype.itemsize)
    raise KeyError(op)


def intrinsic_flag(fn: Fn, name: str, type_: str, value: str) -> str:
    """`llvm.abs` and its kind, which take an i1 that says overflow is defined."""
    callee = fn.module.declare(f"{type_} @llvm.{name}.{type_}({type_}, i1)")
    return fn.val(f"call {type_} {callee}({type_} {value}, i1 false)")


def _divide(fn: Fn, op: str, a: str, b: str, type_: str, signed: bool) -> str:
    """Division whose result by zero is 0, as NumPy's, and does not trap."""
    zero = fn.val(f"icmp eq {type_} {b}, 0")
    if not signed:
        safe = fn.val(f"select i1 {zero}, {type_} 1, {type_} {b}")
        inst = "udiv" if op in ("floor_divide", "div") else "urem"
        out = fn.val(f"{inst} {type_} {a}, {safe}")
        return fn.val(f"select i1 {zero}, {type_} 0, {type_} {out}")
    # b = -1 would trap on the smallest integer, and -a and 0 are the answers anyway.
    minus = fn.val(f"icmp eq {type_} {b}, -1")
    odd = fn.val(f"or i1 {zero}, {minus}")
    safe = fn.val(f"select i1 {odd}, {type_} 1, {type_} {b}")
    rest = fn.val(f"srem {type_} {a}, {safe}")
    if op == "fmod":
        return fn.val(f"select i1 {odd}, {type_} 0, {type_} {rest}")
    differ = fn.val(f"icmp slt {type_} {fn.val(f'xor {type_} {rest}, {safe}')}, 0")
    uneven = fn.val(f"icmp ne {type_} {rest}, 0")
    fix = fn.val(f"and i1 {differ}, {uneven}")
    if op == "remainder":
        moved = fn.val(f"add {type_} {rest}, {safe}")
        out = fn.val(f"select i1 {fix}, {type_} {moved}, {type_} {rest}")
        return fn.val(f"select i1 {odd}, {type_} 0, {type_} {out}")
    quotient = fn.val(f"sdiv {type_} {a}, {safe}")
    down = fn.val(f"sub {type_} {quotient}, {fn.val(f'zext i1 {fix} to {type_}')}")
    negated = fn.val(f"sub {type_} 0, {a}")
    out = fn.val(f"select i1 {minus}, {type_} {negated}, {type_} {down}")
    return fn.val(f"select i1 {zero}, {type_} 0, {type_} {out}")


def _shift(fn: Fn, op: str, a: str, b: str, type_: str, signed: bool, bits: int) -> str:
    """Shifts by too much give 0 (or the sign), never an undefined value."""
    inside = fn.val(f"icmp ult {type_} {b}, {bits}")
    if op == "shift_left":
        safe = fn.val(f"select i1 {inside}, {type_} {b}, {type_} 0")
        out = fn.val(f"shl {type_} {a}, {safe}")
        return fn.val(f"select i1 {inside}, {type_} {out}, {type_} 0")
    if signed:
        safe = fn.val(f"select i1 {inside}, {type_} {b}, {type_} {bits - 1}")
        return fn.val(f"ashr {type_} {a}, {safe}")
    safe = fn.val(f"select i1 {inside}, {type_} {b}, {type_} 0")
    out = fn.val(f"lshr {type_} {a}, {safe}")
    return fn.val(f"select i1 {inside}, {type_} {out}, {type_} 0")


def _integer_power(fn: Fn, a: str, b: str, type_: str, signed: bool, bits: int) -> str:
    """a**b by squaring, unrolled over the bits of b; 0 for b < 0 unless a is 1 or -1."""
    result, square = "1", a
    for k in range(bits if bits < 64 else 63):
        bit = fn.val(f"and {type_} {fn.val(f'lshr {type_} {b}, {k}')}, 1")
        factor = fn.val(f"select i1 {fn.val(f'icmp ne {type_} {bit}, 0')}, {type_} {square}, "
                        f"{type_} 1")
        result = fn.val(f"mul {type_} {result}, {factor}")
        square = fn.val(f"mul {type_} {square}, {square}")
    if not signed:
        return result
    negative = fn.val(f"icmp slt {type_} {b}, 0")
    one = fn.val(f"icmp eq {type_} {a}, 1")
    minus = fn.val(f"icmp eq {type_} {a}, -1")
    odd = fn.val(f"trunc {type_} {b} to i1") if type_ != "i1" else b
    sign = fn.val(f"select i1 {odd}, {type_} -1, {type_} 1")
    small = fn.val(f"select i1 {minus}, {type_} {sign}, {type_} 0")
    small = fn.val(f"select i1 {one}, {type_} 1, {type_} {small}")
    return fn.val(f"select i1 {negative}, {type_} {small}, {type_} {result}")


# ------------------------------------------------------------------------------- conversions

def emit_cast(fn: Fn, value: Value, source: DType, target: DType) -> Value:
    """Convert between dtypes: float to integer truncates, anything to bool is != 0."""
    if source is target:
        return value
    if source.kind == "c":
        if target.kind == "c":
            return tuple(emit_cast(fn, v, part(source), part(target)) for v in value)
        if target.kind == "b":
            re, im = (emit_cast(fn, v, part(source), bool_) for v in value)
            return fn.val(f"or i1 {re}, {im}")
        return emit_cast(fn, value[0], part(source), target)
    if target.kind == "c":
        real = part(target)
        return emit_cast(fn, value, source, real), constant(real, 0)
    if source.kind == "f":
        wide, have = widen(fn, source, value), compute_dtype(source)
        have_type = register_type(have)
        if target.kind == "b":
            return fn.val(f"fcmp une {have_type} {wide}, {constant(have, 0)}")
        if target.kind == "f":
            return _float_to_float(fn, wide, have, target)
        return _float_to_integer(fn, wide, have_type, target)
    source_type = register_type(source)
    if target.kind == "b":
        return fn.val(f"icmp ne {source_type} {value}, 0")
    signed = source.kind == "i"
    if target.kind == "f":
        work = compute_dtype(target)
        name = "sitofp" if signed else "uitofp"
        wide = fn.val(f"{name} {source_type} {value} to {register_type(work)}")
        return narrow(fn, target, wide)
    target_type = register_type(target)
    have_bits = 1 if source.kind == "b" else 8 * source.itemsize
    want_bits = 8 * target.itemsize
    if want_bits == have_bits:
        return value
    if want_bits < have_bits:
        return fn.val(f"trunc {source_type} {value} to {target_type}")
    return fn.val(f"{'sext' if signed else 'zext'} {source_type} {value} to {target_type}")


def _float_to_float(fn: Fn, wide: str, have: DType, target: DType) -> str:
    if have is float64 and target.name == "float16":
        return _double_to_half(fn, wide)
    work = compute_dtype(target)
    if work is not have:
        name = "fptrunc" if have is float64 else "fpext"
        wide = fn.val(f"{name} {register_type(have)} {wide} to {register_type(work)}")
    return narrow(fn, target, wide)


def _double_to_half(fn: Fn, wide: str) -> str:
    """double to half by way of float, rounded to odd on the way so that it rounds only once.

    LLVM's own conversion would be a call of a run-time library that is not there (Boldo and
    Melquiond, "Emulation of FMA and correctly rounded sums", 2008, on rounding to odd).
    """
    near = fn.val(f"fptrunc double {wide} to float")
    back = fn.val(f"fpext float {near} to double")
    inexact = fn.val(f"fcmp one double {back}, {wide}")
    bits = fn.val(f"bitcast float {near} to i32")
    beyond = fn.val(f"fcmp ogt double {intrinsic(fn, 'fabs', 'double', back)}, "
                    f"{intrinsic(fn, 'fabs', 'double', wide)}")
    below = fn.val(f"sub i32 {bits}, {fn.val(f'zext i1 {beyond} to i32')}")
    odd = fn.val(f"or i32 {below}, 1")
    best = fn.val(f"select i1 {inexact}, i32 {odd}, i32 {bits}")
    return half.narrow(fn, "float16", fn.val(f"bitcast i32 {best} to float"))


def _float_to_integer(fn: Fn, wide: str, have_type: str, target: DType) -> str:
    """Truncate; what does not fit in 32 bits (64 for uint32 and int64) saturates, NaN gives 0.

    Written in comparisons, which vectors have: of the intrinsic LLVM makes scalar code.
    """
    if target.name == "uint64":
        name = fn.module.declare(f"i64 @llvm.fptoui.sat.i64.{_SUFFIX[have_type]}({have_type})")
        return fn.val(f"call i64 {name}({have_type} {wide})")
    bits = 32 if target.itemsize < 8 and target.name != "uint32" else 64
    end = 1 << (bits - 1)
    have = float32 if have_type == "float" else float64
    low, high, zero = (constant(have, float(x)) for x in (-end, end, 0))
    above = fn.val(f"fcmp oge {have_type} {wide}, {high}")
    below = fn.val(f"fcmp olt {have_type} {wide}, {low}")
    sane = fn.val(f"fcmp ord {have_type} {wide}, {zero}")
    outside = fn.val(f"or i1 {above}, {below}")
    inside = fn.val(f"select i1 {outside}, {have_type} {zero}, {have_type} {wide}")
    inside = fn.val(f"select i1 {sane}, {have_type} {inside}, {have_type} {zero}")
    whole = fn.val(f"fptosi {have_type} {inside} to i{bits}")
    whole = fn.val(f"select i1 {above}, i{bits} {end - 1}, i{bits} {whole}")
    whole = fn.val(f"select i1 {below}, i{bits} {-end}, i{bits} {whole}")
    if 8 * target.itemsize == bits:
        return whole
    return fn.val(f"trunc i{bits} {whole} to {register_type(target)}")


def _bitcast(fn: Fn, value: Value, source: DType, target: DType) -> Value:
    have, want = register_type(source), register_type(target)
    if target.kind == "b":
        return fn.val(f"icmp ne {have} {value}, 0")
    if source.kind == "b":
        return fn.val(f"zext i1 {value} to {want}")
    return value if have == want else fn.val(f"bitcast {have} {value} to {want}")
