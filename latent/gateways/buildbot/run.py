"""One lease, carried out by a stock agent: the steps in order, each a shell command."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from attrs import frozen
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent.controller.clock import Clock
from latent.errors import NotYourRun
from latent.gateways.buildbot import translate
from latent.gateways.buildbot.command import Command, ConnectionGone
from latent.gateways.buildbot.lines import StepLines
from latent.gateways.buildbot.logs import LogPipe
from latent.gateways.buildbot.ports import Link, Session
from latent.gateways.buildbot.translate import Ended, Place
from latent.gateways.buildbot.workspace import Workspace
from latent.gateways.ports import Dispatcher
from latent.model import Lease, Outcome, Result, Step, StepState, StepStatus

log = Logger()

FLUSH = 30.0
"""Seconds that the end of a run waits for its last log lines to be kept."""


@frozen(kw_only=True)
class Desk:
    """What all runs of an agent share."""

    session: Session
    link: Link
    dispatcher: Dispatcher
    clock: Clock
    place: Place
    pause: Callable[[object, bool], None]


class Run:
    """A lease that the agent was given."""

    def __init__(self, lease: Lease, slot: int, desk: Desk, workspace: Workspace) -> None:
        self._lease = lease
        self._slot = slot
        self._desk = desk
        self._workspace = workspace
        self._log = LogPipe(desk.dispatcher, desk.session, lease.run_id, desk.clock, partial(desk.pause, self))
        self._command: Command | None = None
        self._stopped = ""
        self._dropped = False
        self._active = False

    async def execute(self) -> None:
        """Raises ConnectionGone."""
        desk, run_id = self._desk, self._lease.run_id
        try:
            await desk.dispatcher.activate(desk.session, run_id, desk.clock.seconds())
        except NotYourRun as error:
            log.info("run {run} is not begun: {error}", run=run_id, error=error)
            return
        self._active = True
        cancelled = desk.dispatcher.cancelled(desk.session, run_id)
        cancelled.addCallbacks(self._cancelled, self._not_ours)
        try:
            outcome = await self._carry_out()
            await self._log.flush(FLUSH)
            if not self._dropped:
                await desk.dispatcher.finished(desk.session, run_id, outcome, desk.clock.seconds())
        except NotYourRun as error:
            log.warn("run {run}: its end is not wanted: {error}", run=run_id, error=error)
        finally:
            self._active = False
            self._log.close()
            cancelled.cancel()
            self._workspace.clear_soon()

    def renew(self) -> None:
        """The agent gave a sign of life."""
        if self._active:
            try:
                self._desk.dispatcher.renew(self._desk.session, self._lease.run_id)
            except NotYourRun as error:
                self._drop(str(error))

    def stop(self, why: str) -> None:
        """End it; the first reason counts."""
        if not self._stopped:
            self._stopped = why
            if self._command is not None:
                self._command.interrupt(why)

    def _cancelled(self, asked: bool) -> None:
        if asked:
            self.stop("cancelled by the controller")
        elif self._active:
            self._drop("the run is over")

    def _not_ours(self, failure: Failure) -> None:
        if failure.check(NotYourRun):
            self._drop(failure.getErrorMessage())

    def _drop(self, why: str) -> None:
        """Nobody wants to hear of it any more."""
        self._dropped = True
        self.stop(why)

    # --- the steps -----------------------------------------------------------------------------------------------------------

    async def _carry_out(self) -> Outcome:
        if not self._stopped and (problem := await self._workspace.cleared()):
            return Outcome(result=Result.EXCEPTION, error=f"the agent can't clear its directory: {problem}")
        bad: tuple[Step, Ended] | None = None
        for uuid, step in self._lease.steps:
            if self._stopped or (bad is not None and not step.always_run):
                await self._report(uuid, step, StepStatus.SKIPPED)
                continue
            how = await self._step(uuid, step)
            if bad is None and not how.good:
                bad = step, how
        return translate.outcome(bad, self._stopped)

    async def _step(self, uuid: str, step: Step) -> Ended:
        desk = self._desk
        started = desk.clock.seconds()
        await self._report(uuid, step, StepStatus.RUNNING, started=started)
        lines = StepLines(uuid)

        def elapsed() -> float:
            return max(0.0, desk.clock.seconds() - started)

        def wrote(stream: str, text: str) -> None:
            self._log.write(lines.feed(stream, text, elapsed()))

        how = Ended(exit_code=None, error="stopped before it began", stopped=True)
        try:
            # It may have been stopped while its begin was written down.
            if not self._stopped:
                command_id = translate.command_id(desk.session.id, self._slot)
                self._command = Command(desk.link, desk.clock, self._slot, command_id, wrote)
                args = translate.shell(step, self._lease, desk.session.attempt, desk.place, self._slot)
                end = await self._command.run("shell", args)
                how = translate.ended(step, end.rc, end.reason, end.error, end.killed_by, self._stopped)
        except ConnectionGone as error:
            self._log.write(lines.close(elapsed()))
            await self._lost(uuid, step, started, str(error))
            raise
        finally:
            self._command = None
        self._log.write(lines.close(elapsed()))
        status = StepStatus.SUCCESS if how.good else StepStatus.KILLED if how.stopped else StepStatus.FAILURE
        await self._report(uuid, step, status, started=started, how=how)
        return how

    async def _lost(self, uuid: str, step: Step, started: float, why: str) -> None:
        """Say of the step what is known, if anybody wants to hear it."""
        await self._log.flush(FLUSH)
        try:
            await self._report(uuid, step, StepStatus.KILLED, started=started, how=Ended(exit_code=None, error=why))
        except NotYourRun:
            log.debug("run {run} was over when its agent was lost", run=self._lease.run_id)

    async def _report(
        self, uuid: str, step: Step, status: StepStatus, *, started: float | None = None, how: Ended | None = None
    ) -> None:
        if self._dropped:
            return
        state = StepState(
            uuid=uuid,
            name=step.name,
            status=status,
            started_at=started,
            ended_at=None if how is None else self._desk.clock.seconds(),
            exit_code=None if how is None else how.exit_code,
            error="" if how is None else how.error,
        )
        await self._desk.dispatcher.step_changed(self._desk.session, self._lease.run_id, state)
