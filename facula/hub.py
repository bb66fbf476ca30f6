"""`torch.hub`: files fetched by their address into a folder, and entry points of a `hubconf.py`.

Nothing is fetched unless a program asks for an address and the file is not there; a file whose
name ends in the first digits of its SHA-256 (`-1a2b3c4d.pth`) is checked against them.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib.util
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import Request, urlopen

from facula.serialization import load as _load_file

__all__ = ["HASH_REGEX", "download_url_to_file", "get_dir", "help", "list", "load",
           "load_state_dict_from_url", "set_dir", "urlparse"]

HASH_REGEX = re.compile(r"-([a-f0-9]*)\.")
"""Where a file's name says how its SHA-256 begins."""

_dir: str | None = None


def get_dir() -> str:
    """The folder of what is fetched: `set_dir`'s, or $TORCH_HOME/hub, or ~/.cache/facula/hub."""
    if _dir is not None:
        return _dir
    home = os.environ.get("TORCH_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache"), "facula")
    return os.path.join(os.path.expanduser(home), "hub")


def set_dir(d: str | os.PathLike[str]) -> None:
    """Keep what is fetched in the folder `d`."""
    global _dir
    _dir = os.path.expanduser(os.fspath(d))


def download_url_to_file(url: str, dst: str, hash_prefix: str | None = None,
                         progress: bool = True) -> None:
    """Fetch `url` into the file `dst`, which is there whole or not at all.

    RuntimeError where the SHA-256 does not begin with `hash_prefix`; URLError (an OSError) where
    the address cannot be reached.
    """
    target = Path(os.path.expanduser(dst))
    digest = hashlib.sha256()
    with urlopen(Request(url, headers={"User-Agent": "facula.hub"})) as source, \
            tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as out:
        try:
            while part := source.read(1 << 20):
                digest.update(part)
                out.write(part)
            out.close()
            found = digest.hexdigest()
            if hash_prefix is not None and not found.startswith(hash_prefix):
                raise RuntimeError(f'invalid hash value (expected "{hash_prefix}", got "{found}") '
                                   f"for {url}: fetch it again, or from where it is meant to be")
            shutil.move(out.name, target)
        finally:
            Path(out.name).unlink(missing_ok=True)


def load_state_dict_from_url(url: str, model_dir: str | None = None, map_location: Any = None,
                             progress: bool = True, check_hash: bool = False,
                             file_name: str | None = None, weights_only: bool = False) -> Any:
    """What `facula.load` reads from the file at `url`, which is fetched unless it is there.

    It is kept in `model_dir`, `get_dir()`/checkpoints unless given.  With `check_hash` a name
    such as resnet18-f37072fd.pth says how the file's SHA-256 begins.
    """
    folder = Path(model_dir or os.path.join(get_dir(), "checkpoints"))
    folder.mkdir(parents=True, exist_ok=True)
    name = file_name or os.path.basename(urlparse(url).path)
    path = folder / name
    if not path.exists():
        match = HASH_REGEX.search(name) if check_hash else None
        download_url_to_file(url, str(path), match[1] if match else None, progress)
    return _load_file(path, map_location=map_location)


# ---------------------------------------------------------------- entry points

def _hubconf(repo_or_dir: str, source: str) -> Any:
    if source != "local":
        raise NotImplementedError(
            f"hub: {repo_or_dir!r} is code on {source}, which facula does not fetch and run: "
            "clone it, and pass its folder with source='local'")
    path = Path(repo_or_dir) / "hubconf.py"
    if not path.is_file():
        raise FileNotFoundError(f"hub: there is no {path}")
    spec = importlib.util.spec_from_file_location("hubconf", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def _entry(module: Any, name: str) -> Any:
    found = getattr(module, name, None)
    if not callable(found) or name.startswith("_"):
        raise RuntimeError(f"Cannot find callable {name} in hubconf")
    return found


def list(github: str, force_reload: bool = False, skip_validation: bool = False,
         trust_repo: Any = None, verbose: bool = True, source: str = "local"
         ) -> builtins.list[str]:
    """The entry points of the hubconf.py in the folder `github`."""
    module = _hubconf(github, source)
    return [n for n in dir(module) if callable(getattr(module, n)) and not n.startswith("_")]


def help(github: str, model: str, force_reload: bool = False, skip_validation: bool = False,
         trust_repo: Any = None, source: str = "local") -> str | None:
    """The docstring of the entry point `model`."""
    doc: str | None = _entry(_hubconf(github, source), model).__doc__
    return doc


def load(repo_or_dir: str, model: str, *args: Any, source: str = "github",
         trust_repo: Any = None, force_reload: bool = False, verbose: bool = True,
         skip_validation: bool = False, **kwargs: Any) -> Any:
    """What the entry point `model` of the hubconf.py in a folder returns for the arguments.

    Only `source="local"`: code is not fetched (NotImplementedError).
    """
    return _entry(_hubconf(repo_or_dir, source), model)(*args, **kwargs)
