"""Activation functions, element by element.

Where a function is made of pieces, the piece that is not chosen is kept finite, so that its
gradient is an exact 0 there and never 0 times infinity.
"""

from __future__ import annotations

import math
from typing import Any

from facula.errors import ShapeError
from facula.nn.functional.common import (
    add_number,
    applied,
    float_only,
    half_wise,
    mul_number,
    number,
    per_channel,
    shape_of,
)
from facula.ops import arithmetic as _arithmetic
from facula.ops import unary as _unary
from facula.ops.define import autocast_to, op
from facula.ops.promote import as_float, cast, expand_to
from facula.ops.reductions import widened, wrap_dim
from facula.tensor import Tensor, prim

__all__ = ["relu", "relu_", "relu6", "elu", "elu_", "selu", "selu_", "celu", "celu_",
           "leaky_relu", "leaky_relu_", "prelu", "rrelu", "rrelu_", "gelu", "silu", "mish",
           "softplus", "softsign", "softshrink", "hardshrink", "tanhshrink", "hardtanh",
           "hardtanh_", "hardsigmoid", "hardswish", "threshold", "threshold_", "glu",
           "logsigmoid", "sigmoid", "tanh"]

del _arithmetic


def _shapes(make: Any) -> list[Any]:
    return [((make(3, 5, low=-4, high=4),), {}), ((make(),), {}), ((make(2, 0),), {}),
            ((make(17, low=-9, high=9),), {})]


def _with(*extra: dict[str, Any]) -> Any:
    def samples(make: Any) -> list[Any]:
        return _shapes(make) + [((make(7, low=-3, high=3),), kw) for kw in extra]
    return samples


# ---------------------------------------------------------------- rectifiers

def _relu(input: Tensor) -> Tensor:
    """max(input, 0)."""
    return prim("relu", input)


