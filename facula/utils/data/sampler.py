"""`facula.data.sampler`, under the name that PyTorch's programs look for."""

from facula.data.sampler import BatchSampler as BatchSampler
from facula.data.sampler import RandomSampler as RandomSampler
from facula.data.sampler import Sampler as Sampler
from facula.data.sampler import SequentialSampler as SequentialSampler
from facula.data.sampler import SubsetRandomSampler as SubsetRandomSampler
from facula.data.sampler import WeightedRandomSampler as WeightedRandomSampler
