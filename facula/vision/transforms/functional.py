"""Transforms as functions: on Pillow images, on the stand-in of `facula.vision.image`, on tensors.

Tensors are [..., C, H, W]; images come back as images of the same kind and mode.  What is
computed is in `pixels`.  Tensors that require a gradient keep it through `normalize`, flips,
crops and constant padding; other functions raise `GradientError` rather than lose it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from facula.data.arrays import is_tensor, peek
from facula.data.arrays import to_tensor as _new
from facula.dtype import DType, float32
from facula.errors import DTypeError, GradientError, ShapeError
from facula.ops.promote import get_default_dtype
from facula.vision.image import from_planes, is_image, make_image, to_planes
from facula.vision.transforms import colour, pixels
from facula.vision.transforms.pixels import InterpolationMode, mode_of

__all__ = ["InterpolationMode", "adjust_brightness", "adjust_contrast", "adjust_gamma",
           "adjust_hue", "adjust_saturation", "adjust_sharpness", "affine", "autocontrast",
           "center_crop", "convert_image_dtype", "crop", "equalize", "erase", "five_crop",
           "gaussian_blur", "get_dimensions", "get_image_num_channels", "get_image_size",
           "hflip", "invert", "normalize", "pad", "pil_to_tensor", "posterize", "resize",
           "resized_crop", "rgb_to_grayscale", "rotate", "solarize", "ten_crop", "to_grayscale",
           "to_pil_image", "to_tensor", "vflip"]

_NEAREST = InterpolationMode.NEAREST
_BILINEAR = InterpolationMode.BILINEAR


def _map(img: Any, fn: Callable[[np.ndarray], np.ndarray], mode: str | None = None,
         graph: Callable[[Any], Any] | None = None) -> Any:
    """Apply a function of arrays to an image or a tensor; `graph` is its differentiable form."""
    if is_tensor(img):
        if img.ndim < 2:
            raise TypeError("Tensor is not a torch image.")
        if img.requires_grad:
            if graph is None:
                raise GradientError("this transform is not differentiable, and the image requires "
                                    "a gradient: give it img.detach()")
            return graph(img)
        return _new(fn(peek(img)))
    if is_image(img):
        return from_planes(fn(to_planes(img)), mode or img.mode, img)
    raise TypeError(f"img should be PIL Image or Tensor. Got {type(img)}")


def get_dimensions(img: Any) -> list[int]:
    """[channels, height, width]."""
    if is_tensor(img):
        return [1 if img.ndim == 2 else img.shape[-3], img.shape[-2], img.shape[-1]]
    if is_image(img):
        return [len(img.getbands()), img.size[1], img.size[0]]
    raise TypeError(f"Unexpected type {type(img)}")


def get_image_size(img: Any) -> list[int]:
    """[width, height]."""
    return get_dimensions(img)[:0:-1]


def get_image_num_channels(img: Any) -> int:
    """How many channels."""
    return get_dimensions(img)[0]


# ---------------------------------------------------------------- images and tensors

def to_tensor(pic: Any) -> Any:
    """An image or an ndarray [H, W] or [H, W, C] as a tensor [C, H, W].

    8-bit pixels become numbers between 0 and 1 of the default dtype; other types keep their values.
    """
    if isinstance(pic, np.ndarray):
        if pic.ndim not in (2, 3):
            raise ValueError(f"pic should be 2/3 dimensional. Got {pic.ndim} dimensions.")
        planes = pic[None] if pic.ndim == 2 else pic.transpose(2, 0, 1)
    elif is_image(pic):
        planes = to_planes(pic)
        if pic.mode == "I":
            planes = planes.astype(np.int32)
        elif pic.mode == "I;16":
            planes = planes.astype(np.int16)
    else:
        raise TypeError(f"pic should be PIL Image or ndarray. Got {type(pic)}")
    if planes.dtype == np.uint8:
        return _new(unit(planes), fresh=True)
    return _new(planes)


def unit(planes: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """uint8 as numbers between 0 and 1, in the default dtype if there is no `out`."""
    if out is None:
        out = np.empty(planes.shape, get_default_dtype().np)
    np.copyto(out, planes)
    return np.divide(out, out.dtype.type(255), out=out)


def pil_to_tensor(pic: Any) -> Any:
    """An image as a tensor [C, H, W] of its own type, unscaled."""
    if not is_image(pic):
        raise TypeError(f"pic should be PIL Image. Got {type(pic)}")
    return _new(to_planes(pic))


def to_pil_image(pic: Any, mode: str | None = None) -> Any:
    """A tensor [C, H, W] or [H, W], or an ndarray [H, W, C] or [H, W], as an image.

    Floats count as being between 0 and 1.  Without `mode` it follows from type and channels.
    """
    if is_tensor(pic):
        if pic.ndim not in (2, 3):
            raise ValueError(f"pic should be 2/3 dimensional. Got {pic.ndim} dimensions.")
        array = peek(pic)
        array = array[..., None] if array.ndim == 2 else np.moveaxis(array, 0, 2)
        if array.dtype.kind == "f" and mode != "F":
            array = (array * array.dtype.type(255)).astype(np.uint8)
    elif isinstance(pic, np.ndarray):
        if pic.ndim not in (2, 3):
            raise ValueError(f"pic should be 2/3 dimensional. Got {pic.ndim} dimensions.")
        array = pic[..., None] if pic.ndim == 2 else pic
    else:
        raise TypeError(f"pic should be Tensor or ndarray. Got {type(pic)}.")
    channels = array.shape[2]
    if channels > 4:
        raise ValueError(f"pic should not have > 4 channels. Got {channels} channels.")
    if channels == 1:
        found = {"uint8": "L", "int16": "I;16", "uint16": "I;16", "int32": "I",
                 "float32": "F"}.get(array.dtype.name)
        if mode is not None and mode != found:
            raise ValueError(f"Incorrect mode ({mode}) supplied for input type {array.dtype}. "
                             f"Should be {found}")
        mode, array = found, array[..., 0]
    else:
        allowed = {2: ("LA",), 3: ("RGB", "YCbCr", "HSV"),
                   4: ("RGBA", "CMYK", "RGBX")}[channels]
        if mode is not None and mode not in allowed:
            raise ValueError(f"Only modes {list(allowed)} are supported for {channels}D inputs")
        if array.dtype != np.uint8:
            mode = None
        else:
            mode = mode or allowed[0]
    if mode is None:
        raise TypeError(f"Input type {array.dtype} is not supported")
    return make_image(array, mode)


def convert_image_dtype(image: Any, dtype: DType = float32) -> Any:
    """A tensor image in another dtype, scaled so that full brightness stays full brightness."""
    if not is_tensor(image):
        raise TypeError("Input img should be Tensor Image")
    if image.dtype is dtype:
        return image
    if image.requires_grad:
        if not dtype.is_floating_point:
            raise GradientError("the image requires a gradient, which whole numbers cannot carry")
        return image.to(dtype)
    return _new(scale_dtype(peek(image), dtype))


def scale_dtype(array: np.ndarray, dtype: DType) -> np.ndarray:
    """`convert_image_dtype` on an array."""
    have, want = array.dtype, np.dtype(dtype.np)
    if have == want:
        return array
    if want.kind not in "uif" or have.kind not in "uif":
        raise DTypeError(f"cannot convert images from {have} to {want}")
    if have.kind == "f":
        if want.kind == "f":
            return array.astype(want)
        if (have == np.float32 and want.itemsize >= 4) or (have == np.float64
                                                           and want.itemsize == 8):
            raise DTypeError(f"The cast from {have} to {want} cannot be performed safely.")
        top = np.iinfo(want).max
        return np.asarray(array * array.dtype.type(top + 1.0 - 1e-3)).astype(want)
    most = int(np.iinfo(have).max)
    if want.kind == "f":
        return np.asarray(array.astype(want) / want.type(most))
    top = int(np.iinfo(want).max)
    if most > top:
        return np.asarray(array // have.type((most + 1) // (top + 1))).astype(want)
    return np.asarray(array.astype(want) * want.type((top + 1) // (most + 1)))


def normalize(tensor: Any, mean: Sequence[float], std: Sequence[float],
              inplace: bool = False) -> Any:
    """(tensor - mean) / std channel by channel; a float tensor [..., C, H, W]."""
    if not is_tensor(tensor):
        raise TypeError(f"img should be Tensor Image. Got {type(tensor)}")
    if not tensor.dtype.is_floating_point:
        raise TypeError(f"Input tensor should be a float tensor. Got {tensor.dtype}.")
    if tensor.ndim < 3:
        raise ValueError("Expected tensor to be a tensor image of size (..., C, H, W). Got "
                         f"tensor.size() = {tensor.shape}")
    middle, spread = moments(mean, std, tensor.dtype)
    if tensor.requires_grad or inplace:
        if inplace:
            return tensor.sub_(_new(middle)).div_(_new(spread))
        return (tensor - _new(middle)) / _new(spread)
    return _new(standardise(peek(tensor), middle, spread, None), fresh=True)


def moments(mean: Any, std: Any, dtype: DType) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation as [C, 1, 1] of this dtype, for reading."""
    try:
        return _moments(tuple(mean), tuple(std), dtype)
    except TypeError:                     # single numbers, and elements without a hash: tensors
        return _moments.__wrapped__(mean, std, dtype)


