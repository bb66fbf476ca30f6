"""Facula: a deep-learning framework in Python, with PyTorch's names and its own compiler.

`import facula as torch` and a program goes on working.  Operations are recorded, and computed
when a value is needed; whole steps are compiled to machine code.
"""

from __future__ import annotations

import importlib as _importlib
import math as _math
from typing import Any

from facula.dtype import (
    DType,
    bfloat16,
    bool_,
    complex64,
    complex128,
    float8_e4m3fn,
    float8_e4m3fnuz,
    float8_e5m2,
    float8_e5m2fnuz,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)
from facula.device import (
    channels_last,
    channels_last_3d,
    contiguous_format,
    device,
    layout,
    memory_format,
    preserve_format,
    sparse_coo,
    sparse_csr,
    strided,
)
from facula.errors import (
    BroadcastError,
    DataError,
    DTypeError,
    FaculaError,
    GradientError,
    ShapeError,
    StaleTensorError,
)
from facula.storage import Size
from facula.tensor import Tensor
from facula.graph import flush as _flush
from facula.ops import families as _families
from facula.ops.define import OPS as _OPS
from facula.ops.promote import (
    broadcast_shapes,
    can_cast,
    get_default_dtype,
    promote_types,
    result_type,
    set_default_dtype,
)
from facula.ops.convert import (
    clone,
    detach,
    fill,
    is_complex,
    is_conj,
    is_floating_point,
    is_nonzero,
    is_same_size,
    is_signed,
    is_tensor,
    numel,
    zero_,
)
from facula.ops.older import from_file, typename
from facula.ops.older import legacy as _legacy
from facula.ops.convert import is_conj as is_neg
from facula.ops.convert import resolve as resolve_conj
from facula.ops.convert import resolve as resolve_neg
from facula.ops.creation import (
    empty,
    empty_like,
    empty_permuted,
    empty_strided,
    full,
    full_like,
    ones,
    ones_like,
    zeros,
    zeros_like,
)
from facula.ops.from_data import (
    as_tensor,
    asarray,
    from_numpy,
    frombuffer,
    scalar_tensor,
    tensor,
)
from facula.ops.patterns import (
    arange,
    eye,
    linspace,
    logspace,
    range,
    tril_indices,
    triu_indices,
    vander,
)
from facula.ops.windows import (
    bartlett_window,
    blackman_window,
    hamming_window,
    hann_window,
    kaiser_window,
)
from facula.autograd import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from facula.info import finfo, iinfo
from facula.modes import (
    are_deterministic_algorithms_enabled,
    get_default_device,
    get_device_module,
    get_deterministic_debug_mode,
    get_float32_matmul_precision,
    get_num_interop_threads,
    is_deterministic_algorithms_warn_only_enabled,
    set_default_device,
    set_default_tensor_type,
    set_deterministic_debug_mode,
    set_float32_matmul_precision,
    set_num_interop_threads,
    use_deterministic_algorithms,
)
from facula.printing import get_printoptions, set_printoptions
from facula.random import (
    Generator,
    bernoulli,
    binomial,
    default_generator,
    get_rng_state,
    initial_seed,
    manual_seed,
    multinomial,
    normal,
    poisson,
    rand,
    rand_like,
    randint,
    randint_like,
    randn,
    randn_like,
    randperm,
    seed,
    set_rng_state,
)

from facula.version import __version__

float = float32
double = float64
half = float16
long = int64
int = int32
short = int16
bool = bool_
cfloat = complex64
cdouble = complex128
dtype = DType

pi = _math.pi
e = _math.e
inf = _math.inf
nan = _math.nan
newaxis = None

for _name, _record in _OPS.items():
    if "." not in _name:
        globals().setdefault(_name, _record.fn)
        if _record.inplace:
            globals().setdefault(f"{_name}_", getattr(Tensor, f"{_name}_"))

as_strided_, detach_, fill_ = Tensor.as_strided_, Tensor.detach_, Tensor.fill_
legacy_contiguous_format = contiguous_format
get_device, is_inference = Tensor.get_device, Tensor.is_inference

_LAZY = ("nn", "optim", "utils", "data", "vision", "viz", "testing", "export", "linalg", "fft",
         "special", "func", "cuda", "accelerator", "distributed", "backends", "serialization",
         "autograd", "hub", "amp", "multiprocessing", "onnx", "distributions", "curvature", "jit",
         "version", "profiler", "masked", "signal", "array_api", "types", "library", "xpu",
         "mps", "cpu", "_C", "_dynamo", "_higher_order_ops", "compiler", "ops", "fx",
         "return_types", "overrides")
"""Modules that are imported when somebody first names them."""

