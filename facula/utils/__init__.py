"""Utilities: `facula.utils.data` is `facula.data`; checkpointing and dlpack are here."""

from facula.utils import checkpoint as checkpoint
from facula.utils import data as data
from facula.utils import dlpack as dlpack
