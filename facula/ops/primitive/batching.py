"""What `vmap` does with a primitive: its batching rule.

A rule is given the step's operands, some of which have one more dimension in front, the batch,
and records what gives the results of the whole batch, again with the batch in front.  Most
primitives are themselves again with shifted attributes: elementwise ones need nothing at all,
reductions count their dimensions one further.  A rule never looks at values.

A family names its rule where it registers its primitives (`batch=`); the kinds whose primitives
all work on leading dimensions have theirs in `BY_KIND`.  A primitive without a rule is run once
for each example and the results are joined: correct, and slow.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

from facula.ops.primitive.rules import cat, expand, iota, permute, prim, reshape, slice_

__all__ = ["Batch", "Rule", "BY_KIND", "each", "axis_first", "axes_first", "one_by_one"]


class Batch(NamedTuple):
    """One step whose operands are batched.

    `inputs` with the batch dimension in front where `batched` says so; `attrs` and `out` (the
    Spec of the result) are those of a single example; `size` is how many examples there are.
    """

    name: str
    inputs: tuple[Any, ...]
    batched: tuple[bool, ...]
    attrs: tuple[Any, ...]
    out: Any
    size: int

    def lead(self, k: int) -> Any:
        """Operand k with the batch in front, repeated if it had none."""
        x = self.inputs[k]
        if self.batched[k]:
            return x
        return expand(reshape(x, (1, *x.shape)), (self.size, *x.shape))

    def leads(self) -> list[Any]:
        """Every operand with the batch in front."""
        return [self.lead(k) for k in range(len(self.inputs))]

    def again(self, *operands: Any, attrs: tuple[Any, ...]) -> Any:
        """The same primitive on whole batches."""
        return prim(self.name, *operands, attrs=attrs, shape=(self.size, *self.out.shape),
                    dtype=self.out.dtype)


Rule = Callable[[Batch], Any]


def each(b: Batch) -> Any:
    """Elementwise, or on the last dimensions: leading ones are no matter."""
    return b.again(*b.leads(), attrs=b.attrs)


def axis_first(b: Batch) -> Any:
    """attrs begin with the number of a dimension."""
    return b.again(*b.leads(), attrs=(b.attrs[0] + 1, *b.attrs[1:]))


def axes_first(b: Batch) -> Any:
    """attrs begin with a tuple of dimensions."""
    return b.again(*b.leads(), attrs=(tuple([a + 1 for a in b.attrs[0]]), *b.attrs[1:]))


def one_by_one(b: Batch) -> Any:
    """For primitives without a rule: every example by itself."""
    if b.size == 0:
        return prim("full", attrs=(0,), shape=(0, *b.out.shape), dtype=b.out.dtype)
    parts = []
    for i in range(b.size):
        operands = []
        for x, batched in zip(b.inputs, b.batched):
            if batched:
                rest = (0,) * (x.ndim - 1)
                shape = tuple(x.shape[1:])
                x = reshape(slice_(x, (i, *rest), (1,) * x.ndim, (1, *shape)), shape)
            operands.append(x)
        one = prim(b.name, *operands, attrs=b.attrs, shape=b.out.shape, dtype=b.out.dtype)
        parts.append(reshape(one, (1, *b.out.shape)))
    return cat(parts, 0)


# ---------------------------------------------------------------- movement

def permuted(b: Batch) -> Any:
    return permute(b.inputs[0], (0, *[a + 1 for a in b.attrs[0]]))


def sliced(b: Batch) -> Any:
    """slice and slice_update: attrs are (starts, steps)."""
    starts, steps = b.attrs
    return b.again(*b.leads(), attrs=((0, *starts), (1, *steps)))


def strided(b: Batch) -> Any:
    """as_strided and as_strided_update: attrs are (strides, offset) in a flat example."""
    strides, offset = b.attrs
    x = b.lead(0)
    one = prod(x.shape[1:])
    return b.again(x, *[b.lead(k) for k in range(1, len(b.inputs))],
                   attrs=((one, *strides), offset))


def padded(b: Batch) -> Any:
    low, high, fill = b.attrs
    return b.again(b.inputs[0], attrs=((0, *low), (0, *high), fill))


# ---------------------------------------------------------------- contractions

def _transposed(x: Any) -> Any:
    n = x.ndim
    return permute(x, (*range(n - 2), n - 1, n - 2))


def product(b: Batch) -> Any:
    """matmul.  A matrix that all examples share makes one product of everything: [m, k] @ [k, n].
    """
    x, y = b.inputs
    if all(b.batched) or len(b.out.shape) > 2:
        return b.again(*b.leads(), attrs=())
    m, n = b.out.shape
    k = y.shape[-2]
    if b.batched[0]:
        flat = prim("matmul", reshape(x, (b.size * m, k)), y)            # [B m, n]
        return reshape(flat, (b.size, m, n))
    rows = reshape(_transposed(y), (b.size * n, k))                      # [B n, k]
    flat = prim("matmul", rows, _transposed(x))                          # [B n, m]
    return _transposed(reshape(flat, (b.size, n, m)))


# ---------------------------------------------------------------- convolutions

# Operands and results are [first, second, *places]: images and channels, or output channels and
# input channels.  A batch joins one of the two, as so many more images, channels or groups.

def _joined(x: Any, axis: int) -> Any:
    """[B, first, second, ...] with the batch joined to what `axis` (0 or 1) says, in front."""
    if axis == 0:
        return reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:]))
    x = _moved(x, 0, 1, 1)                                       # [first, B, second, ...]
    return reshape(x, (x.shape[0], x.shape[1] * x.shape[2], *x.shape[3:]))


def _parted(x: Any, axis: int, size: int) -> Any:
    """The batch taken out of dimension `axis`, and put in front."""
    shape = (*x.shape[:axis], size, x.shape[axis] // size, *x.shape[axis + 1:])
    return _moved(reshape(x, shape), axis, 1, 0)


def convolved(b: Batch) -> Any:
    """conv and conv_input: of images by a weight, whose batch is so many more groups."""
    x, w = b.inputs
    stride, low, dilation, groups = b.attrs[:4]
    out = b.out.shape
    if not b.batched[1]:
        many = prim(b.name, _joined(x, 0), w, attrs=b.attrs, shape=(b.size * out[0], *out[1:]))
        return _parted(many, 0, b.size)
    shape = (out[0], b.size * out[1], *out[2:])
    if not b.batched[0] and b.name == "conv" and groups == 1:
        return _parted(prim("conv", x, _joined(w, 0), attrs=b.attrs, shape=shape), 1, b.size)
    attrs = (stride, low, dilation, b.size * groups)
    many = prim(b.name, _joined(b.lead(0), 1), _joined(w, 0), attrs=attrs, shape=shape)
    return _parted(many, 1, b.size)


def correlated(b: Batch) -> Any:
    """conv_weight: of images and of gradients; the result may have an axis of parts in front."""
    x, y = b.inputs
    stride, low, dilation, groups, parts = b.attrs
    lead = b.out.shape[:1] if parts else ()
    first, second, *taps = b.out.shape[len(lead):]
    at = len(lead)
    if groups == 1 and not all(b.batched):
        if b.batched[1]:
            many = prim(b.name, x, _joined(y, 1), attrs=b.attrs,
                        shape=(*lead, b.size * first, second, *taps))
            return _parted(many, at, b.size)
        many = prim(b.name, _joined(x, 1), y, attrs=b.attrs,
                    shape=(*lead, first, b.size * second, *taps))
        return _parted(many, at + 1, b.size)
    many = prim(b.name, _joined(b.lead(0), 1), _joined(b.lead(1), 1),
                attrs=(stride, low, dilation, b.size * groups, parts),
                shape=(*lead, b.size * first, second, *taps))
    return _parted(many, at, b.size)


# ---------------------------------------------------------------- indexing

def _moved(x: Any, start: int, count: int, to: int) -> Any:
    """`count` dimensions from `start` on moved so that they begin at `to`."""
    rest = [a for a in range(x.ndim) if not start <= a < start + count]
    return permute(x, (*rest[:to], *range(start, start + count), *rest[to:]))


def taken(b: Batch) -> Any:
    """take: x [*before, n, *after] by index [*wide] along one axis."""
    x, index = b.inputs
    axis = b.attrs[0]
    if not b.batched[1]:
        return prim("take", x, index, attrs=(axis + 1,))
    if not b.batched[0]:
        return _moved(prim("take", x, index, attrs=(axis,)), axis, 1, 0)
    # An index for each example: along the axis, the same for all other dimensions.
    before, after = tuple(x.shape[1:axis + 1]), tuple(x.shape[axis + 2:])
    count = prod(index.shape[1:])
    lined = reshape(index, (b.size, *[1] * len(before), count, *[1] * len(after)))
    every = expand(lined, (b.size, *before, count, *after))
    return reshape(prim("gather", x, every, attrs=(axis + 1,)), (b.size, *b.out.shape))


def put(b: Batch) -> Any:
    """index_put: values [*before, *wide, *after] into base, by one or more index tensors [*wide].
    """
    axis, accumulate = b.attrs
    count = len(b.inputs) - 2
    if not any(b.batched[2:]):
        return prim("index_put", b.lead(0), b.lead(1), *b.inputs[2:],
                    attrs=(axis + 1, accumulate))
    base, values, *indices = b.leads()
    wide = indices[0].ndim - 1
    # The number of the example is one more index, beside the others: [B, *wide] each.
    number = reshape(iota(b.size), (b.size, *[1] * wide))
    number = expand(number, indices[0].shape)
    base = _moved(base, axis + 1, count, 1)
    values = _moved(values, axis + 1, wide, 1)
    out = prim("index_put", base, values, number, *indices, attrs=(0, accumulate))
    return _moved(out, 1, count, axis + 1)


# ---------------------------------------------------------------- the random stream

def drawn(b: Batch) -> Any:
    """philox with `randomness='different'`: one stretch of the stream, shared out in order."""
    return b.again(*b.inputs, attrs=b.attrs)


BY_KIND: dict[str, Rule] = {"elementwise": each, "special": each, "whole": each, "matrix": each,
                            "history": each, "drawn": each}
"""The rules of kinds whose primitives all work on leading dimensions."""
