"""Threads, forks, thread counts, instruction sets and the cache on disk."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import facula
from facula import config
from facula.graph.record import _local
from facula.runtime import cache
from tests.fuzz.graphs import fresh_recorder

ROOT = Path(__file__).resolve().parents[2]

TRAINING = """
import numpy as np
import facula
import facula.nn.functional as functional

def train(steps=4, rows=96, wide=80):
    facula.manual_seed(3)
    rng = np.random.default_rng(0)
    x = facula.tensor(rng.normal(size=(rows, 40)).astype("f4"))
    y = facula.tensor(rng.integers(0, 10, rows))
    shapes = [(40, wide), (wide,), (wide, 10), (10,)]
    params = [facula.tensor((rng.normal(size=s) * 0.1).astype("f4"), requires_grad=True)
              for s in shapes]
    losses = []
    for _ in range(steps):
        h = functional.dropout((x @ params[0] + params[1]).tanh(), 0.2, training=True)
        z = h @ params[2] + params[3]
        p = z.log_softmax(1)
        loss = -p.gather(1, y.unsqueeze(1)).mean() + sum((w * w).sum() for w in params) * 1e-3
        for w in params:
            w.grad = None
        loss.backward()
        with facula.no_grad():
            for w in params:
                w -= 0.1 * w.grad
        losses.append(loss.item())
    return losses, [w.detach().numpy().copy() for w in params]
"""
_scope: dict[str, Any] = {}
exec(TRAINING, _scope)
train = _scope["train"]


def run(code: str, **flags: Any) -> str:
    """What a program prints, run in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error",
                   **{f"FACULA_{k}": str(v) for k, v in flags.items()}}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


DIGEST = TRAINING + """
import hashlib
losses, params = train()
print(hashlib.sha256(b"".join(p.tobytes() for p in params)).hexdigest(), losses)
"""


def same(a: Any, b: Any) -> bool:
    return a[0] == b[0] and all(np.array_equal(p, q) for p, q in zip(a[1], b[1], strict=True))


# ---------------------------------------------------------------- threads

def test_results_are_the_same_bits_on_any_number_of_threads() -> None:
    before = facula.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 4, 1):
            facula.set_num_threads(threads)
            with fresh_recorder(INTERPRET=False):
                results.append(train(rows=600, wide=130))
        assert all(same(results[0], r) for r in results[1:])
    finally:
        facula.set_num_threads(before)


def test_large_reductions_are_the_same_bits_on_any_number_of_threads() -> None:
    rng = np.random.default_rng(0)
    x = facula.tensor(rng.normal(size=(400, 700)).astype("f4"))
    before = facula.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3, 4):
            facula.set_num_threads(threads)
            with fresh_recorder(INTERPRET=False):
                found.append([t.numpy().copy() for t in (
                    x.sum(), x.mean(0), x.std(1), x.softmax(0), x @ x.t(), x.cumsum(1).amax(),
                    (x * x).sum(0).sqrt().prod())])
        for other in found[1:]:
            assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))
    finally:
        facula.set_num_threads(before)


def test_threads_record_graphs_of_their_own() -> None:
    w = facula.tensor(np.arange(12.0).reshape(3, 4), requires_grad=True)
    frozen = facula.tensor(np.ones((4, 4)))
    pending = frozen * 2            # this thread's: whoever needs it first runs it
    failures: list[BaseException] = []
    start = threading.Barrier(6)

    def work(k: int) -> None:
        try:
            start.wait()
            for i in range(30):
                x = facula.tensor(np.full((2, 3), float(k + i)))
                y = (x @ w.detach() @ pending).sum()
                z = (x @ w).sin()
                g, = facula.autograd.grad(z.sum(), w)
                want = (np.full((2, 3), float(k + i)) @ np.arange(12.0).reshape(3, 4))
                np.testing.assert_allclose(y.item(), want.sum() * 8, rtol=1e-12)
                np.testing.assert_allclose(
                    g.numpy(), np.full((3, 2), float(k + i)) @ np.cos(want), rtol=1e-9,
                    atol=1e-9)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert not failures, failures[0]
    assert not any(t.is_alive() for t in threads)
    assert w.grad is None