@functools.lru_cache(64)
def _moments(mean: Any, std: Any, dtype: DType) -> tuple[np.ndarray, np.ndarray]:
    out = []
    for value in (mean, std):
        if isinstance(value, tuple):
            value = [v.item() if is_tensor(v) else v for v in value]
        array = np.array(peek(value) if is_tensor(value) else value, dtype.np)
        array = array.reshape(-1, 1, 1) if array.ndim == 1 else array
        array.flags.writeable = False
        out.append(array)
    if (out[1] == 0).any():
        raise ValueError(f"std evaluated to zero after conversion to {dtype}, leading to division "
                         "by zero.")
    return out[0], out[1]


def standardise(array: np.ndarray, mean: np.ndarray, std: np.ndarray,
                out: np.ndarray | None) -> np.ndarray:
    """`normalize` on an array [..., C, H, W], into `out` if given (which may be `array`)."""
    channels = array.shape[-3]
    if mean.size not in (1, channels) or std.size not in (1, channels):
        raise ShapeError(f"an image of {channels} channels has no place for {mean.size} means "
                         f"and {std.size} deviations")
    out = np.subtract(array, mean, out=out)
    return np.divide(out, std, out=out)


# ---------------------------------------------------------------- geometry

def hflip(img: Any) -> Any:
    """Left becomes right."""
    return _map(img, lambda a: a[..., ::-1], graph=lambda t: t.flip(-1))


