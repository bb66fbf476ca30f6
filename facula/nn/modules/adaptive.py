"""Adaptive softmax: frequent classes cheaply, rare ones in clusters of fewer features.

Grave et al., "Efficient softmax approximation for GPUs" (2016).
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from typing import Any

from facula.errors import ShapeError
from facula.nn import functional as F
from facula.nn.modules.container import ModuleList, Sequential
from facula.nn.modules.linear import Linear
from facula.nn.modules.module import Module
from facula.tensor import Tensor

__all__ = ["AdaptiveLogSoftmaxWithLoss"]

ASMOutput = namedtuple("ASMOutput", ["output", "loss"])


class AdaptiveLogSoftmaxWithLoss(Module):
    """Log-probabilities of targets among `n_classes` that are numbered by falling frequency.

    cutoffs    where clusters begin: [10, 100] has classes 0-9 in the head, and clusters of
               10-99 and of the rest
    div_value  each cluster's features are those of the one before it divided by this

    Input `[N, in_features]` or `[in_features]`, target `[N]` or `[]`: a named tuple of the
    targets' log-probabilities (`output`) and their negative mean (`loss`).  Every cluster is
    computed for every row, so that a step's shapes do not depend on its targets.  Raises
    IndexError, when the values are computed, for a target that is no class.
    """

    def __init__(self, in_features: int, n_classes: int, cutoffs: Sequence[int],
                 div_value: float = 4.0, head_bias: bool = False, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__()
        ends = list(cutoffs)
        if not ends:
            raise ValueError("cutoffs should be a sequence of length larger than 0")
        if ends != sorted(set(ends)) or ends[0] <= 0 or ends[-1] > n_classes - 1 \
                or any(int(c) != c for c in ends):
            raise ValueError("cutoffs should be a sequence of unique, positive integers sorted in "
                             "an increasing order, where each value is between 1 and n_classes-1, "
                             f"and is {cutoffs} for {n_classes} classes")
        self.in_features = in_features
        self.n_classes = n_classes
        self.cutoffs = [*ends, n_classes]
        self.div_value = div_value
        self.head_bias = head_bias
        self.shortlist_size = ends[0]
        self.n_clusters = len(ends)
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, head_bias, device, dtype)
        self.tail = ModuleList()
        for k, (low, high) in enumerate(self._clusters()):
            size = int(in_features // div_value ** (k + 1))
            self.tail.append(Sequential(Linear(in_features, size, False, device, dtype),
                                        Linear(size, high - low, False, device, dtype)))

    def _clusters(self) -> list[tuple[int, int]]:
        return list(zip(self.cutoffs, self.cutoffs[1:]))

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        self.head.reset_parameters()
        for cluster in self.tail:
            for layer in cluster:
                layer.reset_parameters()

    def _head(self, input: Tensor) -> Any:
        return F.log_softmax(self.head(input), dim=1)

    def forward(self, input_: Tensor, target_: Tensor) -> ASMOutput:
        import facula
        x: Any = input_
        t: Any = target_
        if t.ndim > 1:
            raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
        if x.ndim != t.ndim + 1:
            raise RuntimeError(f"{t.ndim}D target tensor expects {t.ndim + 1}D input tensors, but "
                               f"found inputs with size {list(x.shape)}")
        if t.ndim and x.shape[0] != t.shape[0]:
            raise ShapeError("Input and target should have the same size in the batch dimension, "
                             f"and have {x.shape[0]} and {t.shape[0]}.")
        single = not t.ndim
        if single:
            x, t = x.unsqueeze(0), t.unsqueeze(0)
        t = facula.arange(self.n_classes).index_select(0, t.long())     # raises out of range
        entry = t.clamp(max=self.shortlist_size - 1)
        output: Any = 0.0
        for k, (low, high) in enumerate(self._clusters()):
            inside = (t >= low) & (t < high)
            logp = F.log_softmax(self.tail[k](x), dim=1)
            mine = logp.gather(1, (t - low).clamp(0, high - low - 1).unsqueeze(1)).squeeze(1)
            output = output + facula.where(inside, mine, facula.zeros_like(mine))
            entry = facula.where(inside, self.shortlist_size + k, entry)
        output = output + self._head(x).gather(1, entry.unsqueeze(1)).squeeze(1)
        loss = -output.mean()
        return ASMOutput(output.squeeze(0) if single else output, loss)

    def log_prob(self, input: Tensor) -> Any:
        """The log-probabilities of all classes, `[N, n_classes]`, of inputs `[N, in_features]`."""
        import facula
        head = self._head(input)
        parts = [head[:, :self.shortlist_size]]
        for k in range(self.n_clusters):
            at = self.shortlist_size + k
            parts.append(F.log_softmax(self.tail[k](input), dim=1) + head[:, at:at + 1])
        return facula.cat(parts, 1)

    def predict(self, input: Tensor) -> Any:
        """The likeliest class of each row, `[N]` int64."""
        return self.log_prob(input).argmax(1)
