"""A controller's stand-in: it calls a plugin's hooks as a controller does, and keeps the handles as its store would."""

from __future__ import annotations

import secrets
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from latent.controller.asking import ask
from latent.controller.clock import WallClock
from latent.controller.identity import Identity
from latent.errors import PluginError
from latent.model import JSON, Attempt
from latent.testing.contract.provider import Provider
from latent.worker import hooks, results
from latent.worker.base import ListedInstance
from latent.worker.build import WorkerBuild
from latent.worker.properties import Properties


class StandIn:
    """``kept``: the last handle of each attempt. `restarted` is what comes after a crash: who it was, and what was on disk."""

    def __init__(self, provider: Provider, state_dir: Path) -> None:
        self.provider = provider
        self.state_dir = state_dir
        self.identity = Identity(uuid.uuid4().hex, secrets.token_bytes(32), dict(provider.servers))
        self.kept: dict[Attempt, JSON] = {}
        self.clock = WallClock(provider.reactor)
        self.calls: list[Deferred[Any]] = []
        self.numbers: Counter[str] = Counter()
        self.workers: list[Driven] = []

    async def worker(self, name: str, *, idle: bool = False, **keywords: Any) -> Driven:
        """A worker that is declared and set up, and in its next attempt unless it is idle."""
        driven = Driven(self, name, keywords)
        await driven.set_up()
        if not idle:
            driven.begin()
        return driven

    def enrolment(self, attempt: Attempt) -> Any:
        return self.identity.enrolment(attempt, self.kept.get(attempt))

    def ask(self, hook: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Call a hook. Fails with a PluginError when there is no answer within the provider's patience."""
        call = ask(self.clock, self.provider.patience, hook, *args, **kwargs)
        self.calls.append(call)
        return call

    def keep(self, attempt: Attempt, handle: JSON) -> Deferred[None]:
        def write() -> None:
            self.kept[attempt] = handle

        # What is written to disk is never there at once.
        return deferLater(self.provider.reactor, 0, write)

    async def shut_down(self) -> None:
        """Stop all that may be up, as a controller does that ends. Those of one that crashed end here, too."""
        for worker in self.workers:
            if worker.plugin.enrolment is not None:
                await worker.stop(fast=True)

    def close(self) -> None:
        """Nobody wants an answer any more."""
        for call in self.calls:
            call.addErrback(lambda _: None)
            call.cancel()
        self.calls.clear()


class Driven:
    """A worker with its hooks, whose answers are checked as the controller checks them."""

    def __init__(self, controller: StandIn, name: str, keywords: Mapping[str, Any]) -> None:
        self.controller = controller
        self.keywords = keywords
        self.plugin = plugin = controller.provider.make_worker(name, **keywords)
        self.said: list[str] = []
        """All strings that its starts have answered."""
        plugin.reactor = controller.provider.reactor
        plugin.state_dir = controller.state_dir
        plugin.handle_keeper = self._keep
        controller.workers.append(self)

    async def set_up(self) -> None:
        args, kwargs = self.plugin.arguments
        await self.controller.ask(self.plugin.reconfigService, *args, **kwargs)

    def begin(self, attempt: Attempt | None = None) -> None:
        """The controller begins the worker's next attempt, or this one once more, after a crash."""
        if attempt is None:
            self.controller.numbers[self.plugin.name] += 1
            attempt = Attempt(self.plugin.name, self.controller.numbers[self.plugin.name])
        self.plugin.enrolment = self.controller.enrolment(attempt)
        self.plugin.agent_attached = False

    @property
    def attempt(self) -> Attempt:
        assert self.plugin.enrolment is not None
        return self.plugin.enrolment.attempt

    @property
    def secret(self) -> str:
        assert self.plugin.enrolment is not None
        return self.plugin.enrolment.agent_token

    async def restarted(self) -> Driven:
        """The same worker in the same attempt, after the controller was ended and started again."""
        driven = Driven(self.controller, self.plugin.name, self.keywords)
        await driven.set_up()
        driven.begin(self.attempt)
        return driven

    def starting(self, build: Any = None) -> Deferred[tuple[str, ...]]:
        """The start, with its handle, as the controller calls them. Cancel it as the controller would."""
        attempt = self.attempt

        def answered(answer: Any) -> Any:
            said = results.start_result(self.plugin, answer)
            self.said += said
            if not self.plugin.supports("instance_handle"):
                return said
            return hooks.call(self.plugin.instance_handle).addCallback(kept, said)

        def kept(handle: JSON, said: tuple[str, ...]) -> tuple[str, ...]:
            self.controller.kept[attempt] = results.handle(self.plugin, handle)
            return said

        call: Deferred[tuple[str, ...]] = self.controller.ask(self.plugin.start_instance, build)
        return call.addCallback(answered)

    async def start(self, build: Any = None) -> tuple[str, ...]:
        return await self.starting(build)

    async def stop(self, fast: bool = False) -> None:
        await self.controller.ask(self.plugin.stop_instance, fast)

    async def check(self) -> tuple[bool, str]:
        """An error counts as (False, its text), as for the controller; an answer of a wrong type, or none, is an error."""
        try:
            answer = await self.controller.ask(self.plugin.check_instance)
        except PluginError:
            raise
        except Exception as error:
            return False, str(error) or type(error).__name__
        return results.check_result(self.plugin, answer)

    async def handle(self) -> JSON:
        """What finds the instance again, as it comes back from the store."""
        return results.handle(self.plugin, await self.controller.ask(self.plugin.instance_handle))

    async def resume(self, handle: JSON) -> bool:
        return results.resume_result(self.plugin, await self.controller.ask(self.plugin.resume_instance, handle))

    async def listed(self) -> tuple[ListedInstance, ...]:
        return results.listed(self.plugin, await self.controller.ask(self.plugin.list_instances))

    async def destroy(self, handle: JSON) -> None:
        await self.controller.ask(self.plugin.destroy_instance, handle)

    async def ended(self, call: Deferred[Any]) -> Any:
        """The answer of a call, or the error that it ended with."""
        try:
            return await call
        except Exception as error:
            if isinstance(error, PluginError) and "did not answer in" in str(error):
                raise
            return error

    def _keep(self, attempt: Attempt, handle: JSON) -> Deferred[None]:
        try:
            checked = results.handle(self.plugin, handle, "keep_handle")
        except PluginError:
            return fail(Failure())
        return self.controller.keep(attempt, checked)


def a_build(told: Callable[[str], None] = lambda line: None) -> WorkerBuild:
    return WorkerBuild(1, "contract", Properties({"reason": "the contract"}, "Build"), told)


def same_attempt(one: ListedInstance, driven: Driven) -> bool:
    return (one.controller_id, one.attempt) == (driven.controller.identity.controller_id, driven.attempt)


__all__ = ["Driven", "StandIn", "a_build", "same_attempt"]