def test_threads_train_models_of_their_own() -> None:
    facula.manual_seed(0)
    results: dict[int, Any] = {}

    def work(k: int) -> None:
        w = facula.tensor(np.arange(8.0).reshape(4, 2) / 8 + k, requires_grad=True)
        x = facula.tensor(np.arange(12.0).reshape(3, 4) / 12)
        for _ in range(20):
            w.grad = None
            ((x @ w - 1) ** 2).mean().backward()
            with facula.no_grad():
                w -= 0.1 * w.grad
        results[k] = w.detach().numpy().copy()

    # Compiled from the first run: NumPy and kernels differ in the last bits, and each thread
    # counts for itself how often it has seen a program.
    with fresh_recorder(INTERPRET=False):
        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(60)
        together = dict(results)
        for k in range(4):
            work(k)
            assert np.array_equal(together[k], results[k])


def test_gradient_mode_belongs_to_the_thread() -> None:
    seen = []
    with facula.no_grad():
        t = threading.Thread(target=lambda: seen.append(facula.is_grad_enabled()))
        t.start()
        t.join()
        assert not facula.is_grad_enabled()
    assert seen == [True]


def test_the_size_of_the_pool_may_change_at_any_time() -> None:
    x = facula.tensor(np.arange(60000.0))
    before = facula.get_num_threads()
    stop = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            while not stop.is_set():
                assert (x * 2 + 1).sum().item() == 60000.0 * 59999 + 60000
        except BaseException as error:
            failures.append(error)

    t = threading.Thread(target=work)
    with config.override(INTERPRET=False):
        t.start()
        try:
            for n in (1, 2, 3, 1, 4, 2):
                facula.set_num_threads(n)
                (x + n).sum().item()
        finally:
            stop.set()
            t.join(60)
            facula.set_num_threads(before)
    assert not failures and not t.is_alive()


# ---------------------------------------------------------------- processes

FORK = TRAINING + """
import os
facula.set_num_threads(2)
here = train(rows=600)
held = facula.tensor([1.0, 2.0]) * 3            # pending at the fork
for _ in range(3):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            assert held.tolist() == [3.0, 6.0]
            there = train(rows=600)
            assert there[0] == here[0], (there[0], here[0])
            code = 0
        finally:
            os._exit(code)
    assert train(rows=600)[0] == here[0]
    assert os.waitpid(child, 0)[1] == 0
assert held.tolist() == [3.0, 6.0]
print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_computes_with_a_pool_of_its_own() -> None:
    code = "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n" + FORK
    assert run(code, INTERPRET=0) == "fine\n"


SPAWN = """
import sys, multiprocessing, warnings
warnings.simplefilter('ignore', DeprecationWarning)
sys.path.insert(0, {folder!r})
from pooled import work
if __name__ == "__main__":
    import facula
    facula.set_num_threads(2)
    x = facula.tensor([float(i) for i in range(100000)])
    x.sum().item(), (x * x).mean().item()
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        print(pool.map(work, range(4)))
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(method: str, tmp_path: Path) -> None:
    (tmp_path / "pooled.py").write_text(
        "import facula\n"
        "def work(k):\n"
        "    x = facula.tensor([float(i) for i in range(50000)], dtype=facula.float64)\n"
        "    return [(x * k).sum().item() for _ in range(4)][-1] / 49999 / 25000\n")
    assert run(SPAWN.format(folder=str(tmp_path), method=method), INTERPRET=0) \
        == "[0.0, 1.0, 2.0, 3.0]\n"


def test_runs_are_the_same_from_process_to_process() -> None:
    found = {run(DIGEST), run(DIGEST, NUM_THREADS=1),
             run(DIGEST, CACHE=0, DEBUG=1, NUM_THREADS=4)}
    assert len(found) == 1


