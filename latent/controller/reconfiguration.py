"""Applies a new configuration to a running controller: what did not change is not touched, what goes may end its builds.

A worker that is replaced by one of another class goes first; its successor waits in `Reconfiguration` until it has.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol, assert_never

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from latent.config.diff import (
    BuilderAdded,
    BuilderChanged,
    BuilderRemoved,
    MachineChange,
    RestartNeeded,
    SettingChanged,
    WorkerAdded,
    WorkerChanged,
    WorkerRemoved,
    diff,
)
from latent.config.settings import Config
from latent.controller.asking import ask
from latent.controller.clock import Clock
from latent.controller.dispatcher import Dispatcher
from latent.controller.failures import explained
from latent.controller.lifecycle import Lifecycle
from latent.controller.machines import Machines
from latent.controller.plain import PlainWorker
from latent.controller.roster import Roster
from latent.controller.scheduler import Scheduler
from latent.core import events as ev
from latent.core.states import NotSubstantiated, ShutDown, Substantiated, SubstantiatingStarting
from latent.killpoints import here
from latent.worker.base import AbstractWorker

log = Logger()

SET_UP_TIMEOUT = 60.0
"""Seconds that a plugin's reconfigService has."""


class Reconfigurable(Protocol):
    """What of the controller a new configuration touches; `latent.controller.service.Controller` is one."""

    config: Config
    roster: Roster
    dispatcher: Dispatcher
    scheduler: Scheduler
    machines: Machines

    async def add_workers(self, plugins: Collection[AbstractWorker]) -> None: ...
    def apply_limits(self, config: Config) -> None: ...


class Reconfiguration:
    def __init__(self, controller: Reconfigurable, clock: Clock) -> None:
        self._controller = controller
        self._clock = clock
        self._successors: dict[str, AbstractWorker] = {}
        self._one_at_a_time = DeferredLock()
        self._stopped = False

    async def apply(self, config: Config) -> list[str]:
        """What was done, a line each, for whoever asked."""
        await self._one_at_a_time.acquire()
        try:
            return await self._apply(config)
        finally:
            self._one_at_a_time.release()

    async def _apply(self, config: Config) -> list[str]:
        controller = self._controller
        changes = diff(controller.config, config)
        controller.apply_limits(config)
        # The workers that follow may be on new machines, and those that are there still on old ones.
        await controller.machines.declare(config.machines)
        done: list[str] = []
        added: list[AbstractWorker] = []
        for change in changes:
            match change:
                case WorkerRemoved(name):
                    self._successors.pop(name, None)
                    done.append(self._retire(name, str(change)))
                case WorkerAdded(name) if name in controller.roster:
                    # It was removed a moment ago and still has an instance or a build.
                    self._successors[name] = config.workers[name]
                    done.append(f"{change}, once the one of that name before it has gone")
                case WorkerAdded(name):
                    added.append(config.workers[name])
                    done.append(str(change))
                case WorkerChanged(name, replaced=True):
                    self._successors[name] = config.workers[name]
                    done.append(self._retire(name, str(change)))
                case WorkerChanged(name):
                    done.append(await self._change(name, config.workers[name], str(change)))
                case BuilderAdded() | BuilderRemoved() | BuilderChanged() | MachineChange() | SettingChanged() | RestartNeeded():
                    done.append(str(change))
                case _:
                    assert_never(change)
        await controller.add_workers(added)
        controller.machines.retire(config.machines)
        touched = {change.name for change in changes if isinstance(change, WorkerAdded | WorkerChanged)}
        for post in controller.roster:
            if post.unusable and not post.removed and post.name not in touched and post.name in config.workers:
                done.append(await self._change(post.name, config.workers[post.name], f"worker {post.name}: set up again"))
        controller.scheduler.poke()
        return done or ["nothing changed"]

    async def _change(self, name: str, plugin: AbstractWorker, what: str) -> str:
        post = self._controller.roster.get(name)
        if post is None or post.removed:
            # The one that is there is on its way out; what comes after it is what changed.
            self._successors[name] = plugin
            return what
        old = post.plugin.declaration
        args, kwargs = plugin.arguments
        here("reconfiguration.change.before")
        try:
            await ask(self._clock, SET_UP_TIMEOUT, post.plugin.reconfigService, *args, **kwargs)
            here("reconfiguration.change.answered")
        except Exception as error:
            log.failure("{worker}: reconfigService failed", worker=name)
            post.unusable = f"reconfigService failed: {explained(error)}"
            return f"worker {name}: could not be changed and gets no builds: {explained(error)}"
        post.unusable = ""
        post.plugin.adopt_declaration(plugin)
        if isinstance(post, PlainWorker):
            self._controller.roster.add(post)
            return what
        outdated = old.instance != plugin.declaration.instance
        await post.apply(ev.Reconfigured(post.plugin.policy(), outdated))
        goes = outdated and not isinstance(post.state, NotSubstantiated)
        return f"{what}; its instance goes after its last build" if goes else what

    def _retire(self, name: str, what: str) -> str:
        """No more builds; it goes when its last has ended."""
        post = self._controller.roster.get(name)
        if post is None:
            return what
        post.removed = True
        busy = self._controller.dispatcher.load_of(name)
        self.worker_changed(name)
        return f"{what}, after its last build ({busy} running)" if busy else what

    def worker_changed(self, name: str) -> None:
        """A worker that is to go: see that its instance goes; when it has come to rest, let it go, and its successor in."""
        post = self._controller.roster.get(name)
        if post is None or not post.removed or self._stopped:
            return
        if isinstance(post, Lifecycle):
            if isinstance(post.state, SubstantiatingStarting | Substantiated) and not post.state.retiring:
                post.apply(ev.Reconfigured(post.plugin.policy(), outdated=True))
            if not isinstance(post.state, NotSubstantiated | ShutDown):
                return
        if self._controller.dispatcher.load_of(name) or post.setting_up:
            return
        if isinstance(post, PlainWorker):
            self._close_session(post)
        self._controller.roster.remove(name)
        successor = self._successors.pop(name, None)
        if successor is not None:
            Deferred.fromCoroutine(self._controller.add_workers([successor])).addErrback(
                lambda f: log.failure("{worker}: its new declaration could not be applied", f, worker=name)
            )

    def _close_session(self, post: PlainWorker) -> None:
        if post.session is not None:
            self._controller.dispatcher.sessions.drop(post.name, post.session, "its worker is no longer declared")

    def stop(self) -> None:
        self._stopped = True
