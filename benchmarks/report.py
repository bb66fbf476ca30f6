"""Run every benchmark, or take what they have written; write docs/benchmarks.md and README.md.

    python benchmarks/report.py                     run all (under 25 minutes), write the page
    python benchmarks/report.py --quick             the same with short rounds: no figures to keep
    python benchmarks/report.py --from FOLDER       write the page from FOLDER/*.json alone
    python benchmarks/report.py --only gemm loader  run these, take the others from the folder

Every figure in the page comes out of a JSON file that a benchmark wrote; what was not run is
listed with the reason.  The first figure of each benchmark in HEADLINES goes into README.md, too,
between the two marks there, unless the run was a quick one or the page goes elsewhere.  The machine
should be quiet: the page says how busy others kept it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from floor import sentence
from harness import HERE, ROOT

ORDER = ("mlp_step", "mlp_batch1", "epoch", "loader", "busy", "overhead", "gemm", "ops", "cnn",
         "conv_sweep", "inference", "rnn", "gpt", "decode", "curvature", "memory",
         "time_to_accuracy", "import_time", "first_step", "shapes", "install_size")
HEADLINES = ("mlp_step", "epoch", "cnn", "gpt", "gemm", "import_time", "install_size")
PAGE = ROOT / "docs" / "benchmarks.md"
README = ROOT / "README.md"
MARKS = ("<!-- figures: written by benchmarks/report.py -->\n", "<!-- end of figures -->")
SCALES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
MANY = 60
"""More groups of rows than this are summed up."""
HALF = 0.5
"""Operations that are not so many times as fast as the peer's are listed."""
QUIET = 0.1
"""The share of a processor that other programs may take before the page says so."""


