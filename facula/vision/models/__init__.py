"""Networks for images, with torchvision's signatures and `state_dict` keys.

Weights saved by torchvision load into them with `load_state_dict`; none are shipped or fetched.
The enums `*_Weights` have their names, the transform that goes before the network, and facts.
"""

from facula.vision.models._weights import (
    Weights,
    WeightsEnum,
    get_model,
    get_model_builder,
    get_model_weights,
    get_weight,
    list_models,
)
from facula.vision.models.inception import (
    Inception3,
    InceptionOutputs,
    Inception_V3_Weights,
    inception_v3,
)
from facula.vision.models.mobilenet import (
    InvertedResidual,
    MobileNetV3,
    MobileNet_V3_Large_Weights,
    MobileNet_V3_Small_Weights,
    SqueezeExcitation,
    mobilenet_v3_large,
    mobilenet_v3_small,
)
from facula.vision.models.resnet import (
    BasicBlock,
    Bottleneck,
    ResNet,
    ResNet101_Weights,
    ResNet18_Weights,
    ResNet34_Weights,
    ResNet50_Weights,
    resnet101,
    resnet18,
    resnet34,
    resnet50,
)
from facula.vision.models.vgg import (
    VGG,
    VGG11_BN_Weights,
    VGG11_Weights,
    VGG13_BN_Weights,
    VGG13_Weights,
    VGG16_BN_Weights,
    VGG16_Weights,
    VGG19_BN_Weights,
    VGG19_Weights,
    vgg11,
    vgg11_bn,
    vgg13,
    vgg13_bn,
    vgg16,
    vgg16_bn,
    vgg19,
    vgg19_bn,
)

__all__ = ["BasicBlock", "Bottleneck", "Inception3", "InceptionOutputs", "Inception_V3_Weights",
           "InvertedResidual", "MobileNetV3", "MobileNet_V3_Large_Weights",
           "MobileNet_V3_Small_Weights", "ResNet", "ResNet101_Weights", "ResNet18_Weights",
           "ResNet34_Weights", "ResNet50_Weights", "SqueezeExcitation", "VGG", "VGG11_BN_Weights",
           "VGG11_Weights", "VGG13_BN_Weights", "VGG13_Weights", "VGG16_BN_Weights",
           "VGG16_Weights", "VGG19_BN_Weights", "VGG19_Weights", "Weights", "WeightsEnum",
           "get_model", "get_model_builder", "get_model_weights", "get_weight", "inception_v3",
           "list_models", "mobilenet_v3_large", "mobilenet_v3_small", "resnet101", "resnet18",
           "resnet34", "resnet50", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn",
           "vgg19", "vgg19_bn"]
