"""Which operations autocast on a CPU computes in which precision.

The names are those of the public operations; what they do is what PyTorch does on a CPU, which
tests/amp compares.  `LOWER` are computed in the dtype of the autocast, `FULL` in float32, and
`WIDEST` in the widest dtype of their operands.  What is in none of them takes its operands as
they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["LOWER", "FULL", "WIDEST", "kinds"]

LOWER = """
addbmm addmm baddbmm bmm chain_matmul einsum inner matmul mm tensordot
functional.affine_grid functional.conv1d functional.conv2d functional.conv3d
functional.conv_transpose1d functional.conv_transpose2d functional.conv_transpose3d
functional.conv_tbc functional.linear functional.prelu functional.scaled_dot_product_attention
linalg.matmul linalg.matrix_power linalg.multi_dot linalg.vecdot
""".split()

FULL = """
cdist cholesky cholesky_inverse cholesky_solve geqrf inverse lu nanquantile ormqr pinverse polar
prod qr quantile stft svd trace triangular_solve
fft.fft fft.fft2 fft.fftn fft.hfft fft.ifft fft.ifft2 fft.ifftn fft.ihfft fft.irfft fft.irfft2
fft.irfftn fft.rfft fft.rfft2 fft.rfftn
functional.adaptive_avg_pool3d functional.adaptive_max_pool3d functional.avg_pool3d
functional.binary_cross_entropy functional.binary_cross_entropy_with_logits
functional.cosine_embedding_loss functional.cross_entropy functional.ctc_loss
functional.grid_sample functional.hinge_embedding_loss functional.huber_loss functional.kl_div
functional.l1_loss functional.lp_pool3d functional.margin_ranking_loss functional.max_pool3d
functional.max_unpool1d functional.max_unpool2d functional.max_unpool3d functional.mse_loss
functional.multi_margin_loss functional.multilabel_margin_loss functional.nll_loss
functional.poisson_nll_loss functional.smooth_l1_loss functional.soft_margin_loss
functional.triplet_margin_loss
linalg.cholesky linalg.cond linalg.eig linalg.eigh linalg.eigvals linalg.eigvalsh
linalg.householder_product linalg.inv linalg.inv_ex linalg.lstsq linalg.matrix_rank linalg.qr
linalg.solve linalg.svd linalg.svdvals linalg.tensorinv linalg.tensorsolve
""".split()

WIDEST = "cat index_copy stack".split()

# What else is cast: parts of layers, and plain functions around a listed operation.
OTHERS = {
    "lower": ("facula.nn.functional.recurrent:lstm_cell",
              "facula.nn.functional.recurrent:gru_cell",
              "facula.nn.functional.recurrent:rnn_cell",
              "facula.nn.functional.recurrent:recurrent_layer",
              "facula.nn.functional.attention:_attention_shares",
              "facula.nn.functional.attention:_mixed",
              "facula.nn.functional.attention:scaled_dot_product_attention"),
    "full": ("facula.nn.functional.grid:grid_sample",),
}

_kinds: dict[Any, str] = {}


def kinds() -> dict[Any, str]:
    """The body of each listed operation: 'lower', 'full' or 'widest'."""
    if not _kinds:
        import importlib

        from facula.ops.define import OPS
        for module in ("facula.nn.functional", "facula.linalg", "facula.fft"):
            importlib.import_module(module)
        for kind, names in (("lower", LOWER), ("full", FULL), ("widest", WIDEST)):
            for name in names:
                for body in _bodies(OPS[name].fn):
                    _kinds[body] = kind
        for kind, paths in OTHERS.items():
            for path in paths:
                for body in _bodies(_named(path)):
                    _kinds[body] = kind
    return _kinds


def _named(path: str) -> Any:
    import importlib
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _bodies(fn: Any) -> Iterator[Callable[..., Any]]:
    """The bodies of the operations that a public function is, or hands its arguments to."""
    found = getattr(fn, "body", None)
    if found is not None:
        yield found
        return
    for cell in getattr(fn, "__closure__", None) or ():
        inner = cell.cell_contents
        if callable(inner) and hasattr(inner, "__code__"):
            yield from _bodies(inner)
