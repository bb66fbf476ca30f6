"""What every benchmark shares: contenders in processes of their own, interleaved rounds, medians.

A contender is a factory, a function of a benchmark script that gets a dictionary of options and
returns an object with `run(n)`, which does the work n times and returns when it has been done.
Each lives in its own process, made once, which is blocked on a pipe while it is not its turn: so
no contender's idle threads (OpenMP's spin for a while) take a core from another's round, and
before a round starts the harness waits until the one before has come to rest.

Rounds go in turn: one of each, many times, each time another one first.  Whatever the machine
does meanwhile falls on all alike; a figure is a median of rounds and a claim is a ratio of
medians taken in one run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import select
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
for _path in (str(HERE), str(ROOT)):
    if _path not in sys.path:
        sys.path.insert(0, _path)

PACKAGES = ("facula", "numpy", "llvmlite", "torch", "jax", "jaxlib")

LONG = 1e-3
"""Seconds of a step from which on the plain loop is held against facula.compile."""


class Missing(Exception):
    """Raised by a factory: this contender cannot be run here, and why."""


class Failed(Exception):
    """A contender's process raised, died or did not answer."""


# --- the processes ---------------------------------------------------------------------------

def thread_environment(threads: int) -> dict[str, str]:
    """The environment in which every library that we know of uses this many threads."""
    names = ("FACULA_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
             "NUMEXPR_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, str(threads)), "JAX_PLATFORMS": "cpu",
            "TF_CPP_MIN_LOG_LEVEL": "2"}


def processors(threads: int) -> list[int] | None:
    """The processors that contenders are held to: as many as threads, None where not known.

    JAX has no setting for its threads; like the others, it takes as many as it may run on.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    return sorted(os.sched_getaffinity(0))[:threads]


class Worker:
    """A contender's process; `call` asks something of the object that its factory made."""

    def __init__(self, script: str, factory: str, options: dict[str, Any], threads: int,
                 environment: dict[str, str] | None = None, timeout: float = 400.0):
        self.factory, self.timeout = factory, timeout
        self.log = tempfile.TemporaryFile("w+")        # noqa: SIM115  (closed in close)
        request = json.dumps({"script": str(Path(script).resolve()), "factory": factory,
                              "options": options, "processors": processors(threads)})
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), request], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self.log, text=True, cwd=ROOT,
            env={**thread_environment(threads), **(environment or {})})
        try:
            self.facts: dict[str, Any] = self._answer()
        except BaseException:
            self.close()
            raise

    def call(self, method: str, *args: Any) -> Any:
        """What the method returns; it has to be JSON."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps([method, args]) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failed(f"{self.factory}: the process has ended\n{self._tail()}") from None
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], self.timeout)
        if not ready:
            raise Failed(f"{self.factory}: no answer within {self.timeout:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"{self.factory}: the process ended with "
                         f"{self.process.wait()}\n{self._tail()}")
        kind, value = json.loads(line)
        if kind == "missing":
            raise Missing(value)
        if kind == "failed":
            raise Failed(f"{self.factory}: {value}")
        return value

    def _tail(self) -> str:
        self.log.seek(0)
        return "".join(self.log.readlines()[-12:])

    def cpu(self) -> int | None:
        """Nanoseconds of processor time that all its threads have had; None where not known."""
        total = 0
        try:
            for task in os.scandir(f"/proc/{self.process.pid}/task"):
                with open(task.path + "/schedstat") as file:
                    total += int(file.read().split()[0])
        except (OSError, ValueError):
            return None
        return total

    def rest(self, limit: float = 1.0) -> None:
        """Wait until the process no longer uses a processor: threads may spin after a round."""
        last = self.cpu()
        if last is None:
            time.sleep(0.3)
            return
        stop = time.perf_counter() + limit
        while time.perf_counter() < stop:
            time.sleep(0.01)
            now = self.cpu()
            if now is None or now - last < 300_000:
                return
            last = now

    def close(self) -> None:
        """End the process."""
        if self.process.stdin is not None:
            try:
                self.process.stdin.close()
            except OSError:
                pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.log.close()


def _load(script: str) -> Any:
    name = "benchmark_" + Path(script).stem
    spec = importlib.util.spec_from_file_location(name, script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _timed(subject: Any, n: int, warm: int) -> float:
    """Seconds for one of n, after `warm` that are not timed."""
    if warm:
        subject.run(warm)
    start = time.perf_counter()
    subject.run(n)
    return (time.perf_counter() - start) / n


def _calibrated(subject: Any, seconds: float) -> int:
    """How many runs take about `seconds`, once the first ones (compiling, caches) are over."""
    n, calls, long = 1, 0, 0
    while True:
        taken = _timed(subject, n, 0) * n
        calls += 1
        long = long + 1 if n == 1 and taken > 4 * seconds else 0
        if long == 2:
            return 1                                     # long in itself: an epoch
        if calls <= 8:
            continue
        if taken >= seconds / 2:
            again = _timed(subject, n, 0) * n
            if again > 0.6 * taken:                      # otherwise something was still first
                return max(1, round(n * seconds / min(taken, again)))
        else:
            n = max(n + 1, min(4 * n, round(n * seconds / max(taken, 1e-6))))


def _serve(request: dict[str, Any]) -> None:
    """The contender's side of the pipe.  What libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(kind: str, value: Any) -> None:
        answers.write(json.dumps([kind, value]) + "\n")
        answers.flush()

    if request["processors"] is not None:
        os.sched_setaffinity(0, request["processors"])
    try:
        subject = getattr(_load(request["script"]), request["factory"])(request["options"])
    except Missing as e:
        return answer("missing", str(e))
    except ImportError as e:
        return answer("missing", f"not installed: {e.name or e}")
    except Exception:
        return answer("failed", traceback.format_exc(limit=-6))
    answer("ready", getattr(subject, "facts", {}))
    for line in sys.stdin:
        method, args = json.loads(line)
        try:
            if method == "time":
                answer("value", _timed(subject, *args))
            elif method == "calibrate":
                answer("value", _calibrated(subject, *args))
            elif method == "floor":
                import floor
                answer("value", floor.measure(subject, *args))
            else:
                answer("value", getattr(subject, method)(*args))
        except Exception:
            answer("failed", traceback.format_exc(limit=-6))


