"""Random programs of what is put together, rearranged and multiplied, against the interpreter."""

from __future__ import annotations

import random
from math import prod

import numpy as np
import pytest

import facula
from facula.config import override
from tests.schedule.programs import Build

LARGEST = 40_000


class Program:
    """A random program: values of few shapes, made of one another."""

    def __init__(self, seed: int):
        self.rng, self.numbers = random.Random(seed), np.random.default_rng(seed)
        self.b = Build()
        pick = self.rng.choice
        shape = [4, pick([12, 16]), 48] if self.rng.random() < 0.6 else \
            [pick([2, 3, 4, 8]), pick([2, 3, 4, 8]), pick([8, 16, 32])]
        self.values = [self.leaf(shape) for _ in range(3)]
        for _ in range(self.rng.randint(6, 22)):
            kind = pick(["unary", "binary", "cat", "cat", "permute", "reshape", "slice", "matmul",
                         "matmul", "total", "windows"])
            made = getattr(self, kind)(pick(self.values[-10:]))
            if made is not None and prod(self.shape(made)) <= LARGEST:
                self.values.append(made)

    def leaf(self, shape: list[int]) -> int:
        return self.b.leaf((0.5 * self.numbers.normal(size=shape)).astype(np.float32))

    def shape(self, i: int) -> tuple[int, ...]:
        return self.b.steps[i].spec.shape

    def scaled(self, i: int) -> int:
        return self.b.op("mul", i, self.b.op("full", attrs=(0.1,), shape=self.shape(i)))

    def unary(self, i: int) -> int:
        return self.b.op("tanh", i)

    def binary(self, i: int) -> int:
        like = [j for j in self.values if self.shape(j) == self.shape(i)]
        return self.b.op(self.rng.choice(["add", "mul"]), i, self.rng.choice(like))

    def cat(self, i: int) -> int | None:
        axis, shape = self.rng.randrange(len(self.shape(i))), self.shape(i)
        fit = [j for j in self.values if len(self.shape(j)) == len(shape) and all(
            a == b for d, (a, b) in enumerate(zip(self.shape(j), shape, strict=True))
            if d != axis)]
        parts = [self.rng.choice(fit) for _ in range(self.rng.randint(2, 4))]
        if sum(prod(self.shape(j)) for j in parts) > LARGEST:
            return None
        return self.b.op("cat", *parts, attrs=(axis,))

    def permute(self, i: int) -> int:
        order = list(range(len(self.shape(i))))
        self.rng.shuffle(order)
        return self.b.op("permute", i, attrs=(tuple(order),))

    def reshape(self, i: int) -> int:
        n = prod(self.shape(i))
        first = self.rng.choice([d for d in range(1, 65) if n % d == 0])
        rest = n // first
        second = self.rng.choice([d for d in range(1, 65) if rest % d == 0])
        shape = [first, rest] if self.rng.random() < 0.4 else [first, second, rest // second]
        return self.b.op("reshape", i, shape=tuple(shape))

    def slice(self, i: int) -> int:
        shape = self.shape(i)
        axis = self.rng.randrange(len(shape))
        start = self.rng.randrange(shape[axis])
        return self.part(i, axis, start, self.rng.randint(1, shape[axis] - start))

    def part(self, i: int, axis: int, start: int, n: int) -> int:
        shape = self.shape(i)
        starts = tuple(start if d == axis else 0 for d in range(len(shape)))
        return self.b.op("slice", i, attrs=(starts, (1,) * len(shape)),
                         shape=(*shape[:axis], n, *shape[axis + 1:]))

    def matmul(self, i: int) -> int | None:
        shape = self.shape(i)
        j = self.rng.choice([j for j in self.values if self.shape(j)[:-2] == shape[:-2]
                             and len(self.shape(j)) == len(shape)])
        swap = (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
        if self.shape(j)[-1] == shape[-1]:
            if shape[-2] * prod(self.shape(j)[:-1]) > LARGEST:
                return None
            return self.scaled(self.b.op("matmul", i, self.b.op("permute", j, attrs=(swap,))))
        if self.shape(j)[-2] == shape[-2]:
            return self.unary(self.b.op("matmul", self.b.op("permute", i, attrs=(swap,)), j))
        return None

    def total(self, i: int) -> int | None:
        if len(self.shape(i)) < 3:
            return None
        axis = self.rng.randrange(len(self.shape(i)))
        return self.scaled(self.b.op("sum", i, attrs=((axis,),)))

    def windows(self, i: int) -> int | None:
        """A sum of zeros with a part written into each."""
        shape = self.shape(i)
        axis = self.rng.randrange(len(shape))
        cuts: list[tuple[int, int]] = []
        while sum(n for _, n in cuts) < shape[axis]:
            start = sum(n for _, n in cuts)
            cuts.append((start, self.rng.randint(1, shape[axis] - start)))
        if not 2 <= len(cuts) <= 5:
            return None
        self.rng.shuffle(cuts)
        total = None
        for start, n in cuts:
            starts = tuple(start if d == axis else 0 for d in range(len(shape)))
            piece = self.b.op("tanh", self.part(i, axis, start, n))
            zeros = self.b.op("full", attrs=(0.0,), shape=shape)
            written = self.b.op("slice_update", zeros, piece, attrs=(starts, (1,) * len(shape)))
            total = written if total is None else self.b.op("add", total, written)
        return total

    def check(self) -> None:
        steps, rng = self.b.steps, self.rng
        made = [v for v in self.values if steps[v].op != "leaf"]
        outputs = list(dict.fromkeys([made[-1], *rng.sample(made, min(len(made), 3))]))
        donations: dict[int, int] = {}
        if rng.random() < 0.4:
            for o in outputs:
                for leaf, step in enumerate(steps):
                    if step.op == "leaf" and step.spec is steps[o].spec \
                            and leaf not in donations.values():
                        donations[o] = leaf
                        break
        self.b.check(*outputs, donations=donations)


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_random_programs(first: int) -> None:
    for seed in range(first, first + 10):
        Program(seed).check()


@pytest.mark.slow
@pytest.mark.parametrize("first", range(100, 400, 100))
def test_more_random_programs(first: int) -> None:
    for seed in range(first, first + 100):
        Program(seed).check()


def _cats(x, y):
    both = facula.cat([x * 2, y + 1])
    wide = facula.cat([x, y], 1)
    z = x * 3
    return [both, wide, both.T.contiguous(), facula.stack([x * 2, y], -1), z,
            facula.cat([z, y, z]), facula.cat([facula.cat([x + 1, y + 2], 1), wide]),
            x.repeat(2, 3), x.roll(5, -1), (x * 2).expand(3, 64, 96).reshape(192, 96)]


def test_parts_of_outputs_are_computed_in_their_places():
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((64, 96)).astype(np.float32) for _ in range(2)]
    with override(INTERPRET=False):
        together = [t.numpy() for t in _cats(*map(facula.tensor, arrays))]
        one = facula.cat([facula.tensor(a) * 2 for a in arrays])
        assert np.array_equal(one.numpy(), np.concatenate([a * 2 for a in arrays]))
    with override(JIT=False):
        # with another program behind it, which has not been met
        want = [t.numpy() for t in [*_cats(*map(facula.tensor, arrays)), facula.ones(1)][:-1]]
    for have, right in zip(together, want, strict=True):
        assert np.array_equal(have, right)


def test_a_concatenation_over_what_it_reads():
    x = np.random.default_rng(0).standard_normal((64, 96)).astype(np.float32)
    for _ in range(4):
        z = facula.tensor(x) * 1
        z._peek()
        z[:] = facula.cat([z[1:] * 2, z[:1]])
        assert np.array_equal(z.numpy(), np.concatenate([x[1:] * 2, x[:1]]))


def test_a_product_over_what_it_is_written_to():
    """A result that takes a leaf's place, and is read again by what is computed with it."""
    a = np.array([[-1.75, 1.5, 2.5], [1.75, 1.5, 1.0], [0.5, 2.5, 2.5]], np.float32)
    which = np.array([[1, 1, 2], [1, 0, 0], [0, 1, 2]])
    with override(INTERPRET=False):
        x = facula.tensor(a)
        numbers = facula.tensor([[4, 1, -4], [-5, 3, 0], [0, 4, 5]])
        turned = x.t()
        picked = x.gather(0, numbers % 3)
        y = turned @ picked
        seen = turned[:, ...]
        x[:, ...] = y
        y += y
        want = a.T @ np.take_along_axis(a, which, 0)
        assert np.array_equal(seen.numpy(), want.T)
        assert np.array_equal(y.numpy(), 2 * want)
