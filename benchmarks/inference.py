"""Inference of convolutional networks on images, float32: ResNet-50, MobileNet, VGG, Inception.

    python benchmarks/inference.py [--quick] [--threads 2] [--rounds 7] [--only resnet50]
                                   [--out FOLDER]

Networks are those of `facula.vision.models` in evaluation mode under no_grad, images 224x224
(Inception: 299x299), weights and statistics drawn once and the same for all.  The peers are the
same source run with PyTorch's modules: eager, eager on channels-last memory, `torch.compile` with
freezing, and exported to ONNX in ONNX Runtime and OpenVINO, all float32.  Before anything is
timed, everyone's scores of the first image are held against float64 on facula's NumPy interpreter.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
from harness import ROOT, Benchmark, Contender, Missing, Worker

NETWORKS = {"resnet50": ("ResNet-50", 224), "mobilenet_v3_large": ("MobileNet-v3-large", 224),
            "vgg16": ("VGG-16", 224), "inception_v3": ("Inception-v3", 299)}
CASES = [("resnet50", 1), ("resnet50", 16), ("mobilenet_v3_large", 1), ("vgg16", 1),
         ("inception_v3", 1)]


def images(name: str, batch: int) -> np.ndarray:
    """A batch; the first image is the same for every size."""
    size = NETWORKS[name][1]
    return np.random.default_rng(1).standard_normal((batch, 3, size, size)).astype(np.float32)


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Values for parameters and statistics, which keep activations of a moderate size."""
    rng = np.random.default_rng(0)
    out = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            out[key] = np.zeros(shape, np.int64)
        elif len(shape) > 1:
            deviation = (2.0 / np.prod(shape[1:])) ** 0.5
            out[key] = (rng.standard_normal(shape) * deviation).astype(np.float32)
        elif key.endswith(("running_var", "weight")):
            out[key] = rng.uniform(0.5, 1.2, shape).astype(np.float32)
        else:
            out[key] = (0.1 * rng.standard_normal(shape)).astype(np.float32)
    return out


class Inference:
    """`run(n)` computes the scores n times; `scores` are those of the first image."""

    facts: dict[str, Any] = {}

    def __init__(self, one: Callable[[], Any]):
        self.one = one

    def scores(self) -> list[float]:
        return [float(v) for v in np.asarray(self.one())[0]]

    def run(self, n: int) -> None:
        for _ in range(n):
            self.one()


def facula_inference(options: dict[str, Any]) -> Inference:
    import facula
    from facula.vision import models
    facula.set_num_threads(options["threads"])
    net = getattr(models, options["network"])(init_weights=False) \
        if options["network"] in ("vgg16", "inception_v3") \
        else getattr(models, options["network"])()
    state = {k: facula.tensor(v) for k, v in weights(
        {k: tuple(v.shape) for k, v in net.state_dict().items()}).items()}
    net.load_state_dict(state)
    net.eval()
    x = facula.tensor(images(options["network"], options["batch"]))
    if options.get("exact"):
        net.double()
        x = x.double()

    def one() -> Any:
        with facula.no_grad():
            return forward(x).numpy()

    forward = facula.compile(net) if options.get("compile") else net
    return Inference(one)


def _translated(*place: str) -> Any:
    """A module of `facula.vision` as one of PyTorch's functions."""
    text = ROOT.joinpath("facula", "vision", *place).with_suffix(".py").read_text()
    for module in ("tensor", "ops.shape", "ops.creation"):
        text = text.replace(f"from facula.{module} import", "from torch import")
    return compile(text.replace("facula", "torch"), f"{place[-1]}.py", "exec")


@contextmanager
def _by_pytorch() -> Iterator[None]:
    """`torch.vision` has what the networks of `facula.vision.models` import from it."""
    class Weights(Enum):
        pass

    def unchanged(*_: Any) -> Any:
        return lambda make: make

    names = ("torch.vision", "torch.vision.models", "torch.vision.models._weights",
             "torch.vision.ops", "torch.vision.ops.misc")
    modules = {name: ModuleType(name) for name in names}
    modules["torch.vision.models._weights"].__dict__.update(
        WeightsEnum=Weights, register_model=unchanged, imagenet=lambda *_, **__: None,
        refuse=lambda *_: None)
    sys.modules.update(modules)
    try:
        exec(_translated("ops", "misc"), modules["torch.vision.ops.misc"].__dict__)
        yield
    finally:
        for name in names:
            del sys.modules[name]


def torch_network(options: dict[str, Any]) -> tuple[Any, Any, Any]:
    """(torch, the network with the weights, the images)."""
    try:
        import torch
    except ImportError:
        raise Missing("PyTorch is not installed") from None
    torch.set_num_threads(options["threads"])
    scope: dict[str, Any] = {}
    with _by_pytorch():
        for module in ("resnet", "vgg", "mobilenet", "inception"):
            exec(_translated("models", module), scope)
    net = scope[options["network"]](init_weights=False) \
        if options["network"] in ("vgg16", "inception_v3") else scope[options["network"]]()
    state = weights({k: tuple(v.shape) for k, v in net.state_dict().items()})
    net.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    net.eval()
    return torch, net, torch.from_numpy(images(options["network"], options["batch"]))


