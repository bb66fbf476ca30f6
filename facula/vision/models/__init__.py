"""Networks for images, with torchvision's signatures and `state_dict` keys.

Weights saved by torchvision load into them with `load_state_dict`; none are shipped or fetched.
"""

from facula.vision.models.inception import Inception3, InceptionOutputs, inception_v3
from facula.vision.models.mobilenet import MobileNetV3, mobilenet_v3_large, mobilenet_v3_small
from facula.vision.models.resnet import (
    BasicBlock,
    Bottleneck,
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
)
from facula.vision.models.vgg import (
    VGG,
    vgg11,
    vgg11_bn,
    vgg13,
    vgg13_bn,
    vgg16,
    vgg16_bn,
    vgg19,
    vgg19_bn,
)

__all__ = ["VGG", "BasicBlock", "Bottleneck", "Inception3", "InceptionOutputs", "MobileNetV3",
           "ResNet", "inception_v3", "mobilenet_v3_large", "mobilenet_v3_small", "resnet101",
           "resnet18", "resnet34", "resnet50", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16",
           "vgg16_bn", "vgg19", "vgg19_bn"]
