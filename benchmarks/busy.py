"""The training loop while another process keeps one of the processors busy.

    python benchmarks/busy.py [--quick] [--threads 2] [--rounds 15] [--out FOLDER]

Each contender is measured against its own quiet time: rounds with and without the other process
take turns.  The other process is a loop of plain Python that may run on one processor only, the
last of those that the contender may use; between its rounds it is stopped by a signal.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time

from harness import Benchmark, Row, processors
from networks import Checker, contenders, facula_step, jax_step, torch_step

__all__ = ["facula_step", "jax_step", "torch_step"]

_SPIN = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"


class Other:
    """The process that is in the way, while it is let."""

    def __init__(self, processor: int):
        self.process = subprocess.Popen([sys.executable, "-c", _SPIN, str(processor)])
        time.sleep(0.3)
        self.stop()

    def go(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        time.sleep(0.05)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def main() -> None:
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--rounds", type=int, default=15)

    b = Benchmark(__file__, "The training loop while another process keeps a processor busy",
                  "The step of the 784-128-64-10 network at batch 64 in a loop, as in "
                  "mlp_step.py, quiet and with one of the processors taken by a loop of another "
                  "program; the ratio is to the contender's own quiet time.", arguments)
    what = "facula's step with one processor kept busy, times its own quiet time"
    usable = processors(b.threads)
    if usable is None or b.threads < 2 or len(usable) < 2:
        b.unclaimed(what, "needs two processors, and a system on which a process can be held "
                          "to one")
        b.finish()
        return
    rounds, seconds = (3, 0.02) if b.quick else (b.args.rounds, 0.2)
    chosen = [c for c in contenders(64, b.quick)
              if c.label in ("facula", "facula.compile", "torch eager", "JAX jit")]
    workers = b.start(chosen)
    rows = {(label, busy): Row(label + (", busy" if busy else ", quiet"), [])
            for label in workers for busy in (False, True)}
    other = Other(usable[-1])
    try:
        counts = {}
        with tempfile.TemporaryDirectory() as folder:
            check = Checker(64, folder)
            for label, worker in workers.items():
                rows[label, False].error = check(label, worker)
                counts[label] = worker.call("calibrate", seconds)
                worker.rest()
        for k in range(rounds):
            for busy in ((False, True) if k % 2 else (True, False)):
                if busy:
                    other.go()
                for label, worker in workers.items():
                    n = counts[label]
                    rows[label, busy].seconds.append(worker.call("time", n, n // 8))
                    worker.rest()
                other.stop()
    finally:
        other.close()
        for worker in workers.values():
            worker.close()
    b.show(rows.values())
    for label in workers:
        ratio = rows[label, True].median / rows[label, False].median
        rows[label, True].facts["times its own quiet time"] = ratio
        if label == "facula":
            b.claim(what, ratio, "<=", 2.5, "x")
        else:
            b.notes.append(f"{label}: {ratio:.2f} times its own quiet time")
    b.finish()


if __name__ == "__main__":
    assert os.name == "posix", "stops and continues a process by signals"
    main()