# --- measuring -------------------------------------------------------------------------------

@dataclass
class Contender:
    """One line of a comparison: a label, the factory in the script, and its options."""

    label: str
    factory: str
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Row:
    """What was measured of one contender; times are those of one unit of work."""

    label: str
    seconds: list[float]
    error: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def quartiles(self) -> tuple[float, float]:
        """The first and the third quartile of the rounds."""
        if len(self.seconds) < 2:
            return self.seconds[0], self.seconds[0]
        q = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return q[0], q[2]


@dataclass
class Claim:
    """A figure and its bound: met if `value` is at least (">=") or at most ("<=") `bound`."""

    what: str
    value: float
    sense: str
    bound: float
    unit: str = ""

    @property
    def met(self) -> bool:
        return self.value >= self.bound if self.sense == ">=" else self.value <= self.bound

    def __str__(self) -> str:
        return (f"{self.what}: {self.value:.4g}{self.unit} (has to be {self.sense} "
                f"{self.bound:g}{self.unit}): {'met' if self.met else 'MISSED'}")


class Benchmark:
    """One script's run: its arguments, its rows, its claims, and the JSON they end in."""

    def __init__(self, script: str, title: str, means: str,
                 arguments: Callable[[argparse.ArgumentParser], Any] | None = None):
        self.script, self.name, self.title, self.means = script, Path(script).stem, title, means
        parser = argparse.ArgumentParser(description=title)
        parser.add_argument("--quick", action="store_true",
                            help="few and short rounds: shows that the script works, no figures")
        parser.add_argument("--threads", type=int, default=2, help="for every contender (2)")
        parser.add_argument("--out", metavar="FOLDER", help="write FOLDER/NAME.json as well")
        parser.add_argument("--no-peers", action="store_true", help="measure facula only")
        if arguments is not None:
            arguments(parser)
        self.args = parser.parse_args()
        self.quick: bool = self.args.quick
        self.threads: int = self.args.threads
        self.rows: list[Row] = []
        self.tables: list[dict[str, Any]] = []
        self.claims: list[Claim] = []
        self.floors: list[dict[str, Any]] = []
        self.missing: dict[str, str] = {}
        self.notes: list[str] = []
        self.started = time.time()
        self._clock = time.perf_counter()
        self._load = _processor_seconds()
        print(f"== {title}")

    def start(self, contenders: Iterable[Contender]) -> dict[str, Worker]:
        """A process for each contender that can be run here; the others are noted as missing."""
        workers: dict[str, Worker] = {}
        for c in contenders:
            if self.args.no_peers and not c.label.startswith("facula"):
                self.missing[c.label] = "left out with --no-peers"
                continue
            options = {"threads": self.threads, "quick": self.quick, **c.options}
            try:
                workers[c.label] = Worker(self.script, c.factory, options, self.threads,
                                          c.environment)
            except Missing as e:
                self.missing[c.label] = str(e)
            except Failed as e:
                if c.label.startswith("facula"):
                    for worker in workers.values():
                        worker.close()
                    raise
                self.missing[c.label] = "failed: " + str(e).strip().splitlines()[-1]
            if c.label in workers:
                workers[c.label].rest()
        return workers

    def compare(self, contenders: Iterable[Contender], rounds: int = 15, seconds: float = 0.2,
                check: Callable[[str, Worker], float | None] | None = None,
                unit: str = "us", per: str = "step", prefix: str = "",
                floors: Sequence[str] = ()) -> dict[str, Row]:
        """Measure contenders against each other; `check` gives each one's error, before timing.

        After the rounds, the floor of those named in `floors` is measured (see floor.py), and
        where there are several, each stands for itself alone.
        """
        workers = self.start(contenders)
        if self.quick:
            rounds, seconds = min(rounds, 3), min(seconds, 0.02)
        try:
            rows = {label: Row(label, []) for label in workers}
            counts = {}
            for label, worker in workers.items():
                if check is not None:
                    rows[label].error = check(label, worker)
                counts[label] = worker.call("calibrate", seconds)
                worker.rest()
            interleave(workers, counts, rounds, rows)
            for label, worker in workers.items():
                rows[label].facts = {**worker.facts, "runs a round": counts[label]}
            found = {label: workers[label].call("floor", self.quick)
                     for label in floors if label in workers}
        finally:
            for worker in workers.values():
                worker.close()
        self.show(rows.values(), unit, per, prefix)
        for label, floor in found.items():
            self.floor(label, floor, rows, prefix, len(found) > 1)
        return rows

    def floor(self, label: str, floor: dict[str, Any], rows: dict[str, Row], group: str = "",
              alone: bool = False) -> None:
        """Keep a contender's floor, and print it with the share of it that the rows come to (with
        `alone`, that contender's: the others do other work)."""
        from floor import sentence, share
        shares = {who: share(floor, row.median) for who, row in rows.items()
                  if (who == label if alone else "read" not in who)}
        self.floors.append({"group": group, "contender": label, "shares": shares, **floor})
        print(f"floor of {label}: {sentence(floor)}\n"
              "share of the floor: " + ", ".join(f"{k} {v:.0%}" for k, v in shares.items()))
        for k in floor["profile"]:
            print(f"  {k['share']:5.1%} {k['seconds'] * 1e3:9.3f} ms {k['GFLOP/s']:7.1f} GFLOP/s "
                  f"{k['GB/s']:6.1f} GB/s {k['roof']:5.0%} of its roof  {k['kernel']}")

    def show(self, rows: Iterable[Row], unit: str = "us", per: str = "step",
             prefix: str = "") -> None:
        """Print rows, each one's ratio to the first beside it, and keep them for the JSON."""
        scale = {"us": 1e6, "ms": 1e3, "s": 1.0}[unit]
        ours: Row | None = None
        print(f"{prefix or 'contender':34} {unit + '/' + per:>11} {'quartiles':>21} "
              f"{'error':>9} {'x first':>7}")
        for row in rows:
            ours = ours or row
            low, high = row.quartiles()
            error = "" if row.error is None else f"{row.error:.1e}"
            print(f"{row.label:34} {row.median * scale:11.2f} "
                  f"{low * scale:10.2f}-{high * scale:<10.2f} {error:>9} "
                  f"{row.median / ours.median:7.2f}")
            self.rows.append(row)
            self.tables.append({
                "group": prefix, "contender": row.label, "unit": f"{unit}/{per}",
                "median": row.median * scale, "low": low * scale, "high": high * scale,
                "rounds": len(row.seconds), "error": row.error,
                "ratio": row.median / ours.median, "facts": row.facts})

    def claim(self, what: str, value: float, sense: str, bound: float, unit: str = "") -> None:
        """State a figure beside its bound."""
        self.claims.append(Claim(what, value, sense, bound, unit))
        print(self.claims[-1])

    def claim_loop(self, rows: dict[str, Row], prefix: str) -> None:
        """State what the plain loop takes of the time under facula.compile, where both were
        measured and a step is long enough for it to matter."""
        pair = [rows.get(label) for label in ("facula", "facula.compile")]
        if pair[0] is not None and pair[1] is not None and pair[1].median > LONG:
            self.claim(f"{prefix}: the plain loop, in steps of facula.compile",
                       pair[0].median / pair[1].median, "<=", 1.1)

    def unclaimed(self, what: str, reason: str) -> None:
        """A figure that could not be taken here."""
        self.missing[what] = reason

    def finish(self) -> None:
        """Print what was not run, write the JSON, end with the RESULT line."""
        for label, reason in self.missing.items():
            print(f"not run: {label}: {reason}")
        for note in self.notes:
            print(note)
        seconds = time.perf_counter() - self._clock
        others = _others(self._load, _processor_seconds(), seconds)
        result = {
            "name": self.name, "title": self.title, "means": self.means,
            "command": " ".join(["python", f"benchmarks/{self.name}.py",
                                 *_shown_arguments(sys.argv[1:])]),
            "quick": self.quick, "threads": self.threads, "started": self.started,
            "seconds": seconds, "processors kept busy by others": others,
            "rows": self.tables, "floors": self.floors,
            "claims": [{**asdict(c), "met": c.met} for c in self.claims],
            "missing": self.missing, "notes": self.notes,
            "machine": machine(), "versions": versions(),
        }
        if others is not None and others > 0.1:
            print(f"other processes kept {others:.2f} processors busy meanwhile: "
                  "not a quiet machine")
        if self.args.out:
            folder = Path(self.args.out)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{self.name}.json").write_text(json.dumps(result, indent=1))
        print("RESULT " + json.dumps({k: result[k] for k in ("name", "claims", "missing",
                                                             "quick", "seconds")}), flush=True)