def vflip(img: Any) -> Any:
    """Top becomes bottom."""
    return _map(img, lambda a: a[..., ::-1, :], graph=lambda t: t.flip(-2))


def crop(img: Any, top: int, left: int, height: int, width: int) -> Any:
    """The part of that size from (top, left); what lies outside the image is 0."""
    def graph(t: Any) -> Any:
        h, w = t.shape[-2:]
        part = t[..., max(top, 0):max(top + height, 0), max(left, 0):max(left + width, 0)]
        sides = [max(-left, 0), max(left + width - w, 0), max(-top, 0), max(top + height - h, 0)]
        return _pad_tensor(part, sides, 0) if any(sides) else part
    return _map(img, lambda a: pixels.box(a, top, left, height, width), graph=graph)


def _pad_tensor(t: Any, sides: list[int], fill: Any) -> Any:
    import facula
    return facula.nn.functional.pad(t, sides, value=fill)


def pair(size: Any) -> tuple[int, int]:
    """A size given as one number, (n,) or (height, width)."""
    if isinstance(size, (int, np.integer)):
        return int(size), int(size)
    if len(size) == 1:
        return int(size[0]), int(size[0])
    if len(size) != 2:
        raise ValueError("Please provide only two dimensions (h, w) for size.")
    return int(size[0]), int(size[1])


