"""Which kernel computes a convolution on blocks of channels."""

from __future__ import annotations

from typing import Any

from facula.codegen.convolutions.blocks.adjoint import Adjoint
from facula.codegen.convolutions.blocks.convolution import Blocks
from facula.codegen.convolutions.blocks.forward import Direct
from facula.codegen.convolutions.blocks.squares import Squares
from facula.codegen.kernel import KernelDraft
from facula.codegen.target import target

__all__ = ["emit_blocks"]


def emit_blocks(c: Blocks, finish: Any) -> tuple[KernelDraft, Any]:
    """The kernel of `c`, and what follows its tiles."""
    if c.adjoint:
        return Adjoint(c, target(), finish).emit(), finish
    if c.squares:
        return Squares(c, target(), finish).emit(), finish
    return Direct(c, target(), finish).emit(), finish
