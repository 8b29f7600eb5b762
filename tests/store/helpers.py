"""What the store's tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from latent.model import (
    BuildRequest,
    BuildState,
    LeaseState,
    Payload,
    Requirements,
    Result,
    RunStatus,
    Step,
)
from latent.store import builds
from latent.store.database import Store

REQUEST = BuildRequest(
    builder="compile",
    steps=(Step(name="make", command="make -j2"), Step(name="test", command=("pytest", "-q"), env={"A": "b"}, always_run=True)),
    requirements=Requirements(labels={"os": "linux"}, workers=frozenset({"w1", "w2"})),
    properties={"branch": "main", "n": [1, None, {"x": 2.5}]},
    priority=3,
    timeout=60.0,
    max_attempts=2,
)


def url(state_dir: Path) -> str:
    return f"sqlite:///{state_dir}/latent.sqlite"


def open_inline(state_dir: Path, clock: Clock | None = None, **settings: Any) -> Store:
    """A store that works in the calling thread."""
    return Store.open(url(state_dir), state_dir, threaded=False, clock=clock or Clock(), **settings)


def result(deferred: Deferred[Any]) -> Any:
    """What a Deferred that must have fired by now fired with; what it failed with is raised."""
    fired: list[Any] = []

    def take(value: Any) -> Any:
        fired.append(value)
        return None if isinstance(value, Failure) else value

    deferred.addBoth(take)
    assert fired, "it has not fired"
    if isinstance(fired[0], Failure):
        fired[0].raiseException()
    return fired[0]


def pending(deferred: Deferred[Any]) -> bool:
    return not deferred.called


def finish(conn: Any, run_id: int, *, requeue: bool = False, at: float = 9.0, answer: Payload | None = None) -> None:
    """End a run: well or, with ``requeue``, interrupted, with its build to be tried again."""
    builds.finish(
        conn,
        run_id,
        status=RunStatus.INTERRUPTED if requeue else RunStatus.COMPLETED,
        exit_code=None if requeue else 0,
        error_code="lost" if requeue else "",
        error_msg="its agent is gone" if requeue else "",
        at=at,
        lease=LeaseState.CANCELLED if requeue else LeaseState.COMPLETED,
        build_state=BuildState.QUEUED if requeue else BuildState.FINISHED,
        build_result=None if requeue else Result.SUCCESS,
        reason="its agent is gone" if requeue else "all steps succeeded",
        answer=answer,
    )
