"""FlexAttention: attention whose scores and mask a function of the positions decides.

Dong et al. 2024, "Flex Attention: A programming model for generating optimized attention kernels".
The functions are called once, with positions that broadcast over [B, H, L, S], and what they
record is part of the program; scores are computed for all positions.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any, NamedTuple

from facula.dtype import bool_
from facula.errors import ShapeError
from facula.nn.functional.pad import pad
from facula.ops.composite import where
from facula.ops.patterns import arange
from facula.tensor import Tensor

__all__ = ["BlockMask", "flex_attention", "create_block_mask", "create_mask", "and_masks",
           "or_masks", "noop_mask", "AuxRequest", "AuxOutput"]

Mask = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
Score = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]

_DEFAULT_SPARSE_BLOCK_SIZE = 128


class AuxRequest(NamedTuple):
    """What `flex_attention` is to return besides its result."""

    lse: bool = False
    max_scores: bool = False


class AuxOutput(NamedTuple):
    """What was asked for: each `[B, H, L]` or None."""

    lse: Tensor | None = None
    max_scores: Tensor | None = None


def noop_mask(batch: Tensor, head: Tensor, token_q: Tensor, token_kv: Tensor) -> Tensor:
    """True everywhere."""
    return batch.new_ones((), dtype=bool_)


def and_masks(*mask_mods: Mask) -> Mask:
    """The mask that is True where all are."""
    if not all([callable(m) for m in mask_mods]):
        raise RuntimeError(f"All inputs should be callable mask_mods: {mask_mods}")

    def both(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        out = b.new_ones((), dtype=bool_)
        for m in mask_mods:
            out = out & m(b, h, q, kv)
        return out
    return both


def or_masks(*mask_mods: Mask) -> Mask:
    """The mask that is True where any is."""
    if not all([callable(m) for m in mask_mods]):
        raise RuntimeError(f"All inputs should be callable mask_mods: {mask_mods}")

    def either(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        out = b.new_zeros((), dtype=bool_)
        for m in mask_mods:
            out = out | m(b, h, q, kv)
        return out
    return either


def _places(b: int, h: int, q: int, kv: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four positions, each along a dimension of its own."""
    return (arange(b).reshape(b, 1, 1, 1), arange(h).reshape(1, h, 1, 1),
            arange(q).reshape(1, 1, q, 1), arange(kv).reshape(1, 1, 1, kv))


def create_mask(mod_fn: Mask, B: int | None, H: int | None, Q_LEN: int, KV_LEN: int,
                device: Any = None) -> Tensor:
    """The mask as a bool tensor `[B, H, Q_LEN, KV_LEN]`; B and H are 1 where they are None."""
    shape = (1 if B is None else B, 1 if H is None else H, Q_LEN, KV_LEN)
    return mod_fn(*_places(*shape)).expand(shape)


class BlockMask:
    """A mask as a function, with the sizes it was made for.

    `seq_lengths` is (Q_LEN, KV_LEN), `shape` (B, H, Q_LEN, KV_LEN).
    """

    def __init__(self, mask_mod: Mask, shape: tuple[int, int, int, int],
                 BLOCK_SIZE: tuple[int, int]):
        self.mask_mod = mask_mod
        self.shape = shape
        self.seq_lengths = shape[2:]
        self.BLOCK_SIZE = BLOCK_SIZE

    def numel(self) -> int:
        """How many pairs of positions there are."""
        b, h, q, kv = self.shape
        return b * h * q * kv

    def to_dense(self) -> Tensor:
        """`[B, H, blocks of Q, blocks of KV]`: 1 where a block has any pair that is let through."""
        b, h, q, kv = self.shape
        high, wide = self.BLOCK_SIZE
        rows, columns = ceil(q / high), ceil(kv / wide)
        mask = create_mask(self.mask_mod, b, h, q, kv)
        mask = pad(mask, (0, columns * wide - kv, 0, rows * high - q))
        blocks = mask.reshape(b, h, rows, high, columns, wide)
        return blocks.any(5).any(3).int()

    def sparsity(self) -> float:
        """The percentage of blocks that nothing is let through in."""
        return 100 * (1 - self.to_dense().float().mean().item())

    def to(self, device: Any) -> BlockMask:
        """Itself; RuntimeError for a device that is not there."""
        from facula.device import check_device
        check_device(device)
        return self

    def __repr__(self) -> str:
        return f"BlockMask(shape={self.shape}, sparsity={self.sparsity():.2f}%)"


