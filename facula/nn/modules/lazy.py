"""Lazy modules: layers that learn from their first input how many features they have."""

from __future__ import annotations

from typing import Any

from facula.errors import ShapeError
from facula.nn.modules.batchnorm import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
)
from facula.nn.modules.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from facula.nn.modules.linear import Linear
from facula.nn.modules.make import zeros
from facula.nn.parameter import UninitializedBuffer, UninitializedParameter, is_lazy
from facula.tensor import Tensor

__all__ = ["LazyBatchNorm1d", "LazyBatchNorm2d", "LazyBatchNorm3d", "LazyConv1d", "LazyConv2d",
           "LazyConv3d", "LazyConvTranspose1d", "LazyConvTranspose2d", "LazyConvTranspose3d",
           "LazyInstanceNorm1d", "LazyInstanceNorm2d", "LazyInstanceNorm3d", "LazyLinear"]


class LazyModuleMixin:
    """Goes before a module class: its first call runs `initialize_parameters` on the input.

    A subclass makes `UninitializedParameter`s in its constructor and materialises them there;
    after that it becomes an ordinary module, of class `cls_to_become` if that is given.  Move
    and cast the model before, and make its optimiser after the first call.
    """

    cls_to_become: type[Any] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        me: Any = self
        self._initialize_hook = me.register_forward_pre_hook(self._infer_parameters,
                                                             with_kwargs=True)

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Give the parameters the shapes that this input asks for; subclasses define it."""
        raise NotImplementedError("initialize_parameters is not implemented for "
                                  f"{type(self).__name__}")

    def has_uninitialized_params(self) -> bool:
        """Whether a parameter or buffer of the module itself has no shape yet."""
        me: Any = self
        return any(is_lazy(t) for t in (*me._parameters.values(), *me._buffers.values()))

    def reset_parameters(self) -> None:
        """Draw the weights anew, if they are there."""
        if not self.has_uninitialized_params():
            super().reset_parameters()              # type: ignore[misc]

    def _infer_parameters(self, module: Any, args: Any, kwargs: Any = None) -> None:
        module.initialize_parameters(*args, **(kwargs or {}))
        if module.has_uninitialized_params():
            raise RuntimeError(f"module {module._get_name()} has not been fully initialized")
        # By number: a copied module's handle still points at the hooks of the original.
        for table in (module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs):
            table.pop(module._initialize_hook.id, None)
        del module._initialize_hook
        if module.cls_to_become is not None:
            module.__class__ = module.cls_to_become


class _Lazy(LazyModuleMixin):
    """The lazy form of a module class, which is the last of its bases: that is what it becomes."""

    def __init_subclass__(cls) -> None:
        if not issubclass(cls.__bases__[-1], _Lazy):
            cls.cls_to_become = cls.__bases__[-1]


class LazyLinear(_Lazy, Linear):
    """`Linear` whose `in_features` is the last dimension of its first input."""

    def __init__(self, out_features: int, bias: bool = True, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__(0, 0, False)
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        self.out_features = out_features
        if bias:
            self.bias = UninitializedParameter(device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draw the weights anew, if they are there."""
        if self.in_features:
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor) -> None:     # type: ignore[override]
        """Take `in_features` from the input, and draw the weights if they have no shape yet."""
        if is_lazy(self.weight):
            self.in_features = input.shape[-1]
            self.weight.materialize((self.out_features, self.in_features))  # type: ignore
            if self.bias is not None:
                self.bias.materialize((self.out_features,))     # type: ignore[attr-defined]
            self.reset_parameters()
        self.in_features = self.weight.shape[-1]


