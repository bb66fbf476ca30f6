"""`import facula` in a fresh process: how long, and what else it loads.

    python benchmarks/import_time.py [--quick] [--rounds 21] [--out FOLDER]

The clock is read in the process itself, before and after the import; bytecode has been written by
a run before, as an installation does.  NumPy is part of facula's time, since facula loads it.  What
is loaded is looked at after the import, and again after a network has been built, run on the
interpreter and its gradient taken, which is as far as a program gets before the first compile.
"""

from __future__ import annotations

import argparse

from harness import Benchmark, Missing, Row, fresh

_TIME = """
import json, sys, time
start = time.perf_counter()
__import__(sys.argv[1])
print(json.dumps(time.perf_counter() - start))
"""

_LOADED = """
import json, sys
before = set(sys.modules)
import facula
import facula.nn as nn, facula.optim as optim, facula.utils.data, facula.vision
def foreign():
    tops = {name.partition(".")[0] for name in set(sys.modules) - before}
    return sorted(t for t in tops if t not in sys.stdlib_module_names
                  and t not in ("numpy", "facula", "__mp_main__"))      # the last is __main__
first = foreign()
model = nn.Linear(4, 3)
loss = nn.MSELoss()(model(facula.rand(2, 4)), facula.zeros(2, 3))
loss.backward()
loss.item()
print(json.dumps([first, foreign()]))
"""


def main() -> None:
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--rounds", type=int, default=21)

    b = Benchmark(__file__, "`import facula`",
                  "Seconds of the import statement in a fresh process, with bytecode; the "
                  "interpreter's own start is not in it.", arguments)
    modules = ["facula", "numpy"] + ([] if b.args.no_peers else ["torch", "jax"])
    rows: dict[str, Row] = {}
    for name in modules:
        try:
            fresh(_TIME, [name])
            rows[name] = Row("facula" if name == "facula" else f"{name} alone", [])
        except Missing as e:
            b.missing[name] = str(e)
    for _ in range(3 if b.quick else b.args.rounds):
        for name, row in rows.items():
            if name in ("facula", "numpy") or len(row.seconds) < 5:     # the others take seconds
                row.seconds.append(fresh(_TIME, [name]))
    b.show(rows.values(), unit="ms", per="import")
    at_once, later = fresh(_LOADED)
    if at_once or later:
        b.notes.append(f"loaded besides the standard library and NumPy: {at_once} by the import, "
                       f"{later} before the first compile")
    b.claim("import facula", rows["facula"].median, "<=", 0.25, " s")
    b.claim("modules loaded before the first compile, other than the standard library and NumPy",
            len(set(at_once) | set(later)), "<=", 0)
    b.finish()


if __name__ == "__main__":
    main()
