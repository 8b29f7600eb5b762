"""The peer of the bots benchmark: BuildGrid 0.0.91, installed from its package into an environment of its own.

It is treated well: its storage is in memory, its database is SQLite in the same place as ours, with all the time to wait for a
lock and as many threads as there are bots.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.buildbot_peer import PeerError, environment

REQUIREMENTS = ("buildgrid==0.0.91",)
HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / "var" / "buildgrid-env"

CONFIG = """
server:
  - !channel
    address: ADDRESS
    insecure-mode: true
connections:
  - !sql-connection &sql
    connection-string: sqlite:///DIRECTORY/buildgrid.sqlite
    automigrate: yes
    connect-args:
      timeout: 60
storages:
  - !lru-storage &storage
    size: 256M
schedulers:
  - !sql-scheduler &scheduler
    storage: *storage
    sql: *sql
instances:
  - name: ''
    services:
      - !cas
        storage: *storage
      - !execution
        scheduler: *scheduler
      - !bots
        scheduler: *scheduler
thread-pool-size: 400
"""


@contextlib.contextmanager
def buildgrid(directory: Path, executions: int, core: int | None) -> Iterator[tuple[str, psutil.Process]]:
    """A server with so many executions queued: its address and its process. Raises PeerError."""
    python = environment(CACHE, REQUIREMENTS)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = directory / "buildgrid.yml"
    config.write_text(CONFIG.replace("ADDRESS", address).replace("DIRECTORY", str(directory)))
    log = directory / "buildgrid.log"
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON") and name != "VIRTUAL_ENV"}
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(log.open("wb"))
        command = [str(python.with_name("bgd")), "server", "start", str(config)]
        server = subprocess.Popen(command, stdout=out, stderr=out, env=env, start_new_session=True)
        stack.callback(_end, server)
        if core is not None:
            os.sched_setaffinity(server.pid, {core})
        _listening(address, server, log)
        driver = subprocess.Popen(
            [str(python), str(HERE / "buildgrid_driver.py"), address, str(executions)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
            start_new_session=True,
        )
        stack.callback(_end, driver)
        assert driver.stdout is not None
        if driver.stdout.readline().strip() != b"submitted":
            raise PeerError(f"BuildGrid took no executions:\n{log.read_text()[-2000:]}")
        yield address, psutil.Process(server.pid)


def _listening(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    host, _, port = address.rpartition(":")
    for _ in range(600):
        if server.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return
        time.sleep(0.1)
    raise PeerError(f"BuildGrid did not start:\n{log.read_text()[-2000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
