"""Public operations, one family a file; `facula.ops.families` loads them all."""
