"""What a plugin promises everybody else: not to touch what is theirs, and to leave nothing in the process."""

from __future__ import annotations

import threading
from unittest import SkipTest

from latent.testing.contract.case import ContractCase
from latent.testing.contract.census import Census, lasting_threads
from latent.testing.contract.controller import Driven
from latent.testing.contract.promises import promise

GRACE = 2.0
"""Seconds that a thread which is about to end gets for it."""

untouched = promise("foreign-untouched", "What has nothing to do with latent is neither listed nor touched.")
nothing_grows = promise(
    "nothing-left-in-the-process", "Starts and stops leave no thread, no pool of threads, no connection and no open file."
)
never_blocked = promise("reactor-never-blocked", "No hook keeps the reactor for more than 50 ms: what blocks runs in a thread.")


class Leaving(ContractCase):
    @untouched
    async def test_foreign_instances(self) -> None:
        planted = await self.plant()
        foreign = {planted}
        worker, instance = await self.started()
        if worker.plugin.supports("list_instances"):
            for one in await worker.listed():
                if self.provider.is_of(one.handle, planted):
                    self.broken(f"{planted} is nothing of latent's; list_instances shows it as {one}")
        await worker.stop()
        await self.only(foreign, f"after {instance} was stopped")
        worker.begin()
        call = worker.starting()
        call.cancel()
        await worker.ended(call)
        await worker.stop()
        await self.soon_only(foreign, "after a start that was cancelled, and its stop")
        third = await self.worker()
        await third.start()
        if third.plugin.supports("destroy_instance") and third.plugin.supports("instance_handle"):
            await third.destroy(await third.handle())
        await third.stop()
        await self.only(foreign, "after an instance was destroyed and stopped")

    @nothing_grows
    async def test_nothing_grows(self) -> None:
        threads = threading.enumerate()
        await self.life()
        await self.life()
        before = Census.now()
        for _ in range(self.provider.cycles):
            await self.life()

        def same() -> bool:
            return not Census.now().grown(before, self.provider.cycles)

        if not same() and not await self.until(same):
            grown = Census.now().grown(before, self.provider.cycles)
            self.broken(f"{self.provider.cycles} instances more were started and stopped, and there are {'; '.join(grown)}")
        if left := lasting_threads(threads, GRACE):
            self.broken(f"when all instances are gone there is still {'; '.join(left)}")

    async def life(self) -> None:
        """A worker's whole life, with a start that is cancelled in it."""
        worker = await self.worker()
        await worker.start()
        worker = await self.look_at(worker)
        await worker.stop()
        worker.begin()
        call = worker.starting()
        await self.turns(2)
        call.cancel()
        await worker.ended(call)
        await worker.stop()
        await self.soon_only(set(), "after a start that was cancelled, and its stop")

    async def look_at(self, worker: Driven) -> Driven:
        """All that is asked of an instance that is up; the worker after a restart, who has it now."""
        await worker.check()
        plugin = worker.plugin
        if plugin.supports("list_instances"):
            await worker.listed()
        if plugin.supports("instance_handle") and plugin.supports("resume_instance"):
            handle = await worker.handle()
            worker = await worker.restarted()
            await worker.resume(handle)
        return worker

    @never_blocked
    async def test_never_blocked(self) -> None:
        """In no hook, and when nothing is well either."""
        with self.watched() as watch:
            worker, instance = await self.started()
            worker = await self.look_at(worker)
            await self.vanish(instance)
            await self.until(lambda: self.not_good(worker))
            if worker.plugin.supports("destroy_instance") and worker.plugin.supports("instance_handle"):
                await worker.destroy(await worker.handle())
            await worker.stop(fast=True)
            await self.life()
        if watch.worst is not None:
            self.broken(str(watch.worst))

    @never_blocked
    async def test_never_blocked_by_what_hangs(self) -> None:
        with self.watched() as watch:
            worker, instance = await self.started()
            try:
                await self.hang(instance)
            except SkipTest:
                await worker.stop()
                raise
            await self.until(lambda: self.not_good(worker))
            await worker.stop()
        if watch.worst is not None:
            self.broken(str(watch.worst))

    async def not_good(self, worker: Driven) -> bool:
        good, _ = await worker.check()
        return not good
