"""master.cfg: run it, check what it says, and tell all that is wrong with it at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from latent.config.check import check
from latent.config.settings import Config
from latent.config.source import run
from latent.errors import ConfigError


def load(path: Path) -> Config:
    """The configuration that the file says.

    The file is Python. It finds ``c``, an empty dict, and ``basedir``, the directory it is in (a string). Modules beside it can
    be imported, and are read again at every load.

    Raises `ConfigError` with every mistake, in the order of the lines: ``master.cfg:LINE: what; remedy``.
    """
    path = path.absolute()
    with _beside(path.parent):
        source = run(path)
        try:
            return check(source)
        except ConfigError:
            raise ConfigError([mistake.of(path.name) for mistake in sorted(set(source.mistakes))]) from None


@contextmanager
def _beside(directory: Path) -> Iterator[None]:
    """Modules of the directory can be imported. They are forgotten afterwards: the next load reads them as they are then."""
    before = set(sys.modules)
    search = list(sys.path)
    sys.path.append(str(directory))
    try:
        yield
    finally:
        sys.path[:] = search
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and Path(file).parent == directory:
                del sys.modules[name]
