"""What a plugin promises of its starts."""

from __future__ import annotations

from unittest import SkipTest

from twisted.internet.defer import Deferred

from latent.errors import LatentError, PluginError
from latent.testing.contract.case import ContractCase
from latent.testing.contract.controller import Driven, a_build, same_attempt
from latent.testing.contract.promises import promise, said

one_for_one = promise(
    "one-start-one-instance", "A start makes one instance, which is there when it has answered; the stop that follows removes it."
)
same_start = promise(
    "repeated-start-is-the-same-start", "A start that is repeated with the same idempotency token makes no second instance."
)
cancelled = promise(
    "cancelled-start-leaves-nothing",
    "A start that is cancelled, and then stopped, leaves nothing, or what list_instances shows and destroy_instance removes.",
)
late = promise(
    "late-answer-is-not-lost",
    "What a provider answers when nobody waits for it any more is destroyed, or list_instances shows it; it is never dropped.",
)
typed = promise(
    "failed-start-says-why",
    "A start that the provider refuses raises one of latent's errors, which says why, and the stop that follows leaves nothing.",
)
side_by_side = promise("workers-do-not-meet", "Workers that start and stop at once have an instance each, and touch no other's.")

STAGES = (0, 1, 2, 5, 20)
"""Turns of the reactor after which a start is cancelled."""


