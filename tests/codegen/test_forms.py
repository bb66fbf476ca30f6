"""Forms: texts that differ in numbers alone, as one."""

from __future__ import annotations

import ctypes

import pytest

from facula.codegen.forms import Form
from facula.codegen.llvm import APART, Fn, Module
from facula.codegen.products.tiles import PARAMS, operand
from facula.runtime.jit import compile_kernels

pytest.importorskip("llvmlite")

TEXT = """define internal void @KERNEL_part(ptr %p, i64 %n) noinline {{
entry:
  %a = add i64 %n, {a}
  store i64 %a, ptr %p
  ret void
}}
define void @KERNEL(ptr %args, ptr %map, i64 %tile) nounwind {{
entry:
  %slot = load i64, ptr %map
  %at = getelementptr ptr, ptr %args, i64 %slot
  %p = load ptr, ptr %at
  %stack = alloca i64, i64 {room}, align {align}
  br label %i.head1
i.head1:
  %i = phi i64 [ {start}, %entry ], [ %in, %i.body2 ]
  %sum = phi double [ {first}, %entry ], [ %sumn, %i.body2 ]
  %c = icmp slt i64 %i, {stop}
  br i1 %c, label %i.body2, label %i.end3
i.body2:
  %sumn = fadd double %sum, {value}
  %f = fptrunc double %sumn to float
  %g = fmul contract float %f, {scale}
  %cell = getelementptr i64, ptr %stack, i64 {cell}
  store i64 %i, ptr %cell
  %in = add nsw i64 %i, 1
  br label %i.head1, !llvm.loop !1
i.end3:
  %last = load i64, ptr %stack
  %h = fpext float {scale} to double
  %q = getelementptr double, ptr %p, i64 1
  %total = fadd double %sum, %h
  store double %total, ptr %q
  call void @KERNEL_part(ptr %p, i64 {b})
  ret void
}}
!0 = !{{!"llvm.loop.unroll.full"}}
!1 = distinct !{{!1, !0}}
"""

BASE = dict(a=3, b=5, room=4, align=64, start=0, stop=4, cell=0, first="0x0000000000000000",
            value="0x3FF0000000000000", scale="0x3FE0000000000000")


def text(**other):
    return TEXT.format(**{**BASE, **other}).split("\n")


def run(form, told):
    """(what @KERNEL_part stores, the sum)."""
    name, code = form.named("KERNEL")
    (kernel,) = compile_kernels([(name, code)])
    out = (ctypes.c_double * 2)()
    args = (ctypes.c_void_p * 1)(ctypes.addressof(out))
    words = (ctypes.c_int64 * (1 + len(told)))(0, *told)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(kernel.address)(
        args, words, 0)
    return ctypes.cast(out, ctypes.POINTER(ctypes.c_int64))[0], out[1]


def test_what_differs_is_told():
    form = Form(text(), 1)
    assert form.differences(text()) == {} and form.numbers({}) == () and not form.text
    others = [dict(a=7, b=9, stop=7, start=-2, room=8, first="0x4000000000000000",
                   value="0xBFF0000000000000", scale="0x3FD0000000000000"),
              dict(a=-4, stop=1)]
    different = form.differences(text(**others[0]))
    assert form.numbers(different) is None
    form.widen(different, "KERNEL")
    told = form.numbers(different)
    assert run(form, told) == (16, 2 - 9 + 0.25)
    assert run(form, form.numbers({})) == (8, 4.5)
    last = form.differences(text(**others[1]))
    assert run(form, form.numbers(last)) == (1, 1.5)


def test_equal_numbers_are_one_until_they_differ():
    form = Form(text(a=5, stop=5), 1)
    form.widen(form.differences(text(a=6, b=6, stop=6)), "KERNEL")
    assert len(form.holes) == 1
    assert len(form.numbers(form.differences(text(a=9, b=9, stop=9)))) == 1
    odd = form.differences(text(a=9, b=9, stop=8))
    assert form.numbers(odd) is None
    form.widen(odd, "KERNEL")
    assert run(form, form.numbers(odd)) == (18, 8.5)
    assert run(form, form.numbers({})) == (10, 5.5)