def run(name: str, folder: Path, arguments: list[str]) -> str | None:
    """Run one script; None, or the last line of what went wrong."""
    (folder / f"{name}.json").unlink(missing_ok=True)
    command = [sys.executable, str(HERE / f"{name}.py"), "--out", str(folder), *arguments]
    print("$ " + " ".join(["python", f"benchmarks/{name}.py", *arguments]), flush=True)
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    print(f"({time.perf_counter() - started:.0f} s)\n", flush=True)
    if done.returncode:
        sys.stderr.write(done.stderr)
        return (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
    return None


def _number(x: float | None) -> str:
    """Three significant digits, without an exponent."""
    if x is None:
        return ""
    if x == 0:
        return "0"
    if abs(x) >= 100:
        return f"{x:,.0f}"
    return f"{x:.1f}" if abs(x) >= 10 else f"{x:.2f}" if abs(x) >= 0.1 else f"{x:.4f}"


def _claim(c: dict[str, Any], link: str) -> str:
    """A claim as a row of a table."""
    sign = "at least" if c["sense"] == ">=" else "at most"
    unit = c["unit"].replace("x", " ×")
    return (f"| [{c['what']}]({link}) | {_number(c['value'])}{unit} | {sign} "
            f"{c['bound']:g}{unit} | {'met' if c['met'] else '**missed**'} |")


def _claims(results: list[dict[str, Any]]) -> list[str]:
    return ["| figure | measured | has to be | |", "|---|---|---|---|",
            *(_claim(c, f"#{r['name']}") for r in results for c in r["claims"])]


def headlines(results: list[dict[str, Any]]) -> str | None:
    """The README's lines: the first figure of each of HEADLINES, met or missed; None if there
    is nothing to say or anything of it comes from a quick run."""
    found = {r["name"]: r for r in results if r["name"] in HEADLINES and r["claims"]}
    if not found or any(r["quick"] for r in found.values()):
        return None
    last = max(found.values(), key=lambda r: r["started"])
    day = datetime.datetime.fromtimestamp(last["started"], datetime.UTC).date()
    processor = last["machine"].get("processor", "unknown processor")
    threads = max(r["threads"] for r in found.values())     # matrix products are timed on one
    lines = [f"Measured on {processor}, {threads} threads, {day}; peers, errors and "
             "commands are in [docs/benchmarks.md](docs/benchmarks.md).", "",
             "| figure | measured | has to be | |", "|---|---|---|---|",
             *(_claim(found[name]["claims"][0], f"docs/benchmarks.md#{name}")
               for name in HEADLINES if name in found)]
    return "\n".join(lines) + "\n"


def write_headlines(text: str, path: Path) -> None:
    """Put the lines between the marks.  Raises ValueError for a file without both."""
    old = path.read_text(encoding="utf-8")
    first, last = MARKS
    if old.count(first) != 1 or old.count(last) != 1 or old.index(first) > old.index(last):
        raise ValueError(f"{path} has to have the lines {first.strip()!r} and {last!r} once each")
    head, _, rest = old.partition(first)
    path.write_text(head + first + text + last + rest.partition(last)[2], encoding="utf-8")


def _day(result: dict[str, Any]) -> str:
    return str(datetime.datetime.fromtimestamp(result["started"], datetime.UTC).date())


def _commit(result: dict[str, Any]) -> str:
    """Of facula's source, as git describes it; empty where that was not known."""
    return str(result["versions"].get("facula", "")).partition(" at ")[2]


def _when(result: dict[str, Any]) -> str:
    commit = _commit(result)
    return _day(result) + (f" at {commit}" if commit else "")


def _floor(floor: dict[str, Any], row: dict[str, Any], first: dict[str, Any], errors: bool) -> str:
    """A floor as a row of the table of its group; `row` is its contender's, `first` the first."""
    share = floor["shares"].get(row["contender"])
    ratio = floor["seconds"] / SCALES[row["unit"].partition("/")[0]] / first["median"]
    return (f"| *the floor of {floor['contender']}* | "
            f"*{_number(ratio * first['median'])}* | "
            + (f"*{row['contender']} is at {share:.0%} of it*" if share is not None else "")
            + f" | *{ratio:.2f}* |" + " |" * errors)


def _kernels(floor: dict[str, Any]) -> list[str]:
    """What a floor is made of, and the profile beside it."""
    unit, scale = ("ms", 1e3) if floor["seconds"] >= 1e-3 else ("us", 1e6)
    lines = [f"The floor of {floor['contender']} is {sentence(floor)}.", "",
             f"| the longest kernels of {floor['contender']} | calls | {unit} | share of the time "
             "| GFLOP/s | GB/s | share of its roof |", "|---|" + "---:|" * 6]
    lines += [f"| {k['kernel']} | {k['calls']:.3g} | {_number(k['seconds'] * scale)} | "
              f"{k['share']:.1%} | {_number(k['GFLOP/s'])} | {_number(k['GB/s'])} | "
              f"{k['roof']:.0%} |" for k in floor["profile"]]
    if floor["other kernels"]:
        lines.append(f"| {floor['other kernels']} others | | | {floor['share of others']:.1%} | | "
                     "| |")
    return [*lines, ""]


def _summary(groups: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Hundreds of groups, each of facula and one peer: how they are spread, and the slow ones."""
    pairs = {group: members for group, members in groups.items() if len(members) > 1}
    ratios = {g: m[1]["median"] / m[0]["median"] for g, m in pairs.items()}
    if not ratios:
        return [f"{len(groups)} rows, and nothing to compare them with.", ""]
    kinds = {"forward": [g for g in ratios if not g.endswith(", gradients")],
             "with gradients": [g for g in ratios if g.endswith(", gradients")]}
    peer = next(iter(pairs.values()))[1]["contender"]
    lines = [f"| times as fast as {peer} | rows | geometric mean | median | under {HALF} | "
             "under 0.8 | at least 1 |", "|---|" + "---:|" * 6]
    for name, found in {**kinds, "all": list(ratios)}.items():
        if found:
            r = sorted(ratios[g] for g in found)
            lines.append(f"| {name} | {len(r)} | {statistics.geometric_mean(r):.2f} | "
                         f"{statistics.median(r):.2f} | {sum(x < HALF for x in r)} | "
                         f"{sum(x < 0.8 for x in r)} | {sum(x >= 1 for x in r)} |")
    slow = sorted((g for g in ratios if ratios[g] < HALF), key=lambda g: ratios[g])
    if slow:
        unit = pairs[slow[0]][0]["unit"]
        lines += ["", f"Under {HALF} times as fast:", "",
                  f"| {unit} | facula | {peer} | times as fast | error |", "|---|" + "---:|" * 4]
        for g in slow:
            ours, theirs = pairs[g][:2]
            error = "" if ours["error"] is None else f"{ours['error']:.1e}"
            lines.append(f"| {g} | {_number(ours['median'])} | {_number(theirs['median'])} | "
                         f"{ratios[g]:.2f} | {error} |")
    return [*lines, ""]


def _table(rows: list[dict[str, Any]], floors: Sequence[dict[str, Any]] = ()) -> list[str]:
    """The rows of one benchmark; one table for each group of them, with its floors."""
    lines: list[str] = []
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row)
    if len(groups) > MANY:
        return _summary(groups)
    if len(groups) > 6:                          # many groups of the same contenders: one table
        names = list(dict.fromkeys(row["contender"] for row in rows))
        unit = rows[0]["unit"]
        lines += [f"| {unit} | " + " | ".join(names) + " | speed, of the best other | error |",
                  "|---|" + "---:|" * (len(names) + 2)]
        for group, members in groups.items():
            by = {row["contender"]: row for row in members}
            others = [by[n]["median"] for n in names[1:] if n in by]
            ours, share = by[names[0]]["median"], ""
            if others:                          # of rates the higher is better, of times the lower
                best = min(others) / ours if unit.partition("/")[0] in SCALES \
                    else ours / max(others)
                share = f"{best:.0%}"
            error = by[names[0]]["error"]
            lines.append(f"| {group} | "
                         + " | ".join(_number(by[n]["median"]) if n in by else "" for n in names)
                         + f" | {share} | {'' if error is None else f'{error:.1e}'} |")
        return lines + [""]
    for group, members in groups.items():
        errors = any(row["error"] is not None for row in members)
        lines += [f"| {group} | {members[0]['unit']} | middle half of the rounds | "
                  "times the first |" + (" error |" if errors else ""),
                  "|---|---:|---:|---:|" + ("---:|" if errors else "")]
        for row in members:
            spread = ("" if row["low"] is None else
                      f"{_number(row['low'])} to {_number(row['high'])}, {row['rounds']} rounds")
            line = (f"| {row['contender']} | {_number(row['median'])} | {spread} | "
                    f"{row['ratio']:.2f} |")
            if errors:
                line += f" {'' if row['error'] is None else format(row['error'], '.1e')} |"
            lines.append(line)
        mine = [f for f in floors if f["group"] == group]
        by = {row["contender"]: row for row in members}
        lines += [_floor(f, by[f["contender"]], members[0], errors) for f in mine]
        lines.append("")
        for f in mine:
            lines += _kernels(f)
    return lines


def page(results: list[dict[str, Any]], absent: dict[str, str]) -> str:
    """The whole of docs/benchmarks.md."""
    lines = ["# Benchmarks", "",
             "This page is written by `python benchmarks/report.py`; every number in it was "
             "measured by the script named beside it, facula and its peers in one run, in turn. "
             "[benchmarks/README.md](../benchmarks/README.md) says how, and `make bench` writes "
             "the page anew for the machine that it runs on.", ""]
    if not results:
        return "\n".join(lines + ["Nothing has been measured."]) + "\n"
    if any(r["quick"] for r in results):
        lines += ["**Some of this was measured with `--quick`, which only shows that the scripts "
                  "work: these are no figures.**", ""]
    disturbed = [r["name"] for r in results
                 if (r["processors kept busy by others"] or 0) > QUIET]
    if disturbed:
        lines += ["**The machine was not quiet: other programs took part of it during "
                  + ", ".join(disturbed) + ".**", ""]
    last = max(results, key=lambda r: r["started"])
    older = [r for r in results if (_commit(r), _day(r)) != (_commit(last), _day(last))]
    if older:
        lines += ["**Not all of this was measured on one day with one version of the source** ("
                  f"{_when(last)}): " + ", ".join(f"{r['name']} on {_when(r)}" for r in older)
                  + ".", ""]
    m = last["machine"]
    caches = ", ".join(f"{k} {v}" for k, v in m.get("caches", {}).items())
    others = [r["processors kept busy by others"] for r in results
              if r["processors kept busy by others"] is not None]
    lines += ["## The figures", "", *_claims(results), "",
              "## Measured on", "",
              "| | |", "|---|---|",
              f"| day | {_day(last)} |",
              f"| processor | {m.get('processor', 'unknown')}, {m['processors']} processors, "
              f"{m.get('usable processors', '?')} usable |",
              f"| vector instructions | {' '.join(m.get('vector instructions', []))} |",
              f"| caches | {caches} |",
              f"| memory | {m.get('memory GiB', '?')} GiB |",
              f"| system | {m['system']}, Python {m['python']} |",
              "| versions | " + ", ".join(f"{k} {v}" for k, v in last["versions"].items()) + " |"]
    if others:
        lines += [f"| others | at most {max(others):.2f} processors were kept busy by other "
                  "programs during a benchmark, on average |"]
    lines += ["",
              "Times are medians of rounds. Ratios are ratios of medians. Every contender has the "
              "same number of threads, float32, the same data, and has been warmed up and "
              "compiled before its first round; its result was checked before it was timed.", "",
              "A floor is what the machine needs at least: the operations of the products and "
              "convolutions at the rate at which it multiplies and adds, or the bytes of arguments "
              "and results at that of its memory (of the cache that holds as many), whichever "
              "takes longer; both rates were measured in the same process, after the rounds. The "
              "share of a kernel's roof is the same for one kernel, with all bytes that it reads "
              "and writes at the rate of memory: above 100 % they were in a cache.", ""]
    for r in results:
        lines += [f'<a id="{r["name"]}"></a>', "", f"## {r['title']}", "",
                  r["means"], "",
                  f"    {r['command']}", "",
                  f"Threads: {r['threads']}. It took {r['seconds']:.0f} s."
                  + (f" **Measured on {_when(r)}, not on {_when(last)}.**" if r in older else ""),
                  "", *_table(r["rows"], r.get("floors", ()))]
        lines += [f"{note[:1].upper()}{note[1:]}.\n" for note in r["notes"]]
        if r["missing"]:
            lines += ["Not run:", "", *(f"- {k}: {v}" for k, v in r["missing"].items()), ""]
    if absent:
        lines += ["## Not measured", "", *(f"- `{k}`: {v}" for k, v in absent.items()), ""]
    while not lines[-1]:
        lines.pop()
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="source", metavar="FOLDER",
                        help="run nothing; take the JSON files of this folder")
    parser.add_argument("--folder", default=str(ROOT / "build" / "benchmarks"),
                        help="where the JSON files go (build/benchmarks)")
    parser.add_argument("--only", nargs="+", choices=ORDER, metavar="NAME",
                        help="run these alone: " + " ".join(ORDER))
    parser.add_argument("--page", default=str(PAGE), help="the page to write (docs/benchmarks.md)")
    parser.add_argument("--readme", metavar="FILE",
                        help="the file that takes the first figures (README.md, if the page is "
                             "docs/benchmarks.md)")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--check", action="store_true", help="status 1 if a figure is missed")
    args = parser.parse_args()
    folder = Path(args.source or args.folder)
    folder.mkdir(parents=True, exist_ok=True)
    absent: dict[str, str] = {}
    if not args.source:
        for name in args.only or ORDER:
            more = ["--quick"] * args.quick + ["--no-peers"] * args.no_peers
            if name not in ("gemm", "conv_sweep") and args.threads != 2:
                more += ["--threads", str(args.threads)]
            failure = run(name, folder, more)
            if failure is not None:
                absent[name] = f"failed: {failure}"
    results = []
    for name in ORDER:
        file = folder / f"{name}.json"
        if file.exists():
            results.append(json.loads(file.read_text()))
        else:
            absent.setdefault(name, "not run")
    Path(args.page).write_text(page(results, absent))
    print(f"wrote {args.page}")
    readme = args.readme or (README if Path(args.page).resolve() == PAGE else None)
    first = headlines(results)
    if readme is not None and first is not None:
        write_headlines(first, Path(readme))
        print(f"wrote the figures in {readme}")
    elif readme is not None:
        print(f"left {readme} as it is: no figures to keep")
    missed = [c["what"] for r in results for c in r["claims"] if not c["met"]]
    for what in missed:
        print(f"missed: {what}")
    failed = [name for name, reason in absent.items() if reason.startswith("failed")]
    return 1 if failed or (args.check and missed) else 0


if __name__ == "__main__":
    sys.exit(main())
