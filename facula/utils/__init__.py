"""Names where PyTorch has them: `facula.utils.data` is `facula.data`."""

from facula.utils import data as data
