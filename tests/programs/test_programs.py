"""Programs written for PyTorch run as they are, and train to the same losses, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import facula
from tests.programs import other_programs, vision_programs

pytestmark = pytest.mark.slow

STEPS = 5
PROGRAMS = [
    vision_programs.resnet, vision_programs.dcgan, vision_programs.capsules, vision_programs.unet,
    vision_programs.autoencoder, other_programs.gpt, other_programs.packed_lstm,
    other_programs.deep_q, other_programs.graph_convolution, other_programs.gradient_penalty,
    other_programs.differential_equation, other_programs.straight_through,
    other_programs.echo_state,
]


def train(program: Any, torch: Any, weights: dict[str, np.ndarray] | None
          ) -> tuple[dict[str, np.ndarray], list[float]]:
    """The initial weights and the losses of a few steps."""
    torch.manual_seed(0)
    model, step = program(torch, np.random.default_rng(1))
    if weights is None:
        weights = {k: v.detach().clone().numpy() for k, v in model.state_dict().items()}
    else:
        model.load_state_dict({k: torch.tensor(v) for k, v in weights.items()})
    return weights, [step() for _ in range(STEPS)]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_a_program_trains(program: Any) -> None:
    weights, losses = train(program, facula, None)
    assert np.isfinite(losses).all()
    torch = pytest.importorskip("torch")
    _, expected = train(program, torch, weights)
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-6)
