"""What the builds of a workflow's tasks say of the tasks. Asked for, not told: whoever wants to know has it looked up first."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sqlalchemy import Connection

from latent.model import BuildState, Result
from latent.store import tasks
from latent.store.tasks import Moved, Try
from latent.swarm.statuses import TaskStatus
from latent.swarm.values import Trouble

STATUS = {
    BuildState.QUEUED: TaskStatus.INSTANTIATED,
    BuildState.STARTING: TaskStatus.LAUNCHED,
    BuildState.RUNNING: TaskStatus.RUNNING,
}
"""The status of a task whose build is not over."""

KILLED = (137, -9)
"""The exit code of a step that SIGKILL ended, as shells and agents say it, and as Python does. Nobody but the kernel, for want of
memory, sends that to a step out of the blue: an agent that ends a step itself says so, and the build's result is another."""

WANT_OF_MEMORY = re.compile(r"want of memory|out of memory|out-of-memory|\boom\b|oom.?kill|cannot allocate memory", re.IGNORECASE)
"""How plugins and agents say that an instance ran out of memory (`latent_docker.containers`)."""


def follow(conn: Connection, workflow_id: int, at: float) -> int:
    """Bring the tasks' statuses up to their builds; how many have changed. A task whose build did not succeed is in ERROR."""
    changes = [(moved.task_id, *_now(conn, moved)) for moved in tasks.moved(conn, workflow_id)]
    if changes:
        tasks.move(conn, changes, at)
    return len(changes)


def _now(conn: Connection, moved: Moved) -> tuple[str, str | None, str]:
    state = BuildState(moved.state)
    if state is not BuildState.FINISHED:
        return STATUS[state].value, None, ""
    if moved.result == Result.SUCCESS.value:
        return TaskStatus.DONE.value, None, ""
    result = Result(moved.result)
    tries = tasks.tries(conn, moved.build_id)
    why = moved.reason or next((one.error_msg for one in reversed(tries) if one.error_msg), "")
    code = tries[-1].exit_code if tries else None
    if not why and code is not None:
        why = f"exit code {code}"
    return TaskStatus.ERROR_RECOVERABLE.value, trouble(result, moved.reason, tries).value, why or result.value


def trouble(result: Result, reason: str, tries: Iterable[Try]) -> Trouble:
    """Why a build did not succeed, from its end and how its runs ended, the last of them last."""
    tried = list(tries)
    last = tried[-1] if tried else Try(None, "", "")
    match result:
        case Result.TIMEOUT:
            return Trouble.TIMEOUT
        case Result.CANCELLED:
            return Trouble.CANCELLED
        case Result.EXCEPTION:
            if any(WANT_OF_MEMORY.search(text) for text in (reason, last.error_msg)):
                return Trouble.MEMORY
            return Trouble.REFUSED if last.error_code == "cannot_substantiate" else Trouble.INFRASTRUCTURE
        case _:
            return Trouble.MEMORY if last.exit_code in KILLED else Trouble.FAILURE
