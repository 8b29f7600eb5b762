"""The test case that all checks are methods of: a provider, a controller's stand-in, and nothing left when it is over."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NoReturn
from unittest import SkipTest, TestCase

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from latent.testing.contract.census import Errors, delayed_calls
from latent.testing.contract.controller import Driven, StandIn
from latent.testing.contract.promises import BrokenPromise, Promise, named, said
from latent.testing.contract.provider import Provider
from latent.testing.contract.waiting import until, wait_for
from latent.testing.contract.watch import Watch
from latent.worker import hooks
from latent.worker.threads import ThreadPool

ANSWERED = named("errors-are-answered", "An error is the answer of a hook; none is lost in a Deferred that nobody looks at.")

IDLE = named("nothing-left-waiting", "When its instances are gone a plugin has no delayed call in the reactor.")


class ContractCase(TestCase):
    """Its subclasses have the checks, and `make_provider`."""

    provider: Provider
    controller: StandIn
    controllers: list[StandIn]
    before: frozenset[str]
    """The instances that there were when the test began."""

    _watch: Watch | None = None

    def make_provider(self) -> Provider:
        """The provider of one test."""
        raise TypeError(f"{type(self).__name__} has no provider; make it with make_latent_worker_tests")

    # --- one test ------------------------------------------------------------------------------------------------------------

    def carry_out(self, promise: Promise, check: Callable[[Any], Awaitable[None]]) -> None:
        self.promise = promise
        self.provider = self.make_provider()
        with tempfile.TemporaryDirectory(prefix="latent-contract-") as directory:
            self.state_dir = Path(directory)
            wait_for(self.provider.reactor, Deferred.fromCoroutine(self._whole(check)))

    async def _whole(self, check: Callable[[Any], Awaitable[None]]) -> None:
        reactor = self.provider.reactor
        calls = list(reactor.getDelayedCalls())
        self.controllers = []
        self.another_controller()
        try:
            with Errors() as errors:
                self.before = await self.existing()
                await check(self)
                for controller in self.controllers:
                    await controller.shut_down()
                    controller.close()
                await self._nothing_waits(calls)
                if lost := errors.all():
                    raise ANSWERED.broken("; ".join(lost))
        except (BrokenPromise, SkipTest):
            raise
        except Exception as error:
            raise self.promise.broken(said(error)) from error
        finally:
            for controller in self.controllers:
                controller.close()
            await self._clean_up(calls)

    async def _nothing_waits(self, before: list[Any]) -> None:
        await self.until(self.idle)
        reactor = self.provider.reactor
        if not await until(reactor, self.provider.patience, lambda: not delayed_calls(reactor, before)):
            left = delayed_calls(reactor, before)
            raise IDLE.broken("; ".join(f"there is still {call}" for call in left))

    async def _clean_up(self, calls: list[Any]) -> None:
        """Also after a broken promise: what is left would break the next test."""
        await hooks.call(self.provider.clean_up)
        for call in delayed_calls(self.provider.reactor, calls):
            call.cancel()

    def another_controller(self) -> None:
        """From now on workers are one's that knows nothing of the ones before."""
        self.controller = StandIn(self.provider, self.state_dir)
        self.controllers.append(self.controller)

    # --- what checks use -----------------------------------------------------------------------------------------------------

    async def existing(self) -> frozenset[str]:
        """All instances that there are at the provider."""
        return frozenset(await self._of_provider(self.provider.existing))

    async def made(self) -> frozenset[str]:
        """Those that there were not when the test began."""
        return (await self.existing()) - self.before

    async def vanish(self, instance: str) -> None:
        await self._of_provider(self.provider.vanish, instance)

    async def exit(self, instance: str) -> None:
        await self._of_provider(self.provider.exit, instance)

    async def hang(self, instance: str) -> None:
        await self._of_provider(self.provider.hang, instance)

    async def plant(self) -> str:
        planted: str = await self._of_provider(self.provider.plant)
        return planted

    async def worker(self, name: str | None = None, *, idle: bool = False, **keywords: Any) -> Driven:
        """A worker in its next attempt, or in none where it is idle."""
        return await self.controller.worker(name or self.provider.names[0], idle=idle, **keywords)

    async def started(self, name: str | None = None) -> tuple[Driven, str]:
        """A worker whose instance is up, and that instance."""
        there = await self.existing()
        worker = await self.worker(name)
        await worker.start()
        return worker, await self.one_more(there, f"after {worker.attempt} was started")

    async def one_more(self, there: frozenset[str], when: str) -> str:
        new = (await self.existing()) - there
        if len(new) != 1:
            self.broken(f"{when} there should be one instance more at the provider; there are {_told(new)}")
        (one,) = new
        return one

    async def only(self, expected: set[str] | frozenset[str], when: str) -> None:
        """These, and what there was before the test, are all that there is now, at once."""
        made = await self.made()
        if more := made - expected:
            self.broken(f"{when} {_told(more)} should be gone, and still there is")
        if less := expected - made:
            self.broken(f"{when} {_told(less)} should still be there, and is gone")

    async def soon_only(self, expected: set[str] | frozenset[str], when: str) -> None:
        """The same, once what is on its way has come to an end."""

        async def settled() -> bool:
            return self.idle() and await self.made() == expected

        await self.until(settled, lasting=self.provider.quiet)
        await self.only(expected, f"{when}, and {self.provider.patience:g} s later,")

    def idle(self) -> bool:
        """Whether no thread is busy with a call that was sent, cancelled or not, as far as one can tell."""
        return ThreadPool.calls(self.provider.reactor) == 0

    async def until(self, look: Callable[[], Any], lasting: float = 0) -> Any:
        """The last answer: a false one when patience has come to an end. ``lasting``: seconds for which it must be true."""
        return await until(self.provider.reactor, self.provider.patience, look, lasting)

    async def turns(self, count: int) -> None:
        for _ in range(count):
            await deferLater(self.provider.reactor, 0)

    def needs(self, worker: Driven, *recovery_hooks: str) -> None:
        """The check is about hooks that a plugin may lack, though not if it is to keep what it promises."""
        for hook in recovery_hooks:
            if not worker.plugin.supports(hook):
                self.broken(
                    f"{type(worker.plugin).__name__} has no {hook}, so its instances can't be found again after a crash of the "
                    "controller; define it"
                )

    def broken(self, what: str) -> NoReturn:
        raise self.promise.broken(what)

    def watched(self) -> AbstractContextManager[Watch]:
        """What keeps the reactor from now on is seen, unless the provider of the test does it."""
        return _Watching(self)

    async def _of_provider(self, method: Callable[..., Any], *args: Any) -> Any:
        with nullcontext() if self._watch is None else self._watch.aside():
            call = hooks.call(method, *args)
        return await call


class _Watching(AbstractContextManager[Watch]):
    def __init__(self, case: ContractCase) -> None:
        self._case = case

    def __enter__(self) -> Watch:
        provider = self._case.provider
        watch = self._case._watch = Watch(provider.reactor, provider.block_limit)
        watch.start()
        return watch

    def __exit__(self, *error: object) -> None:
        assert self._case._watch is not None
        self._case._watch.stop()
        self._case._watch = None


def _told(instances: frozenset[str] | set[str]) -> str:
    return ", ".join(sorted(instances)) or "none"
