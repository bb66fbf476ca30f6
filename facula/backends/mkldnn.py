"""`torch.backends.mkldnn`: oneDNN, which is not used."""

enabled = False


def is_available() -> bool:
    """False: facula generates its own machine code."""
    return False

