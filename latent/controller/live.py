"""A run that is not over."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred

from latent.controller.clock import Alarm
from latent.core import leasing
from latent.model import Build, Lease, LeaseState


@define(eq=False)
class LiveRun:
    """A run that is not over. ``attempt`` 0: of a plain worker. ``delivered``: the lease was given to the session.

    ``end``: how it ended, for those who still hold it then.
    """

    id: int
    build: Build
    worker: str
    attempt: int
    state: leasing.Running
    alarm: Alarm
    delivered: bool = False
    end: leasing.Over | None = None
    watchers: list[Deferred[bool]] = field(factory=list)
    over: list[Deferred[None]] = field(factory=list)

    @property
    def key(self) -> str:
        """How the worker's machine knows it."""
        return str(self.id)

    @property
    def taken(self) -> bool:
        """Whether an agent has been given it."""
        return self.delivered or self.state.lease is not LeaseState.PENDING

    def lease(self) -> Lease:
        """What an agent is given of it."""
        request = self.build.request
        return Lease(
            run_id=self.id,
            build_id=self.build.id,
            worker=self.worker,
            steps=tuple((f"{self.id}.{number}", step) for number, step in enumerate(request.steps)),
            properties=request.properties,
            timeout=request.timeout,
            labels=request.requirements.labels,
            builder=request.builder,
            payload=request.payload,
        )
