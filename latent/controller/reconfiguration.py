"""Applies a new configuration to a running controller: what did not change is not touched, what goes may end its builds."""

from __future__ import annotations

from typing import Protocol, assert_never

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from latent.config.diff import (
    BuilderAdded,
    BuilderChanged,
    BuilderRemoved,
    RestartNeeded,
    SettingChanged,
    WorkerAdded,
    WorkerChanged,
    WorkerRemoved,
    diff,
)
from latent.config.settings import Config
from latent.controller.dispatcher import Dispatcher
from latent.controller.lifecycle import Lifecycle
from latent.controller.plain import PlainWorker
from latent.controller.roster import Post, Roster
from latent.controller.scheduler import Scheduler
from latent.core import events as ev
from latent.core.states import NotSubstantiated, ShutDown
from latent.worker import hooks
from latent.worker.base import AbstractLatentWorker, AbstractWorker

log = Logger()


class Reconfigurable(Protocol):
    """What of the controller a new configuration touches; `latent.controller.service.Controller` is one."""

    config: Config
    roster: Roster
    dispatcher: Dispatcher
    scheduler: Scheduler

    async def add_worker(self, plugin: AbstractWorker) -> Post: ...
    def apply_limits(self, config: Config) -> None: ...


class Reconfiguration:
    def __init__(self, controller: Reconfigurable) -> None:
        self._controller = controller
        self._successors: dict[str, AbstractWorker] = {}
        self._stopped = False

    async def apply(self, config: Config) -> list[str]:
        """What was done, a line each, for whoever asked."""
        controller = self._controller
        changes = diff(controller.config, config)
        controller.apply_limits(config)
        done = []
        for change in changes:
            match change:
                case WorkerRemoved(name):
                    done.append(self._retire(name, str(change)))
                case WorkerAdded(name):
                    done.append(await self._add(config.workers[name], str(change)))
                case WorkerChanged(name, replaced=True):
                    self._successors[name] = config.workers[name]
                    done.append(self._retire(name, str(change)))
                case WorkerChanged(name):
                    done.append(await self._change(name, config.workers[name], str(change)))
                case BuilderAdded() | BuilderRemoved() | BuilderChanged() | SettingChanged() | RestartNeeded():
                    done.append(str(change))
                case _:
                    assert_never(change)
        controller.scheduler.poke()
        return done or ["nothing changed"]

    async def _add(self, plugin: AbstractWorker, what: str) -> str:
        if plugin.name in self._controller.roster:
            # It was removed a moment ago and still has an instance or a build.
            self._successors[plugin.name] = plugin
            return f"{what}, once the one of that name before it has gone"
        await self._controller.add_worker(plugin)
        return what

    async def _change(self, name: str, plugin: AbstractWorker, what: str) -> str:
        post = self._controller.roster.get(name)
        if post is None:
            return await self._add(plugin, what)
        old = post.plugin.declaration
        args, kwargs = plugin.arguments
        try:
            await hooks.call(post.plugin.reconfigService, *args, **kwargs)
        except Exception as error:
            log.failure("{worker}: reconfigService failed", worker=name)
            post.unusable = f"reconfigService failed: {error}"
            return f"worker {name}: could not be changed and gets no builds: {error}"
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
        if isinstance(post, Lifecycle):
            post.apply(ev.Reconfigured(post.plugin.policy(), outdated=True))
        self.worker_changed(name)
        return f"{what}, after its last build ({busy} running)" if busy else what

    def worker_changed(self, name: str) -> None:
        """A worker that is to go has come to rest: let it go, and let its successor in."""
        controller = self._controller
        post = controller.roster.get(name)
        if post is None or not post.removed or self._stopped or controller.dispatcher.load_of(name):
            return
        if isinstance(post, Lifecycle):
            if not isinstance(post.state, NotSubstantiated | ShutDown):
                return
        else:
            self._close_session(post)
        controller.roster.remove(name)
        successor = self._successors.pop(name, None)
        if successor is not None:
            Deferred.fromCoroutine(self._succeed(successor, post)).addErrback(
                lambda f: log.failure("{worker}: its new declaration could not be applied", f, worker=name)
            )

    async def _succeed(self, plugin: AbstractWorker, before: Post) -> None:
        post = await self._controller.add_worker(plugin)
        if isinstance(post, Lifecycle) and isinstance(before, Lifecycle) and isinstance(plugin, AbstractLatentWorker):
            # Attempts are never reused, also when the worker becomes one of another kind.
            post.state = NotSubstantiated(policy=plugin.policy(), attempt=before.state.attempt)
        self._controller.scheduler.poke()

    def _close_session(self, post: PlainWorker) -> None:
        if post.session is not None:
            self._controller.dispatcher.sessions.drop(post.name, post.session, "its worker is no longer declared")

    def stop(self) -> None:
        self._stopped = True
