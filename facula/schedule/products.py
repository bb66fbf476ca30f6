"""Contractions of a schedule: where a matrix product finds its operands, and the product itself.

The operands of a matrix product are read where they lie: a transposed, sliced or expanded matrix
is the same memory with other strides.  Only what is not affine in the indices of the product is
copied first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from facula.codegen.attention.attention import Attention
from facula.codegen.convolutions.blocks.convolution import Blocks
from facula.codegen.convolutions.blocks.weight import BlocksWeight
from facula.codegen.convolutions.convolution import Convolution
from facula.codegen.kernel import View
from facula.codegen.products.contraction import Contraction
from facula.graph.spec import Step
from facula.groups.index import Index, flatten, loop_var, row_major, unflatten
from facula.groups.kinds import ATTENTION, MOVEMENT, ON_BLOCKS, RESULTS, WHOLE
from facula.groups.reads import Place, operands
from facula.ops.primitive.recurrent import RECURRENT

__all__ = ["attention_of", "contraction_of", "convolution_of", "has_strides", "leaf_strides",
           "operand_behind", "operand_of", "order_in", "stored_operands"]

Strides = tuple[int, ...]


def order_in(steps: Sequence[Step], source: int, number: int, strides: Strides) -> Strides | None:
    """Strides of step `source` where step `number`, which is `source` reshaped and permuted, has
    these; None where strides cannot express that, or not with neighbours side by side."""
    chain, at = [], number
    while at != source:
        chain.append(at)
        at = steps[at].inputs[0]
    shape = steps[source].spec.shape
    variables = [loop_var(f"d{d}", n, d) for d, n in enumerate(shape)]
    index: Sequence[Index] = variables
    for at in reversed(chain):
        step = steps[at]
        if step.op == "permute":
            index = [index[axis] for axis in step.attrs[0]]
        else:
            flat = flatten(index, row_major(steps[step.inputs[0]].spec.shape))
            index = unflatten(flat, step.spec.shape)
    found = _affine(flatten(index, strides), variables)
    if found is None or found[1]:
        return None
    inner = [s for s, n in zip(found[0], shape, strict=True) if n != 1]
    return found[0] if not inner or inner[-1] == 1 else None


def _indices(steps: Sequence[Step], number: int) -> tuple[list[Index], Index, Index, Index]:
    """Loop variables (batch..., m, n, k) of a matmul step."""
    step = steps[number]
    *batch, m, n = step.spec.shape
    k = steps[step.inputs[0]].spec.shape[-1]
    return ([loop_var(f"b{d}", size, d) for d, size in enumerate(batch)],
            loop_var("m", m, 20), loop_var("n", n, 21), loop_var("k", k, 22))


def _follow(steps: Sequence[Step], place: Place, stop: Callable[[int], bool]) -> Place:
    """The element that a chain of movement reads."""
    while not stop(place[0]) and steps[place[0]].op in MOVEMENT:
        place = operands(steps, *place)[0]
    return place


def _affine(index: Index, variables: Sequence[Index]) -> tuple[tuple[int, ...], int] | None:
    """(coefficient of each variable, offset) where that is all there is, else None."""
    known = {v.terms[0][0] for v in variables if v.terms}
    if any(var not in known or coef < 0 for var, coef in index.terms) or index.offset < 0:
        return None
    return (tuple([index.coefficient(v.terms[0][0]) if v.terms else 0 for v in variables]),
            index.offset)


def leaf_strides(step: Step) -> Strides:
    """Strides of a leaf, or of any value that gets row-major memory."""
    if step.op == "leaf" and step.attrs[0] is not None:
        return tuple(step.attrs[0])
    return row_major(step.spec.shape)


def _operand(steps: Sequence[Step], number: int, which: int, stop: Callable[[int], bool],
             lies: Callable[[int], Strides] | None = None
             ) -> tuple[int, tuple[tuple[int, ...], int] | None]:
    """(the step behind operand `which`, strides over (batch..., its two indices) and offset).

    `lies` tells the strides of that step where it is known already.
    """
    batch, m, n, k = _indices(steps, number)
    own = [m, k] if which == 0 else [k, n]
    source, index = _follow(steps, (steps[number].inputs[which], (*batch, *own)), stop)
    at = flatten(index, lies(source) if lies is not None else leaf_strides(steps[source]))
    return source, _affine(at, [*batch, *own])


def matrix_behind(steps: Sequence[Step], number: int, which: int,
                  stop: Callable[[int], bool]) -> int:
    """The step that has to be in memory for operand `which` of a matmul: as far back as strides
    can express what lies between, but not past one that `stop` says is in memory anyway."""
    source, found = _operand(steps, number, which, stop)
    if found is None or steps[source].op == "scalar":
        return steps[number].inputs[which]
    return source


def has_strides(steps: Sequence[Step], number: int, which: int, stop: Callable[[int], bool],
                strides: Strides) -> bool:
    """Whether a product finds operand `which` in memory of these strides without a copy."""
    find = _operand if steps[number].op == "matmul" else _whole
    found = find(steps, number, which, stop, lambda n: strides)[1]
    return found is not None and (steps[number].op not in ON_BLOCKS
                                  or _side_by_side(steps[number], which, found[0]))


def contraction_of(steps: Sequence[Step], number: int, in_memory: Callable[[int], bool],
                   c_strides: Strides, lies: Callable[[int], Strides]
                   ) -> tuple[Contraction, int, int]:
    """The product of matmul step `number`, and the steps in memory that it reads."""
    step = steps[number]
    *batch, m, n = step.spec.shape
    k = steps[step.inputs[0]].spec.shape[-1]
    a, left = _operand(steps, number, 0, in_memory, lies)
    b, right = _operand(steps, number, 1, in_memory, lies)
    assert left is not None and right is not None
    return (Contraction(step.spec.dtype.name, tuple(batch), m, n, k, left[0], right[0], c_strides,
                        a_offset=left[1], b_offset=right[1]), a, b)


def _whole(steps: Sequence[Step], number: int, which: int, stop: Callable[[int], bool],
           lies: Callable[[int], Strides] | None = None
           ) -> tuple[int, tuple[tuple[int, ...], int] | None]:
    """(the step behind operand `which` of a convolution, its strides and offset)."""
    variables = [loop_var(f"d{d}", n, d)
                 for d, n in enumerate(steps[steps[number].inputs[which]].spec.shape)]
    source, index = _follow(steps, (steps[number].inputs[which], tuple(variables)), stop)
    at = flatten(index, lies(source) if lies is not None else leaf_strides(steps[source]))
    return source, _affine(at, variables)


def source_behind(steps: Sequence[Step], number: int, which: int,
                  stop: Callable[[int], bool]) -> int:
    """The step that has to be in memory for operand `which` of a convolution."""
    source, found = _whole(steps, number, which, stop)
    step = steps[number]
    if found is None or steps[source].op == "scalar" or (
            step.op in ON_BLOCKS and not _side_by_side(step, which, found[0])):
        return steps[number].inputs[which]
    return source


def _side_by_side(step: Step, which: int, strides: Strides) -> bool:
    """Whether an operand in blocks lies as its kernel reads it: the weight whole, and vectors of
    the source, or of a gradient, each together."""
    plain = which == 0 and not step.attrs[6]
    vectors = which == 0 or step.op == "conv_weight_blocks"
    return plain or vectors and strides[-1] == 1


def operand_of(steps: Sequence[Step], number: int, which: int, in_memory: Callable[[int], bool],
               lies: Callable[[int], Strides]) -> tuple[int, Strides, int]:
    """The step in memory that operand `which` is a view of, and that view's strides and offset."""
    source, found = _whole(steps, number, which, in_memory, lies)
    assert found is not None
    return source, *found


