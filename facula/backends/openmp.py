"""`torch.backends.openmp`: threads of OpenMP, of which there are none."""


def is_available() -> bool:
    """False: facula generates its own machine code."""
    return False

