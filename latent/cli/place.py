"""Where the controller of this command lives: its directory, and the files of its state."""

from __future__ import annotations

import fcntl
import os
import shlex
from pathlib import Path
from typing import NamedTuple


class Place(NamedTuple):
    """``basedir``: the directory of master.cfg. ``url`` and ``token``: given for a controller that is reached over TCP."""

    basedir: Path
    url: str | None = None
    token: str | None = None

    @property
    def config(self) -> Path:
        return self.basedir / "master.cfg"

    @property
    def state(self) -> Path:
        return self.basedir / "state"

    @property
    def log(self) -> Path:
        return self.state / "latent.log"

    @property
    def pid_file(self) -> Path:
        return self.state / "latent.pid"

    def command(self, *words: str) -> str:
        """A command line for the user to type, for this controller."""
        where = [] if self.basedir == Path.cwd() else ["-C", str(self.basedir)]
        return shlex.join(["latent", *where, *words])

    def holder(self) -> int | None:
        """The process that has locked the state directory (`latent.store.lock`); 0 when it is one that did not say who it is."""
        try:
            fd = os.open(self.state / "controller.lock", os.O_RDONLY)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            said = os.pread(fd, 32, 0).strip()
            return int(said) if said.isdigit() else 0
        finally:
            os.close(fd)
        return None
