"""What a plugin promises of its stops."""

from __future__ import annotations

from latent.testing.contract.case import ContractCase
from latent.testing.contract.promises import promise

of_nothing = promise(
    "stop-of-nothing", "stop_instance of an attempt that was never started answers, without an error, and touches nothing."
)
again = promise(
    "stop-again",
    "stop_instance answers without an error also when the instance is gone, has ended or hangs, and when it is repeated.",
)
its_own = promise(
    "stop-stops-its-own", "stop_instance stops its own attempt's instance: no other attempt's, worker's or controller's."
)


class Stopping(ContractCase):
    @of_nothing
    async def test_stop_of_what_never_started(self) -> None:
        _, instance = await self.started(self.provider.names[1])
        worker = await self.worker()
        for fast in (False, True):
            await worker.stop(fast)
            await self.only({instance}, "after the stop of a worker that was never started")

    @of_nothing
    async def test_stop_after_a_restart(self) -> None:
        """The controller was killed before it had called the start, and stops the attempt when it is back."""
        worker = await self.worker()
        again = await worker.restarted()
        await again.stop()
        await self.only(set(), "after the stop of a worker that was never started")

    @again
    async def test_stop_twice(self) -> None:
        worker, _ = await self.started()
        await worker.stop()
        await worker.stop()
        await worker.stop(fast=True)
        await self.only(set(), "after several stops")

    @again
    async def test_stop_of_a_vanished_one(self) -> None:
        worker, instance = await self.started()
        await self.vanish(instance)
        await worker.stop()
        await self.only(set(), "after the stop of what had vanished")

    @again
    async def test_stop_of_an_ended_one(self) -> None:
        worker, instance = await self.started()
        await self.exit(instance)
        await worker.stop()
        await self.only(set(), "after the stop of what had ended")

    @again
    async def test_stop_of_one_that_hangs(self) -> None:
        worker, instance = await self.started()
        await self.hang(instance)
        await worker.stop()
        await self.only(set(), "after the stop of what hung")

    @its_own
    async def test_stop_of_an_earlier_attempt(self) -> None:
        worker, _ = await self.started()
        await worker.stop()
        later, instance = await self.started()
        await (await worker.restarted()).stop()
        await self.only({instance}, f"after {worker.attempt} was stopped once more")
        await later.stop()
        await self.only(set(), f"after {later.attempt} was stopped")

    @its_own
    async def test_stop_beside_another_controller(self) -> None:
        """The same worker and attempt of two controllers are two."""
        worker, instance = await self.started()
        self.another_controller()
        other, others = await self.started()
        await worker.stop()
        await self.only({others}, f"after {worker.attempt} was stopped, which another controller has as well,")
        good, message = await other.check()
        if not good:
            self.broken(f"{worker.attempt} was stopped; check_instance of another controller's answers: {message}")
        await worker.stop()
        await self.only({others}, f"after the stop of {worker.attempt}, whose instance was {instance}, once more")
        await other.stop()
        await self.only(set(), "after the other controller's stop")
