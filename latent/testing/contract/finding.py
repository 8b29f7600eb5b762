"""What a plugin promises of instances that have to be found again: handles, resuming, listing, destroying."""

from __future__ import annotations

import json
import time

from latent.testing.contract.case import ContractCase
from latent.testing.contract.controller import Driven, same_attempt
from latent.testing.contract.promises import promise

HOUR = 3600.0

found_again = promise("handle-finds-it-again", "After a restart of the controller the handle alone finds the instance again.")
no_secret = promise("no-secret-is-kept", "No handle, no list and no message has the agent's token in it.")
only_its_own = promise(
    "resume-only-its-own", "resume_instance answers False for what is gone, has ended, or is another attempt's; it does not fail."
)
tells_all = promise(
    "list-tells-all",
    "list_instances shows every instance of ours, other workers' and controllers' too, with whose it is; and nothing else.",
)
confirmed = promise(
    "destroy-is-confirmed",
    "What destroy_instance was called for is gone when it answers; called again, or for what is gone, it answers too.",
)


class Finding(ContractCase):
    @found_again
    async def test_resume(self) -> None:
        worker, instance = await self.started()
        self.needs(worker, "instance_handle", "resume_instance")
        handle = await worker.handle()
        if handle is None:
            self.broken("instance_handle answers None while the instance is up")
        again = await worker.restarted()
        if await again.resume(handle) is not True:
            self.broken(f"{instance} is up, and resume_instance answers False for its handle {handle}")
        good, message = await again.check()
        if not good:
            self.broken(f"check_instance of an instance that was resumed answers: {message}")
        if (kept := await again.handle()) is None:
            self.broken("instance_handle answers None after resume_instance has answered True")
        third = await again.restarted()
        if await third.resume(kept) is not True:
            self.broken(f"resume_instance answers False for the handle of an instance that was resumed before, {kept}")
        await third.stop()
        await self.only(set(), "after the stop of an instance that was resumed")

    @no_secret
    async def test_no_secret(self) -> None:
        worker, _ = await self.started()
        told = [*worker.said, *self.controller.kept.values()]
        if worker.plugin.supports("instance_handle"):
            told.append(await worker.handle())
        if worker.plugin.supports("list_instances"):
            told += [one.handle for one in await worker.listed()]
        told.append(await worker.check())
        for one in told:
            if worker.secret in json.dumps(one):
                self.broken(f"the token of {worker.attempt} is in {one!r}")
        await worker.stop()

    # --- resuming ------------------------------------------------------------------------------------------------------------

    @only_its_own
    async def test_resume_of_another_attempt(self) -> None:
        worker, _ = await self.started()
        self.needs(worker, "instance_handle", "resume_instance")
        handle = await worker.handle()
        for name in self.provider.names[:2]:
            other = await self.worker(name)
            if await other.resume(handle) is not False:
                self.broken(f"resume_instance of {other.attempt} answers True for the handle of {worker.attempt}")
        await worker.stop()
        again = await worker.restarted()
        if await again.resume(handle) is not False:
            self.broken("resume_instance answers True for an instance that was stopped")

    @only_its_own
    async def test_resume_of_a_vanished_one(self) -> None:
        worker, instance = await self.started()
        await self.vanish(instance)
        await self.resumes_no_more(worker, "vanished")

    @only_its_own
    async def test_resume_of_an_ended_one(self) -> None:
        worker, instance = await self.started()
        await self.exit(instance)
        await self.resumes_no_more(worker, "ended")

    async def resumes_no_more(self, worker: Driven, what: str) -> None:
        self.needs(worker, "instance_handle", "resume_instance")
        handle = await worker.handle()
        again = await worker.restarted()

        async def refused() -> bool:
            return await again.resume(handle) is False

        if not await self.until(refused):
            self.broken(f"resume_instance goes on to answer True for an instance that has {what}")
        await again.stop()
        await worker.stop()
        await self.soon_only(set(), f"after the stop of what had {what}")

    # --- listing -------------------------------------------------------------------------------------------------------------

    @tells_all
    async def test_list(self) -> None:
        """Asked by a worker that has no part in any of them, and outside any attempt."""
        foreign = await self.plant()
        workers = [(await self.started(name))[0] for name in self.provider.names[:2]]
        self.another_controller()
        workers.append((await self.started())[0])
        asking = await self.worker(self.provider.names[2], idle=True)
        self.needs(asking, "list_instances")
        for worker in workers:
            await self.is_listed(asking, worker)
        if len(listed := await self.listed_here(asking, workers, foreign)) != len(workers):
            self.broken(f"there are {len(workers)} instances of ours beside {foreign}; list_instances shows {', '.join(listed)}")
        for worker in workers:
            await worker.stop()

            async def unlisted(worker: Driven = worker) -> bool:
                return not any(same_attempt(one, worker) for one in await asking.listed())

            if not await self.until(unlisted):
                self.broken(f"{worker.attempt} was stopped, and list_instances goes on to show it")
        await self.only({foreign}, "after the stops of all that is ours")

    async def is_listed(self, asking: Driven, worker: Driven) -> None:
        async def found() -> object:
            return next((one for one in await asking.listed() if same_attempt(one, worker)), None)

        one = await self.until(found)
        if one is None:
            controller = worker.controller.identity.controller_id
            self.broken(f"list_instances of {asking.plugin.name} does not show {worker.attempt} of the controller {controller}")
        if one.created_at is not None and not abs(one.created_at - time.time()) < HOUR:
            self.broken(f"{worker.attempt} was started just now; its created_at is {one.created_at}, not POSIX seconds of today")
        if one.protected:
            self.broken(f"{worker.attempt} was started just now, and is listed as protected: nothing would ever remove it")
        if one.expires_at is not None and one.expires_at <= time.time():
            self.broken(f"{worker.attempt} was started just now, and has expired: its expires_at is {one.expires_at}")

    async def listed_here(self, asking: Driven, workers: list[Driven], foreign: str) -> list[str]:
        """Other controllers may be at work where the tests run: theirs are left out."""
        controllers = {worker.controller.identity.controller_id for worker in workers}
        return [
            str(one.attempt)
            for one in await asking.listed()
            if one.controller_id in controllers or self.provider.is_of(one.handle, foreign)
        ]

    # --- destroying ----------------------------------------------------------------------------------------------------------

    @confirmed
    async def test_destroy(self) -> None:
        """By another worker, with the handle that its own plugin gave."""
        worker, _ = await self.started()
        _, staying = await self.started(self.provider.names[1])
        asking = await self.worker(self.provider.names[2], idle=True)
        self.needs(worker, "instance_handle", "destroy_instance")
        handle = await worker.handle()
        for _ in range(2):
            await asking.destroy(handle)
            await self.only({staying}, "after destroy_instance has answered")
        await worker.stop()
        await self.only({staying}, "after the stop of what had been destroyed")

    @confirmed
    async def test_destroy_what_is_listed(self) -> None:
        """With the handle that list_instances gave, after a restart."""
        worker, _ = await self.started()
        self.needs(worker, "list_instances", "destroy_instance")
        asking = await self.worker(self.provider.names[2], idle=True)
        await self.is_listed(asking, worker)
        (handle,) = [one.handle for one in await asking.listed() if same_attempt(one, worker)]
        await asking.destroy(handle)
        await self.only(set(), "after destroy_instance has answered for what list_instances showed")
        await worker.stop()

    @confirmed
    async def test_destroy_a_vanished_one(self) -> None:
        worker, instance = await self.started()
        self.needs(worker, "instance_handle", "destroy_instance")
        handle = await worker.handle()
        await self.vanish(instance)
        await worker.destroy(handle)
        await worker.stop()
        await self.only(set(), "after destroy_instance of what had vanished")

    @confirmed
    async def test_destroy_an_ended_one(self) -> None:
        worker, instance = await self.started()
        self.needs(worker, "instance_handle", "destroy_instance")
        handle = await worker.handle()
        await self.exit(instance)
        await worker.destroy(handle)
        await self.only(set(), "after destroy_instance of what had ended")
        await worker.stop()
