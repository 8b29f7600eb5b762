"""One controller to a state directory: a lock that dies with its holder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from latent.errors import StoreError


class ControllerLock:
    """Holds ``controller.lock`` in the state directory, with the holder's pid in it, from `__init__` to `release`."""

    def __init__(self, state_dir: Path) -> None:
        path = state_dir / "controller.lock"
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreError(f"{path} can't be opened: {error.strerror}; make the folder writable for this user") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            who = f"process {holder}" if holder else "another process"
            raise StoreError(
                f"state directory {state_dir} is in use by the controller of {who}; "
                "stop that one first (latent stop), or give this one a directory of its own"
            ) from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
