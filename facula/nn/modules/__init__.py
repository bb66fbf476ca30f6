"""The layers, a family a file."""

from facula.nn.modules.activation import *
from facula.nn.modules.adaptive import *
from facula.nn.modules.attention import *
from facula.nn.modules.batchnorm import *
from facula.nn.modules.container import *
from facula.nn.modules.conv import *
from facula.nn.modules.distance import *
from facula.nn.modules.dropout import *
from facula.nn.modules.flatten import *
from facula.nn.modules.lazy import *
from facula.nn.modules.linear import *
from facula.nn.modules.loss import *
from facula.nn.modules.module import Module
from facula.nn.modules.normalization import *
from facula.nn.modules.padding import *
from facula.nn.modules.pooling import *
from facula.nn.modules.recurrent import *
from facula.nn.modules.resample import *
from facula.nn.modules.sparse import *
from facula.nn.modules.transformer import *

