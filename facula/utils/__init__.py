"""Names where PyTorch has them: `facula.utils.data` is `facula.data`."""

from facula.utils import data as data
from facula.utils import dlpack as dlpack
