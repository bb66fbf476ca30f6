"""`SummaryWriter`: files of events that TensorBoard shows.

A file is a row of records (length, checksum, content, checksum, as TensorFlow writes them), each
of them an `Event` in the wire format of protocol buffers; both are written here, and no other
package is needed.
"""

from __future__ import annotations

import importlib
import io
import os
import socket
import struct
import time
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from facula.tensor import Tensor

__all__ = ["SummaryWriter"]


# ---------------------------------------------------------------- the format

def _table() -> list[int]:
    out = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        out.append(n)
    return out


_CRC = _table()


def crc32c(data: bytes) -> int:
    """The checksum of Castagnoli's polynomial."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _CRC[(value ^ byte) & 255]
    return value ^ 0xFFFFFFFF


def _masked(data: bytes) -> bytes:
    value = crc32c(data)
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _varint(n: int) -> bytes:
    n &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def _bytes(field: int, data: bytes | str) -> bytes:
    content = data.encode() if isinstance(data, str) else data
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _float(field: int, value: float) -> bytes:
    with np.errstate(over="ignore"):
        return _varint(field << 3 | 5) + np.float32(value).tobytes()


def _whole(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _png(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 1, 3 or 4] as a PNG file."""
    h, w, channels = pixels.shape
    rows = np.zeros((h, 1 + w * channels), np.uint8)       # a row begins with its filter: none
    rows[:, 1:] = pixels.reshape(h, -1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", w, h, 8, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
            + chunk(b"IDAT", zlib.compress(rows.tobytes())) + chunk(b"IEND", b""))


# ---------------------------------------------------------------- values

