"""`facula.data.loader`, under the name that PyTorch's programs look for."""

from facula.data import default_collate as default_collate
from facula.data import default_convert as default_convert
from facula.data import get_worker_info as get_worker_info
from facula.data.loader import DataLoader as DataLoader
from facula.data.loader import _Epoch as _BaseDataLoaderIter  # noqa: F401
from facula.data.loader import _Workers as _MultiProcessingDataLoaderIter  # noqa: F401