def test_half_precision_without_instructions_for_it() -> None:
    code = """
import numpy as np, facula
bits = np.arange(65536, dtype=np.uint16)
every = bits.view(np.float16)
wide = facula.from_numpy(every).to(facula.float32).numpy()
with np.errstate(invalid="ignore"):
    np.testing.assert_array_equal(wide, every.astype("f4"))
    back = facula.from_numpy(wide).to(facula.float16).numpy()
    np.testing.assert_array_equal(back, every)
    assert (np.signbit(back) == np.signbit(every)).all()
    near = (every[:-1].astype("f4") + every[1:].astype("f4")) / 2
    floats = np.concatenate([near, np.nextafter(near, np.float32(9e9)), np.nextafter(
        near, np.float32(-9e9)), np.float32([65519.99, 65520, 7e4, 1e30, 1e-30, 2**-25, 2**-24,
        -2**-25 * 1.0001, np.inf, -np.inf, np.nan])]).astype("f4")
    with np.errstate(over="ignore"):
        want = floats.astype("f2")
        wide_want = (floats.astype("f8") * 1.0001).astype("f2")
    np.testing.assert_array_equal(facula.from_numpy(floats).to(facula.float16).numpy(), want)
    doubles = facula.from_numpy(floats.astype("f8") * 1.0001)
    np.testing.assert_array_equal(doubles.to(facula.float16).numpy(), wide_want)
"""
    for isa in ("", "sse2"):
        run(code, ISA=isa, INTERPRET=0)


@functools.cache
def _interpreted(code: str) -> str:
    return run(code, JIT=0)


@pytest.mark.parametrize("isa", ["sse2", "avx2", "avx512", "amx"])
def test_instruction_sets_agree(isa: str) -> None:
    code = TRAINING + """
import sys
try:
    from facula.codegen.target import target
    from facula.runtime.jit import host
    target(), host()
except ValueError as error:
    print("none", error)
    sys.exit()
losses, params = train()
rng = np.random.default_rng(0)
out = [np.asarray(losses)]
for name in ("float16", "bfloat16", "float32", "float64"):
    x = facula.tensor(rng.normal(size=(6, 33)).astype("f4")).to(getattr(facula, name))
    for t in (x * x + 1, x.exp(), (x @ x.t()), x.sum(1), x.softmax(1), x.to(facula.float64),
              x.double().to(x.dtype), x.abs().sqrt(), (x * 100).to(facula.int32)):
        out.append(t.double().numpy().ravel())
c = facula.tensor(rng.normal(size=(5, 7)) + 1j * rng.normal(size=(5, 7)))
out += [(c * c.conj()).real.numpy().ravel(), c.abs().numpy().ravel()]
print(repr([round(float(v), 9) for v in np.concatenate(out)]))
"""
    found = run(code, ISA=isa, INTERPRET=0)
    if found.startswith("none"):
        pytest.skip(found.strip())
    np.testing.assert_allclose(eval(found), eval(_interpreted(code)), rtol=1e-2, atol=1e-5)


def test_the_ladder_of_debugging_prints_and_computes_the_same() -> None:
    code = TRAINING + "import sys\nprint(train(2)[0])"
    expected = run(code, INTERPRET=0)
    # The highest rung prints what all the lower ones do.
    assert run(code, INTERPRET=0, DEBUG=5, CACHE=0) == expected


# ---------------------------------------------------------------- the cache on disk

@pytest.fixture
def folder(tmp_path: Path) -> Any:
    with config.override(CACHE_DIR=str(tmp_path / "c")):
        yield tmp_path / "c"


PROGRAM = """
import facula, numpy as np
from facula.runtime.jit import statistics
x = facula.tensor(np.arange(700.0).reshape(20, 35))
print((x.sin().sum(1) * 2).sum().item(), (x @ x.t()).sum().item())
print(statistics["compiled"], statistics["loaded"])
"""


