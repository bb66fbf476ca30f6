"""The training step of the 784-128-64-10 network at batch 64: the plain loop and facula.compile.

    python benchmarks/mlp_step.py [--quick] [--threads 2] [--rounds 21] [--out FOLDER]
"""

from __future__ import annotations

from networks import facula_step, jax_step, step_benchmark, torch_step

__all__ = ["facula_step", "jax_step", "torch_step"]

if __name__ == "__main__":
    step_benchmark(__file__, 64, 3.0, 4.5)