def create_block_mask(mask_mod: Mask, B: int | None, H: int | None, Q_LEN: int, KV_LEN: int,
                      device: Any = None,
                      BLOCK_SIZE: int | tuple[int, int] = _DEFAULT_SPARSE_BLOCK_SIZE,
                      _compile: bool = False, **kwargs: Any) -> BlockMask:
    """A `BlockMask` of `mask_mod(batch, head, q, kv)`, True where a query may see a key.

    B and H are None where the mask is the same for all.
    """
    size = (BLOCK_SIZE, BLOCK_SIZE) if isinstance(BLOCK_SIZE, int) else BLOCK_SIZE
    return BlockMask(mask_mod, (1 if B is None else B, 1 if H is None else H, Q_LEN, KV_LEN),
                     size)


def flex_attention(query: Tensor, key: Tensor, value: Tensor, score_mod: Score | None = None,
                   block_mask: BlockMask | None = None, scale: float | None = None,
                   enable_gqa: bool = False, return_lse: bool = False,
                   kernel_options: Any = None, *, return_aux: AuxRequest | None = None) -> Any:
    """softmax of `score_mod(q k^T * scale, b, h, q, kv)` where the mask is True, times `value`.

    query `[B, Hq, L, E]`, key `[B, Hkv, S, E]`, value `[B, Hkv, S, Ev]`; the result is
    `[B, Hq, L, Ev]`, zero for a query that may see no key.  With `enable_gqa` Hq is a multiple of
    Hkv.  `return_lse` adds the log of the softmax's denominator, `[B, Hq, L]`; `return_aux` an
    `AuxOutput` of what it asks for.  ShapeError (a ValueError) where shapes do not fit.
    """
    if query.ndim != 4 or key.ndim != 4 or value.ndim != 4:
        raise ShapeError("flex_attention: query, key and value have to be 4D, not of shape "
                         f"{tuple(query.shape)}, {tuple(key.shape)}, {tuple(value.shape)}")
    b, heads, length, width = query.shape
    if heads != key.shape[1]:
        if not enable_gqa or heads % key.shape[1]:
            raise ShapeError(f"flex_attention: {heads} heads of queries and {key.shape[1]} of keys"
                             "; with enable_gqa=True the first has to be a multiple of the second")
        times = heads // key.shape[1]
        key, value = (t.repeat_interleave(times, 1) for t in (key, value))
    if key.shape[2] != value.shape[2]:
        raise ShapeError(f"flex_attention: {key.shape[2]} keys and {value.shape[2]} values")
    if block_mask is not None:
        high, wide = block_mask.seq_lengths
        if length > high or key.shape[2] > wide:
            raise ShapeError(
                f"flex_attention: the block_mask was made for {high} queries and {wide} keys, "
                f"and there are {length} and {key.shape[2]}: make it anew")
    factor = width ** -0.5 if scale is None else scale
    dtype = query.dtype
    scores = (query @ key.transpose(-2, -1)).float() * factor if dtype.itemsize < 4 \
        else (query @ key.transpose(-2, -1)) * factor
    places = _places(b, heads, length, key.shape[2])
    if score_mod is not None:
        scores = score_mod(scores, *places).to(scores.dtype)
    if block_mask is not None:
        allowed = block_mask.mask_mod(*places)
        scores = where(allowed, scores, -float("inf"))
    top = scores.detach().amax(-1, keepdim=True)
    top = where(top == -float("inf"), 0.0, top)
    weights = (scores - top).exp()
    total = weights.sum(-1, keepdim=True)
    shares = weights / where(total == 0, 1.0, total)
    out = shares.to(dtype) @ value
    if not return_lse and return_aux is None:
        return out
    lse = total.squeeze(-1).log() + top.squeeze(-1)
    if return_aux is None:
        return out, lse
    return out, AuxOutput(lse if return_aux.lse else None,
                          scores.amax(-1) if return_aux.max_scores else None)
