"""A controller on a machine whose clock is set: ``python -m tests.faults.shifted BASEDIR SHIFT REPORT_FD``.

The file SHIFT has a double: by how many seconds the clock is wrong, at each moment.
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from pathlib import Path

RIGHT = time.time


def main(basedir: str, shift: str, report: str) -> None:
    with open(shift, "rb") as file:
        wrong = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    time.time = lambda: RIGHT() + struct.unpack_from("d", wrong)[0]
    # Only now: who imports the function has this one.
    from latent.cli.place import Place
    from latent.cli.run import run

    run(Place(Path(basedir)), int(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
