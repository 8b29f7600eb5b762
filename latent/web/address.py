"""Where a running controller can be reached, and the token it wants: the files in ``<basedir>/state`` that say so.

Client commands import this, so it uses the standard library alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
import tempfile
from pathlib import Path
from typing import NamedTuple

from latent.errors import StoreError

MAX_SOCKET_PATH = 100
"""Bytes. Linux takes 107 and macOS 103; a longer path can't be bound."""


class Address(NamedTuple):
    """``socket``: path of the unix socket. ``url``: of the TCP listener, None without one. ``pid``: of the controller."""

    socket: str
    url: str | None
    pid: int


def write_address(path: Path, address: Address) -> None:
    """Replace the file at once, so that a reader sees the old address or the new one. Raises StoreError."""
    replace_file(path, json.dumps(address._asdict()) + "\n")


def replace_file(path: Path, text: str) -> None:
    """Whoever reads it, and whatever happens, finds what was there or what is there now. Raises StoreError."""
    draft = path.with_name(path.name + ".new")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
            out.write(text)
        draft.replace(path)
    except OSError as error:
        raise StoreError(f"{path} can't be written ({error.strerror}); make room for it, or let this user write there") from error


def read_address(path: Path) -> Address | None:
    """The address in the file; None when there is no file, or it does not hold one."""
    try:
        doc = json.loads(path.read_text(encoding="utf-8"))
        url = doc["url"]
        return Address(str(doc["socket"]), None if url is None else str(url), int(doc["pid"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def load_token(path: Path) -> str:
    """The API token in the file, which is made (0600) when there is none. Raises StoreError when it can't be used."""
    if path.exists():
        os.chmod(path, 0o600)
    else:
        replace_file(path, secrets.token_urlsafe(32) + "\n")
    token = read_token(path)
    if token is None:
        raise StoreError(f"{path} holds no token; delete it, the next start makes a new one")
    return token


def read_token(path: Path) -> str | None:
    """The token in the file; None when there is none or the file is not ours to read."""
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return token or None


def private_directory(path: Path) -> Path:
    """Make the directory, or take it when nobody else can have put it there, and let nobody else in.

    Raises StoreError when it is a link or another user's.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise StoreError(f"{path} is not a directory of this user; remove it")
    os.chmod(path, 0o700)
    return path


def short_socket(wanted: Path) -> Path:
    """``wanted`` if the system can bind so long a path, otherwise a short one in a private directory.

    The short one depends on ``wanted`` alone, so that a controller which was killed leaves nothing that the next does not reuse.
    """
    if len(os.fsencode(wanted)) <= MAX_SOCKET_PATH:
        private_directory(wanted.parent)
        return wanted
    name = hashlib.sha256(os.fsencode(wanted)).hexdigest()[:16] + ".sock"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    for parent in [Path(runtime), Path(tempfile.gettempdir())] if runtime else [Path(tempfile.gettempdir())]:
        place = parent / f"latent-{os.geteuid()}"
        if len(os.fsencode(place / name)) > MAX_SOCKET_PATH:
            continue
        try:
            return private_directory(place) / name
        except (OSError, StoreError):
            continue
    raise StoreError(
        f"no place for the API's socket: {wanted} is too long for one; set XDG_RUNTIME_DIR to a short directory of yours"
    )


def clear_socket(path: Path) -> None:
    """Remove the socket that a killed controller left. Raises StoreError when something else is there.

    The caller holds the state directory's lock: no live controller can own it.
    """
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise StoreError(f"{path} is in the way of the API's socket; remove it")
        path.unlink()
    except FileNotFoundError:
        pass