def test_arrays_on_the_stack_are_large_enough():
    form = Form(text(room=5), 1)
    form.widen(form.differences(text(room=9)), "KERNEL")
    assert not form.holes and "alloca i64, i64 16, align 64" in form.text
    assert form.numbers(form.differences(text(room=16))) == ()
    assert form.numbers(form.differences(text(room=17))) is None


def test_a_loop_whose_length_is_told_is_not_written_out(capfd):
    form = Form(text(), 1)
    form.widen(form.differences(text(stop=5)), "KERNEL")
    assert "!1 = distinct !{!1}" in form.text
    run(form, form.numbers({}))
    assert "not unrolled" not in capfd.readouterr().err
    form = Form(text(), 1)
    form.widen(form.differences(text(a=5)), "KERNEL")
    assert "!1 = distinct !{!1, !0}" in form.text


def test_inner_functions_that_stand_apart_are_told_too():
    def lines(a, b):
        module = Module()
        part = Fn(module, "KERNEL_part", [("ptr", "p"), ("i64", "n")], attrs="noinline", inner=True)
        part.store("i64", part.val(f"add i64 %n, {a}"), "%p")
        part.finish()
        fn = Fn(module, "KERNEL", PARAMS, attrs="nounwind")
        fn.do(f"call void @KERNEL_part(ptr {operand(fn, 0)}, i64 {b})")
        fn.finish()
        return module.text().split("\n")

    form = Form(lines(3, 5), 1)
    form.widen(form.differences(lines(7, 9)), "KERNEL")
    assert APART in form.text
    assert run(form, form.numbers(form.differences(lines(7, 9))))[0] == 16
    assert run(form, form.numbers(form.differences(lines(-1, 20))))[0] == 19


@pytest.mark.parametrize("line", [
    ("  %v = load <4 x float>, ptr %p", "  %v = load <8 x float>, ptr %p"),
    ("  %v = load i64, ptr %p, align 8", "  %v = load i64, ptr %p, align 16"),
    ("  %v = add <2 x i64> %a, <i64 1, i64 2>", "  %v = add <2 x i64> %a, <i64 1, i64 3>"),
    ("  switch i64 %a, label %b [ i64 1, label %c ]",
     "  switch i64 %a, label %b [ i64 2, label %c ]"),
    ("  call void @f(ptr %p, i32 0, i32 3)", "  call void @f(ptr %p, i32 0, i32 2)"),
    ("  %v = extractvalue { i64, i1 } %a, 0", "  %v = extractvalue { i64, i1 } %a, 1"),
    ("  %v = alloca [4 x i64], align 8", "  %v = alloca [8 x i64], align 8"),
    ("  %v = insertelement <4 x float> %a, float %b, i32 0",
     "  %v = insertelement <4 x float> %a, float %b, i32 1"),
    ("@table = constant [1 x i64] [i64 1]", "@table = constant [1 x i64] [i64 2]"),
    ("!7 = !{i64 3}", "!7 = !{i64 4}"),
    ("  %v = add i64 %a, 1", "  %v = add i64 %b, 1"),
    ("  %v = add i64 %a, 1", "  %v = sub i64 %a, 1"),
    ("  %v = add i8 %a, 1", "  %v = add i8 %a, 2"),
])
def test_what_cannot_be_told_is_another_form(line):
    before, after = line
    assert Form([before], 1).differences([after]) is None
    assert Form([before], 1).differences([before, before]) is None


def test_names_are_left_out_and_put_back():
    name = "k0123456789abcdef0123_pack0"
    assert Form.plain(name, f"define void @{name}()") == (
        "KERNEL_pack0", "define void @KERNEL_pack0()")
    form = Form(text(), 1)
    form.widen(form.differences(text(a=4)), "KERNEL")
    own, code = form.named("KERNEL")
    assert own.startswith("k") and len(own) == 21 and f"@{own}_part" in code
    assert "KERNEL" not in code