def convolution_of(steps: Sequence[Step], number: int, in_memory: Callable[[int], bool],
                   lies: Callable[[int], Strides]
                   ) -> tuple[Convolution | Blocks | BlocksWeight, int, int]:
    """The convolution of step `number`, and the steps in memory that it reads."""
    step = steps[number]
    a, left = _whole(steps, number, 0, in_memory, lies)
    b, right = _whole(steps, number, 1, in_memory, lies)
    assert left is not None and right is not None
    if step.op == "conv_blocks":
        return Blocks(*step.attrs, a=View(*left), b=View(*right)), a, b
    if step.op == "conv_weight_blocks":
        return BlocksWeight(*step.attrs, a=View(*left), b=View(*right)), a, b
    shapes = [steps[i].spec.shape for i in step.inputs]
    parts = step.attrs[4] if step.op == "conv_weight" else 0
    out = step.spec.shape[1:] if parts else step.spec.shape
    x, w, y = {"conv": (shapes[0], shapes[1], out), "conv_input": (out, shapes[1], shapes[0]),
               "conv_weight": (shapes[0], out, shapes[1])}[step.op]
    stride, low, dilation, groups = step.attrs[:4]
    return (Convolution(step.op, step.spec.dtype.name, x, w, y, stride, low, dilation, groups,
                        View(*left), View(*right), parts,
                        steps[step.inputs[0]].spec.dtype is not step.spec.dtype), a, b)


def stored_operands(step: Step) -> Sequence[int]:
    """Which operands of a step its kernel finds in memory, with strides."""
    if step.op in RECURRENT:
        return (RECURRENT[step.op](step.attrs[0]),)
    return range(len(step.inputs)) if step.op in WHOLE else ()


def operand_behind(steps: Sequence[Step], number: int, which: int,
                   stop: Callable[[int], bool]) -> int:
    """The step that has to be in memory for one of the `stored_operands` of a step."""
    find = matrix_behind if steps[number].op == "matmul" else source_behind
    return find(steps, number, which, stop)


def attention_of(steps: Sequence[Step], numbers: Sequence[int], in_memory: Callable[[int], bool],
                 lies: Callable[[int], Strides]) -> tuple[Attention, dict[str, int]]:
    """What the attention steps `numbers` compute together, and by letter the steps that lie where
    its operands and results are found."""
    views: dict[str, View] = {}
    places: dict[str, int] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    mask = ""
    for number in numbers:
        step = steps[number]
        letters = ATTENTION[step.op] + ("m" if step.attrs[2] else "")
        for which, letter in enumerate(letters):
            if letter in views:
                continue
            source, found = _whole(steps, number, which, in_memory, lies)
            assert found is not None
            views[letter], places[letter] = View(*found), source
            shapes[letter] = steps[step.inputs[which]].spec.shape
            if letter == "m":
                mask = steps[step.inputs[which]].spec.dtype.name
        letter = RESULTS[step.op]
        views[letter], places[letter] = View(lies(number)), number
        shapes[letter] = step.spec.shape
    first = steps[numbers[0]]
    *batch, rows, width = shapes["q"]
    deep = next((shapes[x][-1] for x in ("v", "g") if x in shapes), width)
    scale, causal, _ = first.attrs
    return Attention(steps[first.inputs[0]].spec.dtype.name, tuple(batch), rows,
                     shapes["k"][-2], width, deep, scale, causal, mask, views), places
