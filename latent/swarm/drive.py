"""From a workflow to its end, in one call."""

from __future__ import annotations

from latent.controller.clock import Clock
from latent.swarm.listener import Control, Listener, Summary
from latent.swarm.requester import Requester
from latent.swarm.values import Resume
from latent.swarm.workflow import Workflow


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
) -> Summary:
    """Store the workflow, unless it is one or ``workflow`` is the id of one; become its driver; carry it out.

    ``resume``: take it over from a run that ended, or has still to end. ``driver``: who this is, in words; by default host and
    process. ``timeout``: seconds after which the run ends as an error. A controller that is away is waited for.

    Raises `ConfigError` with all that is wrong with the workflow, `NotResumable`, `EmptyWorkflowError` and `NotFound`; and
    `ControllerAway` only as long as there is no run yet. Once there is one, every end is a `Summary`.
    """
    raise NotImplementedError