def torch_inference(options: dict[str, Any]) -> Inference:
    torch, net, x = torch_network(options)
    if options.get("channels_last"):
        net = net.to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
    if options.get("compile"):
        import torch._inductor.config
        torch._inductor.config.freezing = True
        net = torch.compile(net)

    def one() -> Any:
        with torch.no_grad():
            return net(x).numpy()

    return Inference(one)


def exported(options: dict[str, Any]) -> str:
    """The network as an ONNX file, made by the first who asks."""
    path = os.path.join(options["folder"], "network.onnx")
    if not os.path.exists(path):
        torch, net, x = torch_network(options)
        with torch.no_grad():
            torch.onnx.export(net, (x,), path + ".part", dynamo=False, input_names=["x"])
        os.rename(path + ".part", path)
    return path


def onnxruntime_inference(options: dict[str, Any]) -> Inference:
    try:
        import onnxruntime
    except ImportError:
        raise Missing("ONNX Runtime is not installed") from None
    how = onnxruntime.SessionOptions()
    how.intra_op_num_threads = options["threads"]
    how.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(exported(options), how,
                                           providers=["CPUExecutionProvider"])
    x = images(options["network"], options["batch"])
    return Inference(lambda: session.run(None, {"x": x})[0])


def openvino_inference(options: dict[str, Any]) -> Inference:
    try:
        import openvino
    except ImportError:
        raise Missing("OpenVINO is not installed") from None
    core = openvino.Core()
    network = core.compile_model(core.read_model(exported(options)), "CPU", {
        "INFERENCE_NUM_THREADS": options["threads"], "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"})
    x = images(options["network"], options["batch"])
    request = network.create_infer_request()

    def one() -> Any:
        request.infer({0: x}, share_inputs=True)
        return request.get_output_tensor(0).data

    return Inference(one)


@lru_cache
def exact_scores(name: str, threads: int) -> np.ndarray:
    """The first image's, in float64."""
    exact = Worker(__file__, "facula_inference",
                   {"network": name, "batch": 1, "threads": threads, "exact": True}, threads,
                   {"FACULA_JIT": "0"})
    try:
        return np.asarray(exact.call("scores"))
    finally:
        exact.close()


def measure(b: Benchmark, name: str, batch: int) -> None:
    title = f"{NETWORKS[name][0]}, batch {batch}"
    options = {"network": name, "batch": batch}
    want = exact_scores(name, b.threads)

    def check(label: str, worker: Worker) -> float:
        have = np.asarray(worker.call("scores"))
        error = float(np.linalg.norm(have - want) / np.linalg.norm(want))
        if not error < 1e-3:
            raise SystemExit(f"{label}: wrong: scores differ from float64 by {error:.1e}")
        return error

    with tempfile.TemporaryDirectory() as folder:
        files = {**options, "folder": folder}
        all_ = [
            Contender("facula", "facula_inference", options),
            Contender("facula.compile", "facula_inference", {**options, "compile": True}),
            Contender("torch eager", "torch_inference", options),
            Contender("torch channels_last", "torch_inference",
                      {**options, "channels_last": True}),
            Contender("torch.compile", "torch_inference", {**options, "compile": True}),
            Contender("ONNX Runtime", "onnxruntime_inference", files),
            Contender("OpenVINO", "openvino_inference", files)]
        rows = b.compare(
            [c for c in all_ if not b.args.peer or c.label.startswith("facula")
             or c.label in b.args.peer],
            rounds=b.args.rounds, seconds=0.1, check=check, unit="ms", per="batch", prefix=title,
            floors=["facula"])
    ours = min(r.median for label, r in rows.items() if label.startswith("facula"))
    torch = [r.median for label, r in rows.items() if label.startswith("torch")]
    others = [r.median for label, r in rows.items() if label.startswith("O")]
    for peers, what, bound in ((torch, "PyTorch's best", 1.2),
                               (others, "the better of ONNX Runtime and OpenVINO", 1.0)):
        if not peers:
            b.unclaimed(f"{title}: times as fast as {what}", "no such peer is here")
        elif peers is torch or name == "resnet50":
            b.claim(f"{title}: times as fast as {what}", min(peers) / ours, ">=", bound, "x")


def main() -> None:
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--rounds", type=int, default=7)
        parser.add_argument("--only", choices=sorted(NETWORKS))
        parser.add_argument("--batch", type=int)
        parser.add_argument("--peer", action="append",
                            help="measure this one, and others so named")

    b = Benchmark(__file__, "Inference of convolutional networks, float32",
                  "Scores of a batch of images, from the images in memory to the scores as an "
                  "array. Medians of interleaved rounds; the error is that of the first image's "
                  "scores, relative, in norm, against float64.", arguments)
    for name, batch in CASES[2:3] if b.quick and b.args.only is None else CASES:
        if b.args.only in (None, name) and b.args.batch in (None, batch):
            measure(b, name, batch)
    b.finish()


if __name__ == "__main__":
    main()
