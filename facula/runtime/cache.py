"""Machine code on disk, found by content.

One file holds one compiled module: a magic line, the key it was stored under, the SHA-256 of what
follows, and the object code.  The key is a hash of everything that decides the code, so a file
is never out of date; it is either the right one or not there.  A file that is truncated, damaged,
of another key or owned by another user counts as not there, and is replaced.  Files appear by
rename, so a process that dies while writing leaves nothing that could be taken for a result.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time

from facula import config

__all__ = ["load", "store", "key_of", "trim", "path_of"]

_MAGIC = b"facula object 1\n"
_HEADER = len(_MAGIC) + 64
_TOUCH_SECONDS = 3600
"""How stale a file's time of last use may be before a hit renews it."""

_SUFFIX = ".fobj"
_stores = 0


def key_of(*parts: str) -> str:
    """The key of what is made from `parts`, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(f"{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()


def path_of(key: str) -> str:
    """The file that holds `key`."""
    return os.path.join(config.cache_dir(), "objects", key[:2], key[2:] + _SUFFIX)


def load(key: str) -> bytes | None:
    """The object code stored under `key`, or None."""
    if not config.flag.CACHE:
        return None
    path = path_of(key)
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
                return None
            data = file.read()
    except OSError:
        return None
    payload = data[_HEADER:]
    head = _MAGIC + bytes.fromhex(key) + hashlib.sha256(payload).digest()
    if not payload or data[:_HEADER] != head:
        return None
    if time.time() - status.st_mtime > _TOUCH_SECONDS:
        with contextlib.suppress(OSError):
            os.utime(path)
    return payload


def store(key: str, payload: bytes) -> None:
    """Keep `payload` under `key`; a folder that cannot be written to is no error."""
    global _stores
    if not config.flag.CACHE:
        return
    path = path_of(key)
    data = _MAGIC + bytes.fromhex(key) + hashlib.sha256(payload).digest() + payload
    temporary = None
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".tmp-", dir=os.path.dirname(path))
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        return
    if _stores % 256 == 0:
        trim(config.flag.CACHE_MB << 20)
    _stores += 1


def trim(limit: int) -> int:
    """Delete the least recently used files until at most `limit` bytes remain; what remains.

    Temporary files that a killed process left an hour ago go as well.
    """
    now = time.time()
    files: list[tuple[float, int, str]] = []
    for folder, _, names in os.walk(os.path.join(config.cache_dir(), "objects")):
        for name in names:
            path = os.path.join(folder, name)
            with contextlib.suppress(OSError):
                status = os.stat(path)
                if name.startswith(".tmp-"):
                    if now - status.st_mtime > 3600:
                        os.unlink(path)
                elif name.endswith(_SUFFIX):
                    files.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in files)
    if total <= limit:
        return total
    for _, size, path in sorted(files):
        with contextlib.suppress(OSError):
            os.unlink(path)
        total -= size
        if total <= limit * 0.9:
            break
    return total
