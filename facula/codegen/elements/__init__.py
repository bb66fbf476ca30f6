"""Loops over elements, and the code of one element.

From the inside out: `expr` is one primitive on one element, with `float_expr`, `complex_expr`,
`half` and `mathlib/`; `lower` finds the elements of inputs that an element is made of (`bounds`
knows how large they can be) and writes its code through all that is not in memory.  `writer` has
the kernel around it, with its operands.  `nest` is what all loops share, `reductions`
what they sum up; `loops` makes loops over rows or lanes of a fused group, and `stretches` those
with windows and padding.  `updates` writes to places that the data choose.
"""
