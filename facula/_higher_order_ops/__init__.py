"""The private `torch._higher_order_ops`, as far as programs import from it."""

from facula._higher_order_ops.associative_scan import associative_scan

__all__ = ["associative_scan"]
