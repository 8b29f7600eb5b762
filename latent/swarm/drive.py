"""From a workflow to its end, in one call."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from latent.controller.clock import Clock
from latent.errors import NotYourWorkflow
from latent.swarm.binding import bind
from latent.swarm.builder import SwarmBuilder
from latent.swarm.control import Control, LetGo
from latent.swarm.heart import AWAY
from latent.swarm.listener import Listener, Summary
from latent.swarm.orchestrator import Alive, Orchestrator, Pace
from latent.swarm.requester import Requester
from latent.swarm.state import SwarmState
from latent.swarm.statuses import RunStatus
from latent.swarm.values import Resume, RunInfo
from latent.swarm.workflow import Workflow

ASK_AGAIN = 1.0
"""Seconds, while the workflow can't be driven yet."""

EDGE_CHUNK_SIZE = 5000


async def drive(
    requester: Requester,
    workflow: Workflow | int,
    *,
    clock: Clock,
    resume: Resume | None = None,
    driver: str = "",
    listener: Listener | None = None,
    control: Control | None = None,
    timeout: float | None = None,
    heartbeat_interval: float = 30.0,
    heartbeat_report_by_buffer: float = 1.5,
    distributor_alive: Alive | None = None,
    pace: Pace | None = None,
) -> Summary:
    """Store the workflow, or take the one whose id ``workflow`` is; become its driver; carry it out.

    ``resume``: take it over from a run that ended, or has still to end. ``driver``: who this is, in words; by default host and
    process. ``timeout``: seconds after which the run ends as an error. All other times are as in `SwarmBuilder` and `Pace`.

    Raises `ConfigError` with all that is wrong with the workflow, `NotResumable`, `EmptyWorkflowError`, `NotFound`, and
    `ControllerAway` where there is no run yet. Once there is one, a controller that is away is waited for.
    """
    listener = listener or Listener()
    control = control or Control()
    pace = pace or Pace()
    workflow_id = workflow if isinstance(workflow, int) else 0
    run: RunInfo | None = None
    try:
        if isinstance(workflow, Workflow):
            workflow_id = (await control.hold(bind(requester, workflow, listener))).workflow_id
        run = await _linked(requester, workflow_id, clock, resume, driver or _myself(), listener, control)
        while True:
            builder = SwarmBuilder(
                requester, run.id, heartbeat_interval, heartbeat_report_by_buffer, clock=clock, listener=listener
            )
            try:
                state = await control.hold(_built(builder, workflow if resume is None else workflow_id, workflow_id))
                break
            except AWAY as error:
                listener.away(str(error))
                await control.nap(clock, pace.away)
    except LetGo:
        return await _left(requester, workflow_id, run)
    orchestrator = Orchestrator(state, builder.heart, clock=clock, listener=listener, control=control, timeout=timeout, pace=pace)
    return await orchestrator.run(distributor_alive)


async def _linked(
    requester: Requester,
    workflow_id: int,
    clock: Clock,
    resume: Resume | None,
    driver: str,
    listener: Listener,
    control: Control,
) -> RunInfo:
    waits_for = ""
    while True:
        linked = await control.hold(requester.link(workflow_id, driver, resume))
        if linked.run is not None:
            listener.linked(linked.run)
            return linked.run
        if linked.waits_for != waits_for:
            waits_for = linked.waits_for
            listener.waits(waits_for)
        await control.nap(clock, ASK_AGAIN)


async def _built(builder: SwarmBuilder, workflow: Workflow | int, workflow_id: int) -> SwarmState:
    if isinstance(workflow, Workflow):
        await builder.build_from_workflow(workflow)
    else:
        await builder.build_from_workflow_id(workflow_id, EDGE_CHUNK_SIZE)
    assert builder.state is not None
    return builder.state


async def _left(requester: Requester, workflow_id: int, run: RunInfo | None) -> Summary:
    """Let go before the first task was queued."""
    if run is not None:
        with suppress(*AWAY, NotYourWorkflow):
            await requester.detach(run.id)
    return Summary(
        workflow_id=workflow_id,
        run_id=None if run is None else run.id,
        status=RunStatus.TERMINATED,
        reason="the driver let go before it had queued a task",
        counts={},
        detached=True,
    )


def _myself() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
