"""What `pip install .` puts on the disk, with all that it brings, and how long it takes.

    python benchmarks/install_size.py [--quick] [--out FOLDER]

A fresh virtual environment is made, its pip set aside, and the checkout installed from whatever
package index pip is set up for (so the time is also that of the network and of pip's cache).
With --quick nothing is installed: the distributions that facula needs are weighed where they are.
The peers are weighed where they are installed, with what they need.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

from harness import ROOT, Benchmark

MB = 1e6


def weight(folder: Path) -> int:
    """The bytes of all the files under a folder."""
    return sum(os.lstat(os.path.join(where, name)).st_size
               for where, _, names in os.walk(folder) for name in names)


def needed(name: str) -> set[str]:
    """The installed distributions that one needs, itself included; extras left out."""
    found: set[str] = set()
    todo = [name]
    while todo:
        each = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if each in found:
            continue
        try:
            requirements = metadata.distribution(each).requires or []
        except metadata.PackageNotFoundError:
            if each == name:
                raise
            continue                    # needed only on other systems or Pythons
        found.add(each)
        todo += [re.split(r"[^\w.-]", r, maxsplit=1)[0] for r in requirements
                 if "extra ==" not in r.replace("'", '"').replace("extra==", "extra ==")]
    return found


def installed(name: str) -> int:
    """The bytes of a distribution's files, as its record lists them."""
    total = 0
    for file in metadata.distribution(name).files or ():
        path = str(file.locate())
        if os.path.isfile(path):
            total += os.path.getsize(path)
    return total


def in_place() -> int:
    """Facula's own files and those of the distributions that it needs, as they are here."""
    text = (ROOT / "pyproject.toml").read_text()
    block = re.search(r"^dependencies = \[(.*?)\]", text, re.S | re.M)
    assert block is not None
    names = re.findall(r'"([\w-]+)', block.group(1))
    own = sum(p.stat().st_size for p in (ROOT / "facula").rglob("*") if p.is_file())
    return own + sum(installed(d) for d in set().union(*(needed(n) for n in names)))


def from_index() -> tuple[int, float]:
    """The bytes that an installation adds to a fresh environment, and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "checkout")
        ignored = shutil.ignore_patterns(".git", ".venv*", "__pycache__", "build", "dist", "data",
                                         "*.egg-info", "demo-output")
        shutil.copytree(ROOT, source, ignore=ignored)
        subprocess.run([sys.executable, "-m", "venv", f"{folder}/venv"], check=True)
        python = f"{folder}/venv/bin/python"
        before = weight(Path(folder, "venv"))
        start = time.perf_counter()
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                        str(source)], check=True, stdout=sys.stderr)
        seconds = time.perf_counter() - start
        subprocess.run([python, "-c", "import facula; print(facula.ones(2).sum().item())"],
                       check=True, stdout=sys.stderr, cwd=folder)
        return weight(Path(folder, "venv")) - before, seconds


def main() -> None:
    b = Benchmark(__file__, "`pip install .`",
                  "Megabytes (10^6 bytes) of files that the installation adds to a fresh virtual "
                  "environment, bytecode included, with all that facula needs and no extras.")
    if b.quick:
        size = in_place()
        b.notes.append("quick: the distributions were weighed where they are, nothing installed")
    else:
        size, seconds = from_index()
        b.notes.append(f"installed in {seconds:.0f} s")
    sizes = {"facula": size}
    for peer in () if b.args.no_peers else ("torch", "jax"):
        try:
            sizes[peer] = sum(installed(d) for d in needed(peer))
        except metadata.PackageNotFoundError:
            b.missing[peer] = "not installed"
    for label, bytes_ in sizes.items():
        print(f"{label:12} {bytes_ / MB:8.0f} MB")
        b.tables.append({"group": "", "contender": label + ", with what it needs", "unit": "MB",
                         "median": bytes_ / MB, "low": None, "high": None, "rounds": 1,
                         "error": None, "ratio": bytes_ / size, "facts": {}})
    b.claim("pip install . with all that it brings", size / MB, "<=", 300, " MB")
    b.finish()


if __name__ == "__main__":
    main()