_relu_op = op(_relu, name="relu", samples=_shapes)


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(input, 0); the gradient at 0 is 0."""
    return applied(_relu, "relu", inplace, input)


def relu_(input: Tensor) -> Tensor:
    """`relu`, overwriting its input."""
    return relu(input, True)


def _clipped(x: Tensor, low: float, high: float) -> Tensor:
    """x within [low, high]; no gradient at or beyond the ends; NaN stays."""
    lo, hi = number(x, low), number(x, high)
    x = prim("where", prim("le", x, lo), lo, x)
    return prim("where", prim("ge", x, hi), hi, x)


@op(name="hardtanh", samples=_with({"min_val": -2.0, "max_val": 0.5}))
def _hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """input limited to [min_val, max_val]."""
    if min_val > max_val:
        raise ValueError("min_val cannot be greater than max_val")
    return _clipped(input, min_val, max_val)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0,
             inplace: bool = False) -> Tensor:
    """input limited to [min_val, max_val]."""
    return applied(_hardtanh, "hardtanh", inplace, input, min_val, max_val)


def hardtanh_(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """`hardtanh`, overwriting its input."""
    return hardtanh(input, min_val, max_val, True)


@op(name="relu6", samples=_with())
def _relu6(input: Tensor) -> Tensor:
    """input limited to [0, 6]."""
    return _clipped(input, 0.0, 6.0)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """input limited to [0, 6]."""
    return applied(_relu6, "relu6", inplace, input)


@op(name="threshold", samples=lambda make: [((make(3, 5), 0.1, 20.0), {}),
                                            ((make(2, 0), -0.5, 0.0), {})])
def _threshold(input: Tensor, threshold: float, value: float) -> Tensor:
    """input where it is above `threshold`, else `value`."""
    return prim("where", prim("le", input, number(input, threshold)), number(input, value), input)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """input where it is above `threshold`, else `value`."""
    return applied(_threshold, "threshold", inplace, input, threshold, value)


def threshold_(input: Tensor, threshold: float, value: float) -> Tensor:
    """`threshold`, overwriting its input."""
    result: Tensor = applied(_threshold, "threshold", True, input, threshold, value)
    return result


@op(name="leaky_relu", samples=_with({"negative_slope": 0.3}, {"negative_slope": 0.0}))
def _leaky_relu(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """input where positive, else negative_slope * input."""
    float_only("leaky_relu", input)

    def leaky(x: Tensor) -> Tensor:
        return prim("where", prim("gt", x, number(x, 0)), x, mul_number(x, negative_slope))
    return half_wise(input, leaky)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """input where positive, else negative_slope * input."""
    return applied(_leaky_relu, "leaky_relu", inplace, input, negative_slope)


def leaky_relu_(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """`leaky_relu`, overwriting its input."""
    return leaky_relu(input, negative_slope, True)


@op(method=True, samples=lambda make: [
    ((make(3, 4, 2), make(4)), {}), ((make(5), make(1)), {}), ((make(3, 4), make(1)), {}),
    ((make(), make(1)), {}), ((make(0, 4), make(4)), {})])
@autocast_to("lower")
def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """input where positive, else weight * input; one weight, or one for each channel (dim 1)."""
    float_only("prelu", input)
    x, w = shape_of(input), shape_of(weight)
    if len(w) > 1:
        raise ShapeError("prelu: Expected `weight` to be a scalar or 1D tensor, but got: ndim = "
                         f"{len(w)}")
    if weight.dtype is not input.dtype:
        from facula.errors import DTypeError
        raise DTypeError("prelu: Type promoting not supported. Got "
                         f"{input.dtype.name} and {weight.dtype.name}")
    if weight.numel() != 1:
        if not x:
            raise ShapeError("prelu: Not allow zero-dim input tensor.")
        channels = x[1] if len(x) > 1 else 1
        if channels != weight.numel():
            raise ShapeError("Mismatch of parameter numbers and input channel size. Found "
                             f"parameter numbers = {weight.numel()} and channel size = "
                             f"{channels}.")
        slope = per_channel(weight, x)
    else:
        slope = expand_to(prim("reshape", weight, shape=()), x)
    return prim("where", prim("gt", input, number(input, 0)), input, prim("mul", slope, input))


@op(register=False)
def _random_leaky(input: Tensor, u: Tensor, lower: float, upper: float) -> Tensor:
    slope = add_number(mul_number(u, upper - lower), lower)
    return prim("where", prim("le", input, number(input, 0)), prim("mul", slope, input), input)


def _rrelu(input: Tensor, lower: float, upper: float, training: bool,
           generator: Any = None) -> Tensor:
    if not training:
        return _leaky_relu(input, (lower + upper) / 2)      # type: ignore[no-any-return]
    float_only("rrelu", input)
    from facula.nn.functional.dropout import uniform
    return _random_leaky(input, uniform(shape_of(input), input.dtype, generator),  # type: ignore
                         lower, upper)


def rrelu(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False,
          inplace: bool = False) -> Tensor:
    """Leaky ReLU with a slope for each element drawn from U(lower, upper) in training, and
    their mean otherwise."""
    if lower > upper:
        raise RuntimeError("Lower bound should be less than or equal to the upper bound")
    return applied(_rrelu, "rrelu", inplace, input, lower, upper, training)


def rrelu_(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3,
           training: bool = False) -> Tensor:
    """`rrelu`, overwriting its input."""
    return rrelu(input, lower, upper, training, True)


# ---------------------------------------------------------------- exponential ones

def _elu_of(x: Tensor, alpha: float, scale: float, input_scale: float) -> Tensor:
    positive = prim("gt", x, number(x, 0))
    below = prim("where", positive, number(x, 0), mul_number(x, input_scale))
    return prim("where", positive, mul_number(x, scale),
                mul_number(prim("expm1", below), alpha * scale))


@op(name="elu", samples=_with({"alpha": 0.5}))
def _elu(input: Tensor, alpha: float = 1.0) -> Tensor:
    """input where positive, else alpha * (exp(input) - 1)."""
    float_only("elu", input)
    return half_wise(input, lambda x: _elu_of(x, alpha, 1.0, 1.0))


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """input where positive, else alpha * (exp(input) - 1) (Clevert et al. 2016)."""
    return applied(_elu, "elu", inplace, input, alpha)


def elu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """`elu`, overwriting its input."""
    return elu(input, alpha, True)


_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


@op(name="selu", samples=_with())
def _selu(input: Tensor) -> Tensor:
    """scale * elu(input, alpha), with the constants that keep mean 0 and variance 1."""
    float_only("selu", input)
    return half_wise(input, lambda x: _elu_of(x, _SELU_ALPHA, _SELU_SCALE, 1.0))


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """scale * elu(input, alpha), keeping mean 0 and variance 1 (Klambauer et al. 2017)."""
    return applied(_selu, "selu", inplace, input)


def selu_(input: Tensor) -> Tensor:
    """`selu`, overwriting its input."""
    return selu(input, True)


@op(name="celu", samples=_with({"alpha": 0.5}, {"alpha": -1.5}))
def _celu(input: Tensor, alpha: float = 1.0) -> Tensor:
    """input where positive, else alpha * (exp(input / alpha) - 1)."""
    float_only("celu", input)
    if alpha == 0:
        raise ZeroDivisionError("ZeroDivisionError: alpha cannot be 0 for CELU")
    return half_wise(input, lambda x: _elu_of(x, alpha, 1.0, 1.0 / alpha))


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """input where positive, else alpha * (exp(input / alpha) - 1) (Barron 2017)."""
    return applied(_celu, "celu", inplace, input, alpha)


def celu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """`celu`, overwriting its input."""
    return celu(input, alpha, True)


def _gelu_exact(x: Tensor) -> Tensor:
    phi = add_number(prim("erf", mul_number(x, math.sqrt(0.5))), 1.0)
    return prim("mul", mul_number(x, 0.5), phi)


def _gelu_tanh(x: Tensor) -> Tensor:
    cube = prim("mul", prim("mul", x, x), x)
    inner = mul_number(prim("add", x, mul_number(cube, 0.044715)), math.sqrt(2 / math.pi))
    return prim("mul", mul_number(x, 0.5), add_number(prim("tanh", inner), 1.0))


@op(samples=_with({"approximate": "tanh"}))
def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """input * Phi(input), Phi the normal distribution function (Hendrycks and Gimpel 2016).

    `approximate="tanh"` uses 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
    """
    float_only("gelu", input)
    if approximate not in ("none", "tanh"):
        raise RuntimeError("approximate argument must be either none or tanh.")
    return half_wise(input, _gelu_exact if approximate == "none" else _gelu_tanh)


@op(name="silu", samples=_with())
def _silu(input: Tensor) -> Tensor:
    """input * sigmoid(input)."""
    if input.dtype.kind != "c":
        float_only("silu", input)
    return half_wise(input, lambda x: prim("mul", x, prim("sigmoid", x)))


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """input * sigmoid(input)."""
    return applied(_silu, "silu", inplace, input)


def _softplus_of(x: Tensor, beta: float, limit: float) -> Tensor:
    z = mul_number(x, beta)
    large = prim("gt", z, number(z, limit))
    safe = prim("where", large, number(z, 0), z)
    soft = mul_number(prim("log1p", prim("exp", safe)), 1.0 / beta)
    return prim("where", large, x, soft)


@op(name="mish", samples=_with())
def _mish(input: Tensor) -> Tensor:
    """input * tanh(softplus(input))."""
    float_only("mish", input)
    return half_wise(input, lambda x: prim("mul", x, prim("tanh", _softplus_of(x, 1.0, 20.0))))


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """input * tanh(softplus(input)) (Misra 2019)."""
    return applied(_mish, "mish", inplace, input)


@op(samples=_with({"beta": 2.0, "threshold": 3.0}))
def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * input)) / beta, and input itself where beta * input > threshold."""
    float_only("softplus", input)
    return half_wise(input, lambda x: _softplus_of(x, beta, threshold))


