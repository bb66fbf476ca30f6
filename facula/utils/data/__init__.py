"""`facula.data`, under the name that PyTorch's programs look for."""

from facula.data import *
from facula.data import __all__ as __all__
