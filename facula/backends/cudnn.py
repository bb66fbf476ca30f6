"""`torch.backends.cudnn`: NVIDIA's kernels, which are not used."""

enabled = False
benchmark = False
deterministic = True
allow_tf32 = False


def is_available() -> bool:
    """False: facula generates its own machine code."""
    return False


def version() -> None:
    """None: it is not there."""
    return None
