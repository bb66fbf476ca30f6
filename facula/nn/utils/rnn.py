"""Sequences of different lengths in one tensor: padded, and packed without the padding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from facula.tensor import Tensor

__all__ = ["PackedSequence", "invert_permutation", "pack_padded_sequence",
           "pad_packed_sequence", "pad_sequence", "unpad_sequence", "pack_sequence",
           "unpack_sequence"]


class _Packed(NamedTuple):
    data: Any
    batch_sizes: Any
    sorted_indices: Any
    unsorted_indices: Any


class PackedSequence(_Packed):
    """The steps of several sequences, one step after the other, without padding.

    data              `[sum of lengths, *]`: step 0 of all sequences, then step 1, and so on
    batch_sizes       how many sequences have a step t
    sorted_indices    the order, by falling length, in which the sequences were packed, or None
    unsorted_indices  the way back from it
    """

    def __new__(cls, data: Any, batch_sizes: Any = None, sorted_indices: Any = None,
                unsorted_indices: Any = None) -> PackedSequence:
        if batch_sizes is None:
            if not (isinstance(data, (list, tuple)) and len(data) == 2):
                raise AssertionError("Expected data to be a list or tuple of length 2")
            data, batch_sizes = data
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """The same with `data.to(...)`."""
        data = self.data.to(*args, **kwargs)
        return self if data is self.data else type(self)(data, *self[1:])

    def double(self) -> PackedSequence:
        """The same in float64."""
        import facula
        return self.to(facula.float64)

    def float(self) -> PackedSequence:
        """The same in float32."""
        import facula
        return self.to(facula.float32)

    def half(self) -> PackedSequence:
        """The same in float16."""
        import facula
        return self.to(facula.float16)

    def cpu(self) -> PackedSequence:
        """The same: facula's tensors are on the CPU."""
        return self


def _integers(values: Any) -> Any:
    import facula
    return facula.tensor(np.asarray(values, np.int64))      # type: ignore[operator]


def invert_permutation(permutation: Any) -> Any:
    """The permutation that undoes `permutation`; None for None."""
    return None if permutation is None else _integers(np.argsort(permutation.numpy()))


def _places(lengths: Any) -> tuple[Any, Any]:
    """(step, sequence) of every packed row, for lengths in falling order."""
    steps, which = np.nonzero(np.arange(int(lengths[0]))[:, None] < lengths[None, :])
    return steps, which


def pack_padded_sequence(input: Tensor, lengths: Any, batch_first: bool = False,
                         enforce_sorted: bool = True) -> PackedSequence:
    """Padded sequences `[T, N, *]` (`[N, T, *]` with `batch_first`) without their padding.

    `lengths` must fall unless `enforce_sorted` is False, which sorts.  RuntimeError where they do
    not, where one is not positive or too long, or where there are not N.
    """
    x: Any = input
    counts = np.asarray(lengths.numpy() if isinstance(lengths, Tensor) else list(lengths),
                        np.int64)
    if batch_first:
        x = x.transpose(0, 1)
    order = None
    if not enforce_sorted:
        perm = np.argsort(-counts, kind="stable")
        counts, order = counts[perm], _integers(perm)
        x = x.index_select(1, order)
    if x.numel() == 0:
        raise RuntimeError("Cannot pack empty tensors.")
    steps, n = x.shape[:2]
    if counts.ndim != 1 or len(counts) != n:
        raise RuntimeError(f"Expected `len(lengths)` to be equal to batch_size, but got "
                           f"{counts.size} (batch_size={n})")
    if (counts[1:] > counts[:-1]).any():
        raise RuntimeError("`lengths` array must be sorted in decreasing order when "
                           "`enforce_sorted` is True. You can pass `enforce_sorted=False` to "
                           "pack_padded_sequence and/or pack_sequence to sidestep this requirement "
                           "if you do not need ONNX exportability.")
    if counts[-1] <= 0:
        raise RuntimeError("Length of all samples has to be greater than 0, but found an element "
                           "in 'lengths' that is <= 0")
    if counts[0] > steps:
        raise RuntimeError(f"Expected lengths of at most {steps}, but got {int(counts[0])}")
    step, which = _places(counts)
    data = x.reshape(steps * n, *x.shape[2:]).index_select(0, _integers(step * n + which))
    return PackedSequence(data, _integers(np.bincount(step)), order)


def pad_packed_sequence(sequence: PackedSequence, batch_first: bool = False,
                        padding_value: float = 0.0, total_length: int | None = None
                        ) -> tuple[Any, Any]:
    """The sequences padded to one length, and their lengths: undoes `pack_padded_sequence`.

    ValueError if `total_length` is below the longest.
    """
    import facula
    sizes = sequence.batch_sizes.numpy()
    steps, n = len(sizes), int(sizes[0])
    if total_length is not None:
        if total_length < steps:
            raise ValueError("Expected total_length to be at least the length of the longest "
                             f"sequence in input, but got total_length={total_length} and max "
                             f"sequence length being {steps}")
        steps = total_length
    lengths = (sizes[:, None] > np.arange(n)[None, :]).sum(0)
    data = sequence.data
    index = np.full((steps, n), len(data), np.int64)        # the row after the last is padding
    index[_places(lengths)] = np.arange(len(data))
    blank = facula.full((1, *data.shape[1:]), padding_value, dtype=data.dtype)
    rows = facula.cat([data, blank])                        # type: ignore[attr-defined]
    out = rows.index_select(0, _integers(index.reshape(-1))).reshape(steps, n, *data.shape[1:])
    if sequence.unsorted_indices is not None:
        out = out.index_select(1, sequence.unsorted_indices)
        lengths = lengths[sequence.unsorted_indices.numpy()]
    return (out.transpose(0, 1) if batch_first else out), _integers(lengths)


def pad_sequence(sequences: Any, batch_first: bool = False, padding_value: float = 0.0,
                 padding_side: str = "right") -> Any:
    """Sequences `[L, *]` of different lengths stacked as `[T, N, *]`, or `[N, T, *]`."""
    import facula
    from facula.nn.functional.pad import pad
    if not isinstance(sequences, Iterable):
        raise RuntimeError("pad_sequence: Expected iterable for input sequences, but got arg of "
                           f"type: {type(sequences)}")
    if padding_side not in ("left", "right"):
        raise RuntimeError("Expected padding_side to be one of left or right, but got "
                           f"{padding_side}.")
    parts: list[Any] = list(sequences)
    if not parts:
        raise RuntimeError("received an empty list of sequences")
    longest = max(int(s.shape[0]) for s in parts)
    padded = []
    for s in parts:
        missing = longest - int(s.shape[0])
        ends = (missing, 0) if padding_side == "left" else (0, missing)
        padded.append(pad(s, (0, 0) * (s.ndim - 1) + ends, value=padding_value))
    return facula.stack(padded, 0 if batch_first else 1)    # type: ignore[attr-defined]


def unpad_sequence(padded_sequences: Any, lengths: Any, batch_first: bool = False) -> list[Any]:
    """The sequences of a padded tensor, each in its own length: undoes `pad_sequence`."""
    x = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    return [x[k, :int(n)] for k, n in enumerate(lengths)]


def pack_sequence(sequences: Sequence[Any], enforce_sorted: bool = True) -> PackedSequence:
    """Sequences `[L, *]`, of falling length unless `enforce_sorted` is False, packed."""
    return pack_padded_sequence(pad_sequence(sequences), [int(s.shape[0]) for s in sequences],
                                enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Any]:
    """The sequences of a packed tensor: undoes `pack_sequence`."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths.numpy(), batch_first=True)
