"""`torch.backends`, as far as programs ask it what there is and set flags on it."""

from __future__ import annotations

__all__ = ["cuda", "cudnn", "mps", "mkl", "mkldnn", "openmp"]


class _Backend:
    """A library that facula does not use; flags set on it are kept and mean nothing."""

    def __init__(self, name: str, **flags: object):
        self._name = name
        self.__dict__.update(flags)

    def is_available(self) -> bool:
        """False: facula generates its own machine code."""
        return False

    is_built = is_available

    def __repr__(self) -> str:
        return f"<facula.backends.{self._name}>"


cudnn = _Backend("cudnn", enabled=False, deterministic=True, benchmark=False, allow_tf32=False)
mps = _Backend("mps")
mkl = _Backend("mkl")
mkldnn = _Backend("mkldnn", enabled=False)
openmp = _Backend("openmp")
cuda = _Backend("cuda", matmul=_Backend("cuda.matmul", allow_tf32=False))
