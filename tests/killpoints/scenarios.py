"""What is done while controllers are killed, and at which points it kills them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import field, frozen

from tests.killpoints import rounds
from tests.killpoints.site import At, KillSite


@frozen(kw_only=True)
class Scenario:
    """``groups``: points at which controllers die one after the other, during one or more rounds. ``instances``: how many
    instances a round may take, however often its controller dies; None: as many as it likes. ``tries``: how many rounds may go by
    until a controller comes to its point, where that is left to chance.

    ``constants``: "module:NAME" -> what it is in the controllers.
    """

    name: str
    groups: tuple[tuple[At, ...], ...]
    config: Callable[[KillSite], str] = rounds.one_worker
    round: Callable[[KillSite], None] = rounds.whole_life
    constants: Mapping[str, Any] = field(factory=dict)
    instances: int | None = 1
    tries: int = 1


def points_of(scenario: Scenario) -> list[str]:
    return list(dict.fromkeys(at.point for group in scenario.groups for at in group))


def group(*points: str | At) -> tuple[At, ...]:
    return tuple(At(point) if isinstance(point, str) else point for point in points)


QUICK = {
    "latent.controller.reaper:FIRST_WAIT": 0.2,
    "latent.controller.aftermath:LOG_GRACE": 0.2,
    "latent.core.machines:FIRST_RETRY": 0.2,
}
"""What nobody wants to wait for."""

STARTS_AND_STOPS = Scenario(
    name="starts",
    round=rounds.starts_and_stops,
    constants=QUICK,
    instances=2,
    groups=(
        group("lifecycle.start.before", "lifecycle.start.called", "lifecycle.keep.before", "lifecycle.stop.before"),
        group("lifecycle.start.answered", "lifecycle.keep.written", "lifecycle.handle.answered", "lifecycle.stop.called"),
        group("lifecycle.stop.answered"),
        group("lifecycle.start.failed", "lifecycle.stop.failed"),
    ),
)
"""For plugins of which the rest was seen with others."""

ALL = (
    Scenario(
        name="life",
        round=rounds.kept_life,
        groups=(
            group("service.submit.before", "scheduler.claim.before", "lifecycle.start.before", "sessions.enrol.before"),
            group("service.submit.written", "scheduler.claim.written", "lifecycle.start.called", "sessions.enrol.written"),
            group("scheduler.claim.told", "lifecycle.start.answered", "sessions.attach.before", "dispatcher.activate.before"),
            group("lifecycle.keep.before", "sessions.attach.written", "dispatcher.activate.written", "lifecycle.stop.before"),
            group("lifecycle.keep.written", "lifecycle.accept.before", "dispatcher.step.before", "lifecycle.stop.called"),
            group("lifecycle.handle.answered", "dispatcher.offer.before", "dispatcher.step.written", "lifecycle.stop.answered"),
            group("dispatcher.lease.before", "logs.append.before", "dispatcher.finish.before", "sessions.close.before"),
            group("logs.append.written", "dispatcher.end.queued", "sessions.close.queued"),
            group("dispatcher.end.written", "sessions.close.written"),
        ),
    ),
    Scenario(
        name="events",
        groups=(
            group(At("lifecycle.event.before", 1), At("lifecycle.event.before", 2), At("lifecycle.event.before", 3)),
            group(At("lifecycle.event.written", 1), At("lifecycle.event.written", 2), At("lifecycle.event.written", 3)),
            group(At("lifecycle.actions.done", 1), At("lifecycle.actions.done", 2), At("lifecycle.actions.done", 3)),
            group(At("writer.queued", 2), At("writer.begun", 3), At("writer.uncommitted", 4)),
            group(At("writer.committed", 2), At("writer.answered", 3), At("writer.committed", 4)),
            group(At("writer.uncommitted", 2), At("writer.answered", 5)),
        ),
    ),
    Scenario(
        name="recovery",
        groups=(
            group("lifecycle.start.answered", "recovery.remains.read", "recovery.list.before", "recovery.list.answered"),
            group("lifecycle.start.answered", "recovery.builds.read", "recovery.handle.written", "recovery.resume.before"),
            group("lifecycle.start.answered", "recovery.builds.back", "recovery.resume.answered", "recovery.worker.before"),
            group("dispatcher.activate.written", "service.started", "recovery.worker.told", "dispatcher.recall.answered"),
            group("lifecycle.stop.called", "service.setup.before", "recovery.resume.answered", "recovery.worker.before"),
            group("lifecycle.stop.answered", "service.setup.answered", "recovery.worker.told", "service.recovered"),
            group("sessions.enrol.written", "recovery.session.written", "service.recovered"),
            group("service.prune.before", "service.prune.written", "records.reconcile.written"),
        ),
    ),
    Scenario(
        name="faults",
        round=rounds.faulty_life,
        constants=QUICK,
        instances=2,
        groups=(
            group("lifecycle.start.failed", "lifecycle.backoff.before"),
            group("lifecycle.backoff.written"),
            group("lifecycle.stop.failed", "reaper.destroy.before", "reaper.destroy.answered"),
            group("lifecycle.condemn.written", "reaper.gone.written"),
            group("reaper.failed.before", "reaper.failed.written"),
            group("reaper.list.before", "reaper.list.answered"),
            group("lifecycle.call.cancelled"),
        ),
    ),
    Scenario(
        name="warm",
        config=rounds.warm_worker,
        round=rounds.two_builds,
        constants=QUICK,
        groups=(
            group("compatibility.ask.before", "compatibility.ask.answered", "logs.finish.before"),
            group("lifecycle.check.before", "logs.finish.packed"),
            group("lifecycle.check.answered", "logs.finish.replaced"),
        ),
    ),
    Scenario(
        name="cancel",
        round=rounds.cancelled,
        groups=(
            group("service.cancel.before", "dispatcher.cancel.before"),
            group("service.cancel.written"),
        ),
    ),
    Scenario(
        name="queue",
        round=rounds.cancelled_in_queue,
        instances=0,
        groups=(group("service.cancel.ended"), group("service.cancel.written", "recovery.cancelled.written")),
    ),
    Scenario(
        name="occupied",
        round=rounds.occupied,
        constants={**QUICK, "latent.controller.scheduler:BUSY_AGAIN": 0.0},
        tries=20,
        groups=(group("scheduler.claim.refused"), group("scheduler.cancelled.written")),
    ),
    Scenario(
        name="machine",
        round=rounds.dispatched,
        groups=(
            group("records.dispatch.before", "records.dispatch.written"),
            group("records.adopt.written", "service.priority.written"),
        ),
        config=rounds.hurried_worker,
        instances=2,
    ),
    Scenario(
        name="host",
        config=rounds.worker_on_a_machine,
        round=rounds.machine_life,
        constants=QUICK,
        groups=(
            group("machine.setup.before", "machine.start.before", "machine.stop.before"),
            group("machine.setup.answered", "machine.start.called", "machine.stop.called"),
            group("machine.start.answered", "machine.stop.answered"),
            group("machine.start.failed"),
            group("machine.stop.failed"),
            group(At("machine.event.before", 0), At("machine.event.before", 1)),
            group(At("machine.event.written", 0), At("machine.event.written", 1)),
        ),
    ),
    Scenario(
        name="workflow",
        config=rounds.tasks_worker,
        round=rounds.driven,
        constants={**QUICK, "latent.swarm.reaping:INTERVAL": 0.3},
        instances=None,
        groups=(
            group("workflows.bind.written", "workflows.tasks.written", "workflows.link.written", "workflows.heartbeat.written"),
            group("workflows.queue.before", "workflows.queue.written", "workflows.follow.written", "workflows.settle.written"),
            group("workflows.end.before", "workflows.finish.written", "workflows.link.before", "workflows.link.begun"),
            group("workflows.reap.before", "workflows.reap.written", "workflows.cancel.written"),
        ),
    ),
    Scenario(
        name="plain",
        config=rounds.plain_worker,
        round=rounds.agents_of_others,
        instances=0,
        groups=(
            group("sessions.name.before", "sessions.name.written"),
            group("plain.backoff.before", "plain.backoff.written"),
            group("sessions.leave.before", "sessions.leave.written"),
            group("sessions.resume.written"),
        ),
    ),
    Scenario(
        name="changed",
        config=rounds.waiting_worker,
        round=rounds.reconfigured,
        groups=(group("reconfiguration.change.before", "reconfiguration.change.answered"),),
    ),
    Scenario(
        name="end",
        config=rounds.waiting_worker,
        round=rounds.stopped,
        groups=(group("service.stop.before"), group("service.stop.drained"), group("service.stop.stopped")),
    ),
    Scenario(
        name="damage",
        round=rounds.damaged,
        constants=QUICK,
        instances=2,
        groups=(group("recovery.forgotten.written"), group("recovery.unreadable.written")),
    ),
    Scenario(
        name="stray",
        config=rounds.watched_worker,
        round=rounds.haunted,
        constants=QUICK,
        instances=2,
        groups=(group("scan.list.before", "scan.list.answered", "recovery.stray.before", "recovery.stray.written"),),
    ),
)
