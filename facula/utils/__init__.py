"""Utilities: `facula.utils.data` is `facula.data`; checkpointing, dlpack and hooks are here."""

from facula.utils import checkpoint as checkpoint
from facula.utils import data as data
from facula.utils import dlpack as dlpack
from facula.utils import hooks as hooks