class _LazyConv(_Lazy):
    """What the lazy convolutions share: everything but their arguments' order."""

    _d: int
    weight: Any
    bias: Any

    def _wait(self, out_channels: int, bias: bool, device: Any, dtype: Any) -> None:
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        self.out_channels = out_channels
        if bias:
            self.bias = UninitializedParameter(device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draw the weights anew, if they are there."""
        if self.in_channels:                        # type: ignore[has-type]
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor, *args: Any, **kwargs: Any) -> None:
        """Take `in_channels` from the input, and draw the weights if they have no shape yet."""
        d, me = self._d, type(self).__name__
        groups, transposed = self.groups, self.transposed       # type: ignore[attr-defined]
        if is_lazy(self.weight):
            if input.ndim not in (d + 1, d + 2):
                raise ShapeError(f"Expected {d + 1}D (unbatched) or {d + 2}D (batched) input to "
                                 f"{me}, but got input of size: {list(input.shape)}")
            self.in_channels = input.shape[-d - 1]
            for what, n in (("in_channels", self.in_channels),
                            ("out_channels", self.out_channels)):
                if n % groups:
                    raise ValueError(f"{what} must be divisible by groups")
            pair = (self.in_channels, self.out_channels // groups) if transposed else \
                (self.out_channels, self.in_channels // groups)
            self.weight.materialize((*pair, *self.kernel_size))     # type: ignore[attr-defined]
            if self.bias is not None:
                self.bias.materialize((self.out_channels,))
            self.reset_parameters()
        self.in_channels = self.weight.shape[0] if transposed else self.weight.shape[1] * groups


class _LazyPlain(_LazyConv):
    def __init__(self, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
                 dilation: Any = 1, groups: int = 1, bias: bool = True,
                 padding_mode: str = "zeros", device: Any = None, dtype: Any = None) -> None:
        super().__init__(0, 0, kernel_size, stride, padding, dilation, groups, False,
                         padding_mode, device, dtype)
        self._wait(out_channels, bias, device, dtype)


class _LazyTransposed(_LazyConv):
    def __init__(self, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
                 output_padding: Any = 0, groups: int = 1, bias: bool = True, dilation: Any = 1,
                 padding_mode: str = "zeros", device: Any = None, dtype: Any = None) -> None:
        super().__init__(0, 0, kernel_size, stride, padding, output_padding, groups, False,
                         dilation, padding_mode, device, dtype)
        self._wait(out_channels, bias, device, dtype)


class LazyConv1d(_LazyPlain, Conv1d):               # type: ignore[misc]
    """`Conv1d` whose `in_channels` are those of its first input."""


class LazyConv2d(_LazyPlain, Conv2d):               # type: ignore[misc]
    """`Conv2d` whose `in_channels` are those of its first input."""


class LazyConv3d(_LazyPlain, Conv3d):               # type: ignore[misc]
    """`Conv3d` whose `in_channels` are those of its first input."""


class LazyConvTranspose1d(_LazyTransposed, ConvTranspose1d):        # type: ignore[misc]
    """`ConvTranspose1d` whose `in_channels` are those of its first input."""


class LazyConvTranspose2d(_LazyTransposed, ConvTranspose2d):        # type: ignore[misc]
    """`ConvTranspose2d` whose `in_channels` are those of its first input."""


class LazyConvTranspose3d(_LazyTransposed, ConvTranspose3d):        # type: ignore[misc]
    """`ConvTranspose3d` whose `in_channels` are those of its first input."""


class _LazyNorm(_Lazy):
    """What the lazy normalisations share."""

    weight: Any
    bias: Any
    running_mean: Any
    running_var: Any
    num_features: int

    def __init__(self, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True, device: Any = None, dtype: Any = None, *,
                 bias: bool = True) -> None:
        super().__init__(0, eps, momentum, False, False, device, dtype, bias=False)
        self.affine = affine
        self.track_running_stats = track_running_stats
        if affine:
            self.weight = UninitializedParameter(device=device, dtype=dtype)
            if bias:
                self.bias = UninitializedParameter(device=device, dtype=dtype)
        if track_running_stats:
            from facula.dtype import int64
            self.running_mean = UninitializedBuffer(device=device, dtype=dtype)
            self.running_var = UninitializedBuffer(device=device, dtype=dtype)
            self.num_batches_tracked = zeros((), int64, device)

    def reset_parameters(self) -> None:
        """Set scale to ones, shift to zeros, and forget the statistics, if they are there."""
        if self.num_features:
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor) -> None:     # type: ignore[override]
        """Take `num_features` from the input's channels."""
        parts = (self.weight, self.bias, self.running_mean, self.running_var)
        lazy = [t for t in parts if is_lazy(t)]
        known = [t for t in parts if t is not None and not is_lazy(t)]
        self._check_input_dim(input)                # type: ignore[attr-defined]
        self.num_features = known[0].shape[0] if known else self._channels(input)
        for t in lazy:
            t.materialize((self.num_features,))
        if lazy:
            self.reset_parameters()

    def _channels(self, input: Tensor) -> int:
        return input.shape[1]


class LazyBatchNorm1d(_LazyNorm, BatchNorm1d):      # type: ignore[misc]
    """`BatchNorm1d` whose `num_features` are the channels of its first input."""


class LazyBatchNorm2d(_LazyNorm, BatchNorm2d):      # type: ignore[misc]
    """`BatchNorm2d` whose `num_features` are the channels of its first input."""


class LazyBatchNorm3d(_LazyNorm, BatchNorm3d):      # type: ignore[misc]
    """`BatchNorm3d` whose `num_features` are the channels of its first input."""


class _LazyInstanceNorm(_LazyNorm):
    _dims: tuple[int, ...]

    def _channels(self, input: Tensor) -> int:
        return input.shape[input.ndim - self._dims[0]]      # the batch may be missing


class LazyInstanceNorm1d(_LazyInstanceNorm, InstanceNorm1d):        # type: ignore[misc]
    """`InstanceNorm1d` whose `num_features` are the channels of its first input."""


class LazyInstanceNorm2d(_LazyInstanceNorm, InstanceNorm2d):        # type: ignore[misc]
    """`InstanceNorm2d` whose `num_features` are the channels of its first input."""


class LazyInstanceNorm3d(_LazyInstanceNorm, InstanceNorm3d):        # type: ignore[misc]
    """`InstanceNorm3d` whose `num_features` are the channels of its first input."""
