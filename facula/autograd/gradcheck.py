"""`gradcheck` and `gradgradcheck`: gradients against finite differences.

A gradient rule is right if, for every output y and cotangent v, what it returns for an input x is
the derivative of the real number Re(conj(v) . y) with respect to x (for complex x, to its real
part plus i times to its imaginary part).  Both sides are computed and compared.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from facula.autograd.backward import grad
from facula.errors import GradientError
from facula.graph import record as _record
from facula.tensor import Tensor, from_array

__all__ = ["gradcheck", "gradgradcheck", "GradcheckError"]

Func = Callable[..., Any]


class GradcheckError(RuntimeError):
    """What `gradcheck` raises when a gradient is wrong."""


def gradcheck(func: Func, inputs: Tensor | Sequence[Any], *, eps: float = 1e-6,
              atol: float = 1e-5, rtol: float = 1e-3, raise_exception: bool = True,
              nondet_tol: float = 0.0, check_undefined_grad: bool = True,
              check_grad_dtypes: bool = False, check_batched_grad: bool = False,
              check_batched_forward_grad: bool = False, check_forward_ad: bool = False,
              check_backward_ad: bool = True, fast_mode: bool = False,
              masked: bool | None = None) -> bool:
    """Whether the gradients of `func` agree with finite differences of step `eps`.

    Compared are the derivatives of every floating output with respect to every input that
    requires a gradient, |analytical - numerical| <= atol + rtol * |numerical|; the inputs should
    be float64 or complex128.  `fast_mode` compares one random projection of each Jacobian.
    `nondet_tol` is how far two backward passes may differ.

    `check_forward_ad` compares forward derivatives, too, and `check_batched_forward_grad` those of
    several directions at once.

    Raises GradcheckError (or returns False, without `raise_exception`); ValueError if no input
    requires a gradient, or if nothing is to be checked.
    """
    if not check_backward_ad and not check_forward_ad:
        raise ValueError("gradcheck: with neither check_backward_ad nor check_forward_ad nothing "
                         "is left to check")
    if check_batched_forward_grad and not check_forward_ad:
        raise ValueError("gradcheck: check_batched_forward_grad=True needs check_forward_ad=True")
    args = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    try:
        check = _Check(func, args, eps, atol, rtol)
        check.outputs_are_constant_in_rest()
        if check_forward_ad:
            check.forward(fast_mode, check_batched_forward_grad)
        if not check_backward_ad:
            return True
        if fast_mode:
            check.projections(nondet_tol)
        else:
            check.jacobians(nondet_tol, check_grad_dtypes)
        if check_undefined_grad:
            check.undefined_gradients()
        if check_batched_grad:
            check.batched()
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(func: Func, inputs: Tensor | Sequence[Any],
                  grad_outputs: Tensor | Sequence[Tensor] | None = None, *, eps: float = 1e-6,
                  atol: float = 1e-5, rtol: float = 1e-3,
                  gen_non_contig_grad_outputs: bool = False, raise_exception: bool = True,
                  nondet_tol: float = 0.0, check_undefined_grad: bool = True,
                  check_grad_dtypes: bool = False, check_batched_grad: bool = False,
                  check_fwd_over_rev: bool = False, check_rev_over_rev: bool = True,
                  fast_mode: bool = False, masked: bool = False) -> bool:
    """Whether the gradients of the gradients of `func` agree with finite differences.

    The gradients that arrive are `grad_outputs`, random unless given.  See `gradcheck`.
    """
    if check_fwd_over_rev or not check_rev_over_rev:
        raise ValueError("gradgradcheck: there is no forward-mode differentiation to check")
    args = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    outputs = _floating(_as_tuple(func(*args)))
    if grad_outputs is None:
        rng = np.random.default_rng(0)
        seeds = [_random(rng, o, gen_non_contig_grad_outputs) for o in outputs]
    else:
        seeds = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs)
    n = len(seeds)

    def gradients(*values: Any) -> tuple[Tensor, ...]:
        inner, given = values[:len(values) - n], values[len(values) - n:]
        outs = _floating(_as_tuple(func(*inner)))
        wanted = [v for v in inner if isinstance(v, Tensor) and v.requires_grad]
        pairs = [(o, g) for o, g in zip(outs, given, strict=True) if o.requires_grad]
        parts = grad([o for o, _ in pairs], wanted, [g for _, g in pairs], create_graph=True,
                     allow_unused=True)
        return tuple(p for p in parts if p is not None)

    return gradcheck(gradients, (*args, *seeds), eps=eps, atol=atol, rtol=rtol,
                     raise_exception=raise_exception, nondet_tol=nondet_tol,
                     check_undefined_grad=check_undefined_grad,
                     check_grad_dtypes=check_grad_dtypes, check_batched_grad=check_batched_grad,
                     fast_mode=fast_mode)


def _random(rng: np.random.Generator, like: Tensor, strided: bool) -> Tensor:
    shape = tuple(like.shape)
    if strided and shape:
        shape = (*shape[:-1], 2 * shape[-1])
    value = rng.standard_normal(shape)
    if like.dtype.is_complex:
        value = value + 1j * rng.standard_normal(shape)
    t = from_array(value.astype(like.dtype.np), copy=True)
    if strided and shape:
        t = t[..., ::2]                                     # type: ignore[index]
    return t.requires_grad_()                               # type: ignore[no-any-return]


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _floating(outputs: tuple[Any, ...]) -> list[Tensor]:
    return [o for o in outputs if isinstance(o, Tensor) and o.dtype.kind in "fc"]


def _array(t: Tensor) -> np.ndarray:
    return np.array(t.detach()._peek())


class _Check:
    """One call of `gradcheck`: the function, its arguments, and both sides of the comparison."""

    def __init__(self, func: Func, args: tuple[Any, ...], eps: float, atol: float, rtol: float):
        self.func, self.args = func, args
        self.eps, self.atol, self.rtol = eps, atol, rtol
        self.where = [k for k, a in enumerate(args)
                      if isinstance(a, Tensor) and a.requires_grad]
        if not self.where:
            raise ValueError("gradcheck expects at least one input tensor to require gradient, "
                             "but none of the them have requires_grad=True.")
        for k in self.where:
            if args[k].dtype.name not in ("float64", "complex128"):
                warnings.warn(f"Input #{k} requires gradient and is not a double precision "
                              "floating point or complex. This check will likely fail if all "
                              "the inputs are not of double precision floating point or "
                              "complex. ", stacklevel=4)
        self.values = [_array(args[k]) for k in self.where]
        self.outputs = _floating(_as_tuple(func(*args)))

    # -- evaluating
    def call(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs at other values of the inputs."""
        args = list(self.args)
        for k, value in zip(self.where, values, strict=True):
            args[k] = from_array(np.array(value, order="C"), copy=True).requires_grad_()
        return [_array(o) for o in _floating(_as_tuple(self.func(*args)))]

    def slope(self, number: int, step: np.ndarray) -> list[np.ndarray]:
        """The outputs' derivatives as input `number` moves along `step`, which has size eps."""
        ends = []
        for sign in (1, -1):
            moved = list(self.values)
            moved[number] = self.values[number] + sign * step
            ends.append(self.call(moved))
        return [(b.astype(_wide(b)) - a) / (2 * self.eps) for b, a in zip(*ends, strict=True)]

    def gradients(self, output: Tensor, cotangent: np.ndarray) -> list[np.ndarray | None]:
        seed = from_array(np.array(cotangent, output.dtype.np, order="C"), copy=True)
        wanted = [self.args[k] for k in self.where]
        parts = grad(output, wanted, seed, retain_graph=True, allow_unused=True)
        for t, g in zip(wanted, parts, strict=True):
            if g is not None and g.shape != t.shape:
                raise GradcheckError(f"grad is incorrect size: {list(g.shape)} for an input of "
                                     f"{list(t.shape)}")
        self.dtypes = [None if g is None else g.dtype for g in parts]
        # By the interpreter each time or never: the two may differ in the last bit.
        _record.flush(_record.recorder(), steady=True)
        return [None if g is None else _array(g) for g in parts]

    # -- checks
    def outputs_are_constant_in_rest(self) -> None:
        """An output that does not require a gradient must not change with the inputs."""
        if any(o.requires_grad for o in self.outputs):
            return
        for number in range(len(self.where)):
            for at, step in self.steps(number):
                for k, d in enumerate(self.slope(number, step)):
                    if np.any(d != 0):
                        raise GradcheckError(
                            f"Numerical gradient for function expected to be zero: output {k} "
                            f"changes with element {at} of input {self.where[number]}, and does "
                            "not require a gradient")

    def steps(self, number: int) -> Any:
        """(element and direction, a step of size eps along it) for each real coordinate."""
        value = self.values[number]
        for at in np.ndindex(value.shape):
            for unit in (1.0, 1j) if value.dtype.kind == "c" else (1.0,):
                step = np.zeros_like(value)
                step[at] = unit * self.eps
                yield (at, unit), step

    def jacobians(self, nondet_tol: float, check_grad_dtypes: bool) -> None:
        numerical: list[dict[Any, list[np.ndarray]]] = [
            {at: self.slope(n, step) for at, step in self.steps(n)}
            for n in range(len(self.where))]
        for j, output in enumerate(self.outputs):
            if not output.requires_grad:
                continue
            units = (1.0, 1j) if output.dtype.is_complex else (1.0,)
            places = [(at, unit) for at in np.ndindex(tuple(output.shape)) for unit in units]
            rows = []
            for place, unit in places:
                v = np.zeros(tuple(output.shape), output.dtype.np)
                v[place] = unit
                rows.append(self.gradients(output, v))
                if check_grad_dtypes:
                    self._dtypes_agree()
            if places:
                self._reentrant(output, v, rows[-1], nondet_tol)
            for n in range(len(self.where)):
                self._compare(j, n, places, rows, numerical[n])

    def _compare(self, j: int, n: int, places: list[Any], rows: list[Any],
                 numerical: dict[Any, list[np.ndarray]]) -> None:
        """The Jacobian of output j with respect to input n: real coordinates both ways."""
        have = np.zeros((len(numerical), len(places)))
        want = np.zeros_like(have)
        for r, ((at, unit), slopes) in enumerate(numerical.items()):
            for c, (place, v) in enumerate(places):
                d = complex(slopes[j][place])
                want[r, c] = (np.conj(v) * d).real
                g = rows[c][n]
                if g is not None:
                    have[r, c] = complex(g[at]).imag if unit == 1j else complex(g[at]).real
        if not np.allclose(have, want, rtol=self.rtol, atol=self.atol, equal_nan=False):
            raise GradcheckError(f"Jacobian mismatch for output {j} with respect to input "
                                 f"{self.where[n]},\nnumerical:{want}\nanalytical:{have}\n")

    def _dtypes_agree(self) -> None:
        for k, dtype in zip(self.where, self.dtypes, strict=True):
            if dtype is not None and dtype is not self.args[k].dtype:
                raise GradcheckError(f"the gradient of input {k} is {dtype.name}, and the input "
                                     f"{self.args[k].dtype.name}")

    def _reentrant(self, output: Tensor, v: np.ndarray, before: list[Any], tol: float) -> None:
        for a, b in zip(before, self.gradients(output, v), strict=True):
            if a is not None and (b is None or not np.allclose(a, b, rtol=0.0, atol=tol,
                                                               equal_nan=True)):
                raise GradcheckError(
                    "Backward is not reentrant, i.e., running backward with same input and "
                    "grad_output multiple times gives different values, although analytical "
                    "gradient matches numerical gradient. The tolerance for nondeterminism was "
                    f"{tol}.")

    def projections(self, nondet_tol: float) -> None:
        """One random direction in and one random cotangent out, for each pair."""
        rng = np.random.default_rng(0)

        def draw(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
            value = rng.standard_normal(shape)
            if dtype.kind == "c":
                value = value + 1j * rng.standard_normal(shape)
            size = float(np.sqrt(np.sum(np.abs(value) ** 2))) or 1.0
            return np.asarray(value / size).astype(dtype)

        ways = [draw(v.shape, v.dtype) for v in self.values]
        slopes = [self.slope(n, way * self.eps) for n, way in enumerate(ways)]
        for j, output in enumerate(self.outputs):
            if not output.requires_grad:
                continue
            v = draw(tuple(output.shape), np.dtype(output.dtype.np))
            parts = self.gradients(output, v)
            self._reentrant(output, v, parts, nondet_tol)
            for n, (g, way) in enumerate(zip(parts, ways, strict=True)):
                want = float(np.sum(np.conj(v) * slopes[n][j]).real)
                have = 0.0 if g is None else float(np.sum(np.conj(g) * way).real)
                if not np.allclose(have, want, rtol=self.rtol, atol=self.atol):
                    raise GradcheckError(
                        f"Jacobian mismatch for output {j} with respect to input "
                        f"{self.where[n]}, along one random direction,\nnumerical:{want}\n"
                        f"analytical:{have}\n")

    def forward(self, fast: bool, batched: bool) -> None:
        """Tangents along every coordinate (or one random direction) of each input."""
        from facula.func import jvp, vmap

        def run(*given: Tensor) -> tuple[Tensor, ...]:
            args = list(self.args)
            for k, t in zip(self.where, given, strict=True):
                args[k] = t
            return tuple(_floating(_as_tuple(self.func(*args))))

        rng = np.random.default_rng(2)
        primals = tuple([from_array(v, copy=True) for v in self.values])
        for n, value in enumerate(self.values):
            if fast:
                draw = rng.standard_normal(value.shape)
                ways = [np.asarray(draw / (np.linalg.norm(draw) or 1.0)).astype(value.dtype)]
            else:
                ways = [step / self.eps for _, step in self.steps(n)]
            found = []
            for way in ways:
                zeros = [np.zeros_like(v) for v in self.values]
                zeros[n] = way
                tangents = tuple([from_array(z, copy=True) for z in zeros])
                slopes = [_array(t) for t in jvp(run, primals, tangents)[1]]
                found.append(slopes)
                for j, (have, want) in enumerate(zip(slopes, self.slope(n, way * self.eps),
                                                     strict=True)):
                    if not np.allclose(have, want, rtol=self.rtol, atol=self.atol):
                        raise GradcheckError(
                            f"Jacobian computed with forward mode mismatch for output {j} with "
                            f"respect to input {self.where[n]},\nnumerical:{want}\n"
                            f"analytical:{have}\n")
            if batched and ways:
                stack = from_array(np.stack(ways), copy=True)

                def along(way: Tensor, n: int = n) -> Any:
                    rest = [from_array(np.zeros_like(v), copy=True) for v in self.values]
                    return jvp(run, primals, (*rest[:n], way, *rest[n + 1:]))[1]

                for j, every in enumerate(vmap(along, randomness="same")(stack)):
                    each = np.stack([slopes[j] for slopes in found])
                    if not np.allclose(_array(every), each, equal_nan=True):
                        raise GradcheckError(f"the tangents of output {j} along a batch of "
                                             "directions differ from those along each")

    def undefined_gradients(self) -> None:
        """Outputs that get no gradient count as if they got zeros."""
        outs = [o for o in self.outputs if o.requires_grad]
        if len(outs) < 2:
            return
        wanted = [self.args[k] for k in self.where]
        for k, output in enumerate(outs):
            seeds = [np.zeros(tuple(o.shape), o.dtype.np) for o in outs]
            seeds[k] = np.ones_like(seeds[k])
            full = grad(outs, wanted, [from_array(s, copy=True) for s in seeds],
                        retain_graph=True, allow_unused=True)
            alone = self.gradients(output, seeds[k])
            for a, b in zip(alone, full, strict=True):
                both = np.zeros(()) if a is None else a, np.zeros(()) if b is None else _array(b)
                if not np.allclose(*both, equal_nan=True):
                    raise GradcheckError("Expected backward function to handle undefined output "
                                         "grads. Please look at \"Notes about undefined output "
                                         "gradients\"")

    def batched(self) -> None:
        """Gradients for several cotangents at once are the gradients for each."""
        wanted = [self.args[k] for k in self.where]
        rng = np.random.default_rng(1)
        for output in self.outputs:
            if not output.requires_grad:
                continue
            both = rng.standard_normal((2, *output.shape)).astype(output.dtype.np)
            try:
                parts = grad(output, wanted, from_array(both, copy=True), retain_graph=True,
                             allow_unused=True, is_grads_batched=True)
            except GradientError as e:
                raise GradcheckError(f"gradients of a batch of cotangents: {e}") from e
            for k in range(2):
                for a, b in zip(parts, self.gradients(output, both[k]), strict=True):
                    if a is not None and (b is None or not np.allclose(_array(a)[k], b,
                                                                       equal_nan=True)):
                        raise GradcheckError("the gradients of a batch of cotangents differ from "
                                             "those of each")


def _wide(a: np.ndarray) -> np.dtype:
    return np.dtype(np.complex128) if a.dtype.kind == "c" else np.dtype(np.float64)
