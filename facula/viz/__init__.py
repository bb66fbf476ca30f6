"""Looking at graphs: what was recorded, and the kernels it becomes."""

from facula.viz.picture import Box, Arrow, Picture
from facula.viz.trace import Kernel, graph, kernels

__all__ = ["graph", "kernels", "Picture", "Box", "Arrow", "Kernel"]
