"""The hash of a directory's content (specs/runs.md), by which a dispatch is known."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path


def hash_of(folder: Path) -> str:
    """SHA-256, in hex, over ``path NUL sha256-in-hex LF`` of each regular file, the paths relative and with slashes.

    The walk is sorted: in every directory its entries by the bytes of their names, a directory's content in its place. Links
    and special files are left out, and so are modes, times and empty directories. Raises OSError for what can't be read.
    """
    whole = hashlib.sha256()
    for name, path in _files(os.fsencode(folder), b""):
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(name + b"\0" + content.encode() + b"\n")
    return whole.hexdigest()


def _files(folder: bytes, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path, prefix + entry.name + b"/")
        elif entry.is_file(follow_symlinks=False):
            yield prefix + entry.name, entry.path
