"""Attention in tiles, without its scores ever in memory: forward, and its gradients.

`attention` says what is to be computed, `tiles` what both directions share, then come `forward` and
`backward`.  `kernels` is where a schedule asks for those of its steps.
"""