_FROM = {"save": "serialization", "load": "serialization", "compile": "compiler",
         "explain": "compiler", "UntypedStorage": "storage", "ScriptModule": "jit",
         "PyTorchFileReader": "_C",
         "get_num_threads": "runtime.threads", "set_num_threads": "runtime.threads",
         "from_dlpack": "ops.dlpack", "to_dlpack": "ops.dlpack",
         "autocast": "amp", "GradScaler": "amp", "vmap": "func",
         **dict.fromkeys(("is_autocast_enabled", "set_autocast_enabled", "get_autocast_dtype",
                          "set_autocast_dtype", "is_autocast_cpu_enabled",
                          "set_autocast_cpu_enabled", "get_autocast_cpu_dtype",
                          "set_autocast_cpu_dtype", "is_autocast_cache_enabled",
                          "set_autocast_cache_enabled", "clear_autocast_cache"),
                         "amp.autocast_mode"),
         **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle", "channel_shuffle",
                          "native_channel_shuffle"), "nn.functional.upsample"),
         **dict.fromkeys(("grid_sampler", "grid_sampler_2d", "grid_sampler_3d",
                          "affine_grid_generator"), "nn.functional.grid"),
         **dict.fromkeys(("relu", "relu_", "prelu", "celu", "celu_", "selu", "selu_", "rrelu",
                          "rrelu_", "hardshrink", "threshold", "threshold_"),
                         "nn.functional.activation"),
         **dict.fromkeys(("dropout", "alpha_dropout", "feature_alpha_dropout"),
                         "nn.functional.dropout"),
         **dict.fromkeys(("group_norm", "layer_norm", "rms_norm"), "nn.functional.norm"),
         **dict.fromkeys(("pairwise_distance", "cosine_similarity", "pdist"),
                         "nn.functional.distance"),
         **dict.fromkeys(("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
                          "conv_transpose3d"), "nn.functional.conv"),
         **dict.fromkeys(("adaptive_avg_pool1d", "avg_pool1d"), "nn.functional.pooling"),
         **dict.fromkeys(("adaptive_max_pool1d", "alpha_dropout_", "batch_norm",
                          "binary_cross_entropy_with_logits", "conv_tbc", "convolution",
                          "cosine_embedding_loss", "dropout_", "embedding",
                          "feature_alpha_dropout_", "feature_dropout", "feature_dropout_", "gru",
                          "gru_cell", "hinge_embedding_loss", "instance_norm", "kl_div", "lstm",
                          "lstm_cell", "margin_ranking_loss", "max_pool1d", "max_pool2d",
                          "max_pool3d", "poisson_nll_loss", "rnn_relu", "rnn_relu_cell",
                          "rnn_tanh", "rnn_tanh_cell", "triplet_margin_loss"),
                         "nn.functional.flat"),
         # Of the array API standard, what PyTorch has no function for.
         **dict.fromkeys(("__array_namespace_info__", "astype", "bitwise_invert",
                          "broadcast_arrays", "cumulative_prod", "cumulative_sum", "expand_dims",
                          "isdtype", "matrix_transpose", "permute_dims", "take_along_axis",
                          "unique_all", "unique_counts", "unique_inverse", "unique_values",
                          "unstack", "vecdot"), "array_api"),
         **dict.fromkeys(("SymInt", "SymFloat", "SymBool", "sym_float", "sym_int", "sym_ite",
                          "sym_max", "sym_min", "sym_not", "sym_sqrt", "sym_sum", "_assert",
                          "_assert_async", "_check", "_check_index", "_check_is_size",
                          "_check_not_implemented", "_check_tensor_all",
                          "_check_tensor_all_with", "_check_type", "_check_value", "_check_with",
                          "_shape_as_tensor"), "checks"),
         "bilinear": "nn.functional.linear",
         "ctc_loss": "nn.functional.ctc", "constant_pad_nd": "nn.functional.pad"}
"""Names that are imported from these modules when somebody first uses them."""


def __getattr__(name: str) -> Any:
    missing = AttributeError(f"module 'facula' has no attribute {name!r}")
    if name in _FROM or name in _LAZY:
        module = f"facula.{_FROM.get(name, name)}"
        try:
            found: Any = _importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            raise missing from None
        if name in _FROM:
            found = getattr(found, name)
    elif name.startswith("_foreach_"):
        from facula.ops import foreach
        found = foreach.find(name)
        if found is None:
            raise missing
    elif name.endswith("Tensor"):
        found = _legacy(name)
        if found is None:
            raise missing
    else:
        raise missing
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({n for n in globals() if not n.startswith("_")} | set(_LAZY) | set(_FROM))


from facula.compat import install as _install  # noqa: E402

_install()
del annotations