def interleave(workers: dict[str, Worker], counts: dict[str, int], rounds: int,
               rows: dict[str, Row]) -> None:
    """Run the rounds in turn, a different contender first each time, and add them to the rows."""
    labels = list(workers)
    for k in range(rounds):
        turn = k % max(len(labels), 1)
        for label in labels[turn:] + labels[:turn]:
            worker, n = workers[label], counts[label]
            rows[label].seconds.append(worker.call("time", n, n // 8))
            worker.rest()


def fresh(code: str, args: Sequence[str] = (), threads: int = 2,
          environment: dict[str, str] | None = None, timeout: float = 300.0) -> Any:
    """What `code` prints last, as JSON, run by a process started for it alone."""
    env = {**thread_environment(threads), **(environment or {})}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(HERE)] + (
        [env["PYTHONPATH"]] if env.get("PYTHONPATH") else []))
    env.pop("PYTHONDONTWRITEBYTECODE", None)        # bytecode is there, as after an installation
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True,
                          env=env, cwd=tempfile.gettempdir(), timeout=timeout)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        if last[0].startswith(("ModuleNotFoundError", "ImportError")):
            raise Missing(last[0])
        raise Failed(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


# --- what the figures were taken on ------------------------------------------------------------

def _processor_seconds() -> tuple[float, float] | None:
    """Busy processor seconds of the whole machine, and of this process and its children."""
    try:
        with open("/proc/stat") as file:
            fields = [int(x) for x in file.readline().split()[1:]]
    except (OSError, ValueError):
        return None
    busy = sum(fields[:3]) + sum(fields[5:8])            # all but idle and waiting for disks
    t = os.times()
    own = t.user + t.system + t.children_user + t.children_system
    return busy / os.sysconf("SC_CLK_TCK"), own


def _others(before: tuple[float, float] | None, after: tuple[float, float] | None,
            seconds: float) -> float | None:
    """How many processors other programs kept busy, on average, while a benchmark ran."""
    if before is None or after is None:
        return None
    return max(0.0, ((after[0] - before[0]) - (after[1] - before[1])) / seconds)


def _shown_arguments(args: list[str]) -> list[str]:
    """The arguments that decide what is measured: not where it is written."""
    shown, skip = [], False
    for a in args:
        if not skip and a != "--out" and not a.startswith("--out="):
            shown.append(a)
        skip = a == "--out"
    return shown


def machine() -> dict[str, Any]:
    """Processor, memory and system."""
    found: dict[str, Any] = {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(), "processors": os.cpu_count()}
    if hasattr(os, "sched_getaffinity"):
        found["usable processors"] = len(os.sched_getaffinity(0))
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            key = key.strip()
            if key == "model name" and value.strip():
                found.setdefault("processor", value.strip())
            elif key == "flags":
                flags = set(value.split())
                found.setdefault("vector instructions", [
                    f for f in ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile")
                    if f in flags])
        caches = {}
        for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
            level = (index / "level").read_text().strip()
            kind = (index / "type").read_text().strip()
            if kind != "Instruction":
                caches["L" + level] = (index / "size").read_text().strip()
        found["caches"] = caches
        memory = Path("/proc/meminfo").read_text().split("\n", 1)[0].split()[1]
        found["memory GiB"] = round(int(memory) / 2 ** 20, 1)
    except (OSError, IndexError, ValueError):
        found.setdefault("processor", platform.processor())
    return found


def versions() -> dict[str, str]:
    """The versions of what takes part, as installed; facula's own from its source."""
    from importlib import metadata
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    scope: dict[str, Any] = {}
    exec((ROOT / "facula" / "version.py").read_text(), scope)
    found["facula"] = str(scope.get("__version__", found["facula"]))
    try:
        found["facula"] += " at " + subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True,
            check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        pass
    return found


if __name__ == "__main__":
    # The factories' module imports this one by name, and must get the same exception classes.
    sys.modules["harness"] = sys.modules["__main__"]
    _serve(json.loads(sys.argv[1]))
