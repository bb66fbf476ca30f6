"""Batches made at once have the same bits as batches made of single samples."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula.data import DataLoader, Subset, default_collate
from facula.data.fetch import declares, source_of
from facula.data.rng import BatchStream, SampleStream
from facula.vision import transforms as T
from facula.vision.datasets import MNIST
from facula.vision.transforms.pipeline import pipeline


@pytest.fixture(scope="module")
def digits():
    return MNIST("nowhere", train=False)


def with_transform(digits, transform, cls=MNIST):
    data = object.__new__(cls)
    data.__dict__.update(digits.__dict__)
    data.transform = transform
    return data


def singly(samples):
    return default_collate(samples)


def batches(data, how_many=3, collate_fn=None, **options):
    facula.manual_seed(11)
    loader = DataLoader(data, batch_size=64, shuffle=True, collate_fn=collate_fn, **options)
    return [b for b, _ in zip(loader, range(how_many))]


NORM = [T.ToTensor(), T.Normalize((0.1307,), (0.3081,))]
PIPELINES = {
    "the usual": NORM,
    "only a tensor": [T.ToTensor()],
    "bytes": [T.PILToTensor()],
    "converted": [T.PILToTensor(), T.ConvertImageDtype(facula.float64), T.Normalize([0.5], [2])],
    "two norms": [*NORM, T.Normalize([0.1], [3.0])],
    "flips": [T.RandomHorizontalFlip(), T.RandomVerticalFlip(0.3), *NORM],
    "flips of tensors": [*NORM, T.RandomHorizontalFlip()],
    "crops": [T.Pad(2), T.RandomCrop(28), T.CenterCrop(24), *NORM],
    "random crop": [T.RandomCrop(28, padding=4, padding_mode="reflect"), *NORM],
    "turns": [T.RandomRotation(15), *NORM],
    "smooth turns": [T.RandomRotation(15, T.InterpolationMode.BILINEAR, fill=9), *NORM],
    "affine": [T.RandomAffine(10, (0.1, 0.1), (0.8, 1.2), 5), *NORM],
    "resized": [T.Resize(14), *NORM],
    "resized tensors": [*NORM, T.Resize((30, 20), T.InterpolationMode.BICUBIC)],
    "gray": [T.Grayscale(3), T.ToTensor(), T.Normalize((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))],
    "perhaps": [T.RandomApply([T.RandomRotation(20), T.RandomHorizontalFlip()], 0.4),
                T.RandomHorizontalFlip(), *NORM],
    "nested": [T.Compose([T.RandomCrop(20), T.Compose(NORM)]), T.RandomApply(
        [T.Normalize([0.5], [0.5])], 0.5)],
}


@pytest.mark.parametrize("name", PIPELINES)
def test_same_bits(digits, name) -> None:
    transform = T.Compose(PIPELINES[name])
    data = with_transform(digits, transform)
    assert source_of(data) is not None
    for quick, single in zip(batches(data), batches(data, collate_fn=singly)):
        for a, b in zip(quick, single):
            assert a.shape == b.shape and a.dtype is b.dtype
            assert a.numpy().tobytes() == b.numpy().tobytes()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_same_bits_in_workers(digits) -> None:
    data = with_transform(digits, T.Compose(PIPELINES["perhaps"]))
    data = Subset(data, range(300))
    for quick, other in zip(batches(data), batches(data, num_workers=2)):
        assert quick[0].numpy().tobytes() == other[0].numpy().tobytes()
        assert quick[1].tolist() == other[1].tolist()


def test_augmentation_changes_from_epoch_to_epoch(digits) -> None:
    data = Subset(with_transform(digits, T.Compose(PIPELINES["turns"])), range(64))
    loader = DataLoader(data, batch_size=64)
    assert next(iter(loader))[0].numpy().tobytes() != next(iter(loader))[0].numpy().tobytes()


class Doubled(T.Normalize):
    def forward(self, tensor):
        return super().forward(tensor) * 2


class DoubledToo(Doubled):
    def batch(self, array, rng):
        return T.Normalize.into(self, array, None) * 2


class Mine:
    """A transform of somebody else's, with a form for batches."""

    def __call__(self, tensor):
        return tensor + 1

    def batch(self, array, rng):
        return array + 1


class Swapped(MNIST):
    def __getitem__(self, index):
        image, target = super().__getitem__(index)
        return target, image