class Starting(ContractCase):
    @one_for_one
    async def test_start_and_stop(self) -> None:
        """Each attempt has an instance of its own, and no other is left by it."""
        there = await self.existing()
        worker = await self.worker()
        await worker.start()
        first = await self.one_more(there, "after a start")
        await worker.stop()
        await self.only(set(), "after stop_instance has answered")
        worker.begin()
        await worker.start(a_build())
        second = await self.one_more(there, "after the same worker's second start, for a build,")
        if second == first:
            self.broken(f"{first} is the instance of two attempts")
        await worker.stop(fast=True)
        await self.soon_only(set(), "after stop_instance(fast=True)")

    # --- repeated ------------------------------------------------------------------------------------------------------------

    @same_start
    async def test_repeated_start(self) -> None:
        """The controller crashed after the provider had answered, and before it had written that down."""
        worker, instance = await self.started()
        self.controller.kept.pop(worker.attempt, None)
        again = await worker.restarted()
        await again.start()
        await self.only({instance}, "after the same start once more")
        good, message = await again.check()
        if not good:
            self.broken(f"check_instance of the repeated start answers: {message}")
        await again.stop()
        await self.only(set(), "after the stop of a start that was repeated")

    @same_start
    async def test_repeated_with_its_handle(self) -> None:
        """The same, where the handle was on disk."""
        worker, instance = await self.started()
        again = await worker.restarted()
        await again.start()
        await self.only({instance}, "after the same start once more")
        await again.stop()
        await self.only(set(), "after the stop of a start that was repeated")

    @same_start
    async def test_repeated_while_the_first_hangs(self) -> None:
        """The provider has made the instance, and the controller crashed before it was told."""
        worker = await self.worker()
        release = self.provider.hold_starts()
        try:
            first = worker.starting()
            instance = await self.made_while_held()
            again = await worker.restarted()
            second = again.starting()
            await self.turns(20)
        finally:
            release()
        await second
        await worker.ended(first)
        await self.only({instance}, "after a start was repeated that had made its instance and not answered")
        await again.stop()
        await self.soon_only(set(), "after the stop of a start that was repeated")

    # --- cancelled -----------------------------------------------------------------------------------------------------------

    @cancelled
    async def test_cancelled_start(self) -> None:
        """At whatever moment."""
        worker = await self.worker(idle=True)
        for stage in STAGES:
            worker.begin()
            call = worker.starting()
            await self.turns(stage)
            await self.cancel(worker, call, f"after {stage} turns of the reactor")

    @cancelled
    async def test_cancelled_when_it_is_made(self) -> None:
        """When the instance is there already, and the start has more to do."""
        worker = await self.worker()
        call = worker.starting()
        await self.until(self.made)
        await self.cancel(worker, call, "when its instance was there")

    async def cancel(self, worker: Driven, call: Deferred[tuple[str, ...]], when: str) -> None:
        call.cancel()
        await self.answered(worker, call)
        await worker.stop()
        await self.nothing_lost(worker, f"after a start was cancelled {when} and stopped")

    async def answered(self, worker: Driven, call: Deferred[tuple[str, ...]]) -> None:
        answer = await worker.ended(call)
        if isinstance(answer, PluginError):
            self.broken(f"start_instance, when it was cancelled, answered {said(answer)}")

    @late
    async def test_late_answer(self) -> None:
        """The start was cancelled, and stopped, while the provider had not answered."""
        worker = await self.worker()
        release = self.provider.hold_starts()
        try:
            call = worker.starting()
            await self.made_while_held()
            call.cancel()
            stopping = self.controller.ask(worker.plugin.stop_instance, False)
            await self.turns(20)
        finally:
            release()
        await worker.ended(call)
        await stopping
        await self.nothing_lost(worker, "after an answer that came when the start had been cancelled and stopped")

    @late
    async def test_seen_before_it_is_answered(self) -> None:
        """An instance carries its identity from the moment that it exists, not from the provider's answer on."""
        worker = await self.worker()
        self.needs(worker, "list_instances")
        release = self.provider.hold_starts()
        try:
            call = worker.starting()
            instance = await self.made_while_held()
            other = await self.worker(self.provider.names[1])

            async def listed() -> bool:
                return any(same_attempt(one, worker) for one in await other.listed())

            if not await self.until(listed):
                self.broken(f"the provider has made {instance} and not answered yet; list_instances does not show it")
        finally:
            release()
        await call
        await worker.stop()
        await self.only(set(), "after a stop")

    async def made_while_held(self) -> str:
        """The instance that the provider has made and does not tell of."""
        if not (made := await self.until(self.made)):
            self.broken("a start was asked for, and no instance came to be")
        first: str = min(made)
        return first

    async def nothing_lost(self, worker: Driven, when: str) -> None:
        """What is left is on its way out, or list_instances shows it: then it can be destroyed."""

        async def settled() -> bool:
            if not self.idle():
                return False
            return not await self.made() or await self.listed_of(worker) != []

        await self.until(settled, lasting=self.provider.quiet)
        left = await self.made()
        if left and worker.plugin.supports("list_instances"):
            for handle in await self.listed_of(worker):
                await worker.destroy(handle)
        await self.soon_only(set(), when)

    async def listed_of(self, worker: Driven) -> list[object]:
        if not worker.plugin.supports("list_instances"):
            return []
        return [one.handle for one in await worker.listed() if same_attempt(one, worker)]

    # --- refused -------------------------------------------------------------------------------------------------------------

    @typed
    async def test_failed_start(self) -> None:
        if self.provider.failing is None:
            raise SkipTest(f"{type(self.provider).__name__} has no failing, keywords with which every start fails")
        worker = await self.worker(**self.provider.failing)
        answer = await worker.ended(worker.starting(a_build()))
        if not isinstance(answer, Exception):
            self.broken(f"a start with {self.provider.failing} answered {answer} as if nothing were wrong")
        if not isinstance(answer, LatentError) or isinstance(answer, PluginError) or not str(answer).strip():
            self.broken(f"a start with {self.provider.failing} raised {said(answer)}; raise one of latent.errors")
        await worker.stop()
        await self.only(set(), "after a start that failed, and its stop")

    # --- many ----------------------------------------------------------------------------------------------------------------

    @side_by_side
    async def test_side_by_side(self) -> None:
        """Also when the name of one is the beginning of another's."""
        workers = [await self.worker(name) for name in self.provider.names]
        for call in [worker.starting() for worker in workers]:
            await call
        made = await self.made()
        if len(made) != len(workers):
            self.broken(f"{len(workers)} workers started at once, and there are {len(made)} instances: {', '.join(sorted(made))}")
        for gone, worker in enumerate(workers, start=1):
            await worker.stop()
            if (left := len(await self.made())) != len(workers) - gone:
                self.broken(f"{gone} of {len(workers)} workers have been stopped, and {left} instances are left")
            for other in workers[gone:]:
                good, message = await other.check()
                if not good:
                    self.broken(f"{worker.attempt} was stopped; check_instance of {other.attempt} answers: {message}")
