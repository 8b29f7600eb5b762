"""Plugins that do what a test has ordered, for the ``master.cfg`` of a `tests.killpoints.site.KillSite`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from latent.errors import LatentWorkerFailedToSubstantiate
from latent.testing.cloud.worker import CloudLatentWorker
from latent.worker.machine import AbstractLatentMachine
from latent.worker.process import ProcessLatentWorker


class _Ordered:
    """Each order is a file of the directory ``orders``. Who obeys it removes it, so that it is obeyed once, in whichever life."""

    state_dir: Any

    def _ordered(self, what: str) -> bool:
        with contextlib.suppress(FileNotFoundError):
            (Path(self.state_dir).parent / "orders" / what).unlink()
            return True
        return False


class Obedient(_Ordered):
    """Stands before a worker's class among the bases."""

    builds_may_be_incompatible = True

    def reconfigService(self, *args: Any, **kwargs: Any) -> Any:
        answer = super().reconfigService(*args, **kwargs)  # type: ignore[misc]
        self.builds_may_be_incompatible = True
        return answer

    async def start_instance(self, build: Any) -> Any:
        if self._ordered("fail the start"):
            raise LatentWorkerFailedToSubstantiate("it was ordered to fail")
        answer = await super().start_instance(build)  # type: ignore[misc]
        if self._ordered("fail the start when it is made"):
            raise LatentWorkerFailedToSubstantiate("it was ordered to fail when its instance was made")
        if self._ordered("hang the start"):
            await Deferred()
        if self._ordered("keep the handle"):
            await self.keep_handle(self.instance_handle())  # type: ignore[attr-defined]
        return answer

    async def stop_instance(self, fast: bool = False) -> None:
        if self._ordered("fail the stop"):
            raise RuntimeError("it was ordered to fail")
        await super().stop_instance(fast)  # type: ignore[misc]

    async def destroy_instance(self, handle: Any) -> None:
        if self._ordered("fail to destroy"):
            raise RuntimeError("it was ordered to fail")
        await super().destroy_instance(handle)  # type: ignore[misc]

    def isCompatibleWithBuild(self, build_props: Any) -> bool:
        return True


class KilledProcessWorker(Obedient, ProcessLatentWorker):
    """Its instances are processes."""


class KilledCloudWorker(Obedient, CloudLatentWorker):
    """Its instances are a cloud's."""


class KilledMachine(_Ordered, AbstractLatentMachine):
    """A machine that only writes down what is done to it."""

    def start_machine(self) -> bool:
        self._note("start")
        return not self._ordered("fail the machine's start")

    def stop_machine(self) -> bool:
        self._note("stop")
        return not self._ordered("fail the machine's stop")

    def _note(self, what: str) -> None:
        with (Path(self.state_dir).parent / "machine").open("a") as file:
            file.write(f"{what}\n")