def _array(value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        value = value.detach().numpy()
    return np.asarray(value)


def _number(value: Any) -> float:
    array = _array(value)
    if array.size != 1:
        raise ValueError(f"a scalar is one number, and this has shape {list(array.shape)}")
    return float(array.reshape(()))


def _pixels(image: Any, dataformats: str) -> np.ndarray:
    """An image as uint8 [H, W, C]; floats count as being between 0 and 1."""
    array = _array(image)
    if array.ndim != len(dataformats):
        raise ValueError(f"an image of shape {list(array.shape)} is not {dataformats!r}: say with "
                         "dataformats= which dimension is which")
    if "C" not in dataformats:
        array, dataformats = array[..., None], dataformats + "C"
    array = array.transpose([dataformats.index(name) for name in "HWC"])
    if array.shape[-1] not in (1, 3, 4):
        raise ValueError(f"an image has 1, 3 or 4 channels, and this {array.shape[-1]}")
    if array.dtype != np.uint8:
        array = np.clip(array.astype(np.float64) * 255, 0, 255).astype(np.uint8)
    return array


_LIMITS = 1e-12 * 1.1 ** np.arange(774)
_EDGES = np.concatenate([-_LIMITS[::-1], [0.0], _LIMITS])
"""Where TensorBoard's own histograms change buckets."""


def _histogram(values: np.ndarray, bins: Any) -> bytes:
    flat = values.reshape(-1).astype(np.float64)
    if not flat.size:
        raise ValueError("The input has no element.")
    edges = _EDGES if bins == "tensorflow" else bins
    counts, limits = np.histogram(flat, bins=edges)
    used = np.flatnonzero(counts)
    first, last = (max(used[0] - 1, 0), used[-1]) if used.size else (0, 0)
    counts, right = counts[first:last + 1], limits[first + 1:last + 2]
    return (_double(1, float(flat.min())) + _double(2, float(flat.max()))
            + _double(3, float(flat.size)) + _double(4, float(flat.sum()))
            + _double(5, float(flat @ flat)) + _bytes(6, right.astype("<f8").tobytes())
            + _bytes(7, counts.astype("<f8").tobytes()))


class SummaryWriter:
    """Writes what is added to a file of events in `log_dir`.

    The folder is runs/<date>_<host><comment> unless `log_dir` is given.
    """

    def __init__(self, log_dir: Any = None, comment: str = "", purge_step: int | None = None,
                 max_queue: int = 10, flush_secs: int = 120, filename_suffix: str = "") -> None:
        if not log_dir:
            stamp = time.strftime("%b%d_%H-%M-%S")
            log_dir = os.path.join("runs", f"{stamp}_{socket.gethostname()}{comment}")
        self.log_dir = os.fspath(log_dir)
        self.filename_suffix = filename_suffix
        self._files: dict[str, Any] = {}
        self._latest = time.monotonic()
        self._every = flush_secs
        self._file(self.log_dir)
        if purge_step is not None:                # what came after that step counts no more
            self._event(self.log_dir, _bytes(7, _whole(1, 1)), purge_step, None)

    def get_logdir(self) -> str:
        """The folder of the file."""
        return self.log_dir

    def _file(self, folder: str) -> Any:
        found = self._files.get(folder)
        if found is None:
            os.makedirs(folder, exist_ok=True)
            name = (f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}."
                    f"{os.getpid()}.{len(self._files)}{self.filename_suffix}")
            found = self._files[folder] = open(os.path.join(folder, name), "ab")  # noqa: SIM115
            self._record(found, _double(1, time.time()) + _bytes(3, "brain.Event:2"))
        return found

    def _record(self, file: Any, data: bytes) -> None:
        head = struct.pack("<Q", len(data))
        file.write(head + _masked(head) + data + _masked(data))

    def _event(self, folder: str, content: bytes, step: int | None, walltime: float | None
               ) -> None:
        head = _double(1, time.time() if walltime is None else walltime)
        if step is not None:
            head += _whole(2, int(_number(step)))
        self._record(self._file(folder), head + content)
        if time.monotonic() - self._latest > self._every:
            self.flush()

    def _add(self, tag: str, value: bytes, step: int | None, walltime: float | None,
             folder: str | None = None) -> None:
        self._event(folder or self.log_dir, _bytes(5, _bytes(1, _bytes(1, tag) + value)), step,
                    walltime)

    def add_scalar(self, tag: str, scalar_value: Any, global_step: int | None = None,
                   walltime: float | None = None, new_style: bool = False,
                   double_precision: bool = False) -> None:
        """One number: a Python number, or an array or tensor of one element."""
        self._add(tag, _float(2, _number(scalar_value)), global_step, walltime)

    def add_scalars(self, main_tag: str, tag_scalar_dict: Mapping[str, Any],
                    global_step: int | None = None, walltime: float | None = None) -> None:
        """Several numbers for one diagram, each in a folder of its own."""
        for tag, value in tag_scalar_dict.items():
            folder = os.path.join(self.log_dir, f"{main_tag.replace('/', '_')}_{tag}")
            self._add(main_tag, _float(2, _number(value)), global_step, walltime, folder)

    def add_histogram(self, tag: str, values: Any, global_step: int | None = None,
                      bins: Any = "tensorflow", walltime: float | None = None,
                      max_bins: int | None = None) -> None:
        """How often which values are there; `bins` as NumPy's, or 'tensorflow'."""
        self._add(tag, _bytes(5, _histogram(_array(values), bins)), global_step, walltime)

    def add_image(self, tag: str, img_tensor: Any, global_step: int | None = None,
                  walltime: float | None = None, dataformats: str = "CHW") -> None:
        """An image, of bytes or of floats between 0 and 1; `dataformats` names its dimensions."""
        pixels = _pixels(img_tensor, dataformats)
        h, w, channels = pixels.shape
        image = _whole(1, h) + _whole(2, w) + _whole(3, channels) + _bytes(4, _png(pixels))
        self._add(tag, _bytes(4, image), global_step, walltime)

    def add_images(self, tag: str, img_tensor: Any, global_step: int | None = None,
                   walltime: float | None = None, dataformats: str = "NCHW") -> None:
        """Several images, side by side."""
        array = _array(img_tensor)
        array = np.moveaxis(array, dataformats.index("N"), 0)
        rest = dataformats.replace("N", "")
        row = np.concatenate(list(array), axis=rest.index("W"))
        self.add_image(tag, row, global_step, walltime, rest)

    def add_figure(self, tag: str, figure: Any, global_step: int | None = None,
                   close: bool = True, walltime: float | None = None) -> None:
        """A figure of Matplotlib's, as an image."""
        from PIL import Image
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        with Image.open(buffer) as image:
            pixels = np.asarray(image.convert("RGB"))
        self.add_image(tag, pixels, global_step, walltime, "HWC")
        if close:
            importlib.import_module("matplotlib.pyplot").close(figure)

    def add_text(self, tag: str, text_string: str, global_step: int | None = None,
                 walltime: float | None = None) -> None:
        """A text in Markdown."""
        metadata = _bytes(9, _bytes(1, _bytes(1, "text")))
        content = _whole(1, 7) + _bytes(2, _bytes(2, _whole(1, 1))) + _bytes(8, text_string)
        self._add(f"{tag}/text_summary", metadata + _bytes(8, content), global_step, walltime)

    def add_hparams(self, hparam_dict: Mapping[str, Any], metric_dict: Mapping[str, Any],
                    hparam_domain_discrete: Any = None, run_name: str | None = None,
                    global_step: int | None = None) -> None:
        """Settings, as a text, and what came of them, as numbers, in a folder of their own."""
        folder = os.path.join(self.log_dir, run_name or str(time.time()))
        with SummaryWriter(folder) as other:
            rows = "\n".join(f"|{name}|{value}|" for name, value in hparam_dict.items())
            other.add_text("hparams", f"|name|value|\n|-|-|\n{rows}", global_step)
            for name, value in metric_dict.items():
                other.add_scalar(name, value, global_step)

    def _refuse(self, name: str) -> None:
        raise NotImplementedError(f"SummaryWriter.{name}: there are scalars, histograms, images, "
                                  "figures and texts")

    def add_graph(self, model: Any, input_to_model: Any = None, verbose: bool = False,
                  use_strict_trace: bool = True) -> None:
        """NotImplementedError: `facula.viz` draws what a model computes."""
        raise NotImplementedError("SummaryWriter.add_graph: facula.viz.graph(model(x)) draws what "
                                  "a model computes")

    def add_embedding(self, *args: Any, **kwargs: Any) -> None:
        """NotImplementedError."""
        self._refuse("add_embedding")

    def add_video(self, *args: Any, **kwargs: Any) -> None:
        """NotImplementedError."""
        self._refuse("add_video")

    def add_audio(self, *args: Any, **kwargs: Any) -> None:
        """NotImplementedError."""
        self._refuse("add_audio")

    def add_pr_curve(self, *args: Any, **kwargs: Any) -> None:
        """NotImplementedError."""
        self._refuse("add_pr_curve")

    def flush(self) -> None:
        """Write what has been added to the disk."""
        self._latest = time.monotonic()
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        """Write everything and close the files; another `add_...` opens new ones."""
        for file in self._files.values():
            file.close()
        self._files = {}

    def __enter__(self) -> SummaryWriter:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()
