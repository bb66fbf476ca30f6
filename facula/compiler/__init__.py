"""`facula.compile`: a function's calls captured whole, and replayed without recording."""

from facula.compiler.compiled import Compiled, compile, explain

__all__ = ["compile", "explain", "Compiled"]
