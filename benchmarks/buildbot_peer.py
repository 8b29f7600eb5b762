"""The peer of the cycle benchmark: the same job on Buildbot, installed from its package into an environment of its own.

    python -m benchmarks.buildbot_peer --workers 50 --builds 100

Prints one JSON object:

    builds              builds that were submitted, all at once
    seconds             wall-clock time from the first submission until the last instance was stopped
    builds_per_second   builds / seconds
    cpu_ms_per_build    user and system time of the master's process, in milliseconds; the agents run in the same process
    peak_rss_mb         most memory the process held, in MiB
    succeeded           builds that succeeded (all, or the run fails)
    instances           instances that were started; each was also stopped
    version             of Buildbot
    workers             latent workers, each with one instance at a time

What is compared: N latent workers whose instance and agent live in the master's own process, M builds of one step that
succeeds at once, `build_wait_timeout=0` so that each build has a substantiation of its own, SQLite. The peer is
treated well: its agents attach without a network, its step sends no command, it serves no web interface. Its time for a
build grows with its queue (it reads all unclaimed requests for each build it starts), so a small number of builds flatters it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REQUIREMENTS = ("buildbot==4.3.0", "buildbot-worker==4.3.0", "docker>=7", "boto3>=1.34")
CACHE = HERE.parent / "var" / "buildbot-env"


class PeerError(Exception):
    """The peer could not be installed or did not do its job; the message says which, with the end of its output."""


def environment(cache: Path = CACHE, requirements: tuple[str, ...] = REQUIREMENTS) -> Path:
    """The Python of an environment that has them; made on first use, kept in `cache` (git-ignored).

    An environment that an interrupted run left half made is made anew.
    """
    wanted = hashlib.sha256("\n".join((*requirements, sys.version)).encode()).hexdigest()
    python, stamp = cache / "bin" / "python", cache / "installed"
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(cache, ignore_errors=True)
    cache.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(cache)], timeout=120)
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements], timeout=900)
    stamp.write_text(wanted)
    return python


def run_peer(workers: int, builds: int, *, cache: Path = CACHE) -> dict[str, Any]:
    """Run `builds` builds on `workers` latent workers of Buildbot; the numbers as listed above.

    Takes a minute for about 200 builds, and a further one for the installation at first use. Raises `PeerError`. Leaves no
    process and no file behind but the environment in `cache`.
    """
    printed = drive(
        "buildbot_driver.py", "--workers", str(workers), "--builds", str(builds), timeout=180 + 5 * builds, cache=cache
    )
    return {**printed, "version": REQUIREMENTS[0].partition("==")[2], "workers": workers}


def drive(driver: str, *args: str, timeout: float, cache: Path = CACHE) -> dict[str, Any]:
    """Run one of this directory's drivers on a new master; what it prints in the end. Raises `PeerError`."""
    python = environment(cache)
    with tempfile.TemporaryDirectory(prefix="buildbot-peer-") as directory:
        basedir = Path(directory, "master")
        _run([str(python.with_name("buildbot")), "create-master", "--quiet", str(basedir)], timeout=120)
        try:
            printed = _run([str(python), str(HERE / driver), str(basedir), *args], timeout=timeout)
        except PeerError as error:
            log = basedir / "twistd.log"
            tail = log.read_text(errors="replace")[-3000:] if log.exists() else "(no log)"
            raise PeerError(f"{error}\nThe end of the master's log:\n{tail}") from None
    answer: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    return answer


def _run(command: list[str], *, timeout: float) -> str:
    """What `command` prints. It gets a process group of its own, which is ended whatever happens."""
    # A PYTHONPATH or a virtual environment of the caller's must not reach into the peer's.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON") and name != "VIRTUAL_ENV"}
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise PeerError(f"{' '.join(command)} did not end within {timeout:.0f} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != 0:
        raise PeerError(f"{' '.join(command)} ended with exit code {process.returncode}:\n{out[-2000:]}{err[-2000:]}")
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure Buildbot on the cycle benchmark's job.")
    parser.add_argument("--workers", type=int, default=50, help="latent workers (default 50)")
    parser.add_argument("--builds", type=int, default=100, help="builds to submit (default 100)")
    options = parser.parse_args()
    try:
        print(json.dumps(run_peer(options.workers, options.builds)))
    except PeerError as error:
        print(f"buildbot_peer: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
