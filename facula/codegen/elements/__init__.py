"""Loops over elements, and the code of one element.

From the inside out: `expr` is one primitive on one element, with `float_expr`, `complex_expr`,
`half` and `mathlib/`; `lower` writes the code of an element of a step, through all that is not in
memory (`bounds` knows how large it can be).  `writer` has the kernel around it, with its operands.
`nest` is what all loops share, `reductions` what they sum up; `loops` makes loops over rows or over
lanes of a fused group, and `stretches` those with windows and padding.  `updates` writes to places
that the data choose.
"""
