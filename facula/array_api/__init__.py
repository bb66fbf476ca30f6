"""The Python array API standard, https://data-apis.org/array-api, for facula's tensors.

`facula` itself has PyTorch's names and meanings, some of which differ from the standard's: `max`
returns values and indices, an array of zero dimensions does not raise the dtype of another, axes
are called `dim`.  Here everything is as the standard has it; the arrays are the same tensors, and
`x.__array_namespace__()` is this module, by which libraries that are written against the standard
find it.
"""

from facula.array_api import fft, linalg
from facula.array_api.creation import *
from facula.array_api.creation import e, inf, nan, newaxis, pi
from facula.array_api.dtypes import *
from facula.array_api.elementwise import *
from facula.array_api.info import __array_namespace_info__
from facula.array_api.linalg import matmul, matrix_transpose, tensordot, vecdot
from facula.array_api.manipulation import *
from facula.array_api.statistics import *

__array_api_version__ = "2025.12"

__all__ = [name for name in globals() if not name.startswith("_")
           and name not in ("creation", "dtypes", "elementwise", "info", "manipulation",
                            "statistics")] + ["__array_namespace_info__"]
