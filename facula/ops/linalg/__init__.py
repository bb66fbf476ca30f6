"""Linear algebra on batches of matrices; `facula.linalg` names it for users."""

from facula.ops.linalg import aliases, factors, norms, products, systems

__all__ = ["aliases", "factors", "norms", "products", "systems"]
