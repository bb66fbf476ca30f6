"""Which kernels compute a contraction."""

from __future__ import annotations

from collections.abc import Callable

from facula.codegen.llvm import Module
from facula.codegen.products.amx import AmxTiles
from facula.codegen.products.brgemm import Vector
from facula.codegen.products.contraction import Contraction, Emission, Epilogue
from facula.codegen.products.gemv import thin
from facula.codegen.products.pairs import Pairs
from facula.codegen.products.scalars import scalars
from facula.codegen.products.tiles import transposed
from facula.codegen.target import Target, target

__all__ = ["emit_contraction"]

Writer = Callable[[Module, str, Contraction, Epilogue | None, Target], Emission | None]


def _nothing(module: Module, name: str, c: Contraction, epilogue: Epilogue | None,
             t: Target) -> Emission | None:
    """A result without elements."""
    return Emission([]) if 0 in (c.m, c.n, *c.batch) else None


def _register_tiles(module: Module, name: str, c: Contraction, epilogue: Epilogue | None,
                    t: Target) -> Emission:
    roles = ("a", "b")
    if epilogue is None and c.c_strides[-1] != 1 and c.c_strides[-2] == 1:
        # the transposed product has its vectors along the contiguous index of C
        c, roles = transposed(c), ("b", "a")
    kind = next(k for k in _KINDS if k.suits(c, t))
    return kind(module, name, c, epilogue, t, roles).emit()


_WRITERS: tuple[Writer, ...] = (_nothing, scalars, thin, _register_tiles)
"""Who writes the kernels of a product: the first of them that does not return None."""

_KINDS: tuple[type[Vector], ...] = (AmxTiles, Pairs, Vector)
"""What register tiles multiply and add with: the first that suits the product."""


def emit_contraction(module: Module, name: str, c: Contraction,
                     epilogue: Epilogue | None = None) -> Emission:
    """Write the kernels of `c`; the last one into `module`, packing ones into modules of their own.
    """
    t = target()
    made = (write(module, name, c, epilogue, t) for write in _WRITERS)
    return next(emission for emission in made if emission is not None)
