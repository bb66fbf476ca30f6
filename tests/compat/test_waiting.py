"""Adapters are loaded with the library they are for, and with nothing else."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from facula import compat


def test_the_adapter_follows_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(compat, "ADAPTERS", {"some_library": "some_adapter"})
    monkeypatch.syspath_prepend(tmp_path)
    compat.install()
    with pytest.raises(ModuleNotFoundError):             # not there yet: it goes on waiting
        importlib.import_module("some_library")
    (tmp_path / "some_library.py").write_text("backends = []\n")
    (tmp_path / "some_adapter.py").write_text(
        "import some_library\nsome_library.backends.append('facula')\n")
    importlib.invalidate_caches()
    assert importlib.import_module("json") and "some_adapter" not in sys.modules
    library = importlib.import_module("some_library")
    assert library.backends == ["facula"]
    assert not any(getattr(f, "library", None) == "some_library" for f in sys.meta_path)
    compat.install()                                     # it is loaded: nothing to wait for
    assert library.backends == ["facula"]
    for name in ("some_library", "some_adapter"):
        monkeypatch.delitem(sys.modules, name)
