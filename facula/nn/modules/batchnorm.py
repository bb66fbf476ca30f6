"""Normalisation over the batch: BatchNorm and InstanceNorm of 1, 2 and 3 dimensions."""

from __future__ import annotations

from typing import Any

from facula.errors import ShapeError
from facula.nn import functional as F
from facula.nn import init
from facula.nn.modules.make import empty, ones, zeros
from facula.nn.modules.module import Module
from facula.nn.parameter import Parameter
from facula.tensor import Tensor

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm",
           "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"]


class _Norm(Module):
    """Scale, shift and running statistics of one number a channel."""

    _version = 2
    _dims: tuple[int, ...] = ()

    def __init__(self, num_features: int, eps: float, momentum: float | None, affine: bool,
                 track_running_stats: bool, device: Any, dtype: Any, bias: bool) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            self.register_parameter(name, Parameter(empty((num_features,), dtype, device))
                                    if wanted else None)
        if track_running_stats:
            from facula.dtype import int64
            self.register_buffer("running_mean", zeros((num_features,), dtype, device))
            self.register_buffer("running_var", ones((num_features,), dtype, device))
            self.register_buffer("num_batches_tracked", zeros((), int64, device))
        else:
            for name in ("running_mean", "running_var", "num_batches_tracked"):
                self.register_buffer(name, None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Forget the statistics gathered so far."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Set scale to ones, shift to zeros, and forget the statistics."""
        self.reset_running_stats()
        if self.affine:
            init.ones_(self.weight)
            if self.bias is not None:
                init.zeros_(self.bias)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim not in self._dims:
            want = " or ".join(f"{d}D" for d in self._dims)
            raise ShapeError(f"expected {want} input (got {input.ndim}D input)")

    def extra_repr(self) -> str:
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
                f"affine={self.affine}, bias={self.bias is not None}, "
                f"track_running_stats={self.track_running_stats}")

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any,
                              strict: bool, missing_keys: list[str], unexpected_keys: list[str],
                              error_msgs: list[str]) -> None:
        # Files of version 1 do not know how many batches were seen.
        key = prefix + "num_batches_tracked"
        if (local_metadata.get("version") or 1) < 2 and self.track_running_stats \
                and key not in state_dict:
            state_dict = {**state_dict, key: self.num_batches_tracked}
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys,
                                      unexpected_keys, error_msgs)

    def _explain(self, args: Any, kwargs: Any) -> tuple[str | None, str | None]:
        x = args[0] if args else kwargs.get("input")
        if not isinstance(x, Tensor):
            return None, None
        channels = f"{self.num_features} channels in dim 1"
        return f"got input of shape {list(x.shape)}, expects {channels}", None


class _BatchNorm(_Norm):
    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
                 affine: bool = True, track_running_stats: bool = True, device: Any = None,
                 dtype: Any = None, *, bias: bool = True) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype,
                         bias)

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        factor = 0.0 if self.momentum is None else self.momentum
        mean, var = self.running_mean, self.running_var
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:               # the plain average of all batches
                factor = 1.0 / float(self.num_batches_tracked.item())
        use_batch = self.training or (mean is None and var is None)
        keep = not self.training or self.track_running_stats
        return F.batch_norm(input, mean if keep else None, var if keep else None, self.weight,
                            self.bias, use_batch, factor, self.eps)


class BatchNorm1d(_BatchNorm):
    """Normalises each channel of `[N, C]` or `[N, C, L]` over the batch (Ioffe and Szegedy 2015).

    (x - mean) / sqrt(var + eps) * weight + bias, weight and bias `[C]` being learned (`affine`).
    In training mean and variance are the batch's, and running averages follow them, of which the
    new value has the weight `momentum` (None: all batches count alike); in evaluation they are
    the running averages.  ShapeError for an input of other dimensions.
    """

    _dims = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Normalises each channel of `[N, C, H, W]` over the batch; see `BatchNorm1d`."""

    _dims = (4,)


class BatchNorm3d(_BatchNorm):
    """Normalises each channel of `[N, C, D, H, W]` over the batch; see `BatchNorm1d`."""

    _dims = (5,)


class SyncBatchNorm(_BatchNorm):
    """`BatchNorm` over the batches of all processes, of which there is one.

    Takes `[N, C, *]` with any number of dimensions.
    """

    _dims = tuple(range(2, 64))

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
                 affine: bool = True, track_running_stats: bool = True, process_group: Any = None,
                 device: Any = None, dtype: Any = None, *, bias: bool = True) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype,
                         bias=bias)
        self.process_group = process_group

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: Any = None) -> Module:
        """The module with each of its `BatchNorm`s in the place of which is a `SyncBatchNorm`
        with its parameters, buffers and settings."""
        out = module
        if isinstance(module, _BatchNorm):
            out = cls(module.num_features, module.eps, module.momentum, module.affine,
                      module.track_running_stats, process_group)
            for table in ("_parameters", "_buffers"):
                getattr(out, table).update(getattr(module, table))
            out.training = module.training
        for name, child in module.named_children():
            out.add_module(name, cls.convert_sync_batchnorm(child, process_group))
        return out


class _InstanceNorm(_Norm):
    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1,
                 affine: bool = False, track_running_stats: bool = False, device: Any = None,
                 dtype: Any = None, *, bias: bool = True) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype,
                         bias)

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        alone = input.ndim == self._dims[0]         # without the batch dimension
        x = input.unsqueeze(0) if alone else input
        y = F.instance_norm(x, self.running_mean, self.running_var, self.weight, self.bias,
                            self.training or not self.track_running_stats,
                            self.momentum if self.momentum is not None else 0.0, self.eps)
        return y.squeeze(0) if alone else y


class InstanceNorm1d(_InstanceNorm):
    """Normalises each channel of each example of `[N, C, L]` or `[C, L]`."""

    _dims = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """Normalises each channel of each example of `[N, C, H, W]` or `[C, H, W]`."""

    _dims = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """Normalises each channel of each example of `[N, C, D, H, W]` or `[C, D, H, W]`."""

    _dims = (4, 5)
