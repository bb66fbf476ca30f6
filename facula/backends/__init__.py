"""`torch.backends`, as far as programs ask it what there is and set flags on it.

Facula generates its own machine code and uses none of these libraries: each says so, and a flag
that is set on one is kept and means nothing.
"""

from facula.backends import cuda as cuda
from facula.backends import cudnn as cudnn
from facula.backends import mkl as mkl
from facula.backends import mkldnn as mkldnn
from facula.backends import mps as mps
from facula.backends import openmp as openmp
