"""Published files: fetched, held to the checksum that they were published with, written."""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.request

from facula.errors import DataError

__all__ = ["check", "fetch", "write"]

_SUMS = {64: "SHA-256", 32: "MD5"}
"""What a checksum is, by how many digits it has."""


def check(data: bytes, wanted: str, where: str) -> None:
    """Raise a `DataError` unless `data`, found at `where`, has the checksum that is wanted: an
    MD5 or a SHA-256 in hexadecimal; "" is that of any file."""
    if not wanted:
        return
    kind = _SUMS[len(wanted)]
    found = hashlib.new(kind.replace("-", ""), data, usedforsecurity=False).hexdigest()
    if found != wanted:
        raise DataError(f"{where}: corrupted: its {kind} is {found}, and that of the published "
                        f"file is {wanted}")


def fetch(url: str, timeout: float = 30) -> bytes:
    """What is at an address.  Raises a `DataError` that names it if nothing can be had."""
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "facula"})
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.read()                               # type: ignore[no-any-return]
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise DataError(f"{url} could not be downloaded: {error}") from None


def write(path: str, data: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".download-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
