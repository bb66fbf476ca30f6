"""`python -m tests.fuzz.run N [FIRST]`: run N graphs and say what was wrong with which."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter

from facula import config
from tests.fuzz.generate import generate
from tests.fuzz.graphs import failure, script, shrink


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("first", type=int, nargs="?", default=0)
    parser.add_argument("--length", type=int, help="operations in each graph")
    parser.add_argument("--torch", action="store_true", help="compare with PyTorch, too")
    parser.add_argument("--interpreter", action="store_true", help="compile nothing")
    parser.add_argument("--show", type=int, default=5, help="failures to shrink and print")
    args = parser.parse_args(argv)
    config.flag.CACHE = False
    torch = None
    if args.torch:
        import torch
    how = {"torch": torch, "who": ("interpreted",) if args.interpreter
           else ("interpreted", "compiled")}
    started, bad, lines = time.time(), 0, 0
    kinds: Counter[str] = Counter()
    for seed in range(args.first, args.first + args.count):
        graph = generate(seed, args.length)
        lines += len(graph.lines)
        found = failure(graph, **how)
        if found is None:
            continue
        bad += 1
        kinds[f"{type(found).__name__}: {(str(found) or repr(found)).splitlines()[0][:100]}"] += 1
        if bad <= args.show:
            small = shrink(graph, found, **how)
            found = failure(small, **how) or found
            print(f"--- seed {seed}: {type(found).__name__}: {str(found)[:1500]}")
            print(script(small))
            if type(found).__name__ != "Mismatch":
                print("".join(traceback.format_tb(found.__traceback__)[-4:]))
            sys.stdout.flush()
    seconds = time.time() - started
    for kind, count in kinds.most_common(40):
        print(f"{count:5} {kind}")
    print(f"{args.count} graphs, {lines} operations, {bad} failures, {seconds:.1f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
