"""The command line, its progress bar and its pictures."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest

from facula import config
from facula.cli import main, pictures
from facula.cli.cache import size
from facula.cli.progress import Bar


def test_env_names_versions_and_flags(capsys):
    assert main(["env"]) == 0
    out = capsys.readouterr().out
    for word in ("numpy", "llvmlite", "python", "instruction set", "threads", "FACULA_DEBUG"):
        assert word in out


def test_no_command_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_cache_info_and_clear(tmp_path, capsys):
    from facula.runtime import cache
    with config.override(CACHE_DIR=str(tmp_path), CACHE=True):
        assert size() == (0, 0)
        for text in ("a", "b"):
            cache.store(cache.key_of(text), text.encode() * 1000)
        count, total = size()
        assert count == 2 and total > 2000
        assert main(["cache"]) == 0
        assert "2 kernels" in capsys.readouterr().out
        stranger = tmp_path / "objects" / "mine.txt"
        stranger.write_text("kept")
        assert main(["cache", "clear"]) == 1             # something is left that is not ours
        stranger.unlink()
        assert main(["cache", "clear"]) == 0
        assert size() == (0, 0)


def test_bar_grows_to_its_width():
    bar = Bar(10, "x", width=8, stream=io.StringIO())
    widths = [len(bar.line(n).rstrip("| ")) for n in range(11)]
    assert widths == sorted(widths)
    assert bar.line(10) == "x |████████| "
    assert bar.line(0) == "x |        | "
    assert bar.line(99) == bar.line(10)


def test_bar_is_one_line_where_there_is_no_terminal():
    out = io.StringIO()
    bar = Bar(3, stream=out)
    for n in range(4):
        assert not bar.due
        bar.draw(n, "half way")
    bar.close("done")
    assert out.getvalue().count("\n") == 1 and "\r" not in out.getvalue()
    assert "done" in out.getvalue()


def test_bar_draws_over_itself_on_a_terminal():
    class Terminal(io.StringIO):
        encoding = "ascii"

        def isatty(self):
            return True

    out = Terminal()
    bar = Bar(4, "e", width=4, stream=out, every=0)
    assert bar.due
    bar.draw(2, "a longer text")
    bar.draw(3, "short")
    bar.close()
    parts = out.getvalue().split("\r")[1:]
    assert parts[0] == "e |##  | a longer text"
    assert len(parts[1]) == len(parts[0])                # the longer text is wiped
    assert out.getvalue().isascii()


@pytest.mark.parametrize("low, high", [(0, 1), (0, 0.003), (2, 9400), (0, 2.3), (5, 5)])
def test_ticks_are_round_and_inside(low, high):
    found = pictures.ticks(low, high)
    assert len(found) <= 7
    for value in found:
        assert low - 1e-9 <= value <= high + 1e-9 + 1e-9 * abs(high)


def test_smooth_is_the_mean_of_what_came_before():
    np.testing.assert_allclose(pictures.smooth(np.array([1.0, 3.0, 5.0, 7.0]), 2), [1, 2, 4, 6])


def test_pictures(tmp_path):
    image = pytest.importorskip("PIL.Image")
    steps = np.arange(50) / 10
    loss = np.exp(-steps)
    loss[7] = np.nan
    path = tmp_path / "curve.png"
    pictures.curve(str(path), "a curve", "epoch", [("loss", steps, loss)], faint=(steps, loss))
    with image.open(path) as picture:
        assert picture.size == (960, 560)
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10
    for count in (0, 1, 23):
        path = tmp_path / f"digits{count}.png"
        pictures.digits(str(path), "digits", np.full((count, 28, 28), 255, np.uint8),
                        ["1 > 7"] * count)
        with image.open(path) as picture:
            assert picture.width == 12 + 10 * (84 + 12)


def test_demo_trains_saves_and_draws(tmp_path, capsys):
    pytest.importorskip("PIL")
    status = main(["demo", "--epochs", "1", "--limit", "3200", "--out", str(tmp_path),
                   "--data", str(tmp_path / "data")])
    out = capsys.readouterr().out
    assert status == 0, out
    assert "test accuracy" in out and "images/s" in out and "the same" in out
    accuracy = float(out.split("test accuracy ")[1].split("%")[0])
    assert accuracy > 70
    assert {"loss.png", "misclassified.png", "mnist.safetensors"} <= set(os.listdir(tmp_path))
