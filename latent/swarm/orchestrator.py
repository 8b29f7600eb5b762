"""Drives a workflow run to its end: queues what is ready, follows what runs, decides what becomes of what failed.

One round after the other, and in each: heartbeat, changes, verdicts, ends, queue. Whatever a round could not tell a controller
that is away it keeps and tells in the next; every call may be made twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from attrs import frozen

from latent.controller.clock import Clock
from latent.errors import DistributorNotAlive, NotYourWorkflow
from latent.swarm.control import Control, LetGo
from latent.swarm.endings import why_failed, why_stuck
from latent.swarm.heart import AWAY, Heart
from latent.swarm.listener import Failed, Listener, Summary
from latent.swarm.retries import judge
from latent.swarm.schedule import MOST_OF_A_BATCH, take
from latent.swarm.state import SwarmState, SwarmTask
from latent.swarm.statuses import ACTIVE, BUILDING, RunStatus, TaskStatus
from latent.swarm.values import Batch, Resources, Resume, TaskChange

Alive = Callable[[], bool | Awaitable[bool]]
"""Says whether what carries out the builds is still there."""

MOST_FAILURES = 1000
"""The reasons of so many tasks that failed are kept."""


@frozen(kw_only=True)
class Pace:
    """Seconds. The driver asks again ``shortest`` after something happened, and later and later, up to ``longest``, else.

    ``full_sync``: after so long it asks for all tasks, not for changes only. ``away``: between two tries to find the controller.
    """

    shortest: float = 0.02
    longest: float = 2.0
    full_sync: float = 600.0
    away: float = 5.0


@frozen
class _End:
    """How a run ends. ``known``: to the controller, already."""

    status: RunStatus
    reason: str
    known: bool = False
    detached: bool = False


class Orchestrator:
    """``state`` is the orchestrator's from now on. ``heart``: the builder's. ``timeout``: seconds for the whole run, or None."""

    def __init__(
        self,
        state: SwarmState,
        heart: Heart,
        *,
        clock: Clock,
        listener: Listener | None = None,
        control: Control | None = None,
        timeout: float | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.state = state
        self._heart = heart
        self._requester = heart.requester
        self._run_id = heart.run_id
        self._clock = clock
        self._listener = listener or Listener()
        self._control = control or Control()
        self._timeout = timeout
        self._pace = pace or Pace()
        self._begun = self._full_sync_at = clock.seconds()
        self._rest = self._pace.shortest
        self._away = False
        self._ending = False
        self._unsent: deque[Batch] = deque()
        self._unsettled: dict[int, tuple[TaskStatus, Resources, int]] = {}
        self._failures: dict[int, Failed] = {}

    async def run(self, distributor_alive: Alive | None = None) -> Summary:
        """To the end. Raises DistributorNotAlive when ``distributor_alive`` says so; the run has ended as an error then."""
        self._begun = self._clock.seconds()
        self._full_sync_at = self._begun + self._pace.full_sync
        if not self._heart.is_over:
            self._heart.status = RunStatus.RUNNING
        self._heart.start()
        try:
            end = await self._driven(distributor_alive)
        except LetGo:
            end = await self._detached()
        finally:
            self._heart.stop()
        return self._summary(end)

    async def _driven(self, distributor_alive: Alive | None) -> _End:
        end: _End | None = None
        while True:
            end = end or self._too_late() or await self._control.hold(self._round_with(distributor_alive))
            if end is not None and (known := await self._control.hold(self._asked(partial(self._finished, end)))) is not None:
                return known
            await self._control.nap(self._clock, self._pace.away if self._away else self._rest)

    # --- a round -------------------------------------------------------------------------------------------------------------

    async def _round_with(self, distributor_alive: Alive | None) -> _End | None:
        if distributor_alive is not None:
            answer = distributor_alive()
            if not (answer if isinstance(answer, bool) else await answer):
                reason = "what carries out the builds is gone"
                await self._asked(partial(self._finished, _End(RunStatus.ERROR, reason)))
                raise DistributorNotAlive(f"{reason}: start it again, and resume workflow {self.state.workflow_id}")
        return await self._asked(self._round)

    async def _asked(self, ask: Callable[[], Awaitable[_End | None]]) -> _End | None:
        """What it answers. If the run is over: how it ended. None where the controller is away: ask again."""
        try:
            try:
                end = await ask()
            except NotYourWorkflow as error:
                end = await self._lost(error)
        except AWAY as error:
            self._away = True
            self._listener.away(str(error))
            return None
        if self._away:
            self._away = False
            self._listener.back()
        return end

    async def _round(self) -> _End | None:
        begun = self._clock.seconds()
        await self._heart.beat_if_due()
        changes = await self._synced()
        if not self._heart.is_over:
            await self._settle()
        end = self._end()
        if end is None and not self._heart.is_over:
            changes += await self._queue()
        # Where rounds take long, what happens meanwhile is better asked for at once: half of the controller's time is for others.
        took = self._clock.seconds() - begun
        self._rest = min(max(took, self._pace.shortest if changes else self._rest * 1.5), self._pace.longest)
        return end

    async def _synced(self) -> int:
        state = self.state
        now = self._clock.seconds()
        full = now >= self._full_sync_at
        delta = await self._requester.sync(self._run_id, None if full else state.last_sync)
        if full:
            self._full_sync_at = now + self._pace.full_sync
        state.last_sync = delta.now
        if delta.status.is_terminal or delta.status.resumes:
            self._heart.hear(delta.status)
        return self._apply(delta.changes)

    async def _settle(self) -> None:
        """Before anything else is queued: the store would take a later word on a task for the last one."""
        while self._unsettled:
            chunk = dict(list(self._unsettled.items())[:MOST_OF_A_BATCH])
            await self._requester.settle(self._run_id, chunk)
            for id in chunk:
                del self._unsettled[id]

    async def _queue(self) -> int:
        batches = take(self.state)
        self._unsent += batches
        if batches:
            self._listener.changed(self.state, ())
        changed = 0
        while self._unsent and not self._heart.is_over:
            changed += self._apply(await self._requester.queue(self._run_id, self._unsent[0]))
            self._unsent.popleft()
        return changed + len(batches)

    # --- what the controller says --------------------------------------------------------------------------------------------

    def _apply(self, changes: Sequence[TaskChange]) -> int:
        """How many tasks have changed. What is told twice, or of an attempt that is past, changes nothing."""
        heard: list[tuple[SwarmTask, TaskChange]] = []
        for change in changes:
            task = self.state.tasks.get(change.id)
            if task is None or task.status not in ACTIVE or change.attempts < task.attempts or change.status is task.status:
                continue
            if change.status in BUILDING or change.status is TaskStatus.DONE:
                self.state.move(task, change.status)
            elif change.status in (TaskStatus.ERROR_RECOVERABLE, TaskStatus.ERROR_FATAL):
                self._failed(task, change)
            else:
                continue
            heard.append((task, change))
        if heard:
            self._listener.changed(self.state, heard)
        return len(heard)

    def _failed(self, task: SwarmTask, change: TaskChange) -> None:
        if self._heart.is_over:  # whoever has the workflow next decides
            self.state.move(task, TaskStatus.ERROR_RECOVERABLE)
            return
        if change.status is TaskStatus.ERROR_FATAL:
            status = TaskStatus.ERROR_FATAL
        else:
            verdict = judge(change.trouble, task.attempts, task.max_attempts, task.resources, task.level, task.array.definition)
            task.resources = self.state.alike(verdict.resources)
            task.level = verdict.level
            status = verdict.status
            self._unsettled[task.id] = (status, task.resources, task.level)
        self.state.move(task, status)
        if status is TaskStatus.ERROR_FATAL and len(self._failures) < MOST_FAILURES:
            self._failures[task.id] = Failed(
                label=task.label, attempts=task.attempts, build_id=change.build_id, reason=change.reason
            )

    # --- the end -------------------------------------------------------------------------------------------------------------

    def _too_late(self) -> _End | None:
        if self._timeout is not None and self._clock.seconds() - self._begun >= self._timeout:
            return _End(RunStatus.ERROR, f"not done within {self._timeout:g} seconds, which is all the time that it was given")
        return None

    def _end(self) -> _End | None:
        """Whether the run is at its end, as things are."""
        state, status = self.state, self._heart.status
        if status.is_terminal:
            return _End(status, _WHY.get(status, "the controller has ended the run"), known=True)
        if status.resumes:
            return self._drained(status)
        if state.is_done:
            return _End(RunStatus.DONE, "")
        failed = state.task_status_map[TaskStatus.ERROR_FATAL]
        if failed and state.fail_fast:
            return _End(RunStatus.ERROR, f"{why_failed(failed, self._failures)}; the workflow is to fail fast")
        if not state.active and not state.waits:
            return _End(RunStatus.ERROR, why_stuck(state, self._failures))
        return None

    def _drained(self, status: RunStatus) -> _End | None:
        """Somebody resumes the workflow: over as soon as the builds have ended that are not to go on."""
        resume = Resume.HOT if status is RunStatus.HOT_RESUME else Resume.COLD
        if not self._ending:
            self._ending = True
            self._listener.ending(f"somebody else resumes the workflow ({resume.value})")
        ends = BUILDING - {TaskStatus.RUNNING} if resume is Resume.HOT else BUILDING
        if any(self.state.task_status_map[letter] for letter in ends):
            return None
        return _End(RunStatus.TERMINATED, f"somebody else has resumed the workflow ({resume.value})")

    async def _finished(self, end: _End) -> _End:
        if not end.known:
            await self._requester.finish(self._run_id, end.status, end.reason)
        return end

    async def _detached(self) -> _End:
        running = sum(len(self.state.task_status_map[status]) for status in BUILDING)
        reason = f"the driver let go; builds that go on: {running}"

        async def detach() -> _End:
            await self._requester.detach(self._run_id)
            return _End(RunStatus.TERMINATED, reason, detached=True)

        untold = _End(RunStatus.TERMINATED, f"{reason}; the controller, which is away, does not know it yet", detached=True)
        return await self._asked(detach) or untold

    async def _lost(self, error: NotYourWorkflow) -> _End:
        """The run is over, and a heartbeat's answer says how."""
        await self._heart.beat()
        status = self._heart.status
        return _End(status if status.is_terminal else RunStatus.TERMINATED, str(error), known=True)

    def _summary(self, end: _End) -> Summary:
        return Summary(
            workflow_id=self.state.workflow_id,
            run_id=self._run_id,
            status=end.status,
            reason=end.reason,
            counts=self.state.counts,
            failed=tuple(self._failures.values()),
            seconds=self._clock.seconds() - self._begun,
            detached=end.detached,
        )


_WHY = {
    RunStatus.STOPPED: "the workflow was cancelled",
    RunStatus.TERMINATED: "another driver has taken its place",
    RunStatus.ERROR: "the controller has given the run up: it had not heard of this driver for too long",
}
