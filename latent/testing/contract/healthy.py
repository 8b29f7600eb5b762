"""What a plugin promises of its instances' health."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from latent.testing.contract.case import ContractCase
from latent.testing.contract.promises import promise
from latent.worker import hooks
from latent.worker.results import compatible_result

good_is_told = promise(
    "good-is-told", "check_instance answers (True, message) for an instance that is well, as often as it is asked."
)
vanished_is_told = promise(
    "vanished-is-told", "check_instance soon answers (False, why), or fails, for an instance that has vanished."
)
exited_is_told = promise("exited-is-told", "check_instance soon answers (False, why), or fails, for an instance that has ended.")
hung_is_told = promise("hung-is-told", "check_instance soon answers (False, why), or fails, for an instance that hangs.")


class Healthy(ContractCase):
    @good_is_told
    async def test_good(self) -> None:
        worker, _ = await self.started()
        for _ in range(3):
            good, message = await worker.check()
            if not good:
                self.broken(f"check_instance of an instance that is well answers: {message}")
            await self.turns(2)
        plugin = worker.plugin
        compatible_result(plugin, await hooks.call(plugin.isCompatibleWithBuild, plugin.properties))
        await worker.stop()

    @vanished_is_told
    async def test_vanished(self) -> None:
        await self.ill("vanished", self.vanish)

    @exited_is_told
    async def test_exited(self) -> None:
        await self.ill("ended", self.exit)

    @hung_is_told
    async def test_hung(self) -> None:
        await self.ill("hung up", self.hang)

    async def ill(self, what: str, happens: Callable[[str], Awaitable[None]]) -> None:
        """It happens to one of two; of that one, and of no other, it is told."""
        worker, instance = await self.started()
        other, _ = await self.started(self.provider.names[1])
        await happens(instance)

        async def told() -> tuple[bool, str] | None:
            answer = await worker.check()
            return None if answer[0] else answer

        answer = await self.until(told)
        if answer is None:
            self.broken(f"{instance} has {what}; {self.provider.patience:g} s later check_instance still calls it good")
        if not answer[1].strip():
            self.broken(f"{instance} has {what}; check_instance says that it is not good, and not why")
        good, message = await other.check()
        if not good:
            self.broken(f"{instance} has {what}; check_instance of another worker's answers: {message}")
        await worker.stop()
        await other.stop()
        await self.only(set(), f"after the stop of what had {what}")