def center_box(h: int, w: int, height: int, width: int) -> tuple[int, int]:
    """(top, left) of a crop of that size from the middle; negative where it sticks out."""
    top = round((h - height) / 2.0) if height <= h else -((height - h) // 2)
    left = round((w - width) / 2.0) if width <= w else -((width - w) // 2)
    return top, left


def center_crop(img: Any, output_size: Any) -> Any:
    """The middle of the image; where the size is larger, 0 is around it."""
    height, width = pair(output_size)
    _, h, w = get_dimensions(img)
    return crop(img, *center_box(h, w, height, width), height, width)


def sides_of(padding: Any) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of n, (n,), (left/right, top/bottom) or all four."""
    if isinstance(padding, (int, np.integer)):
        padding = (padding,)
    if not isinstance(padding, (tuple, list)):
        raise TypeError("Got inappropriate padding arg")
    if len(padding) == 1:
        padding = tuple(padding) * 4
    elif len(padding) == 2:
        padding = tuple(padding) * 2
    elif len(padding) != 4:
        raise ValueError("Padding must be an int or a 1, 2, or 4 element tuple, not a "
                         f"{len(padding)} element tuple")
    if min(padding) < 0:
        raise ValueError(f"padding must not be negative: {tuple(padding)}")
    left, top, right, bottom = (int(p) for p in padding)
    return left, top, right, bottom


def pad(img: Any, padding: Any, fill: Any = 0, padding_mode: str = "constant") -> Any:
    """Pad with a value, or by "edge", "reflect" or "symmetric" continuation."""
    if padding_mode not in ("constant", "edge", "reflect", "symmetric"):
        raise ValueError("Padding mode should be either constant, edge, reflect or symmetric")
    sides = sides_of(padding)
    graph = None
    if padding_mode == "constant" and isinstance(fill, (int, float)):
        left, top, right, bottom = sides

        def graph(t: Any) -> Any:
            return _pad_tensor(t, [left, right, top, bottom], fill)
    return _map(img, lambda a: pixels.pad(a, sides, fill, padding_mode), graph=graph)


def resized_dimensions(h: int, w: int, size: Any, max_size: int | None) -> tuple[int, int]:
    """(height, width) after `resize`: one number is for the shorter side."""
    if not isinstance(size, (int, np.integer)) and len(size) == 2:
        if max_size is not None:
            raise ValueError("max_size should only be passed if size specifies the length of the "
                             "smaller edge, i.e. size should be an int or a sequence of length 1")
        return int(size[0]), int(size[1])
    short = int(size) if isinstance(size, (int, np.integer)) else int(size[0])
    if max_size is not None and max_size <= short:
        raise ValueError(f"max_size = {max_size} must be strictly greater than the requested "
                         f"size for the smaller edge size = {size}")
    less, more = (w, h) if w <= h else (h, w)
    new_less, new_more = short, int(short * more / less)
    if max_size is not None and new_more > max_size:
        new_less, new_more = int(max_size * new_less / new_more), max_size
    return (new_more, new_less) if w <= h else (new_less, new_more)


def resize(img: Any, size: Any, interpolation: Any = _BILINEAR, max_size: int | None = None,
           antialias: bool | None = True) -> Any:
    """Resize to (height, width), or so that the shorter side has `size` pixels.

    Shrinking averages over all pixels that fall together (antialias); Pillow images always do.
    """
    name = mode_of(interpolation)
    _, h, w = get_dimensions(img)
    height, width = resized_dimensions(h, w, size, max_size)
    if (h, w) == (height, width):
        return img
    smooth = antialias is not False or is_image(img)
    return _map(img, lambda a: pixels.resize(a, height, width, name, smooth))


def resized_crop(img: Any, top: int, left: int, height: int, width: int, size: Any,
                 interpolation: Any = _BILINEAR, antialias: bool | None = True) -> Any:
    """Crop, then resize."""
    return resize(crop(img, top, left, height, width), size, interpolation, antialias=antialias)


def rotate(img: Any, angle: float, interpolation: Any = _NEAREST, expand: bool = False,
           center: Sequence[float] | None = None, fill: Any = None) -> Any:
    """Turn by `angle` degrees counter-clockwise about the middle, or about `center` (x, y)."""
    name = mode_of(interpolation)
    return _map(img, lambda a: pixels.rotate(a, angle, name, expand, center, fill))


def affine(img: Any, angle: float, translate: Sequence[float], scale: float,
           shear: float | Sequence[float], interpolation: Any = _NEAREST, fill: Any = None,
           center: Sequence[float] | None = None) -> Any:
    """Turn clockwise by `angle`, shear by degrees, scale, and move by whole pixels (x, y)."""
    name = mode_of(interpolation)
    if isinstance(shear, (int, float)):
        shear = (float(shear), 0.0)
    elif len(shear) == 1:
        shear = (float(shear[0]), float(shear[0]))
    if scale <= 0.0:
        raise ValueError("Argument scale should be positive")
    _, h, w = get_dimensions(img)
    matrix = pixels.inverse_affine(angle, translate, scale, shear, h, w, center)
    return _map(img, lambda a: pixels.affine(a, matrix, h, w, name, fill))


# ---------------------------------------------------------------- colour and holes

def to_grayscale(img: Any, num_output_channels: int = 1) -> Any:
    """A gray image of 1 channel, or of 3 equal ones."""
    if num_output_channels not in (1, 3):
        raise ValueError("num_output_channels should be either 1 or 3")

    def one(a: np.ndarray) -> np.ndarray:
        return pixels.grayscale(a, num_output_channels)
    return _map(img, one, "L" if num_output_channels == 1 else "RGB")


def rgb_to_grayscale(img: Any, num_output_channels: int = 1) -> Any:
    """The same as `to_grayscale`."""
    return to_grayscale(img, num_output_channels)


def erase(img: Any, i: int, j: int, h: int, w: int, v: Any, inplace: bool = False) -> Any:
    """Put `v` (a number, or a tensor that broadcasts) in the box of size (h, w) at (i, j)."""
    if not is_tensor(img):
        raise TypeError(f"img should be Tensor. Got {type(img)}")
    if inplace:
        img[..., i:i + h, j:j + w] = v
        return img

    def fill(a: np.ndarray) -> np.ndarray:
        out = a.copy()
        out[..., i:i + h, j:j + w] = peek(v) if is_tensor(v) else v
        return out
    return _map(img, fill)


def degrees_of(value: Any, name: str = "degrees") -> tuple[float, float]:
    """A range given as (low, high), or as one number for (-n, n)."""
    if isinstance(value, (int, float)):
        if value < 0:
            raise ValueError(f"If {name} is a single number, it must be positive.")
        return -float(value), float(value)
    if len(value) != 2:
        raise ValueError(f"{name} should be a sequence of length 2.")
    return float(value[0]), float(value[1])


def erasing_box(h: int, w: int, area_share: float, log_ratio: float) -> tuple[int, int]:
    """Height and width of a box with that share of the image's area."""
    area, ratio = h * w * area_share, math.exp(log_ratio)
    return round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))


