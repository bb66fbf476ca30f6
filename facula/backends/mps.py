"""`torch.backends.mps`: Apple's GPU, which is not used."""


def is_available() -> bool:
    """False: facula generates its own machine code."""
    return False

is_built = is_available