def test_overrides_are_heard(digits) -> None:
    doubled = with_transform(digits, T.Compose([T.ToTensor(), Doubled((0.1,), (0.3,))]))
    assert source_of(doubled) is None
    too = with_transform(digits, T.Compose([T.ToTensor(), DoubledToo((0.1,), (0.3,))]))
    assert source_of(too) is not None
    x = batches(doubled, 1)[0][0]
    y = batches(too, 1)[0][0]
    plain = batches(with_transform(digits, T.Compose(
        [T.ToTensor(), T.Normalize((0.1,), (0.3,))])), 1)[0][0]
    assert np.array_equal(x.numpy(), y.numpy()) and np.array_equal(x.numpy(), 2 * plain.numpy())
    swapped = with_transform(digits, T.ToTensor(), Swapped)
    assert source_of(swapped) is None
    assert batches(swapped, 1)[0][0].dtype is facula.int64


def test_who_has_a_form_for_batches(digits) -> None:
    assert pipeline(T.Compose([T.ToTensor(), Mine()])) is not None
    for transform in (T.Compose([T.ToTensor(), T.Lambda(lambda t: t)]), lambda img: img,
                      T.Compose([]), T.Compose([T.RandomRotation(5, expand=True), T.ToTensor()]),
                      T.Compose([T.ToTensor(), T.ToTensor()]), T.Normalize((0.1,), (0.3,)),
                      T.RandomApply([T.ToTensor()]), T.RandomHorizontalFlip(),
                      T.Compose([T.ToTensor(), T.RandomErasing()])):
        assert pipeline(transform) is None
    assert source_of(with_transform(digits, None)) is None
    assert declares(DoubledToo, "batch", ("forward",)) and not declares(Doubled, "batch",
                                                                        ("forward",))


def test_changes_in_mid_epoch_are_heard(digits) -> None:
    transform = T.Compose([T.ToTensor(), T.Normalize((0.0,), (1.0,))])
    data = Subset(with_transform(digits, transform), range(128))
    loader = iter(DataLoader(data, batch_size=32))
    first = next(loader)[0]
    transform.transforms.append(T.Lambda(lambda t: t * 0 + 3))
    assert next(loader)[0].numpy().min() == 3.0 and first.numpy().max() == 1.0
    data.dataset.transform = T.PILToTensor()
    assert next(loader)[0].dtype is facula.uint8
    data.dataset.targets = facula.zeros(10_000, dtype=facula.int64)
    assert next(loader)[1].tolist() == [0] * 32


def test_written_labels_are_seen(digits) -> None:
    data = with_transform(digits, T.ToTensor())
    data.targets = digits.targets.clone()
    loader = iter(DataLoader(data, batch_size=4))
    assert next(loader)[1].tolist() == [7, 2, 1, 0]
    data.targets[4:8] = 5
    assert next(loader)[1].tolist() == [5, 5, 5, 5]


def test_errors_are_those_of_single_samples(digits) -> None:
    data = with_transform(digits, T.Compose([T.ToTensor(), T.Normalize((0.1, 0.2), (1.0, 1.0))]))
    with pytest.raises(RuntimeError, match="channels"):
        batches(data, 1)
    data = with_transform(digits, T.Compose([T.PILToTensor(), T.Normalize((0.1,), (1.0,))]))
    with pytest.raises(TypeError, match="float tensor"):
        batches(data, 1)
    with pytest.raises(TypeError, match="batch must contain"):
        batches(with_transform(digits, None), 1)


def test_streams_agree() -> None:
    places = np.array([0, 1, 5, 1 << 40], np.uint64)
    many = BatchStream(123456789123, places)
    single = [SampleStream(123456789123, int(p)) for p in places]
    for _ in range(3):
        assert many.uniform().tolist() == [s.uniform() for s in single]
    chosen = np.array([True, False, True, False])
    part = many.subset(chosen)
    assert part.uniform(2.0, 3.0).tolist() == [single[0].uniform(2.0, 3.0),
                                               single[2].uniform(2.0, 3.0)]
    inner = part.subset(np.array([False, True]))
    assert inner.integers(100).tolist() == [single[2].integers(100)]
    assert many.uniform().tolist() == [s.uniform() for s in single]
    numbers = BatchStream(7, np.arange(20_000)).uniform()
    assert 0.0 <= numbers.min() and numbers.max() < 1.0 and abs(numbers.mean() - 0.5) < 0.01


def test_last_batch_and_its_memory(digits) -> None:
    data = Subset(with_transform(digits, T.Compose(NORM)), range(70))
    sizes = [tuple(x.shape) for x, _ in DataLoader(data, batch_size=64)]
    assert sizes == [(64, 1, 28, 28), (6, 1, 28, 28)]
    x, _ = next(iter(DataLoader(data, batch_size=64)))
    assert not x._node.value.shared              # private memory: a step reads it in place