# ---------------------------------------------------------------- light and sharpness

def _factor(name: str, value: float) -> float:
    if value < 0:
        raise ValueError(f"{name} ({value}) is not non-negative.")
    return float(value)


def adjust_brightness(img: Any, brightness_factor: float) -> Any:
    """0 gives black, 1 the image, 2 one that is twice as bright."""
    factor = _factor("brightness_factor", brightness_factor)
    return _map(img, lambda a: colour.brightness(a, factor))


def adjust_contrast(img: Any, contrast_factor: float) -> Any:
    """0 gives a gray plane, 1 the image, 2 twice the contrast."""
    factor = _factor("contrast_factor", contrast_factor)
    whole = is_image(img)
    return _map(img, lambda a: colour.contrast(a, factor, whole))


def adjust_saturation(img: Any, saturation_factor: float) -> Any:
    """0 gives a gray image, 1 the image, 2 twice the colour."""
    factor = _factor("saturation_factor", saturation_factor)
    return _map(img, lambda a: colour.saturation(a, factor))


def adjust_hue(img: Any, hue_factor: float) -> Any:
    """Colours turned by a share of the circle, from -0.5 to 0.5."""
    if not -0.5 <= hue_factor <= 0.5:
        raise ValueError(f"hue_factor ({hue_factor}) is not in [-0.5, 0.5].")
    return _map(img, lambda a: colour.hue(a, hue_factor))


