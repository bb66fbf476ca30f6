"""Layers and losses as functions, a family a file; import it as `F`."""

from facula.nn.functional.activation import *
from facula.nn.functional.attention import *
from facula.nn.functional.bag import *
from facula.nn.functional.classification import *
from facula.nn.functional.conv import *
from facula.nn.functional.ctc import *
from facula.nn.functional.distance import *
from facula.nn.functional.dropout import (
    alpha_dropout,
    dropout,
    dropout1d,
    dropout2d,
    dropout3d,
    feature_alpha_dropout,
)
from facula.nn.functional.fractional import *
from facula.nn.functional.grid import *
from facula.nn.functional.linear import *
from facula.nn.functional.margin import *
from facula.nn.functional.norm import *
from facula.nn.functional.pad import *
from facula.nn.functional.patches import *
from facula.nn.functional.pooling import *
from facula.nn.functional.regression import *
from facula.nn.functional.softmax import *
from facula.nn.functional.sparse import *
from facula.nn.functional.upsample import *
