"""Function transforms: `grad`, `vmap` and their kin take functions and return functions.

They compose in any order: `vmap(grad(loss), in_dims=(None, 0, 0))` gives the gradient of every
example, `jacfwd(jacrev(f))` a Hessian, `grad(lambda x: grad(f)(x).sum())` second derivatives.
Names, signatures and meaning are those of `torch.func`.

How it works.  Wrapping tensors level upon level (as functorch does) would put an interpreter
between Python and the recording of every operation, and each level would do its work again at
each call.  But here every function is recorded anyway, so a transform is a rewriting of what was
recorded:

- The function runs once, on placeholders that look like its inputs (for `vmap`: one example), and
  is recorded apart, in a `Trace` (`trace.py`).
- `grad`, `vjp` and `jvp` add derivatives to that record (`passes.py`): backwards with the engine
  that `backward()` uses, so custom functions, hooks and checks of overwritten values are the same
  ones; forwards by the primitives' own rules.
- The steps that the results need are then recorded in the graph around, as they are or, for
  `vmap` (`batching.py`), by the batching rule each primitive declares.  If that graph is a trace
  of another transform, it goes on from there.

In-place operations, views and `detach` are settled while recording and mean nothing special by
then.  Python code that depends on shapes and on values from outside runs as it stands; where it
asks for a value that depends on placeholders, what was recorded so far is computed, except under
`vmap`, where there is no one value: VmapError.  Random numbers are a counter and a key, so
`randomness='different'` draws one longer stretch of the stream.  And what a transform makes of a
record is remembered by the record's structure: the same function of inputs like before costs
what recording it costs.
"""

from facula.errors import TransformError, VmapError
from facula.func.batching import vmap
from facula.func.derivatives import grad, grad_and_value, jvp, linearize, vjp
from facula.func.jacobians import hessian, jacfwd, jacrev
from facula.func.modules import functional_call, stack_module_state

__all__ = ["grad", "grad_and_value", "vjp", "jvp", "linearize", "vmap", "jacrev", "jacfwd",
           "hessian", "functional_call", "stack_module_state", "TransformError", "VmapError"]
