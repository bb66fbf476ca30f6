"""`torch.backends.mkl`: Intel's library, which is not used."""


def is_available() -> bool:
    """False: facula generates its own machine code."""
    return False

