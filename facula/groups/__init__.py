"""Groups of steps that one kernel computes: what schedules make, and what generators write.

`index` is arithmetic of indices, `kinds` tells steps apart, `reads` which elements an element of a
step is made of, and `group` has the roots of a kernel and the points that it walks over.
"""
