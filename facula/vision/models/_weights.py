"""Networks by name, and what there is to know about the weights that torchvision trained for them.

The weights themselves are not here: asking for them says how to load a file of them.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from types import ModuleType
from typing import Any, NoReturn, TypeVar

from facula import nn
from facula.errors import WeightsError
from facula.vision.transforms._presets import ImageClassification

__all__ = ["Weights", "WeightsEnum", "get_model", "get_model_builder", "get_model_weights",
           "get_weight", "imagenet", "list_models", "refuse", "register_model"]

F = TypeVar("F", bound=Callable[..., nn.Module])

_HOW = ("no trained weights come with facula, and none are fetched. Call net = {name}(), and load "
        "them from a file: net.load_state_dict(facula.load('FILE.pth')), where it may be "
        "torchvision's, or a .safetensors file")


@dataclass(eq=False)
class Weights:
    """What an entry of a `WeightsEnum` says: the transform before its network, and facts."""

    transforms: Callable[..., nn.Module]
    meta: dict[str, Any]


class WeightsEnum(Enum):
    """Names of trained weights.  `transforms()` makes what images go through before the network."""

    @classmethod
    def verify(cls, obj: Any) -> Any:
        """The entry that `obj`, an entry or its name, stands for; None for None.

        Raises KeyError for a name that is not there, TypeError for anything else.
        """
        if obj is None or isinstance(obj, cls):
            return obj
        if not isinstance(obj, str):
            raise TypeError(f"Invalid Weight class provided; expected {cls.__name__} but received "
                            f"{type(obj).__name__}.")
        name = obj.removeprefix(f"{cls.__name__}.")
        if name not in cls.__members__:
            raise KeyError(f"{cls.__name__} has no {name!r}: it has {', '.join(cls.__members__)}")
        return cls[name]

    @property
    def transforms(self) -> Callable[..., nn.Module]:
        """Makes the transform."""
        return self.value.transforms                    # type: ignore[no-any-return]

    @property
    def meta(self) -> dict[str, Any]:
        """`num_params`, `min_size` of images, `num_classes`."""
        return self.value.meta                          # type: ignore[no-any-return]

    def get_state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises WeightsError: they are not here."""
        name = next((n for n, (_, kind) in _MODELS.items() if kind is type(self)), "the network")
        raise WeightsError(f"{self!r}: {_HOW.format(name=name)}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}.{self._name_}"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return getattr, (type(self), self._name_)       # the values do not compare equal


def imagenet(num_params: int, min_size: int = 1, crop_size: int = 224, resize_size: int = 256
             ) -> Weights:
    """Weights trained on ImageNet's thousand classes."""
    return Weights(partial(ImageClassification, crop_size=crop_size, resize_size=resize_size),
                   {"num_params": num_params, "min_size": (min_size, min_size),
                    "num_classes": 1000})


_MODELS: dict[str, tuple[Callable[..., nn.Module], type[WeightsEnum]]] = {}


def register_model(weights: type[WeightsEnum]) -> Callable[[F], F]:
    """Marks a function that makes a network, under its own name."""
    def mark(builder: F) -> F:
        _MODELS[builder.__name__] = builder, weights
        return builder
    return mark


def refuse(name: str, weights: Any, rest: dict[str, Any]) -> None:
    """WeightsError, a ValueError, if trained weights are asked for: there are none here.

    KeyError or TypeError if there are none of that name at all.  `pretrained=False` is taken out
    of the further arguments `rest`.
    """
    asked = None
    if _MODELS[name][1].verify(weights) is not None:
        asked = f"weights={weights!r}"
    if rest.pop("pretrained", False):
        asked = "pretrained=True"
    if asked is not None:
        raise WeightsError(f"{name}: {asked}: {_HOW.format(name=name)}")


# ---------------------------------------------------------------- by name

def list_models(module: ModuleType | None = None, include: Iterable[str] | str | None = None,
                exclude: Iterable[str] | str | None = None) -> list[str]:
    """The names of the networks, sorted: all of them, or those in `module`.

    `include` and `exclude` are patterns with `*` and `?`, one or several.
    """
    names = [name for name, (builder, _) in _MODELS.items()
             if module is None or builder.__module__.rpartition(".")[0] == module.__name__]

    def fits(name: str, patterns: Iterable[str] | str) -> bool:
        several = [patterns] if isinstance(patterns, str) else patterns
        return any(fnmatch.fnmatch(name, pattern) for pattern in several)

    include, exclude = (p if p is None or isinstance(p, str) else list(p)
                        for p in (include, exclude))
    return sorted(name for name in names if (not include or fits(name, include))
                  and not (exclude and fits(name, exclude)))


def _entry(name: str) -> tuple[Callable[..., nn.Module], type[WeightsEnum]]:
    try:
        return _MODELS[name.lower()]
    except KeyError:
        raise ValueError(f"Unknown model {name}: there are {', '.join(list_models())}") from None


def get_model_builder(name: str) -> Callable[..., nn.Module]:
    """The function that makes the network of that name.  ValueError if there is none."""
    return _entry(name)[0]


def get_model(name: str, **config: Any) -> nn.Module:
    """The network of that name; `config` are its arguments.  ValueError if there is none."""
    return _entry(name)[0](**config)


def get_model_weights(name: Callable[..., nn.Module] | str) -> type[WeightsEnum]:
    """The names of the weights for a network, given by name or by the function that makes it.

    ValueError if there is no such network.
    """
    if isinstance(name, str):
        return _entry(name)[1]
    for builder, weights in _MODELS.values():
        if builder is name:
            return weights
    raise ValueError(f"{name!r} makes none of the networks {', '.join(list_models())}")


def get_weight(name: str) -> WeightsEnum:
    """The entry of a full name such as "ResNet50_Weights.IMAGENET1K_V1".

    ValueError if there is no such enum, KeyError if it has no such entry.
    """
    kind, dot, _ = name.partition(".")
    if not dot or name.count(".") != 1:
        raise ValueError(f"Invalid weight name provided: {name!r}; one is "
                         "'ResNet50_Weights.IMAGENET1K_V1'.")
    found = next((w for _, w in _MODELS.values() if w.__name__ == kind), None)
    if found is None:
        raise ValueError(f"The weight enum {kind!r} does not exist: there are "
                         f"{', '.join(w.__name__ for _, w in _MODELS.values())}")
    return found.verify(name)                           # type: ignore[no-any-return]