def _program(path: Path) -> tuple[str, int, int]:
    value, counts = run(PROGRAM, CACHE_DIR=path, INTERPRET=0).strip().split("\n")
    compiled, loaded = counts.split()
    return value, int(compiled), int(loaded)


def test_damaged_files_are_compiled_again(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    value, compiled, loaded = _program(path)
    assert compiled > 0 and loaded == 0
    assert _program(path) == (value, 0, compiled)
    files = sorted(path.rglob("*.fobj"))
    assert len(files) == compiled
    contents = [f.read_bytes() for f in files]
    damages = [lambda d: d[:len(d) // 2], lambda d: b"", lambda d: d[:90] + bytes([d[90] ^ 1])
               + d[91:], lambda d: b"x" * len(d), lambda d: d[:-1] + bytes([d[-1] ^ 255]),
               lambda d: d + b"0", lambda d: d[:16] + bytes(32) + d[48:],
               lambda d: contents[d == contents[0]]]    # the right form under the wrong key
    for start in range(0, len(damages), len(files)):
        some = damages[start:start + len(files)]        # each file in another way
        for f, data, damage in zip(files, contents, some):
            f.write_bytes(damage(data))
            assert f.read_bytes() != data
        assert _program(path) == (value, len(some), compiled - len(some))
        assert [f.read_bytes() for f in files] == contents


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    value, compiled, _ = _program(blocked)
    assert compiled > 0
    locked = tmp_path / "locked"
    locked.mkdir()
    first = _program(locked)
    for mode in (0o500, 0o000):
        locked.chmod(mode)
        try:
            found = _program(locked)
        finally:
            locked.chmod(0o700)
        assert found[0] == first[0]
        assert found[1] + found[2] == first[1]
    dangling = tmp_path / "link"
    dangling.symlink_to(tmp_path / "nowhere" / "at" / "all")
    assert _program(dangling)[0] == value


def test_files_of_another_user_are_not_trusted(folder: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    key = cache.key_of("a", "b")
    cache.store(key, b"payload")
    assert cache.load(key) == b"payload"
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    assert cache.load(key) is None


def test_a_temporary_file_left_behind_is_no_result(folder: Path) -> None:
    key = cache.key_of("x")
    path = Path(cache.path_of(key))
    path.parent.mkdir(parents=True)
    left = path.parent / ".tmp-killed"
    left.write_bytes(b"half")
    assert cache.load(key) is None
    cache.store(key, b"whole")
    assert cache.load(key) == b"whole"
    os.utime(left, (1, 1))
    cache.trim(1 << 20)
    assert not left.exists() and cache.load(key) == b"whole"


def test_processes_that_race_for_one_folder(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FACULA_INTERPRET": "0",
                   "FACULA_CACHE_DIR": str(tmp_path / "cache")}
    running = [subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment,
                                stdout=subprocess.PIPE, text=True) for _ in range(3)]
    values = {p.communicate(timeout=120)[0].split("\n")[0] for p in running}
    assert len(values) == 1 and all(p.returncode == 0 for p in running)
    assert not list((tmp_path / "cache").rglob(".tmp-*"))
    assert _program(tmp_path / "cache")[1] == 0


def test_the_recorder_of_this_thread_is_left_as_it_was() -> None:
    assert _local.rec.depth == 0 and _local.rec.grad


def test_a_driver_that_is_being_made_is_waited_for_before_a_fork(monkeypatch):
    """Its thread holds the compiler's locks, which nobody would release in the child."""
    import time

    from facula.runtime import threads
    made = []

    def slow():
        time.sleep(0.2)
        made.append(None)

    monkeypatch.setattr(threads, "_driver", None)
    monkeypatch.setattr(threads, "_ahead", None)
    monkeypatch.setattr(threads, "driver", slow)
    monkeypatch.setattr(threads, "get_num_threads", lambda: 2)
    threads.driver_ahead()
    threads.driver_ahead()
    assert not made
    threads._land()
    assert len(made) == 1
