"""The plugin: what latent asks for, in terms of what the shop has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latent.errors import LatentWorkerCannotSubstantiate, LatentWorkerConfigurationError, LatentWorkerFailedToSubstantiate
from latent.model import JSON, Attempt
from latent.worker import AbstractLatentWorker, ListedInstance, ThreadPool, discard
from latent_template.shop import Machine, Shop, ShopError, UnknownSize

THREADS = 8
"""Calls at once to one shop."""


class TemplateLatentWorker(AbstractLatentWorker):
    """A rented machine. ``shop``: the shop's directory. ``size``: "small" or "large", which a build's properties may decide.

    ``command``: what runs in the machine, a list of arguments.
    """

    renderables = ("size",)

    machine: str | None = None
    """The id of what this attempt has rented."""

    # --- the declaration -----------------------------------------------------------------------------------------------------

    def checkConfig(
        self,
        name: str,
        password: str | None = None,
        *,
        shop: Any = None,
        size: Any = "small",
        command: Any = ("latent-agent",),
        **kwargs: Any,
    ) -> None:
        super().checkConfig(name, password, **kwargs)
        if not isinstance(shop, str | Path) or not str(shop):
            self.config_error(f"shop is {shop!r}; write the directory of a shop, shop='/var/lib/shop' for example")
        if size is None:
            self.config_error("size is None; write 'small' or 'large', or leave it out")
        if isinstance(command, str) or not isinstance(command, Sequence) or not command:
            self.config_error(f"command is {command!r}; write a list of arguments, ['latent-agent'] for example")

    def reconfigService(
        self,
        name: str,
        password: str | None = None,
        *,
        shop: Any = None,
        size: Any = "small",
        command: Any = ("latent-agent",),
        **kwargs: Any,
    ) -> Any:
        self.shop, self.size, self.command = Shop(shop), size, list(command)
        # One pool for all workers of a shop, kept as long as one of them is.
        self.threads = ThreadPool.shared(f"shop {shop}", THREADS, self.reactor)
        return super().reconfigService(name, password, **kwargs)

    # --- the hooks -----------------------------------------------------------------------------------------------------------

    async def start_instance(self, build: Any) -> list[str]:
        self.machine = None
        size = self.size if build is None else await build.render(self.size)
        assert self.enrolment is not None
        # The tags and the token go with the call that makes the machine: what is said afterwards is lost by a crash in between.
        self.machine = await self.threads.run(
            self._rent, size, self._tags(), self.agent_environment(), self.enrolment.idempotency_token, adopt=self._came_late
        )
        return [self.machine, size]

    async def stop_instance(self, fast: bool = False) -> None:
        # By its tags, not by what this object remembers: the start may never have answered.
        await self.threads.run(self._give_back_all, self._tags(), adopt=discard)
        self.machine = None

    async def check_instance(self) -> tuple[bool, str]:
        if self.machine is None:
            return False, "no machine was rented"
        found = await self.threads.run(self.shop.machine, self.machine, adopt=discard)
        state = "gone" if found is None else found.state
        return state == "up", f"machine {self.machine} is {state}"

    def instance_handle(self) -> JSON:
        return None if self.machine is None else {"shop": str(self.shop.directory), "machine": self.machine}

    async def resume_instance(self, handle: JSON) -> bool:
        found = await self.threads.run(Shop(handle["shop"]).machine, handle["machine"], adopt=discard)
        if found is None or found.state != "up" or found.tags != self._tags():
            return False
        self.machine = found.id
        return True

    def list_scope(self) -> str:
        return f"shop {self.shop.directory}"

    async def list_instances(self) -> list[ListedInstance]:
        machines = await self.threads.run(self.shop.machines, adopt=discard)
        return [self._listed(one) for one in machines if "controller" in one.tags]

    async def destroy_instance(self, handle: JSON) -> None:
        await self.threads.run(Shop(handle["shop"]).give_back, handle["machine"], adopt=discard)

    # --- what blocks, and runs in a thread -----------------------------------------------------------------------------------

    def _rent(self, size: str, tags: Mapping[str, str], environment: Mapping[str, str], once: str) -> str:
        try:
            return self.shop.rent(size, tags, self.command, environment, once)
        except UnknownSize as error:
            # Whose fault it is says the type: the build's, if its properties have decided, else the declaration's.
            if size == self.size:
                raise LatentWorkerConfigurationError(f"{error}; correct size=") from error
            raise LatentWorkerCannotSubstantiate(str(error)) from error
        except ShopError as error:
            raise LatentWorkerFailedToSubstantiate(f"the shop {self.shop.directory}: {error}") from error

    def _give_back_all(self, tags: Mapping[str, str]) -> None:
        for one in self.shop.machines():
            if one.tags == tags:
                self.shop.give_back(one.id)

    # --- inside --------------------------------------------------------------------------------------------------------------

    def _came_late(self, machine: str) -> None:
        """The start was cancelled when the shop had been asked already: nobody wants what it gave."""
        self.threads.run(self.shop.give_back, machine, adopt=discard)

    def _tags(self) -> dict[str, str]:
        """Whose a machine is: all three, as names of workers and numbers of attempts are the same elsewhere."""
        assert self.enrolment is not None
        attempt = self.enrolment.attempt
        return {"controller": self.enrolment.controller_id, "worker": attempt.worker, "attempt": str(attempt.number)}

    def _listed(self, one: Machine) -> ListedInstance:
        attempt = Attempt(one.tags["worker"], int(one.tags["attempt"]))
        handle = {"shop": str(self.shop.directory), "machine": one.id}
        return ListedInstance(attempt, handle, one.tags["controller"], one.created)
