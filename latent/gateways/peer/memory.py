"""What the gateway remembers of runs while it lives: enough to tell a repeated call from a new one and to sum a run up.

It holds no truth: what it lacks, as after a restart, the dispatcher recalls.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from attrs import define, field

from latent.gateways.ports import Session
from latent.model import Lease, LogLine, Recollection, StepState, StepStatus

KEPT = 300.0
"""Seconds that a finished run is remembered: as long as its logs may come (specs/peer.md, "Log")."""


ROOM = 1000
"""Runs that are remembered before anybody looks whether some of them can be forgotten."""


@define
class RunMemory:
    """``lease`` None: it is over, and was handed out before the gateway started. ``lines``: next log line number by step."""

    session: Session
    lease: Lease | None = None
    steps: dict[str, StepState] = field(factory=dict)
    lines: dict[str, int] = field(factory=dict)
    finished_at: float | None = None
    logging: asyncio.Lock = field(factory=asyncio.Lock)

    def name_of(self, uuid: str) -> str:
        if self.lease is not None:
            for known, step in self.lease.steps:
                if known == uuid:
                    return step.name
        return ""

    def may_have(self, uuid: str) -> bool:
        """Whether ``uuid`` can be a step of the run, as far as is known."""
        return self.lease is None or any(uuid == known for known, _ in self.lease.steps)

    def is_news(self, state: StepState) -> bool:
        """False for an update that repeats or falls behind what is known: it was sent again, or overtaken."""
        known = self.steps.get(state.uuid)
        return known is None or (known.status is StepStatus.RUNNING and state.status is not StepStatus.RUNNING)

    def in_order(self) -> list[StepState]:
        """What is known of the steps, in the order of the build."""
        if self.lease is None:
            return list(self.steps.values())
        return [self.steps[uuid] for uuid, _ in self.lease.steps if uuid in self.steps]

    def still_open(self, now: float) -> list[StepState]:
        """The end of each step that nobody reported the end of: killed if it ran, else skipped."""
        ended = []
        for state in self.in_order():
            if state.status is StepStatus.RUNNING:
                ended.append(
                    StepState(
                        uuid=state.uuid, name=state.name, status=StepStatus.KILLED, started_at=state.started_at, ended_at=now
                    )
                )
        for uuid, step in self.lease.steps if self.lease is not None else ():
            if uuid not in self.steps:
                ended.append(StepState(uuid=uuid, name=step.name, status=StepStatus.SKIPPED, ended_at=now))
        return ended

    def unseen(self, lines: list[LogLine]) -> list[LogLine]:
        """Those not stored yet: a batch whose answer was lost is sent again."""
        return [line for line in lines if line.line >= self.lines.get(line.step_uuid, 0)]

    def stored(self, lines: list[LogLine]) -> None:
        for line in lines:
            self.lines[line.step_uuid] = max(line.line + 1, self.lines.get(line.step_uuid, 0))


class Memory:
    """The runs by id. Those that end are forgotten after a while, those that are lost when their session is closed."""

    def __init__(self) -> None:
        self._runs: dict[int, RunMemory] = {}
        self._finished: OrderedDict[int, float] = OrderedDict()
        self._full = ROOM

    def __len__(self) -> int:
        return len(self._runs)

    def recalled(self, run_id: int, session: Session, known: Recollection) -> RunMemory:
        """What was asked of the dispatcher, unless another call has been faster."""
        self._make_room()
        recalled = RunMemory(session, known.lease, {state.uuid: state for state in known.steps}, dict(known.lines))
        return self._runs.setdefault(run_id, recalled)

    def known(self, run_id: int) -> RunMemory | None:
        return self._runs.get(run_id)

    def leased(self, lease: Lease, session: Session) -> None:
        self._make_room()
        self._runs.setdefault(lease.run_id, RunMemory(session)).lease = lease

    def finished(self, run_id: int, session: Session, now: float) -> None:
        self._runs.setdefault(run_id, RunMemory(session)).finished_at = now
        self._finished[run_id] = now
        while self._finished and next(iter(self._finished.values())) < now - KEPT:
            self._runs.pop(self._finished.popitem(last=False)[0], None)

    def forget(self, run_id: int) -> None:
        self._runs.pop(run_id, None)
        self._finished.pop(run_id, None)

    def _make_room(self) -> None:
        if len(self._runs) < self._full:
            return
        for run_id in [number for number, memory in self._runs.items() if memory.session.closed]:
            self.forget(run_id)
        self._full = max(ROOM, 2 * len(self._runs))
