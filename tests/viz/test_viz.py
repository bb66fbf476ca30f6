"""Pictures of graphs: what is in them, and that they can be read."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

import facula
from facula import nn, optim, viz
from facula.viz.layout import place


def model():
    facula.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


def loss_of(net):
    x = facula.tensor([[1.0, 2.0, 3.0, 4.0]] * 2)
    return nn.functional.cross_entropy(net(x), facula.tensor([0, 2]))


def parsed(svg):
    root = ET.fromstring(svg)
    boxes = [(float(r.get("x")), float(r.get("y")), float(r.get("width")), float(r.get("height")))
             for r in root.iter("{http://www.w3.org/2000/svg}rect") if r.get("x")]
    return root, boxes


def test_pending():
    net = model()
    loss = loss_of(net)
    picture = viz.graph(loss, names=net)
    text = str(picture)
    assert "matmul" in text and "0.weight" in text and "test_viz.py" in text
    assert loss._node.value is None, "nothing is computed for a picture"
    numbers = [n.number for n in picture.nodes]
    assert numbers == sorted(set(numbers))
    assert all(e.source in numbers and e.target in numbers for e in picture.edges)
    assert {n.kind for n in picture.nodes} >= {"leaf", "parameter", "operation", "output"}
    assert sum(n.kind == "parameter" for n in picture.nodes) == 4


def test_computed():
    net = model()
    loss = loss_of(net)
    before = len(viz.graph(loss))
    loss.item()
    picture = viz.graph(loss)
    assert len(picture) == before and "matmul" in str(picture)
    doubled = viz.graph(loss * 2)
    assert len(doubled) > before and "matmul" in str(doubled)
    assert len(viz.graph(facula.tensor([1.0]))) == 1
    loss.backward()
    assert len(viz.graph(net[0].weight.grad)) > 1 or net[0].weight.grad._node.value is not None


def test_fused():
    net = model()
    loss = loss_of(net)
    plain, fused = viz.graph(loss), viz.graph(loss, fused=True, llvm=True)
    boxes = [n for n in fused.nodes if n.kind == "kernel"]
    assert 0 < len(boxes) < sum(n.kind == "operation" for n in plain.nodes)
    assert any("define" in b.detail for b in boxes)
    assert any("test_viz.py" in line for b in boxes for line in b.lines)
    assert all(e.source != e.target for e in fused.edges)
    assert loss._node.value is None
    listing = viz.kernels(loss)
    assert len(listing) == len(boxes) and "matmul" in str(listing)
    assert "ret" in listing[0].assembly()


def test_numpy_steps():
    x = facula.rand(7)
    picture = viz.graph((x * 2).sort()[0] + 1, fused=True)
    assert any(n.kind == "host" for n in picture.nodes)


def test_compiled():
    net = model()
    opt = optim.SGD(net.parameters(), lr=0.1)

    @facula.compile
    def step(x, y):
        opt.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
        return loss
    with pytest.raises(ValueError):
        viz.graph(step)
    x, y = facula.tensor([[1.0, 2.0, 3.0, 4.0]] * 2), facula.tensor([0, 2])
    for _ in range(3):
        step(x, y)
    text = str(viz.graph(step))
    assert "argument 0" in text and "net.0.weight" in text and "matmul" in text
    assert viz.kernels(step)
    assert any(n.kind == "kernel" for n in viz.graph(step, fused=True).nodes)


def test_forms(tmp_path):
    picture = viz.graph(loss_of(model()))
    root, boxes = parsed(picture.svg())
    assert len(boxes) == len(picture)
    page = picture.html()
    assert page.startswith("<!doctype html>") and "<svg" in page and "http://" not in \
        page.replace("http://www.w3.org/2000/svg", "")
    assert "<svg" in picture._repr_html_() and picture._repr_svg_() == picture.svg()
    for name in ("a.svg", "a.html", "a.txt"):
        picture.save(tmp_path / name)
        assert (tmp_path / name).stat().st_size
    with pytest.raises(ValueError):
        picture.save(tmp_path / "a.png")
    with pytest.raises(TypeError):
        viz.graph(3)
    with pytest.raises(TypeError):
        viz.graph()


def overlap(a, b):
    return abs(a[0] - b[0]) * 2 < a[2] + b[2] - 0.01 and abs(a[1] - b[1]) * 2 < a[3] + b[3] - 0.01


def test_layout_of_many():
    x = facula.rand(3)
    terms = [x]
    for i in range(150):
        terms.append(terms[-1] * terms[i // 2] + float(i))
    picture = viz.graph(terms[-1])
    assert len(picture) > 300
    _, boxes = parsed(picture.svg())
    centres = [(x + w / 2, y + h / 2, w, h) for x, y, w, h in boxes]
    assert not any(overlap(a, b) for k, a in enumerate(centres) for b in centres[:k])
    assert all(x >= 0 and y >= 0 for x, y, _, _ in boxes)


def test_arrows_point_down():
    arrows = [(0, 2), (1, 2), (2, 3), (0, 3), (3, 4), (1, 4)]
    centres, ways = place([(40, 20)] * 5, arrows)
    for (a, b), way in zip(arrows, ways):
        ys = [centres[a][1], *[y for _, y in way], centres[b][1]]
        assert ys == sorted(ys) and len(set(ys)) == len(ys)
