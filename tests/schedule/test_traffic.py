"""What is kept in memory between forward and backward, and what is computed again."""

from __future__ import annotations

import numpy as np

import facula
import facula.nn.functional as F
from facula.graph.spec import Step, spec
from facula.groups.index import row_major
from facula.schedule.places import Places
from facula.schedule.roots import choose_roots


def leaf(*shape: int) -> Step:
    return Step("leaf", (None,), (), spec(shape, facula.float32), 0, None)


def step(op: str, inputs: tuple[int, ...], *shape: int) -> Step:
    return Step(op, (), inputs, spec(shape, facula.float32), 0, None)


def test_a_residual_sum_is_written_and_not_its_terms() -> None:
    n = 512
    steps = [leaf(n, n), leaf(n, n)]
    sums, last = [], 0
    for _ in range(3):          # x += x @ w, again and again
        steps.append(step("matmul", (last, 1), n, n))
        steps.append(step("add", (last, len(steps) - 1), n, n))
        last = len(steps) - 1
        sums.append(last)
    steps.append(step("matmul", (last, 1), n, n))
    roots = choose_roots(steps, [len(steps) - 1])
    assert set(sums) <= roots
    made = Places(steps, [len(steps) - 1], {})
    products = {s.inputs[1] for s in (steps[n] for n in sums)}
    assert not products & set(made.places)


def test_a_cheap_chain_is_computed_again_behind_a_product() -> None:
    for n, kept in ((16, True), (2048, False)):
        steps = [leaf(n, n), leaf(n, n), step("matmul", (0, 1), n, n), step("tanh", (2,), n, n),
                 step("mul", (2, 3), n, n), step("matmul", (4, 1), n, n),
                 step("sub", (5, 3), n, n)]
        assert (3 in choose_roots(steps, [5, 6])) == kept


def test_rows_that_would_crowd_lie_a_line_further_apart() -> None:
    steps = [leaf(256, 64), leaf(64, 512), leaf(512, 128), step("matmul", (0, 1), 256, 512),
             step("exp", (3,), 256, 512), step("matmul", (4, 2), 256, 128)]
    made = Places(steps, [5], {})
    assert made.places[4].strides == (528, 1)
    assert made.temporaries[made.places[4].slot] == 256 * 528 * 4
    assert made.places[5].strides == row_major((256, 128))      # an output lies as users see it


def test_the_step_of_a_deep_residual_net_is_right() -> None:
    rng = np.random.default_rng(0)
    x = facula.tensor(rng.normal(0, 1, (257, 512)).astype(np.float32))
    weights = [facula.tensor(rng.normal(0, 0.04, s).astype(np.float32), requires_grad=True)
               for s in ((1024, 512), (512, 1024)) * 2]

    def loss_of(*w: facula.Tensor) -> facula.Tensor:
        h = x
        for k in range(0, len(w), 2):
            h = h + F.gelu(h @ w[k].t(), approximate="tanh") @ w[k + 1].t()
        return (h * h).mean()

    def gradients() -> list[np.ndarray]:
        return [g.numpy().copy() for g in facula.autograd.grad(loss_of(*weights), weights)]

    single = gradients()
    double = [w.detach().double().requires_grad_() for w in weights]
    x = x.double()
    exact = [g.numpy() for g in facula.autograd.grad(loss_of(*double), double)]
    for mine, right in zip(single, exact, strict=True):
        np.testing.assert_allclose(mine, right, rtol=1e-3, atol=1e-4 * np.abs(right).max())
