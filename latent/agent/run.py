"""One run: from the lease to Done.

The steps do not wait for the controller. What there is to report is put in line and sent in order, however long the controller
is away; only Init comes before the first step and Done after the last report. What is asked of a run while it goes on (a
cancellation, a time limit, the agent's own end) is one future, ``stop``: the first reason counts.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import shutil
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from latent.agent.connection import CallRefused, Connection
from latent.agent.environment import step_environment
from latent.agent.guard import Guard
from latent.agent.logs import LogBuffer
from latent.agent.options import Options
from latent.agent.plan import Plan, PlannedStep, plan_of
from latent.agent.step import Ended, StepProcess
from latent.errors import ProtocolError
from latent.model import Outcome, Result
from latent.wire import calls
from latent.wire import peer_pb2 as pb

log = logging.getLogger(__name__)

FLUSH = 30.0
"""Seconds that Done waits for the logs; what comes later is accepted for five minutes."""

WAIT_TIMEOUT = 3900.0
"""Seconds of one Wait; longer than a gateway lets it last."""


def _background(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task whose failure is looked at by whoever needs it, or by nobody."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


class Why(enum.Enum):
    """Why a run is ended before its steps are."""

    CANCELLED = "cancelled by the controller"
    TIMEOUT = "the build took too long"
    SHUTDOWN = "the agent was told to stop"
    DROPPED = "the run is no longer this agent's"


@frozen(kw_only=True)
class Tools:
    """What all runs of an agent share."""

    options: Options
    connection: Connection
    logs: LogBuffer
    guard: Guard
    environ: Mapping[str, str]


class Run:
    """One lease."""

    def __init__(self, workflow: pb.Workflow, tools: Tools) -> None:
        self.id = workflow.id
        self._workflow = workflow
        self._tools = tools
        self._connection = tools.connection
        self._folder: Path = tools.options.workdir / f"run-{workflow.id}"
        self._why: Why | None = None
        self._stop: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reports: asyncio.Queue[pb.StepState] = asyncio.Queue()
        self._started = 0

    def stop(self, why: Why, message: str = "") -> None:
        """End it; the first reason counts."""
        if self._why is None:
            log.info("run %s: %s", self.id, message or why.value)
            self._why = why
            self._stop.set_result(message or why.value)
        elif why is Why.DROPPED:
            # Nobody wants to hear of it any more.
            self._why = why

    async def execute(self) -> None:
        """Raises SessionOver when the controller no longer knows this agent."""
        self._started = int(time.time())
        state = pb.WorkflowState(started=self._started)
        watching = _background(self._watch())
        try:
            try:
                await self._connection.call(calls.INIT, pb.InitRequest(id=self.id, state=state))
            except CallRefused as error:
                log.warning("run %s is not begun: %s", self.id, error)
                return
            log.info("run %s: begun", self.id)
            outcome = await self._carry_out()
            log.info("run %s: %s", self.id, outcome.result.value)
            if self._why is not Why.DROPPED:
                await self._done(outcome)
        finally:
            watching.cancel()
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    # --- the steps -------------------------------------------------------------------------------------------------------------

    async def _carry_out(self) -> Outcome:
        try:
            plan = plan_of(self._workflow)
        except ProtocolError as error:
            return Outcome(result=Result.EXCEPTION, error=str(error))
        reporting = _background(self._report())
        overdue = asyncio.get_running_loop().call_later(
            plan.timeout, self.stop, Why.TIMEOUT, f"the build took longer than {plan.timeout:g} s"
        )
        try:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True)
            bad = await self._run_steps(plan)
            if self._why is not Why.DROPPED:
                await self._reported(reporting)
        except OSError as error:
            return Outcome(result=Result.EXCEPTION, error=f"the agent can't work in {self._folder}: {error.strerror}")
        finally:
            overdue.cancel()
            reporting.cancel()
        return self._outcome(bad)

    async def _run_steps(self, plan: Plan) -> tuple[PlannedStep, Ended] | None:
        """The first step that did not end well, and how."""
        bad: tuple[PlannedStep, Ended] | None = None
        for planned in plan.steps:
            if self._stop.done() or (bad is not None and not planned.step.always_run):
                self._reports.put_nowait(pb.StepState(step_uuid=planned.uuid, skipped=True))
                continue
            started = int(time.time())
            self._reports.put_nowait(pb.StepState(step_uuid=planned.uuid, started=started))
            env = step_environment(self._tools.environ, planned, self._folder, self._tools.guard.mark)
            options = self._tools.options
            process = StepProcess(planned, env, self._folder, self._tools.logs, self._tools.guard, options.grace)
            ended = await process.run(self._stop)
            self._reports.put_nowait(
                pb.StepState(
                    step_uuid=planned.uuid,
                    started=started,
                    finished=int(time.time()),
                    exited=True,
                    exit_code=ended.exit_code,
                    error=ended.error,
                    canceled=ended.stopped,
                )
            )
            if bad is None and not ended.good:
                bad = planned, ended
        return bad

    def _outcome(self, bad: tuple[PlannedStep, Ended] | None) -> Outcome:
        exit_code = bad[1].exit_code if bad is not None else 0
        if self._why is Why.TIMEOUT:
            return Outcome(result=Result.TIMEOUT, exit_code=exit_code, error=self._stop.result())
        if self._why is not None:
            return Outcome(result=Result.CANCELLED, exit_code=exit_code, error=self._stop.result())
        if bad is None:
            return Outcome(result=Result.SUCCESS, exit_code=0)
        planned, ended = bad
        error = f"step {planned.step.name}: {ended.error or f'exit code {ended.exit_code}'}"
        return Outcome(result=Result.TIMEOUT if ended.timed_out else Result.FAILURE, exit_code=exit_code, error=error)

    # --- what the controller hears and says ------------------------------------------------------------------------------------

    async def _report(self) -> None:
        """Updates, in order."""
        while True:
            state = await self._reports.get()
            try:
                await self._connection.call(calls.UPDATE, pb.UpdateRequest(id=self.id, state=state))
            except CallRefused as error:
                self._refused(error)
            finally:
                self._reports.task_done()

    async def _reported(self, reporting: asyncio.Task[None]) -> None:
        """Until all updates are with the controller."""
        joined = _background(self._reports.join())
        await asyncio.wait((joined, reporting), return_when=asyncio.FIRST_COMPLETED)
        joined.cancel()
        if reporting.done():
            reporting.result()

    async def _done(self, outcome: Outcome) -> None:
        await self._tools.logs.flush(FLUSH)
        state = pb.WorkflowState(
            started=self._started,
            finished=int(time.time()),
            error=outcome.error,
            canceled=outcome.result is Result.CANCELLED,
        )
        metadata = ((calls.RESULT_KEY, outcome.result.value), (calls.EXIT_CODE_KEY, str(outcome.exit_code or 0)))
        try:
            await self._connection.call(calls.DONE, pb.DoneRequest(id=self.id, state=state), metadata=metadata)
        except CallRefused as error:
            log.warning("run %s: its end is not wanted: %s", self.id, error)

    async def _watch(self) -> None:
        """Listen for a cancellation, and keep the lease."""
        listening = _background(self._listen())
        try:
            while True:
                await asyncio.sleep(self._tools.options.extend)
                await self._extend()
                if listening.done():
                    listening.result()
        finally:
            listening.cancel()

    async def _listen(self) -> None:
        try:
            answer = await self._connection.call(calls.WAIT, pb.WaitRequest(id=self.id), timeout=WAIT_TIMEOUT)
        except CallRefused as error:
            self._refused(error)
            return
        if answer.canceled:
            self.stop(Why.CANCELLED)
        else:
            # Over, says the controller: does it still want the run?
            await self._extend()

    async def _extend(self) -> None:
        try:
            await self._connection.call(calls.EXTEND, pb.ExtendRequest(id=self.id))
        except CallRefused as error:
            self._refused(error)

    def _refused(self, error: CallRefused) -> None:
        if error.not_ours:
            self.stop(Why.DROPPED, str(error))
        else:
            log.warning("run %s: %s", self.id, error)
