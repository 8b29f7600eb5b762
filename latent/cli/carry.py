"""A run that this process carries out itself, with its record in a store of runs. One at a time: it changes signal handlers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from attrs import evolve

from latent.agent import groups
from latent.agent.guard import MARK, ForkedGuard
from latent.model import Run, RunStatus
from latent.store import owners
from latent.store.runs import MachineBusy, PrepareOutcome, RunStore

RECORDED = ("machine", "test_dir", "test_dir_hash", "batch_id", "plan_entry")
"""What a dispatch says of the run that it wants."""

GRACE = 10.0
"""Seconds that a command has to end by itself when it is to end; then it is killed."""

OVERDUE = 60.0
"""Seconds after its timeout from which others may call a run overdue."""

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Stopped(BaseException):
    """This process is to end."""


def carry_out(
    store: RunStore, record: Run, command: str | list[str], *, workdir: str, timeout: float, quiet: bool
) -> tuple[Run, PrepareOutcome]:
    """Run the command unless the machine has it: then (REUSE) its run as it is. A command line that is one text is the shell's.

    ``quiet``: what it prints goes to standard error. Whatever ends this process, the command and all that it started end, too.
    Raises MachineBusy, which names the occupant; then nothing is stored.
    """
    # What holds the machine, though its owner is gone, would hold it for ever.
    store.reconcile(time.time(), owners.is_alive)
    deadline = time.time() + timeout + OVERDUE
    machine, hash = record.machine, record.test_dir_hash
    with _stoppable():
        run, outcome = store.prepare_atomic(machine, hash, lambda: record, owner=owners.this_process(), deadline=deadline)
        if outcome is PrepareOutcome.BUSY:
            raise MachineBusy(run)
        if outcome is PrepareOutcome.CREATED:
            run = _carried(store, run, command, workdir, timeout, quiet)
    return run, outcome


def _carried(store: RunStore, run: Run, command: str | list[str], workdir: str, timeout: float, quiet: bool) -> Run:
    end: dict[str, Any] = {"error_code": "interrupted", "error_msg": "its dispatcher was stopped"}
    try:
        run = evolve(run, status=RunStatus.RUNNING, started_at=time.time())
        store.update(run)
        exit_code = _executed(command, workdir, timeout, quiet)
        status, end = _end(exit_code)
    except _Stopped:
        status = RunStatus.INTERRUPTED
    except subprocess.TimeoutExpired:
        status, end = RunStatus.TIMEOUT, {"error_code": "timeout", "error_msg": f"it ran longer than {timeout:g} s"}
    except OSError as error:
        status, end = RunStatus.FAILED, {"error_code": "cannot_start", "error_msg": str(error)}
    now = store.get(run.id)
    if now.status.is_terminal:
        return now  # somebody else has called it overdue
    run = evolve(run, status=status, ended_at=time.time(), **end)
    store.update(run)
    return run


def _executed(command: str | list[str], workdir: str, timeout: float, quiet: bool) -> int:
    """The exit code. Raises OSError, TimeoutExpired, _Stopped; the command is over then."""
    guard = ForkedGuard()
    try:
        process = subprocess.Popen(
            command,
            shell=isinstance(command, str),
            cwd=workdir,
            env={**os.environ, MARK: guard.mark},
            stdout=sys.stderr if quiet else None,
            start_new_session=True,
        )
        guard.add(process.pid)
        try:
            return process.wait(timeout)
        except BaseException:
            _terminate(process)
            raise
    finally:
        # The guard ends what the command left behind.
        guard.close()


def _terminate(process: subprocess.Popen[bytes]) -> None:
    groups.send(process.pid, signal.SIGTERM)
    # After that it had its time, or somebody is out of patience.
    with suppress(subprocess.TimeoutExpired, _Stopped):
        process.wait(GRACE)
    groups.send(process.pid, signal.SIGKILL)
    process.wait()


def _end(exit_code: int) -> tuple[RunStatus, dict[str, Any]]:
    if exit_code == 0:
        return RunStatus.COMPLETED, {"exit_code": 0}
    if exit_code > 0:
        return RunStatus.FAILED, {"exit_code": exit_code, "error_code": "failure", "error_msg": f"it ended with {exit_code}"}
    message = f"it was ended by {groups.name_of(-exit_code)}"
    return RunStatus.FAILED, {"exit_code": 128 - exit_code, "error_code": "failure", "error_msg": message}


@contextmanager
def _stoppable() -> Iterator[None]:
    """Signals that end a process are raised as _Stopped meanwhile."""

    def stop(number: int, frame: Any) -> NoReturn:
        raise _Stopped

    before = {number: signal.signal(number, stop) for number in STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