def _logsigmoid_of(x: Tensor) -> Tensor:
    """log(sigmoid(x)): the exponent is never positive, and the gradient at 0 is a half."""
    zero = number(x, 0)
    negative = prim("lt", x, zero)
    least = prim("where", negative, x, prim("neg", x))
    return prim("sub", prim("where", negative, x, zero), prim("log1p", prim("exp", least)))


@op(samples=_with())
def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(input)), without overflow."""
    float_only("log_sigmoid", input)
    return half_wise(input, _logsigmoid_of)


# ---------------------------------------------------------------- piecewise and rational ones

@op(samples=_with())
def softsign(input: Tensor) -> Tensor:
    """input / (1 + |input|)."""
    x = as_float(input)
    return prim("div", x, cast(add_number(prim("abs", x), 1.0), x.dtype))


@op(samples=_with())
def tanhshrink(input: Tensor) -> Tensor:
    """input - tanh(input)."""
    x = as_float(input)
    return prim("sub", x, prim("tanh", x))


@op(method=True, samples=_with({"lambd": 1.5}))
def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """input where |input| > lambd, else 0."""
    float_only("hardshrink", input)
    small = prim("logical_and", prim("ge", input, number(input, -lambd)),
                 prim("le", input, number(input, lambd)))
    return prim("where", small, number(input, 0), input)


@op(samples=_with({"lambd": 1.5}))
def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """input moved towards 0 by lambd, and 0 within it."""
    float_only("softshrink", input)
    if lambd < 0:
        raise RuntimeError("lambda must be greater or equal to 0, but found to be "
                           f"{lambd}.")
    above = prim("gt", input, number(input, lambd))
    below = prim("lt", input, number(input, -lambd))
    inside = prim("where", prim("isnan", input), input, number(input, 0))
    out = prim("where", below, add_number(input, lambd), inside)
    return prim("where", above, add_number(input, -lambd), out)


def _hardsigmoid_of(x: Tensor) -> Tensor:
    middle = prim("div", add_number(x, 3.0), number(x, 6.0))
    low = prim("where", prim("le", x, number(x, -3.0)), number(x, 0.0), middle)
    return prim("where", prim("ge", x, number(x, 3.0)), number(x, 1.0), low)


@op(name="hardsigmoid", samples=_with())
def _hardsigmoid(input: Tensor) -> Tensor:
    """input / 6 + 1/2 limited to [0, 1]."""
    float_only("hardsigmoid", input)
    return half_wise(input, _hardsigmoid_of)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """input / 6 + 1/2 limited to [0, 1]."""
    return applied(_hardsigmoid, "hardsigmoid", inplace, input)


@op(name="hardswish", samples=_with())
def _hardswish(input: Tensor) -> Tensor:
    """input * hardsigmoid(input)."""
    float_only("hardswish", input)
    return half_wise(input, lambda x: prim("mul", x, _hardsigmoid_of(x)))


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """input * hardsigmoid(input) (Howard et al. 2019)."""
    return applied(_hardswish, "hardswish", inplace, input)


@op(samples=lambda make: [((make(3, 4),), {}), ((make(6, 3),), {"dim": 0}),
                          ((make(2, 4, 3), 1), {}), ((make(0, 4),), {})])
def glu(input: Tensor, dim: int = -1) -> Tensor:
    """a * sigmoid(b) for the halves a, b of the input along `dim` (Dauphin et al. 2017)."""
    if input.ndim == 0:
        raise ShapeError("glu does not support 0-dimensional tensors")
    float_only("glu", input)
    axis = wrap_dim(dim, input.ndim)
    shape = shape_of(input)
    if shape[axis] % 2:
        raise ShapeError("Halving dimension must be even, but dimension "
                         f"{axis} is size {shape[axis]}")
    half = shape[axis] // 2
    part = (*shape[:axis], half, *shape[axis + 1:])
    steps = (1,) * len(shape)
    start = [0] * len(shape)
    a = prim("slice", input, attrs=(tuple(start), steps), shape=part)
    start[axis] = half
    b = prim("slice", input, attrs=(tuple(start), steps), shape=part)
    return cast(prim("mul", widened(a), prim("sigmoid", widened(b))), input.dtype)


sigmoid = _unary.sigmoid              # type: ignore[attr-defined]
tanh = _unary.tanh                    # type: ignore[attr-defined]