def adjust_gamma(img: Any, gamma: float, gain: float = 1) -> Any:
    """gain * value**gamma, of values between 0 and 1."""
    power = _factor("gamma", gamma)
    return _map(img, lambda a: colour.gamma(a, power, gain))


def adjust_sharpness(img: Any, sharpness_factor: float) -> Any:
    """0 gives a smoothed image, 1 the image, 2 a sharper one."""
    factor = _factor("sharpness_factor", sharpness_factor)
    return _map(img, lambda a: colour.sharpness(a, factor))


def invert(img: Any) -> Any:
    """Black for white."""
    return _map(img, colour.invert)


def autocontrast(img: Any) -> Any:
    """Each channel stretched over the whole range."""
    return _map(img, colour.autocontrast)


def _bytes(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8:
        raise TypeError(f"Only torch.uint8 image tensors are supported by {name}, but found "
                        f"{array.dtype}")
    return array


def equalize(img: Any) -> Any:
    """Each channel's values spread evenly; 8-bit images only."""
    return _map(img, lambda a: colour.equalize(_bytes("equalize", a)))


def posterize(img: Any, bits: int) -> Any:
    """The first `bits` of each value's 8."""
    if not 0 <= bits <= 8:
        raise ValueError(f"The number if bits should be between 0 and 8. Got {bits}")
    return _map(img, lambda a: colour.posterize(_bytes("posterize", a), bits))


def solarize(img: Any, threshold: float) -> Any:
    """Values from `threshold` on inverted."""
    return _map(img, lambda a: colour.solarize(a, threshold))


def kernel_of(size: Any) -> list[int]:
    """A kernel's (width, height), odd and positive."""
    sizes = [size, size] if isinstance(size, int) else list(size)
    if len(sizes) == 1:
        sizes *= 2
    if len(sizes) != 2 or any(type(n) is not int or n <= 0 or n % 2 == 0 for n in sizes):
        raise ValueError("kernel_size should have odd and positive integers. Got "
                         f"{size}")
    return sizes


def gaussian_blur(img: Any, kernel_size: Any, sigma: Any = None) -> Any:
    """Blurred by a Gaussian; `sigma` is 0.15 * kernel_size + 0.35 unless given."""
    size = kernel_of(kernel_size)
    if sigma is None:
        sigma = [n * 0.15 + 0.35 for n in size]
    sigmas = [float(sigma)] * 2 if isinstance(sigma, (int, float)) else [float(s) for s in sigma]
    sigmas = sigmas * 2 if len(sigmas) == 1 else sigmas
    if any(s <= 0.0 for s in sigmas):
        raise ValueError(f"sigma should have positive values. Got {sigma}")
    _, h, w = get_dimensions(img)
    if size[0] // 2 >= w or size[1] // 2 >= h:
        raise ShapeError(f"gaussian_blur: a kernel of {size} reaches over an image of height {h} "
                         f"and width {w} twice: take a smaller kernel")
    return _map(img, lambda a: colour.blur(a, size, sigmas))


# ---------------------------------------------------------------- several crops

def five_crop(img: Any, size: Any) -> tuple[Any, ...]:
    """The corners (top left, top right, bottom left, bottom right) and the middle."""
    height, width = pair(size)
    _, h, w = get_dimensions(img)
    if height > h or width > w:
        raise ValueError(f"Requested crop size {(height, width)} is bigger than input size "
                         f"{(h, w)}")
    corners = [(0, 0), (0, w - width), (h - height, 0), (h - height, w - width)]
    return (*[crop(img, top, left, height, width) for top, left in corners],
            center_crop(img, [height, width]))


def ten_crop(img: Any, size: Any, vertical_flip: bool = False) -> tuple[Any, ...]:
    """`five_crop` of the image and of its mirror image."""
    mirrored = vflip(img) if vertical_flip else hflip(img)
    return five_crop(img, size) + five_crop(mirrored, size)
