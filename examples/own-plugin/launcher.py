"""Keeps programs running in the background, by name: what a machine without systemd can stand in for systemd-run.

launcher.py DIRECTORY start NAME COMMAND... | stop NAME | check NAME | list
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil


def main(directory: Path, verb: str, name: str = "", *command: str) -> int:
    directory.mkdir(parents=True, exist_ok=True)
    if verb == "list":
        print("\n".join(path.name for path in directory.iterdir() if path.suffix == "" and running(path)))
        return 0
    pidfile = directory / name
    process = running(pidfile)
    if verb == "start" and process is None:
        with open(f"{pidfile}.log", "ab") as log:
            started = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory, start_new_session=True
            )
        pidfile.write_text(f"{started.pid} {psutil.Process(started.pid).create_time()}")
    elif verb == "stop" and process is not None:
        os.killpg(process.pid, signal.SIGTERM)
        _, left = psutil.wait_procs([process], timeout=10)
        if left:
            os.killpg(process.pid, signal.SIGKILL)
            psutil.wait_procs(left, timeout=10)
    elif verb == "check":
        print("running" if process else "not running")
        return 0 if process else 3
    return 0


def running(pidfile: Path) -> psutil.Process | None:
    """The process that a file names, if it is still the same."""
    try:
        pid, created = pidfile.read_text().split()
        process = psutil.Process(int(pid))
        same = process.create_time() == float(created) and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, psutil.NoSuchProcess):
        return None
    return process if same else None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
