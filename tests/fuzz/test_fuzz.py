"""Random graphs: interpreted, compiled, in NumPy, and in PyTorch where it is installed."""

from __future__ import annotations

from typing import Any

import pytest

from facula import config
from tests.fuzz.generate import generate
from tests.fuzz.graphs import failure, meaning, script, shrink

FAST, SLOW, CHUNK = 100, 3000, 100


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        return None
    return torch


def fuzz(seeds: range, length: int | None = None, **how: Any) -> None:
    """Check the graphs of these seeds; what is wrong with the first bad one, as a program."""
    for seed in seeds:
        graph = generate(seed, length)
        found = failure(graph, **how)
        if found is not None:
            small = shrink(graph, found, **how)
            found = failure(small, **how) or found
            pytest.fail(f"seed {seed}: {type(found).__name__}: {found}\n\n{script(small)}\n")


@pytest.mark.parametrize("first", range(0, FAST, 20))
def test_random_graphs(first: int) -> None:
    fuzz(range(first, first + 20))


def test_random_graphs_against_pytorch() -> None:
    torch = pytest.importorskip("torch")
    fuzz(range(5000, 5150), torch=torch, who=("interpreted",))


def test_long_graphs() -> None:
    fuzz(range(900, 902), 200)
    fuzz(range(902, 910), 200, who=("interpreted",))


def test_a_seed_is_a_graph() -> None:
    for seed in range(20):
        a, b = generate(seed), generate(seed)
        assert a == b and meaning(a).keys() == meaning(b).keys()


def test_graphs_contain_what_they_are_for() -> None:
    """Writes through views, gradients, flushes and every operation do occur."""
    text = "\n".join(line.code for seed in range(400) for line in generate(seed).lines)
    for wanted in ("] = v", "] += v", ".copy_(", "index_add_", "masked_fill_", ".permute(",
                   ".as_strided(", ".expand(", "F.where(", "F.cat(", ".gather(", "scatter_add(",
                   "bfloat16", "complex64", ".tolist()", "held.append", " @ ", ".cumsum(",
                   ".argmax(", "functional.pad", ".view(", ".unbind(", ".detach()", ".real"):
        assert wanted in text, wanted
    assert any(leaf[3] for seed in range(20) for leaf in generate(seed).leaves.values())
    assert any(0 in leaf[1] for seed in range(100) for leaf in generate(seed).leaves.values())


def test_a_wrong_answer_is_noticed_and_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    from facula.ops.table import PRIMS
    record = PRIMS["mul"]
    wrong = type(record)(**{**record.__dict__,
                            "numpy": lambda a, attrs, out: record.numpy(a, attrs, out) + 1})
    monkeypatch.setitem(PRIMS, "mul", wrong)
    how = {"who": ("interpreted",)}
    for seed in range(50):
        graph = generate(seed)
        found = failure(graph, **how)
        if found is not None:
            small = shrink(graph, found, **how)
            assert len(small.lines) <= 4 and failure(small, **how) is not None
            assert "import facula" in script(small)
            return
    pytest.fail("no graph noticed that multiplication is wrong")


@pytest.mark.slow
@pytest.mark.parametrize("first", range(20_000, 20_000 + SLOW, CHUNK))
def test_many_random_graphs(first: int) -> None:
    with config.override(CACHE=False):
        fuzz(range(first, first + CHUNK), torch=_torch())
