"""The dtypes as a namespace, for modules that write `d.float32`.

`facula.dtype` cannot be it: under PyTorch's names that is the class of dtypes.
"""

from facula.dtype import (
    DTYPES,
    DType,
    bfloat16,
    bool_,
    complex64,
    complex128,
    float8_e4m3fn,
    float8_e4m3fnuz,
    float8_e5m2,
    float8_e5m2fnuz,
    float16,
    float32,
    float64,
    from_numpy_dtype,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)

__all__ = ["DTYPES", "DType", "bfloat16", "bool_", "complex64", "complex128", "float16",
           "float32", "float64", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2",
           "float8_e5m2fnuz", "from_numpy_dtype", "int8", "int16", "int32", "int64", "uint8",
           "uint16", "uint32", "uint64"]
