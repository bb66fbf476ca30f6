"""Primitives of linear algebra: LAPACK through NumPy, with derivatives of their own.

A primitive has one result.  A factorisation, which has several, packs them: each is laid out
flat, one after the other, in the last dimension (see `packed`).
"""

from facula.ops.primitive.matrix import factor, solve

__all__ = ["factor", "solve"]
