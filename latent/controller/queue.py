"""The builds that wait for a worker, those who wait for builds, and why each build is where it is."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from latent.core.planning import Line, Order
from latent.model import Build, BuildState, Requirements

Key = tuple[frozenset[tuple[str, str]], frozenset[str] | None, bool]


@define
class _Lane:
    requirements: Requirements
    payload: bool
    builds: list[tuple[Order, int]] = field(factory=list)
    why: str = ""


def order_of(build: Build) -> Order:
    return (-build.request.priority, build.id)


class BuildQueue:
    """Builds in state QUEUED, in lanes of the same requirements; and every build that somebody waits for."""

    def __init__(self) -> None:
        self._builds: dict[int, Build] = {}
        self._lanes: dict[Key, _Lane] = {}
        self._finished: dict[int, list[Deferred[Build]]] = {}

    def __len__(self) -> int:
        return len(self._builds)

    def get(self, build_id: int) -> Build | None:
        return self._builds.get(build_id)

    def put(self, build: Build) -> None:
        if build.state is not BuildState.QUEUED or build.result is not None:
            build = evolve(build, state=BuildState.QUEUED, result=None)
        self._builds[build.id] = build
        lane = self._lanes.setdefault(_key(build), _Lane(build.request.requirements, build.request.payload is not None))
        insort(lane.builds, (order_of(build), build.id))

    def take(self, build_id: int) -> Build | None:
        """Take it out: it is being given to a worker, or is over."""
        build = self._builds.pop(build_id, None)
        if build is None:
            return None
        key = _key(build)
        lane = self._lanes[key]
        del lane.builds[bisect_left(lane.builds, (order_of(build), build.id))]
        if not lane.builds:
            del self._lanes[key]
        return build

    def lanes(self) -> list[Line]:
        return [Line(requirements=lane.requirements, builds=lane.builds, payload=lane.payload) for lane in self._lanes.values()]

    def explain(self, waits: Iterable[str]) -> None:
        """What the planner said of each of `lanes`."""
        for lane, why in zip(self._lanes.values(), waits, strict=True):
            lane.why = why

    def why(self, build: Build) -> str:
        """Why a queued build waits."""
        lane = self._lanes.get(_key(build))
        return (lane.why if lane else "") or build.reason or "it is about to be given to a worker"

    def when_finished(self, build_id: int) -> Deferred[Build]:
        def forget(waiter: Deferred[Build]) -> None:
            self._finished[build_id].remove(waiter)
            if not self._finished[build_id]:
                del self._finished[build_id]

        waiter: Deferred[Build] = Deferred(forget)
        self._finished.setdefault(build_id, []).append(waiter)
        return waiter

    def finished(self, build: Build) -> None:
        for waiter in self._finished.pop(build.id, []):
            waiter.callback(build)

    def unknown(self, build_id: int, failure: Failure) -> None:
        """Nobody knows the build that was waited for."""
        for waiter in self._finished.pop(build_id, []):
            waiter.errback(failure)


def _key(build: Build) -> Key:
    needs = build.request.requirements
    return (frozenset(needs.labels.items()), needs.workers, build.request.payload is not None)
