"""The primitive operations, one family a file; `facula.ops.table` loads them all."""
