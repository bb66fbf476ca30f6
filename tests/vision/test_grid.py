"""Grids of images, and files of them."""

from __future__ import annotations

import io

import numpy as np
import pytest

import facula
from facula.errors import ShapeError
from facula.vision import utils


def test_places_of_images():
    images = facula.arange(5 * 2 * 3 * 4, dtype=facula.float32).reshape(5, 2, 3, 4)
    grid = utils.make_grid(images, nrow=2, padding=1, pad_value=-1.0).numpy()
    assert grid.shape == (2, 3 * 4 + 1, 2 * 5 + 1)
    seen = np.zeros(grid.shape[1:], bool)
    for k in range(5):
        rows, columns = slice(k // 2 * 4 + 1, k // 2 * 4 + 4), slice(k % 2 * 5 + 1, k % 2 * 5 + 5)
        np.testing.assert_array_equal(grid[:, rows, columns], images[k].numpy())
        seen[rows, columns] = True
    assert (grid[:, ~seen] == -1).all()


def test_one_channel_becomes_three_and_one_image_has_no_border():
    image = facula.rand(1, 5, 6)
    grid = utils.make_grid(image)
    assert grid.shape == (3, 5, 6)
    assert all(np.array_equal(grid[c].numpy(), image[0].numpy()) for c in range(3))
    np.testing.assert_array_equal(utils.make_grid(image[0]).numpy(), grid.numpy())
    assert utils.make_grid([image, image]).shape == (3, 9, 18)
    assert utils.make_grid([image[0], image[0]]).shape == (3, 9, 18)


@pytest.mark.parametrize("each", [False, True])
def test_scaling(each):
    images = facula.tensor([[[[0.0, 1.0]]] * 3, [[[2.0, 6.0]]] * 3])
    grid = utils.make_grid(images, padding=0, normalize=True, scale_each=each).numpy()[0, 0]
    np.testing.assert_allclose(grid, [0, 1, 0, 1] if each else [0, 1 / 6, 2 / 6, 1], rtol=1e-6)
    some = utils.make_grid(images, padding=0, normalize=True, value_range=(1, 3)).numpy()[0, 0]
    np.testing.assert_allclose(some, [0, 0, 0.5, 1], rtol=1e-6)
    same = utils.make_grid(facula.full((1, 3, 2, 2), 7.0), normalize=True)
    assert (same.numpy() == 0).all()
    assert (images[1].numpy() == [[2.0, 6.0]]).all(), "the images are the caller's"


def test_no_images():
    assert utils.make_grid(facula.zeros(0, 3, 4, 4), normalize=True).shape == (3, 2, 2)


def test_what_is_no_grid():
    with pytest.raises(TypeError, match="tensor or list of tensors"):
        utils.make_grid(np.zeros((1, 3, 2, 2)))
    with pytest.raises(ShapeError, match="one size"):
        utils.make_grid([facula.zeros(3, 2, 2), facula.zeros(3, 2, 3)])
    with pytest.raises(ShapeError, match="not of"):
        utils.make_grid(facula.zeros(3))
    with pytest.raises(TypeError, match="value_range"):
        utils.make_grid(facula.zeros(1, 3, 2, 2), normalize=True, value_range=1.0)


def test_a_file(tmp_path):
    image = pytest.importorskip("PIL.Image")
    pixels = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)
    batch = facula.tensor(pixels.astype(np.float32) / 255)
    utils.save_image(batch, tmp_path / "two.png", padding=0)
    back = np.moveaxis(np.asarray(image.open(tmp_path / "two.png")), 2, 0)
    np.testing.assert_array_equal(back, np.concatenate(list(pixels), axis=2))
    memory = io.BytesIO()
    utils.save_image(batch[0] * 3 - 1, memory, format="png")
    found = np.moveaxis(np.asarray(image.open(memory)), 2, 0)
    np.testing.assert_array_equal(found, np.clip(pixels[0].astype(int) * 3 - 255, 0, 255))
