"""`facula.compile`: a function's calls captured whole, and replayed without recording."""

from facula.compiler.compiled import Compiled, compile, explain
from facula.compiler.marks import (
    allow_in_graph,
    assume_constant_result,
    cudagraph_mark_step_begin,
    disable,
    is_compiling,
    is_dynamo_compiling,
    is_exporting,
    list_backends,
    nested_compile_region,
    reset,
    set_stance,
    substitute_in_graph,
)

__all__ = ["compile", "explain", "Compiled", "allow_in_graph", "assume_constant_result",
           "cudagraph_mark_step_begin", "disable", "is_compiling", "is_dynamo_compiling",
           "is_exporting", "list_backends", "nested_compile_region", "reset", "set_stance",
           "substitute_in_graph"]
