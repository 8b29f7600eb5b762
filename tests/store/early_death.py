"""Deaths while a new store is opened: ``python -m tests.store.early_death FOLDER``.

For every statement of the first opening, a child opens a store and kills itself before that statement; then the store is
opened once more and must be complete. Prints how many statements there were.
"""

from __future__ import annotations

import os
import signal
import sys
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from latent.store import builds
from latent.store.migrations import HEAD, version
from tests.store.helpers import REQUEST, open_inline, result


def die_before(statement: int) -> None:
    passed = count()

    @event.listens_for(Engine, "before_cursor_execute")
    def before(*_: Any) -> None:
        if next(passed) == statement:
            os.kill(os.getpid(), signal.SIGKILL)


def survived(state_dir: Path, statement: int) -> bool:
    """Whether the child came to the end of its opening before it met the statement."""
    child = os.fork()
    if child == 0:
        die_before(statement)
        open_inline(state_dir)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def main(folder: Path) -> None:
    for statement in count():
        state_dir = folder / str(statement)
        over = survived(state_dir, statement)
        store = open_inline(state_dir)
        assert result(store.read(version)) == HEAD
        assert result(store.write(lambda conn: builds.insert(conn, REQUEST, 1.0))).id == 1
        result(store.close())
        if over:
            print(statement)
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
