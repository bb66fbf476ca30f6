"""`facula.data.dataset`, under the name that PyTorch's programs look for."""

from facula.data.dataset import ChainDataset as ChainDataset
from facula.data.dataset import ConcatDataset as ConcatDataset
from facula.data.dataset import Dataset as Dataset
from facula.data.dataset import IterableDataset as IterableDataset
from facula.data.dataset import StackDataset as StackDataset
from facula.data.dataset import Subset as Subset
from facula.data.dataset import TensorDataset as TensorDataset
from facula.data.dataset import random_split as random_split
