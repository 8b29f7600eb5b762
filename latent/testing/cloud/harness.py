"""A controller with a cloud, both in memory and by one clock that stands still until it is told to go on.

    with CloudHarness(tmp_path, seed=7) as site:
        site.cloud.late("create", 30)
        build = site.submit()
        site.advance(60)
        assert site.result(build) is Result.SUCCESS

The cloud outlives the controller (`restart`). When the ``with`` ends the controller is stopped, and an instance that is left is
an AssertionError.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from latent.core.states import NotSubstantiated, ShutDown, Substantiated
from latent.model import Lease, Outcome
from latent.testing.agent import HasDispatcher, Work, succeed_at_once
from latent.testing.cloud.agents import InProcessAgents
from latent.testing.cloud.cloud import Cloud
from latent.testing.cloud.line import LocalLine
from latent.testing.cloud.provider import Guest
from latent.testing.cloud.values import Instance
from latent.testing.cloud.worker import CloudLatentWorker
from latent.testing.harness import START, ControllerHarness, answer
from latent.worker.base import AbstractWorker

T = TypeVar("T")

PATIENCE = 3600.0
"""Seconds, by the clock of the test, that an answer may take."""

SETTLING = 6 * 3600.0
"""Seconds, by the clock of the test, until all has come to rest: a worker's back-off alone may be an hour."""


class CloudHarness(ControllerHarness):
    """``workers``: made with the cloud as it is here; by default one, "w", that stops its instance after each build.

    ``beside``: another, whose cloud it shares. The check for leaks comes when the last of them stops.
    ``work``: what agents do with a lease. ``latency``, ``boot``, ``ending``: of the `Cloud`. The rest is `ControllerHarness`'s.
    """

    def __init__(
        self,
        state_dir: Path,
        workers: Callable[[Cloud], Iterable[AbstractWorker]] | None = None,
        *,
        seed: int = 0,
        work: Work = succeed_at_once,
        latency: float = 0.05,
        boot: float = 1.0,
        ending: float = 0.5,
        beside: CloudHarness | None = None,
        **options: Any,
    ) -> None:
        if beside is None:
            self.world = Clock()
            self.world.rightNow = START
            self.cloud = Cloud(self.world, seed=seed, latency=latency, boot=boot, ending=ending)
            self.sites: list[CloudHarness] = []
        else:
            self.world, self.cloud, self.sites = beside.world, beside.cloud, beside.sites
        self.sites.append(self)
        self.agents = InProcessAgents(self, self.world, work)
        self.cloud.boots = self._boot
        super().__init__(state_dir, (workers or _one_worker)(self.cloud), **options)
        self.clock.rightNow = self.world.rightNow

    def _boot(self, instance: Instance) -> Guest:
        site = next((one for one in self.sites if one.controller_id == instance.controller_id), self)
        return site.agents(instance)

    @property
    def controller_id(self) -> str:
        """Also of the one that has died."""
        return self.controller.identity.controller_id

    @property
    def at_home(self) -> HasDispatcher | None:
        return self.controller if self._running else None

    # --- the controller's life -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        super().start()
        self.agents.controller_changed()
        self.advance(0)

    def crash(self) -> None:
        for line in self._lines():
            line.cut = True
        super().crash()
        self.agents.controller_changed()

    def close(self) -> None:
        """After the controller has stopped: nothing may be left, at the cloud neither."""
        super().close()
        self.agents.controller_changed()
        if not any(site._running for site in self.sites):
            self.cloud.close()
            self.cloud.check()

    def settle(self, seconds: float = SETTLING) -> None:
        """Everything works from now on (`Cloud.heal`): until all builds are over and nothing is on its way or waits for its end.

        AssertionError after so many seconds. An instance of a worker that keeps it (``build_wait_timeout=-1``) may stay.
        """
        self.cloud.heal()
        end = self.clock.seconds() + seconds
        while not self.at_rest():
            if self.clock.seconds() >= end:
                raise AssertionError(f"it does not end: {self.controller.workers()} {self.health()}\n{self.cloud.transcript()}")
            self.advance(1)

    def at_rest(self) -> bool:
        """Whether nothing is to be done any more, for builds, workers, the reaper, or at the cloud."""
        if self.controller.dispatcher.live() or len(self.controller.queue) or self.controller.reaper.cases():
            return False
        expected = {post.attempt for post in self.controller.roster.latent() if isinstance(post.state, Substantiated)}
        for post in self.controller.roster.latent():
            keeps = isinstance(post.state, Substantiated) and post.plugin.build_wait_timeout < 0
            if not keeps and not isinstance(post.state, NotSubstantiated | ShutDown):
                return False
        left = [one for one in self.cloud.account if one.exists and not one.foreign and not one.protected]
        return all(one.attempt in expected for one in left if one.controller_id == self.controller_id)

    def _lines(self) -> list[LocalLine]:
        plugins = [post.plugin for post in self.controller.roster if isinstance(post.plugin, CloudLatentWorker)]
        return [plugin.line for plugin in plugins if isinstance(plugin.line, LocalLine)]

    def works_for(self, seconds: float) -> Work:
        """Builds that take so long, for ``site.agents.work``."""

        async def work(lease: Lease) -> Outcome:
            await deferLater(self.world, seconds)  # type: ignore[arg-type]  # a Clock will do
            return await succeed_at_once(lease)

        return work

    # --- time ----------------------------------------------------------------------------------------------------------------

    def advance(self, seconds: float = 0.0) -> None:
        """Let time pass for the cloud and the controller; what is due at one moment, the cloud does first."""
        end = self.clock.seconds() + seconds
        while (clock := self._next(end)) is not None:
            due = max(clock.calls[0].getTime(), self.clock.rightNow)
            self._set_time(due)
            # One call, as what it does may make another clock's due.
            call = clock.calls.pop(0)
            call.called = 1
            call.func(*call.args, **call.kw)
        self._set_time(end)

    def _set_time(self, now: float) -> None:
        for clock in self._clocks():
            clock.rightNow = now

    def _clocks(self) -> list[Clock]:
        return [self.world, *(site.clock for site in self.sites)]

    def _next(self, end: float) -> Clock | None:
        """The clock whose call is the next that is due."""
        waiting = [clock for clock in self._clocks() if clock.calls and clock.calls[0].getTime() <= end]
        return min(waiting, key=lambda clock: clock.calls[0].getTime(), default=None)

    def answer(self, awaitable: Awaitable[T]) -> T:
        """What it answers, however long that takes by the clock; raises what it fails with."""
        deferred: Deferred[T]
        deferred = awaitable if isinstance(awaitable, Deferred) else Deferred.fromCoroutine(awaitable)  # type: ignore[arg-type]
        end = self.clock.seconds() + PATIENCE
        while not deferred.called and self.clock.seconds() < end:
            due = [clock.calls[0].getTime() for clock in self._clocks() if clock.calls]
            if not due:
                break
            self.advance(max(0.0, min(due) - self.clock.seconds()))
        return answer(deferred)


def _one_worker(cloud: Cloud) -> list[AbstractWorker]:
    return [CloudLatentWorker("w", cloud=cloud, build_wait_timeout=0)]
