"""The controller as a process in the background: started and waited for, stopped and waited for."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from typing import Any

from latent.cli.exits import CliError, ExitCode
from latent.cli.place import Place

TAIL = 15
"""Lines of the log that are shown when the controller died without a word."""

LOOK = 0.05
"""Seconds between two looks at whether a process is gone."""


def spawn(place: Place) -> None:
    """Start the controller as a process of its own session and wait until it is up. Raises CliError when it can't be."""
    check(place)
    place.state.mkdir(mode=0o700, exist_ok=True)
    read_fd, write_fd = os.pipe()
    words = [sys.executable, "-m", "latent.cli", "-C", str(place.basedir), "start", "--foreground", "--report-fd", str(write_fd)]
    with open(read_fd, encoding="utf-8") as report, open(place.log, "ab") as log:
        begin = log.tell()
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, pass_fds=[write_fd]
            )
        finally:
            os.close(write_fd)
        said = report.readline()  # ends with what the controller has to say, or with the controller
    if said:
        outcome = json.loads(said)
        if outcome["code"] != ExitCode.OK:
            process.wait()
            raise CliError(ExitCode(outcome["code"]), outcome["message"], outcome["remedy"])
        # It outlives this process on purpose.
        process.returncode = 0
        return
    code = process.wait()
    with open(place.log, "rb") as log:
        log.seek(begin)
        tail = log.read().decode("utf-8", "replace").splitlines()[-TAIL:]
    raise CliError(
        ExitCode.START_FAILED, "\n".join([f"the controller ended with code {code} before it was up:", *tail]), f"see {place.log}"
    )


def check(place: Place) -> None:
    """Raise CliError when there is no master.cfg, or a controller runs already."""
    if not place.config.is_file():
        raise CliError(
            ExitCode.CONFIG,
            f"there is no master.cfg in {place.basedir}",
            "write one (examples/quickstart has a short one), or name its directory: latent -C DIRECTORY start",
        )
    holder = place.holder()
    if holder is not None:
        who = f" (process {holder})" if holder else ""
        raise CliError(
            ExitCode.RUNNING,
            f"the controller of {place.basedir} is running already{who}",
            f"{place.command('reconfig')} applies a changed master.cfg, {place.command('stop')} ends it",
        )


def tell(fd: int | None, code: ExitCode, message: str = "", remedy: str = "") -> None:
    """Tell the process that waits in `spawn` how the start went, if one does."""
    if fd is None:
        return
    doc: dict[str, Any] = {"code": int(code), "message": message, "remedy": remedy}
    # Who waited may have been interrupted: the controller goes on.
    with contextlib.suppress(BrokenPipeError), open(fd, "w", encoding="utf-8") as out:
        out.write(json.dumps(doc) + "\n")


def wait_until_gone(place: Place, pid: int) -> None:
    """Return when the controller has ended: its process, or for one that is reached by a URL, its API."""
    pause = threading.Event().wait
    try:
        while _answers(place) if place.url is not None else _lives(pid):
            pause(LOOK)
    except KeyboardInterrupt:
        raise CliError(
            ExitCode.INTERRUPTED,
            "the controller is still stopping",
            f"{place.command('stop', '--fast')} does not wait for its builds",
        ) from None


def _lives(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _answers(place: Place) -> bool:
    from latent.cli.client import Client, NotRunning

    try:
        Client(place).call("GET", "/status")
    except NotRunning:
        return False
    return True
