"""Files of events, read back byte by byte."""

import io
import struct

import numpy as np
import pytest

import facula
from facula.utils.tensorboard import SummaryWriter, crc32c


def fields(data):
    """The fields of a message in the wire format: (number, value)."""
    out, at = [], 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            value = varint()
        else:
            size = {1: 8, 5: 4}.get(kind) or varint()
            value = data[at:at + size]
            at += size
            if kind != 2:
                value = struct.unpack("<d" if kind == 1 else "<f", value)[0]
        out.append((key >> 3, value))
    return out


def events(folder):
    """The events of the one file in a folder, as dicts of fields."""
    path, = [p for p in folder.iterdir() if p.is_file()]
    assert "tfevents" in path.name
    data, at, out = path.read_bytes(), 0, []
    while at < len(data):
        head = data[at:at + 8]
        size, = struct.unpack("<Q", head)
        body = data[at + 12:at + 12 + size]
        for part, place in ((head, at + 8), (body, at + 12 + size)):
            crc = crc32c(part)
            masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
            assert struct.unpack("<I", data[place:place + 4])[0] == masked
        out.append(dict(fields(body)))
        at += 16 + size
    assert out[0][3] == b"brain.Event:2"
    return out[1:]


def value(event):
    found = dict(fields(dict(fields(event[5]))[1]))
    return found.pop(1).decode(), found


def test_checksum():
    assert crc32c(b"123456789") == 0xE3069283 and crc32c(b"") == 0
    assert crc32c(bytes(32)) == 0x8A9136AA                    # RFC 3720, B.4


def test_scalars(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_scalar("loss", facula.tensor([0.5], requires_grad=True), 3)
        writer.add_scalar("loss", float("nan"), 300, walltime=12.5)
        writer.add_scalar("loss", np.float64(1e300))
        assert writer.get_logdir() == str(tmp_path)
    first, second, third = events(tmp_path)
    assert value(first) == ("loss", {2: 0.5}) and first[2] == 3 and first[1] > 1e9
    assert np.isnan(value(second)[1][2]) and second[2] == 300 and second[1] == 12.5
    assert value(third)[1][2] == np.inf and 2 not in third


def test_several_scalars(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_scalars("loss/all", {"train": 1.0, "test": 2}, 5)
    for name, number in (("train", 1), ("test", 2)):
        event, = events(tmp_path / f"loss_all_{name}")
        assert value(event) == ("loss/all", {2: number})


def test_histograms(tmp_path):
    x = np.random.RandomState(0).randn(1000)
    with SummaryWriter(tmp_path) as writer:
        writer.add_histogram("w", facula.tensor(x), 1)
        writer.add_histogram("w", x, 2, bins=10)
        with pytest.raises(ValueError, match="no element"):
            writer.add_histogram("w", np.zeros(0))
    for event in events(tmp_path):
        found = dict(fields(value(event)[1][5]))
        assert found[1] == x.min() and found[2] == x.max() and found[3] == 1000
        assert found[4] == pytest.approx(x.sum()) and found[5] == pytest.approx((x * x).sum())
        limits, counts = np.frombuffer(found[6]), np.frombuffer(found[7])
        assert len(limits) == len(counts) and counts.sum() == 1000 and (np.diff(limits) > 0).all()
        below = [(x < limit).sum() for limit in limits]
        np.testing.assert_array_equal(np.cumsum(counts)[:-1], below[:-1])


def test_images(tmp_path):
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.RandomState(0).randint(0, 256, (3, 4, 5)).astype(np.uint8)
    with SummaryWriter(tmp_path) as writer:
        writer.add_image("a", facula.tensor(pixels), 1)
        writer.add_image("a", pixels[0] / 255.0, 2, dataformats="HW")
        writer.add_images("a", np.stack([pixels, pixels]), 3)
        with pytest.raises(ValueError, match="dataformats"):
            writer.add_image("a", pixels[0])
    wanted = [pixels.transpose(1, 2, 0), pixels[0],
              np.concatenate([pixels.transpose(1, 2, 0)] * 2, 1)]
    for event, want in zip(events(tmp_path), wanted, strict=True):
        found = dict(fields(value(event)[1][4]))
        assert (found[1], found[2]) == want.shape[:2]
        got = np.asarray(image.open(io.BytesIO(found[4]))).astype(int)
        assert np.abs(got - want).max() <= 1


def test_texts_and_settings(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_text("note", "**a**", 1)
        writer.add_hparams({"lr": 0.1}, {"accuracy": 0.5}, run_name="r")
        with pytest.raises(NotImplementedError, match="viz"):
            writer.add_graph(None)
        with pytest.raises(NotImplementedError, match="add_video"):
            writer.add_video("v", None)
    tag, found = value(events(tmp_path)[0])
    assert tag == "note/text_summary" and dict(fields(found[8]))[8] == b"**a**"
    text, scalar = events(tmp_path / "r")
    assert b"|lr|0.1|" in dict(fields(value(text)[1][8]))[8]
    assert value(scalar) == ("accuracy", {2: 0.5})


def test_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    writer = SummaryWriter(comment="_x")
    writer.add_scalar("a", 1)
    writer.flush()
    assert len(events(next((tmp_path / "runs").iterdir()))) == 1
    writer.close()
    assert next((tmp_path / "runs").iterdir()).name.endswith("_x")
    with pytest.raises(ValueError, match="one number"):
        writer.add_scalar("a", [1, 2])
