"""The kernels of an attention group: what schedules ask for, by the generators of tiles."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from facula.codegen.attention.attention import Attention
from facula.codegen.attention.backward import gradient_kernels
from facula.codegen.attention.forward import AttentionForward
from facula.codegen.kernel import KernelText, named
from facula.codegen.products.epilogue import NS_PER_FLOP, Product

__all__ = ["emit_attention"]


def emit_attention(c: Attention, results: Sequence[str], slots: dict[str, int]) -> Product:
    """The kernels of `results`, of 'o' and 'L' or of 'dq', 'dk' and 'dv', all in one phase.

    `slots` are those of operands and results by letter.
    """
    out = Product()
    out.phases.append([])
    if set(results) <= {"o", "L"}:
        mask = ["m"] if c.mask else []
        letters = ["q", "k", *(["v"] if "o" in results else []), *mask, *results]
        writers = [AttentionForward(c, letters)]
    else:
        writers = gradient_kernels(c, results)          # type: ignore[assignment]
    for writer in writers:
        made = writer.emit()
        name, text = named(made.module)
        operands: list[int | str] = []
        for letter in writer.letters:
            if letter == "tmp":
                operands.append(f"tmp{len(out.temporaries)}")
                out.temporaries.append(prod(c.batch) * c.rows * c.width * writer.item)
            else:
                operands.append(slots[letter])
        kernel = KernelText(name, text.replace("@KERNEL_", f"@{name}_"), (), made.ntiles,
                            made.weight * NS_PER_FLOP)
        out.phases[0].append((kernel, operands))
    return out
