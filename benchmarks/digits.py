"""MNIST and the textbook's loader, in facula and in torch.

torchvision cannot be installed beside every torch, so what it does is written out here: the
`TorchMNIST` below makes, for each sample, what `torchvision.datasets.MNIST.__getitem__` makes
with `ToTensor` and `Normalize`, call for call: a PIL image of the array; the image as an array, a
tensor, reshaped, permuted and made contiguous; converted to float and divided by 255; the mean and
the deviation as tensors, each reshaped; a clone, a subtraction, a division.  The `DataLoader` and
its default collate function are torch's own.
"""

from __future__ import annotations

import gzip
from typing import Any

import numpy as np
from harness import ROOT, Missing

MEAN, DEVIATION = 0.1307, 0.3081
FILES = ROOT / "facula" / "vision" / "datasets" / "files" / "mnist"


def arrays(train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 28, 28] and labels int64 [N], from the files in the package."""
    kind = "train" if train else "t10k"
    images = gzip.decompress((FILES / f"{kind}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((FILES / f"{kind}-labels-idx1-ubyte.gz").read_bytes())
    return (np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28).copy(),
            np.frombuffer(labels, np.uint8, offset=8).astype(np.int64))


def exact_batch(count: int) -> np.ndarray:
    """The first training images as ToTensor and Normalize make them, in float64."""
    images, _ = arrays(True)
    return ((images[:count, None] / 255.0) - MEAN) / DEVIATION


def torch_dataset(train: bool) -> Any:
    """What torchvision's MNIST with `ToTensor` and `Normalize` is, sample by sample."""
    import torch
    try:
        from PIL import Image
    except ImportError:
        raise Missing("not installed: Pillow, which torchvision makes its samples with") from None

    class ToTensor:
        def __call__(self, picture: Any) -> torch.Tensor:
            array = np.array(picture, np.uint8, copy=True)
            image = torch.from_numpy(array)
            image = image.view(picture.size[1], picture.size[0], len(picture.getbands()))
            image = image.permute((2, 0, 1)).contiguous()
            return image.to(dtype=torch.get_default_dtype()).div(255)

    class Normalize:
        def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
            self.mean, self.std = mean, std

        def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
            if not tensor.is_floating_point() or tensor.ndim < 3:
                raise TypeError("expected a float image")
            tensor = tensor.clone()
            mean = torch.as_tensor(self.mean, dtype=tensor.dtype, device=tensor.device)
            std = torch.as_tensor(self.std, dtype=tensor.dtype, device=tensor.device)
            if (std == 0).any():
                raise ValueError("a deviation of zero")
            return tensor.sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1))

    class Compose:
        def __init__(self, transforms: list[Any]):
            self.transforms = transforms

        def __call__(self, image: Any) -> Any:
            for t in self.transforms:
                image = t(image)
            return image

    class TorchMNIST(torch.utils.data.Dataset):
        def __init__(self, transform: Any):
            images, labels = arrays(train)
            self.data, self.targets = torch.from_numpy(images), torch.from_numpy(labels)
            self.transform = transform

        def __getitem__(self, index: int) -> tuple[Any, int]:
            image, target = self.data[index], int(self.targets[index])
            picture = Image.fromarray(image.numpy())
            return self.transform(picture), target

        def __len__(self) -> int:
            return len(self.data)

    return TorchMNIST(Compose([ToTensor(), Normalize((MEAN,), (DEVIATION,))]))


def facula_dataset(train: bool) -> Any:
    """The data set as the program writes it."""
    from facula.vision import datasets, transforms
    transform = transforms.Compose([transforms.ToTensor(),
                                    transforms.Normalize((MEAN,), (DEVIATION,))])
    return datasets.MNIST(root="./data", train=train, download=False, transform=transform)


def first_batch(data: Any, module: Any, count: int = 256) -> np.ndarray:
    """The first images as the loader gives them."""
    images, _ = next(iter(module.utils.data.DataLoader(data, batch_size=count)))
    return np.asarray(images.numpy(), np.float64)
