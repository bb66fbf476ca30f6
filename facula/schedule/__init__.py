"""From recorded steps to a plan: simplify, fuse into kernels, order in phases, place in memory.

Nothing here compiles: `facula.schedule.compile.schedule` is a pure function of the steps, and
`facula.schedule.executable.Executable` runs what it returns.
"""
