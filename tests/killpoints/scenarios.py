"""What is done while controllers are killed, and at which points it kills them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import field, frozen

from tests.killpoints.site import At, KillSite


@frozen(kw_only=True)
class Scenario:
    """``groups``: points at which controllers die one after the other, during one or more rounds. ``instances``: how many
    instances a round starts, at most, however often its controller dies."""

    name: str
    groups: tuple[tuple[At, ...], ...]
    config: Callable[[KillSite], str]
    round: Callable[[KillSite], None]
    constants: Mapping[str, Any] = field(factory=dict)
    instances: int | None = 1


def group(*points: str | At) -> tuple[At, ...]:
    return tuple(At(point) if isinstance(point, str) else point for point in points)


def one_worker(site: KillSite, **keywords: Any) -> str:
    declared = site.provider.declared(
        site.directory.name, **{"build_wait_timeout": 0, "check_instance_interval": 0.5, **keywords}
    )
    return f"c['workers'] = [{declared}]\n"


# --- one build, from its submission to the end of its instance ----------------------------------------------------------------


def whole_life(site: KillSite) -> None:
    site.order("keep the handle")
    build = site.finished(site.submit())
    assert build["result"] == "success", build
    assert build["attempts"] == 1, build
    assert site.ran(build["id"]) == 1, f"build {build['id']} ran {site.ran(build['id'])} times"
    site.at_rest()


WHOLE_LIFE = Scenario(
    name="life",
    config=one_worker,
    round=whole_life,
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
        group(At("lifecycle.event.before", 1), At("lifecycle.event.before", 2), At("lifecycle.event.before", 3)),
        group(At("lifecycle.event.written", 1), At("lifecycle.event.written", 2), At("lifecycle.event.written", 3)),
        group(At("lifecycle.actions.done", 1), At("lifecycle.actions.done", 2), At("lifecycle.actions.done", 3)),
        group(At("writer.queued", 2), At("writer.begun", 3), At("writer.uncommitted", 4)),
        group(At("writer.committed", 2), At("writer.answered", 3), At("writer.committed", 4)),
        group(At("writer.uncommitted", 2), At("writer.answered", 5)),
    ),
)

ALL = (WHOLE_LIFE,)
