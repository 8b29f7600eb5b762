"""What gateways need of the controller, as protocols; `latent.controller` has the real ones."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from latent.model import JSON, Lease, LogLine, Outcome, StepState

Answer = Coroutine[Deferred[Any], Any, Any]


class Session(Protocol):
    """An attached agent."""

    id: int
    worker: str
    attempt: int | None
    capacity: int
    labels: dict[str, str]
    info: dict[str, JSON]
    attached: bool
    closed: bool


class Sessions(Protocol):
    """Who is attached. `enrol`, `get`, `attach`, `resume` and `name` raise EnrolmentRefused."""

    def enrol(self, token: str, protocol: str, session_id: int | None = None, *, worker: str | None = None) -> Answer: ...

    def get(self, session_id: int) -> Any: ...

    def attach(self, session: Any, *, capacity: int, labels: Mapping[str, str], info: Mapping[str, JSON]) -> Answer: ...

    def touch(self, session: Any) -> None: ...

    def resume(self, session_id: int) -> Answer: ...

    def name(self, session: Any, worker: str) -> Answer: ...

    def leave(self, session: Any, reason: str) -> Answer: ...

    def close(self, session: Any, reason: str, *, ended: bool = False) -> Answer: ...


class Dispatcher(Protocol):
    """Who works on what. A run that is over or another session's is NotYourRun."""

    def next_lease(self, session: Any) -> Deferred[Lease]: ...

    def activate(self, session: Any, run_id: int, at: float) -> Answer: ...

    def renew(self, session: Any, run_id: int) -> None: ...

    def recall(self, session: Any, run_id: int) -> Answer: ...

    def step_changed(self, session: Any, run_id: int, state: StepState) -> Answer: ...

    def logged(self, session: Any, run_id: int, lines: Sequence[LogLine]) -> Answer: ...

    def finished(self, session: Any, run_id: int, outcome: Outcome, at: float) -> Answer: ...

    def cancelled(self, session: Any, run_id: int) -> Deferred[bool]: ...

    def run_of_step(self, session: Any, step_uuid: str) -> int | None: ...
